# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What supervisord knows of its processes, how they are named, why they ended and what they wrote last."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import rpc
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.causes import (
    Evidence,
    explain,
    in_words,
)

# What stopProcess accepts, what removeProcessGroup accepts, and where there is a process to signal.
STOPPABLE = ("STARTING", "RUNNING", "BACKOFF")
DOWN_STATES = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")
WITH_PID = ("STARTING", "RUNNING", "STOPPING")

EXITED_TOO_QUICKLY = "Exited too quickly"
BYTES_PER_LINE = 256
SMALLEST_TAIL = 4096
LARGEST_TAIL = 256 * 1024
MAIN_LOG_TAIL = 128 * 1024
# Logs that are asked for in one call, so that neither side holds many megabytes at once.
LOGS_PER_CALL = 16
LONGEST_UTF8 = 4

# What getProcessInfo calls the fields of Process after its name.
_KEYS = ("statename", "pid", "start", "stop", "now", "exitstatus", "spawnerr", "stdout_logfile", "stderr_logfile")
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Name(NamedTuple):
    """A process by its group and its own name, or a whole group."""

    group: str
    process: str | None = None

    @property
    def rpc(self) -> str:
        """supervisord's unambiguous form: a lone name would be a process named like its group."""
        return f"{self.group}:{self.process}"

    def __str__(self) -> str:
        """As supervisorctl shows it."""
        return self.group if self.process in (None, self.group) else f"{self.group}:{self.process}"


# As supervisorctl names all groups.
ALL = Name("all")


def parse_name(text: str) -> Name:
    """group, group:process, or supervisorctl's group:* for the whole group and all for everything."""
    group, _colon, process = text.partition(":")
    if not group or not text.isprintable():
        raise rpc.SupervisorError(f"names: {text!r} is no name; allowed is a group's name or group:process")
    return Name(group, None if process in ("", "*") else process)


def parse_names(texts: Iterable[str]) -> list[Name]:
    return list(dict.fromkeys(parse_name(text) for text in texts))


def choose(names: Sequence[Name], processes: Iterable[Name]) -> list[Name]:
    """Names with each one|other replaced by those of them that are loaded, or by all where none is."""
    loaded = {process.group for process in processes}
    chosen: list[Name] = []
    for name in names:
        groups = name.group.split("|")
        present = [group for group in groups if group in loaded]
        chosen += [Name(group, name.process) for group in present or groups]
    return list(dict.fromkeys(chosen))


@dataclass(frozen=True)
class Process:
    name: Name
    state: str
    pid: int
    start: int
    stop: int
    now: int
    last_exit: int
    spawn_error: str
    stdout_log: str
    stderr_log: str

    @classmethod
    def of(cls, info: dict[str, Any]) -> Process:
        return cls(Name(info["group"], info["name"]), *(info[key] for key in _KEYS))

    @property
    def exit_status(self) -> int | None:
        """None where supervisord says 0 for "I do not know": running, never started, or ended before startsecs."""
        ended = self.state == "EXITED" or (self.state == "STOPPED" and self.start > 0 and not self.spawn_error)
        return self.last_exit if ended else None

    @property
    def died(self) -> bool:
        """Whether it ended without being stopped."""
        return self.state == "EXITED" or self.spawn_error.startswith(EXITED_TOO_QUICKLY)

    @property
    def is_up(self) -> bool:
        return self.state in ("STARTING", "RUNNING")

    @property
    def uptime(self) -> int | None:
        return max(0, self.now - self.start) if self.pid and self.state in WITH_PID else None

    def as_result(self) -> dict[str, Any]:
        return {
            "name": self.name.process,
            "group": self.name.group,
            "state": self.state,
            "pid": self.pid or None,
            "uptime": self.uptime,
            "exit_status": self.exit_status,
            "spawn_error": self.spawn_error or None,
            "logfiles": {"stdout": self.stdout_log or None, "stderr": self.stderr_log or None},
        }


def all_processes(supervisor: rpc.Supervisor) -> dict[Name, Process]:
    processes = _all_processes(supervisor)
    if any(process.state == "EXITED" for process in processes.values()):
        # One that supervisord starts again by itself is EXITED for a single turn of its loop.
        before, processes = processes, _all_processes(supervisor)
        came_back = {name for name, process in before.items() if process.state != "EXITED"} & processes.keys()
        processes.update({name: before[name] for name in came_back if processes[name].state == "EXITED"})
    return processes


def _all_processes(supervisor: rpc.Supervisor) -> dict[Name, Process]:
    processes = (Process.of(info) for info in supervisor.call("getAllProcessInfo"))
    return {process.name: process for process in processes}


def those_named(processes: dict[Name, Process], names: Iterable[Name]) -> list[Process]:
    wanted = set(names)
    if ALL in wanted and not any(name.group == ALL.group for name in processes):
        return list(processes.values())
    return [process for name, process in processes.items() if name in wanted or Name(name.group) in wanted]


def those_missing(processes: dict[Name, Process], names: Iterable[Name]) -> list[str]:
    """The names that none of the processes has."""
    return [str(name) for name in names if name != ALL and not those_named(processes, [name])]


class Tails(NamedTuple):
    stdout: list[str]
    stderr: list[str]

    def last(self, lines: int) -> Tails:
        return Tails(self.stdout[-lines:], self.stderr[-lines:]) if lines else Tails([], [])


def log_tails(supervisor: rpc.Supervisor, processes: Sequence[Process], lines: int) -> dict[Name, Tails]:
    """The last lines of each process's logs: from the files themselves, or through a supervisord elsewhere."""
    size = min(max(lines * BYTES_PER_LINE, SMALLEST_TAIL), LARGEST_TAIL)
    texts: dict[tuple[Name, str], str] = {}
    remote: list[tuple[Name, str]] = []
    for process in processes:
        for channel, path in (("Stdout", process.stdout_log), ("Stderr", process.stderr_log)):
            text = _end_of_file(path, size) if path and supervisor.address.path else None
            if text is not None:
                texts[process.name, channel] = text
            elif path and not path.startswith("/dev/"):
                remote.append((process.name, channel))
    for first in range(0, len(remote), LOGS_PER_CALL):
        part = remote[first : first + LOGS_PER_CALL]
        texts.update(zip(part, _remote_ends(supervisor, part, size)))
    return {
        process.name: Tails(
            *(_last_lines(texts.get((process.name, channel), ""), lines) for channel in ("Stdout", "Stderr"))
        )
        for process in processes
    }


def _end_of_file(path: str, size: int) -> str | None:
    """None where this is not a file that can be read here."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - size))
            return log.read(size).decode(errors="replace")
    except OSError:
        return None


def _remote_ends(supervisor: rpc.Supervisor, logs: Sequence[tuple[Name, str]], size: int) -> list[str]:
    answers = supervisor.multicall([_tail_call(name, channel, size) for name, channel in logs])
    return [
        _cut_elsewhere(supervisor, name, channel, size) if isinstance(answer, rpc.Fault) else str(answer[0])
        for (name, channel), answer in zip(logs, answers)
    ]


def _cut_elsewhere(supervisor: rpc.Supervisor, name: Name, channel: str, size: int) -> str:
    """supervisord fails on a tail that begins inside a character; one that begins a little later may do."""
    calls = [_tail_call(name, channel, size - skip) for skip in range(1, LONGEST_UTF8)]
    for answer in supervisor.multicall(calls):
        if not isinstance(answer, rpc.Fault):
            return str(answer[0])
    return "(supervisord cannot send this log, since it is not UTF-8)"


def _tail_call(name: Name, channel: str, size: int) -> rpc.Call:
    return rpc.Call(f"tailProcess{channel}Log", (name.rpc, 0, size))


def _last_lines(text: str, count: int) -> list[str]:
    """Lines that are safe to show: a log must not colour, move or ring the reader's terminal."""
    lines = _TERMINAL_CODES.sub("", text).splitlines()[-count:] if count else []
    return ["".join(char if char.isprintable() or char == "\t" else "?" for char in line) for line in lines]


def differences(supervisor: rpc.Supervisor) -> dict[str, list[str]]:
    """What the files say and what is loaded, compared by supervisord itself; what runs stays as it is."""
    try:
        (lists,) = supervisor.call("reloadConfig")
    except rpc.CallFailed as error:
        causes = explain(Evidence(name="supervisord", configuration=error.fault.text))
        raise rpc.SupervisorError(
            f"supervisord cannot read its configuration, so nothing was changed: {error.fault.text}. "
            "One bad section is enough for supervisord to refuse all of them.\n" + "\n".join(in_words(causes))
        ) from None
    return {kind: sorted(groups) for kind, groups in zip(("added", "changed", "removed"), lists)}


def about(supervisor: rpc.Supervisor, *more: rpc.Call) -> tuple[dict[str, Any], list[Any]]:
    """What a result says of supervisord itself, and the answers to more calls."""
    calls = [rpc.Call(method) for method in ("getSupervisorVersion", "getState", "getPID")]
    version, state, pid, *answers = supervisor.multicall([*calls, *more])
    return {"running": True, "reason": None, "version": version, "state": state["statename"], "pid": pid}, answers


def about_none(error: rpc.SupervisorError, wanted: Iterable[Name]) -> dict[str, Any]:
    """The same where there is none to be asked."""
    nothing: dict[str, Any] = {"version": None, "state": None, "pid": None, "processes": []}
    return {"running": False, "reason": str(error), **nothing, "missing": those_missing({}, wanted)}


def gather(connection: rpc.Connection, names: Sequence[str], log_lines: int, reread: bool = False) -> dict[str, Any]:
    """All of supervisor_info's result."""
    rpc.require_not_negative(log_lines=log_lines, connect_timeout=connection.connect_timeout)
    wanted = parse_names(names)
    try:
        supervisor = rpc.connect(connection)
    except rpc.NotRunning as error:
        return {**about_none(error, wanted), "identification": None}
    with closing(supervisor):
        facts, (identification,) = about(supervisor, rpc.Call("getIdentification"))
        known = all_processes(supervisor)
        wanted = choose(wanted, known)
        shown = those_named(known, wanted) if wanted else list(known.values())
        results = [process.as_result() for process in shown]
        if log_lines:
            tails = log_tails(supervisor, shown, log_lines)
            for process, result in zip(shown, results):
                result.update(stdout_tail=tails[process.name].stdout, stderr_tail=tails[process.name].stderr)
        extra = {"differences": differences(supervisor)} if reread else {}
    missing = those_missing(known, wanted)
    return {**facts, "identification": identification, "processes": results, "missing": missing, **extra}
