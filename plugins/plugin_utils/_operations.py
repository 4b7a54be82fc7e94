# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks of day-to-day operations need: the programs of an app, its secrets, a report of its logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def app_programs(app: str, apps: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names for supervisord of what a user calls by one or several names: apps, groups, group:process or all."""
    return list(dict.fromkeys(name.strip() for name in str(app).split(",") if name.strip()))


def app_secrets(apps: Sequence[Mapping[str, Any]]) -> list[str]:
    """The values of the secrets of apps or programs, which no output may show."""
    values = [value for app in apps for value in (app.get("secrets") or {}).values()]
    values += [(app.get("uvicorn") or {}).get("ssl_keyfile_password", "") for app in apps]
    return [str(value) for value in values if str(value)]


def log_report(info: Mapping[str, Any]) -> list[str]:
    """The lines of what supervisor_info told, under a heading for each log."""
    if not info.get("running"):
        return [str(info.get("reason"))]
    lines = [f"supervisord knows no {name}" for name in info.get("missing", [])]
    for process in info["processes"]:
        for channel in ("stdout", "stderr"):
            path = process["logfiles"][channel]
            if path:
                lines += [f"--- {_label(process)} {channel}: {path}", *process[f"{channel}_tail"]]
    return lines


def _label(process: Mapping[str, Any]) -> str:
    group, name = process["group"], process["name"]
    return f"{group}:{name}" if group != name else str(name)
