# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of all programs of a host, in one look: states, memory, restarts, health, and what is wrong."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._http import HttpConnection, NoReply, get, no_answer
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes import processes as host
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.commands import output_of
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import causes, evidence, rpc, status
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.status import Name, Process

UNIT = "supervisord.service"
COMMAND_LIMIT = 5
# What a probe may take beyond its limit, for threads that get no processor.
GRACE = 0.5
UNWELL_STATES = ("BACKOFF", "FATAL", "UNKNOWN")


@dataclass(frozen=True)
class HealthCheck:
    """Where to ask for the health of a program: a group's name, or group:process."""

    name: str
    url: str
    unix_socket: str | None = None
    status: int = 200
    timeout: float = 2

    @property
    def target(self) -> Name:
        return status.parse_name(self.name)


@dataclass(frozen=True)
class Health:
    text: str
    well: bool


def look(
    connection: rpc.Connection, names: Sequence[str], checks: Sequence[Mapping[str, Any]], log_lines: int
) -> dict[str, Any]:
    """The module's result."""
    rpc.require_not_negative(log_lines=log_lines, connect_timeout=connection.connect_timeout)
    wanted = status.parse_names(names)
    probes = [_check_of(each) for each in checks]
    try:
        with closing(rpc.connect(connection)) as supervisor:
            return _look(supervisor, wanted, probes, log_lines)
    except (rpc.NotRunning, rpc.ShuttingDown, rpc.ConnectionLost, rpc.NoAnswer) as error:
        return _without_supervisord(error, wanted, log_lines)


def _check_of(options: Mapping[str, Any]) -> HealthCheck:
    check = HealthCheck(**{key: value for key, value in options.items() if value is not None})
    parts = urlsplit(check.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise rpc.SupervisorError(f"health: url {check.url!r} of {check.name} must begin with http:// or https://")
    if check.timeout <= 0:
        raise rpc.SupervisorError(f"health: timeout {check.timeout:g} of {check.name} must be more than 0")
    status.parse_name(check.name)
    return check


def _look(
    supervisor: rpc.Supervisor, wanted: Sequence[Name], checks: Sequence[HealthCheck], log_lines: int
) -> dict[str, Any]:
    facts, _more = status.about(supervisor)
    known = status.all_processes(supervisor)
    wanted = status.choose(wanted, known)
    shown = status.those_named(known, wanted) if wanted else list(known.values())
    past = evidence.read_histories(supervisor, known)
    health = _health_of(shown, checks)
    unwell = [process for process in shown if not _is_well(process, health.get(process.name), past.get(process.name))]
    unhealthy = {name: result.text for name, result in health.items() if not result.well}
    shown_of = evidence.gather(supervisor, unwell, past, log_lines, health=unhealthy, refusals={})
    table = host.ProcessTable() if supervisor.address.path else None
    return {
        **facts,
        "causes": [],
        "log_tail": [],
        "processes": [
            {
                **_facts(process, table, past.get(process.name), health.get(process.name)),
                "well": process not in unwell,
                "causes": shown_of.get(process.name, evidence.NOTHING).causes,
                "log_tail": shown_of.get(process.name, evidence.NOTHING).tails._asdict(),
            }
            for process in shown
        ],
        "missing": status.those_missing(known, wanted),
    }


def _is_well(process: Process, health: Health | None, past: evidence.History | None) -> bool:
    """A program that was stopped, or ended as it should, is well, unless its health says otherwise.

    One that starts again because it ended is not, however often it runs for long enough to count as started.
    """
    failed = process.state in UNWELL_STATES or (process.state == "EXITED" and bool(process.spawn_error))
    returns = process.state == "STARTING" and past is not None and bool(past.restarts)
    return not (failed or returns) and (health is None or health.well)


def _facts(
    process: Process, table: host.ProcessTable | None, past: evidence.History | None, health: Health | None
) -> dict[str, Any]:
    since = process.start if process.is_up else max(process.start, process.stop)
    return {
        **process.as_result(),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since)) if since else None,
        "memory": table.memory(process.pid) if table and process.pid and process.pid in table.entries else None,
        "restarts": past.restarts if past else None,
        "health": health.text if health else None,
    }


# --- health


def _health_of(processes: Sequence[Process], checks: Sequence[HealthCheck]) -> dict[Name, Health]:
    """Of the processes that a check names; only what runs is asked, all at the same time."""
    up = [process.name for process in processes if process.state == "RUNNING"]
    named = [(check, [name for name in up if check.target in (name, Name(name.group))]) for check in checks]
    asked = [(check, names) for check, names in named if names]
    answers = probe_all([check for check, _names in asked])
    return {name: answer for (_check, names), answer in zip(asked, answers) for name in names}


def probe_all(checks: Sequence[HealthCheck]) -> list[Health]:
    """Bounded by the longest timeout: a thread that hangs is left behind."""
    answers: dict[int, Health] = {}

    def ask(number: int, check: HealthCheck) -> None:
        answers[number] = probe(check)

    threads = [threading.Thread(target=ask, args=(number, check), daemon=True) for number, check in enumerate(checks)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + max((check.timeout for check in checks), default=0) + GRACE
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return [
        answers.get(number) or Health(no_answer(check.timeout, "timed out"), well=False)
        for number, check in enumerate(checks)
    ]


def probe(check: HealthCheck) -> Health:
    began = time.monotonic()
    parts = urlsplit(check.url)
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    connection = HttpConnection(
        parts.hostname or "", parts.port, unix_socket=check.unix_socket, tls=tls, timeout=check.timeout
    )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        answer = get(connection, target, {"User-Agent": "app_status"}).status
    except NoReply as error:
        return Health(str(error), well=False)
    if answer != check.status:
        return Health(str(answer), well=False)
    return Health(f"{answer} in {(time.monotonic() - began) * 1000:.0f} ms", well=True)


# --- without supervisord


def _without_supervisord(error: rpc.SupervisorError, wanted: Sequence[Name], log_lines: int) -> dict[str, Any]:
    unit = output_of("systemctl", "show", UNIT, "--property=LoadState,ActiveState,SubState,Result", limit=COMMAND_LIMIT)
    journal = output_of(
        *("journalctl", "--unit", UNIT, "--boot", "--lines=40", "--output=cat", "--no-pager", "--quiet"),
        limit=COMMAND_LIMIT,
    )
    complaint = _complaint(journal)
    known = causes.Evidence(name="supervisord", unit=f"{type(error).__name__}\n{unit}", configuration=complaint)
    failed = bool(complaint) or "ActiveState=failed" in unit or "ActiveState=activating" in unit
    return {
        **status.about_none(error, wanted),
        "causes": causes.explain(known),
        "log_tail": [rpc.redact(line) for line in journal.splitlines()][-log_lines:] if failed and log_lines else [],
    }


def _complaint(journal: str) -> str:
    """What supervisord printed when it refused to start, unless it did start after that."""
    last = journal.rpartition("supervisord started with pid")[2]
    complaints = [line for line in last.splitlines() if line.startswith("Error: ")]
    return rpc.redact(complaints[-1]) if complaints else ""
