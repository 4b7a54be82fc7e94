# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of the playbook status; each is described in the YAML file of its name beside this one."""

from __future__ import annotations

from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _serving, _status


def health_checks(apps: Any) -> list[dict[str, Any]]:
    try:
        return _status.health_checks(apps)
    except _serving.ServingError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"health_checks": health_checks, "status_table": _status.status_table}
