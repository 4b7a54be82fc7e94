# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a run: what is wanted of one app, as the module host_plan takes it, and its answer in words."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._host.plan import BUILD_TOKEN
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources import tree
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _app_files

# A role that restarts supervisord leaves the restart to the role of its unit.
IMPLIED = {"supervisor": "supervisord_unit"}
LONGEST_LIST = 4
FILE_TEXT = re.compile(r"(/[^:]+): (?:content|new|removed|mode|owner|group|target)")


def wanted_app(
    app: Mapping[str, Any], around: _app_files.Surroundings, revision: str, environment: Mapping[str, Any]
) -> dict[str, Any]:
    """One complete app. environment is what uv_venv takes for all apps; revision may be unknown where it has slots."""
    app_dir = f"{_layout.apps_directory(around.base_dir)}/{app['name']}"
    files = _app_files.render(app, around)
    wanted: dict[str, Any] = {
        "name": files["name"],
        "base_dir": around.base_dir,
        "account": files["account"],
        "source": {
            "releases": f"{app_dir}/releases",
            "revision": revision,
            "group": files["group"],
            **{key: app["source"].get(key) for key in ("repo", "key_file")},
            "version": str(app["source"].get("version") or "HEAD"),
        },
        "release_directories": files["release_directories"],
    }
    if app.get("server_names"):
        static = app["nginx"].get("static") if isinstance(app.get("nginx"), Mapping) else None
        slots = {key: files[key] for key in ("group", "files", "program", "tmpfiles", "build")}
        directories = files["release_directories"] + files["directories"]
        return {**wanted, "slots": {**slots, "directories": directories, "static": list((static or {}).values())}}
    return {**wanted, "in_place": _in_place(app, files, app_dir, environment)}


def placed(app: Mapping[str, Any], base_dir: str, revision: str) -> dict[str, Any]:
    """An app without slots, with where its release lies."""
    path = tree.release_path(f"{_layout.apps_directory(base_dir)}/{app['name']}/releases", revision)
    return {**app, "directory": f"{path}/app", "venv": f"{path}/venv"}


def _in_place(
    app: Mapping[str, Any], files: Mapping[str, Any], app_dir: str, environment: Mapping[str, Any]
) -> dict[str, Any]:
    release = str(app["directory"]).rsplit("/", 2)[1]
    return {
        "current": f"{app_dir}/current",
        "links": [{"path": f"{app_dir}/current", "target": f"releases/{release}"}],
        "purge": files["slot_files"],
        "environment": {**environment, **files["environment"]} if app["lock"] else None,
        "venv": files["environment"]["path"],
        "directories": files["directories"],
        "files": files["files"] + files["host_files"],
    }


def around_for(app: Mapping[str, Any], around: _app_files.Surroundings) -> _app_files.Surroundings:
    """Only the host knows the environment of an app without slots."""
    if app.get("server_names") or not app.get("lock"):
        return around
    return dataclasses.replace(around, build=BUILD_TOKEN)


def role_differences(role: str, wanted: Mapping[str, Any], host: Mapping[str, Any], digest: str) -> list[str]:
    """What host_info reports of a host and a role wants otherwise; digest is that of the files as they should be."""
    texts = [f"package {name}: not installed" for name in wanted.get("packages", ()) if name not in host["packages"]]
    texts += [f"account {name}: new" for name in wanted.get("accounts", ()) if name not in host["accounts"]]
    if wanted.get("uv") and wanted["uv"] not in host["uv"]:
        texts.append(f"uv {wanted['uv']}: not installed")
    if role == "supervisor" and host["supervisor_existing"]:
        texts.append("/etc/supervisord.conf: has programs that the role did not write")
    if role == "nginx":
        texts += host["nginx_closed"]
    for unit in wanted.get("units", ()):
        state = host["units"][unit]
        texts += [
            f"unit {unit}: not {word}"
            for key, word in (("active", "running"), ("enabled", "enabled"))
            if not state[key]
        ]
        texts += [f"unit {unit}: systemd has not read its files"] if state["needs_reload"] else []
        if state["active"] and wanted.get("loaded_digest", digest) != digest:
            texts.append(f"unit {unit}: runs with another configuration than the one that is wanted")
    return texts


def roles_to_apply(differences: Mapping[str, Sequence[str]], roles: Sequence[str]) -> list[str]:
    """In the order of the roles."""
    named = {role for role in roles if differences.get(role)}
    named |= {IMPLIED[role] for role in named if role in IMPLIED}
    return [role for role in roles if role in named]


def role_summary(role: str, differences: Sequence[str]) -> str:
    return f"{role}: {_in_short(differences)}"


def app_summary(name: str, found: Mapping[str, Any]) -> str:
    """One line: code, what else differs, and how it goes live."""
    parts = []
    if not found["before"] and found["after"]:
        parts.append(f"new, code {found['after']}")
    elif found["before"] != found["after"]:
        parts.append(f"code {found['before']} -> {found['after']}")
    else:
        parts.append(_in_short(found["texts"]))
    if found["slot"]:
        parts.append(f"move to {found['slot']}")
    return f"{name}: {', '.join(parts)}"


def _in_short(texts: Iterable[str]) -> str:
    """Files by their paths, and what else differs in its own words."""
    names = [file[1] if (file := FILE_TEXT.match(text)) else text for text in dict.fromkeys(texts)]
    more = len(names) - LONGEST_LIST
    return ", ".join(names[:LONGEST_LIST] + ([f"{more} more"] if more > 0 else []))
