# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbook status needs: where to ask for the health of apps, and the table of all hosts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import printable
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.causes import in_words
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _serving

HEADER = ("host", "app", "process", "state", "since (UTC)", "pid", "memory", "restarts", "health")
MIB = 1024 * 1024
NOTHING = "-"


def health_checks(apps: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The health option of app_status for complete apps; none for those without a health_path."""
    checks = []
    for app in apps:
        if app["health_path"]:
            for program, bind in _programs(app):
                address = _serving.probe_address(bind, str(app["health_path"]))
                checks.append({"name": program, "status": int(app["health_status"]), **address})
    return checks


def _programs(app: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The programs that an app may have, and where each listens."""
    name = str(app["name"])
    if not app.get("server_names"):
        return [(name, str(app["bind"]))]
    return [
        (_layout.slot_program(name, slot), _layout.UNIX + _layout.slot_socket(name, slot)) for slot in _layout.SLOTS
    ]


def status_table(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines that show the results of app_status: a table, and under it what is not well and why."""
    rows = [HEADER, *(row for host, result in hosts.items() for row in _rows(host, result))]
    widths = [max(map(len, column)) for column in zip(*rows)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines = [*table, *(line for host, result in hosts.items() for line in _explanations(host, result))]
    # Whatever a host answers: it is printed on the operator's terminal as it is.
    return [printable(line) for line in lines]


def _rows(host: str, result: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    if not result["running"]:
        yield _row(host, "supervisord", NOTHING, "NOT RUNNING")
        return
    for process in result["processes"]:
        yield (
            host,
            process["group"],
            process["name"],
            process["state"],
            (process["since"] or NOTHING).replace("T", " ").rstrip("Z"),
            _text(process["pid"]),
            NOTHING if process["memory"] is None else f"{process['memory'] / MIB:.0f} MiB",
            _text(process["restarts"]),
            _text(process["health"]),
        )
    for name in result["missing"]:
        group, _colon, process = name.partition(":")
        yield _row(host, group, process or NOTHING, "NOT LOADED")
    if not result["processes"] and not result["missing"]:
        yield _row(host, NOTHING, NOTHING, "NO PROGRAMS")


def _row(host: str, app: str, process: str, state: str) -> Sequence[str]:
    return (host, app, process, state, *[NOTHING] * (len(HEADER) - 4))


def _text(value: Any) -> str:
    return NOTHING if value is None else str(value)


def _explanations(host: str, result: Mapping[str, Any]) -> Iterator[str]:
    if not result["running"]:
        yield from ("", f"{host}: supervisord does not run: {result['reason']}", *in_words(result["causes"]))
        yield from _log("  The end of its journal:", result["log_tail"])
    for process in result["processes"]:
        if process["well"]:
            continue
        name = process["name"] if process["name"] == process["group"] else f"{process['group']}:{process['name']}"
        facts = [process["state"], process["spawn_error"], process["health"] and f"health {process['health']}"]
        yield from ("", f"{host}: {name}: {'; '.join(filter(None, facts))}", *in_words(process["causes"]))
        for channel in ("stderr", "stdout"):
            title = f"  The end of its {channel} log {process['logfiles'][channel]}:"
            yield from _log(title, process["log_tail"][channel])


def _log(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield title
        yield from (f"    {line}" for line in lines)
