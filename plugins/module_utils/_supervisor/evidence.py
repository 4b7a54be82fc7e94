# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gathers what shows why processes of supervisord are not well: its log, theirs, the kernel's, and /proc."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes import launcher
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes import processes as host
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import rpc, status
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.causes import (
    Evidence,
    explain,
    no_holder,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.status import Name, Process

# A traceback may be longer than what is shown of a log.
LINES_TO_READ = 200

# Seconds by which the kernel's clock may be off, and supervisord's, which counts whole ones.
CLOCK_MARGIN = 5

# A line of supervisord's log: time, level, and what happened to whom.
_EVENT = re.compile(
    r"^\S+ \S+ [A-Z]{4} (?:"
    r"(?P<daemon>supervisord started with pid)"
    r"|spawned: '(?P<spawned>.+)' with pid (?P<pid>\d+)"
    r"|exited: (?P<exited>.+) \((?P<how>exit status \d+|terminated by .+); (?:not )?expected\)"
    r"|stopped: (?P<stopped>.+) \(.*\)"
    r"|gave up: (?P<gave_up>.+) entered FATAL state.*"
    r")"
)
_INFO = re.compile(r"^\S+ \S+ INFO ", re.MULTILINE)
_KILLED_WORKER = re.compile(r"Worker \(pid:(\d+)\) was sent SIGKILL")


@dataclass
class History:
    """What supervisord's log shows of one process since it was last started on request."""

    # None where the log is kept too brief to have the starts.
    restarts: int | None = 0
    pid: int = 0
    endings: list[str] = field(default_factory=list)
    # Whether it is down without having been stopped, so that a start is supervisord's own.
    comes_back: bool = False


class Known(NamedTuple):
    """What is shown of a process that is not well."""

    causes: list[dict[str, str]]
    tails: status.Tails


NOTHING = Known([], status.Tails([], []))


def histories(log: str) -> dict[str, History]:
    """By the processes' names: the log names no groups."""
    found: dict[str, History] = {}
    for event in filter(None, map(_EVENT.match, log.splitlines())):
        if event["daemon"]:
            found.clear()
        elif event["spawned"]:
            history = found.setdefault(event["spawned"], History())
            if history.comes_back:
                history.restarts = (history.restarts or 0) + 1
            else:
                history.restarts, history.endings = 0, []
            history.pid, history.comes_back = int(event["pid"]), False
        elif event["exited"]:
            history = found.setdefault(event["exited"], History())
            history.endings.append(event["how"])
            history.comes_back = True
        else:
            found.setdefault(event["stopped"] or event["gave_up"], History()).comes_back = False
    return found


def read_histories(supervisor: rpc.Supervisor, names: Iterable[Name]) -> dict[Name, History]:
    """Those of the processes that supervisord's log names; nothing where it can't be read."""
    (log,) = supervisor.multicall([rpc.Call("readLog", (-status.MAIN_LOG_TAIL, 0))])
    if isinstance(log, rpc.Fault):
        return {}
    known, starts = histories(str(log)), bool(_INFO.search(str(log)))
    # A name that two groups use is ambiguous.
    uses = Counter(name.process for name in names)
    found = {name: known.get(name.process or "", History()) for name in names if uses[name.process] == 1}
    return found if starts else {name: History(None, endings=each.endings[-1:]) for name, each in found.items()}


def gather(
    supervisor: rpc.Supervisor,
    processes: Sequence[Process],
    past: Mapping[Name, History],
    log_lines: int,
    health: Mapping[Name, str],
    refusals: Mapping[Name, str],
) -> dict[Name, Known]:
    """What is known of processes that are not well, by their health, by supervisord's refusal to start them, or by
    their state. Without log_lines, no log is looked into."""
    if not processes:
        return {}
    settings = {Name(info["group"], info["name"]): info for info in supervisor.call("getAllConfigInfo")}
    local = bool(supervisor.address.path)
    strays: Mapping[tuple[str, str], list[int]] = {}
    if local and any(process.name not in health for process in processes):
        strays = host.ProcessTable().strays(supervisor.call("getPID"), supervisor.address.url)
    kills = host.kernel_kills() if local else {}
    tails = status.log_tails(supervisor, processes, max(log_lines, LINES_TO_READ) if log_lines else 0)
    found: dict[Name, Known] = {}
    for process in processes:
        name = process.name
        tail = tails[name]
        history = past.get(name, History())
        info = settings.get(name, {})
        command, uid = str(info.get("command") or ""), info.get("uid")
        launched = launcher.config_of(command) if local else None
        pids = {history.pid, *(int(pid) for lines in tail for line in lines for pid in _KILLED_WORKER.findall(line))}
        known = Evidence(
            name=str(name),
            up=name in health,
            spawn_error=refusals.get(name, "") or process.spawn_error,
            endings=history.endings or _last_ending(process),
            logs=[tail.stderr, tail.stdout],
            log_paths=[process.stdout_log, process.stderr_log],
            kernel=[
                kills[pid].line
                for pid in sorted(pids & kills.keys() | _kills_of(launched, kills))
                if kills[pid].time > process.start - CLOCK_MARGIN
            ],
            strays=strays.get((name.group, name.process or ""), []),
            command=command,
            # supervisord writes none as a word.
            user=launched.user if launched else host.user_name(uid) if local and isinstance(uid, int) else "",
            health=health.get(name, ""),
            holder=host.holder if local else no_holder,
        )
        found[name] = Known(explain(known), tail.last(log_lines))
    return found


def _kills_of(launched: launcher.Config | None, kills: Mapping[int, host.Kill]) -> set[int]:
    """The log of a program that our launcher started names its processes by other numbers than the kernel's log."""
    return {pid for pid, kill in kills.items() if host.user_name(kill.uid) == launched.user} if launched else set()


def _last_ending(process: Process) -> list[str]:
    return [f"exit status {process.exit_status}"] if process.state == "EXITED" and process.exit_status != -1 else []
