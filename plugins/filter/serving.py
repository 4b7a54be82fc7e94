# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of the server roles; each is described in the YAML file of its name beside this one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import (
    _apps,
    _nginx,
    _nginx_conflicts,
    _release,
    _serving,
    _supervisor_config,
    _supervisor_servers,
)

display = Display()


def _filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its errors as Ansible shows them."""

    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except _serving.ServingError as error:
            raise AnsibleFilterError(str(error)) from error

    return called


def _app_problems(apps: Any, required: Iterable[str] = _apps.REQUIRED) -> list[str]:
    problems = _apps.app_problems(apps, required)
    for warning in [] if problems else _apps.app_warnings(apps):
        display.warning(warning)
    return problems


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "app_problems": _filter(_app_problems),
            "nginx_conflicts": _filter(_nginx_conflicts.nginx_conflicts),
            "nginx_servers": _filter(_nginx.servers),
            "nginx_tls_files": _filter(_nginx.tls_files),
            "release_plan": _filter(_release.release_plan),
            "stop_budget": _filter(_serving.stop_budget),
            "supervisor_client": _filter(_supervisor_servers.supervisor_client),
            "supervisor_groups": _filter(_supervisor_config.supervisor_groups),
            "supervisor_login": _filter(_supervisor_servers.supervisor_login),
            "supervisor_options": _filter(_serving.supervisor_options),
            "supervisor_secrets": _filter(_supervisor_servers.supervisor_secrets),
            "supervisor_sections": _filter(_supervisor_config.supervisor_sections),
            "supervisor_servers": _filter(_supervisor_servers.supervisor_servers),
            "systemd_quote": _filter(_serving.systemd_quote),
        }
