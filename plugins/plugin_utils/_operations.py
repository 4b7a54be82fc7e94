# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks of day-to-day operations need: the programs of an app, its secrets, a report of its logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import printable


def app_programs(app: str, apps: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names for supervisord of what a user calls by one or several names: apps, groups, group:process or all.

    Of an app with slots, whichever of them is loaded.
    """
    slotted = {name: "|".join(programs) for name, programs in _slots_of(apps).items()}
    return [slotted.get(name, name) for name in _names(app)]


def slot_programs(apps: Iterable[Mapping[str, Any]]) -> list[str]:
    """All programs that slots of apps may have."""
    return [program for programs in _slots_of(apps).values() for program in programs]


def slotted_apps(apps: Iterable[Mapping[str, Any]], app: str) -> list[Mapping[str, Any]]:
    """The apps with slots among those that a user names."""
    names = _names(app)
    return [entry for entry in apps if entry.get("server_names") and ("all" in names or entry.get("name") in names)]


def unslotted_programs(app: str, apps: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names for supervisord of what a user names, without the apps that have slots."""
    slotted = _slots_of(apps)
    return [name for name in _names(app) if name not in slotted]


def _names(app: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in str(app).split(",") if name.strip()))


def _slots_of(apps: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    return {
        str(app.get("name")): _layout.slot_programs(str(app.get("name"))) for app in apps if app.get("server_names")
    }


def app_secrets(apps: Sequence[Mapping[str, Any]]) -> list[str]:
    """The values of the secrets of apps or programs, which no output may show."""
    values = [value for app in apps for value in (app.get("secrets") or {}).values()]
    values += [(app.get("uvicorn") or {}).get("ssl_keyfile_password", "") for app in apps]
    return [str(value) for value in values if str(value)]


def log_report(info: Mapping[str, Any]) -> list[str]:
    """The lines of the result of supervisor_info, under a heading for each log."""
    if not info.get("running"):
        return [printable(str(info.get("reason")))]
    lines = [f"supervisord knows no {name}" for name in info.get("missing", [])]
    for process in info["processes"]:
        for channel in ("stdout", "stderr"):
            path = process["logfiles"][channel]
            if path:
                lines += [f"--- {_label(process)} {channel}: {path}", *process[f"{channel}_tail"]]
    return [printable(line) for line in lines]


def _label(process: Mapping[str, Any]) -> str:
    group, name = process["group"], process["name"]
    return f"{group}:{name}" if group != name else str(name)
