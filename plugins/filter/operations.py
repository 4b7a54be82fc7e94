# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of the playbooks for operations; each is described in the YAML file of its name beside this one."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _operations


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "app_programs": _operations.app_programs,
            "app_secrets": _operations.app_secrets,
            "log_report": _operations.log_report,
            "slot_programs": _operations.slot_programs,
            "slotted_apps": _operations.slotted_apps,
            "unslotted_programs": _operations.unslotted_programs,
        }
