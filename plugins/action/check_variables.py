# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the variables of the roles on the controller; see the module of this name."""

from __future__ import annotations

from typing import Any, Optional

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import printable
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _preflight

ROLES = ("python_venv", "supervisor", "supervisord_unit", "gunicorn_uvicorn", "nginx", "release")


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = False
    _VALID_ARGS = frozenset({"roles"})

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        roles = tuple(self._task.args.get("roles") or ROLES)
        variables, unreadable = self._values(task_vars or {}, roles)
        problems = _preflight.problems(variables, list(task_vars or {}), roles) + unreadable
        result.update(changed=False, problems=problems)
        if problems:
            result.update(failed=True, msg="\n".join(problems))
        elif "release" in roles:
            result["warnings"] = _preflight.warnings(variables, list(task_vars or {}), roles)
        return result

    def _values(self, task_vars: dict[str, Any], roles: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
        """The variables that any role knows, with their values; a sentence for each of these roles' that has none."""
        values, unreadable = {}, []
        asked = _preflight.known_variables(roles)
        for name in _preflight.known_variables({*ROLES, *roles}):
            if name in task_vars:
                try:
                    values[name] = self._templar.template(task_vars[name])
                except AnsibleError as error:
                    unreadable += [printable(f"{name} can't be read: {error.message}")] if name in asked else []
        return values, unreadable
