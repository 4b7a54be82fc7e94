# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders what is wanted of a host and has the module of this name compare it there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import (
    _app_files,
    _description,
    _plan,
    _serving,
    _source,
)
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._role_values import RoleValues

MODULE = "asgiops.fastapi_host.host_plan"


class ActionModule(ActionBase):
    _requires_connection = True
    _VALID_ARGS = frozenset({"host", "roles", "apps", "connect_timeout"})

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        self._variables = task_vars or {}
        self._host: Mapping[str, Any] = self._task.args.get("host") or {}
        if "cpus" not in self._host:
            raise AnsibleActionFail("host is not set: register what the module host_info returns, and pass it on")
        roles = list(self._task.args.get("roles") or [])
        try:
            wanted_roles = {role: self._wanted_role(role) for role in roles}
            wanted_apps = {app["name"]: app for app in self._wanted_apps(self._task.args.get("apps") or [])}
        except (_serving.ServingError, _source.SourceError) as error:
            raise AnsibleActionFail(str(error)) from error
        request = json.dumps({"roles": wanted_roles, "apps": wanted_apps}, default=str)
        arguments = {"request": request, "connect_timeout": self._task.args.get("connect_timeout", 0)}
        answer = self._execute_module(MODULE, arguments, task_vars=self._variables)
        result.update(answer)
        if not answer.get("failed"):
            result.update(self._in_words(answer["found"], wanted_roles))
        return result

    def _values(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self._templar.template(self._variables[name]) for name in names if name in self._variables}

    def _role(self, role: str) -> RoleValues:
        return RoleValues(role, self._templar, self._loader, self._variables)

    def _wanted_role(self, role: str) -> dict[str, Any]:
        wanted: dict[str, Any] = self._role(role).value(f"{role}_wanted")
        inputs = wanted.get("environments")
        if inputs:
            builder = self._role("python_venv")
            wanted["environments"] = [builder.value("python_venv_environment", **each) for each in inputs]
        return wanted

    def _wanted_apps(self, given: Any) -> list[dict[str, Any]]:
        defaults = _description.defaults_of(self._values(tuple(_description.variables_of_apps())))
        apps = _description.complete_apps(given, defaults)
        around = _app_files.surroundings(
            self._values(_app_files.VARIABLES), cpus=self._host["cpus"], memory_mb=self._host["memory_mb"]
        )
        environment: dict[str, Any] = {}
        if not all(app.get("server_names") for app in apps):
            environment = self._role("python_venv").value("python_venv_environment")
        wanted = []
        for app in apps:
            revision = _source.revision_of(app["source"])
            if not app.get("server_names"):
                # Where it lies goes into its files.
                revision = self._revision_on_host(app, around.base_dir, revision)
                app = _plan.placed(app, around.base_dir, revision)
            wanted.append(_plan.wanted_app(app, _plan.around_for(app, around), revision, environment))
        return wanted

    def _revision_on_host(self, app: Mapping[str, Any], base_dir: str, revision: str) -> str:
        if not app["source"].get("repo"):
            return revision
        before, self._task.check_mode = self._task.check_mode, True
        arguments = {
            "releases": f"{_layout.apps_directory(base_dir)}/{app['name']}/releases",
            "source": app["source"],
            "revision": revision,
        }
        try:
            answer = self._execute_module("asgiops.fastapi_host.source_tree", arguments, task_vars=self._variables)
        finally:
            self._task.check_mode = before
        return str(answer.get("revision", revision))

    def _in_words(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
        by_role = {
            role: [*_plan.role_differences(role, wanted[role], self._host, answer["digest"]), *answer["texts"]]
            for role, answer in found["roles"].items()
        }
        by_app = {name: answer for name, answer in found["apps"].items() if answer["texts"]}
        roles = _plan.roles_to_apply(by_role, list(wanted))
        return {
            "changed": False,
            "roles": roles,
            "apps": list(by_app),
            "found": {
                name: {
                    "differences": answer["texts"],
                    "previous": answer["before"],
                    "release": answer["after"],
                    "revision": answer["revision"],
                    "move": bool(answer["slot"]),
                    "account": answer["account"],
                    "source": answer["source"],
                }
                for name, answer in found["apps"].items()
            },
            "summary": [
                *(_plan.role_summary(role, by_role[role]) for role in roles if by_role[role]),
                *(_plan.app_summary(name, answer) for name, answer in by_app.items()),
            ],
            "differences": {
                **{role: texts for role, texts in by_role.items() if texts},
                **{name: answer["texts"] for name, answer in by_app.items()},
            },
        }
