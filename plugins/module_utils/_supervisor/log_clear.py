# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Empty the logs that supervisord keeps of its processes."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import rpc, status
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.status import Name, Process

CHANNELS = ("stdout", "stderr")


def run(connection: rpc.Connection, names: Sequence[str], check_mode: bool) -> dict[str, Any]:
    """The module's result."""
    rpc.require_not_negative(connect_timeout=connection.connect_timeout)
    asked = status.parse_names(names)
    with closing(rpc.connect(connection)) as supervisor:
        known = status.all_processes(supervisor)
        wanted = status.choose(asked, known)
        unknown = status.those_missing(known, wanted)
        if unknown:
            raise rpc.SupervisorError(
                f"Nothing was changed. names: supervisord has no such program or group loaded: {', '.join(unknown)}"
            )
        shown = status.those_named(known, wanted)
        before = _sizes(supervisor, shown)
        full = [process for process in shown if any(before[process.name, channel] for channel in CHANNELS)]
        if not check_mode:
            _clear(supervisor, full)
    cleared = [
        {"name": str(process.name), "log": path, "bytes": before[process.name, channel]}
        for process in full
        for channel, path in zip(CHANNELS, (process.stdout_log, process.stderr_log))
        if before[process.name, channel]
    ]
    return {"changed": bool(cleared), "cleared": cleared}


def _sizes(supervisor: rpc.Supervisor, processes: Sequence[Process]) -> dict[tuple[Name, str], int]:
    """Bytes in each log; a tail of no length shows where the log ends."""
    keys = [(process.name, channel) for process in processes for channel in CHANNELS]
    calls = [rpc.Call(f"tailProcess{channel.capitalize()}Log", (name.rpc, 0, 0)) for name, channel in keys]
    answers = supervisor.multicall(calls)
    return {key: 0 if isinstance(answer, rpc.Fault) else int(answer[1]) for key, answer in zip(keys, answers)}


def _clear(supervisor: rpc.Supervisor, processes: Sequence[Process]) -> None:
    answers = supervisor.multicall([rpc.Call("clearProcessLogs", (process.name.rpc,)) for process in processes])
    refused = [
        f"{process.name}: {answer.text}" for process, answer in zip(processes, answers) if isinstance(answer, rpc.Fault)
    ]
    # supervisord has the logs of running processes open and leaves those of the others alone, without a word.
    after = _sizes(supervisor, processes)
    for process in processes:
        for channel, path in zip(CHANNELS, (process.stdout_log, process.stderr_log)):
            if after[process.name, channel] and process.state in status.DOWN_STATES and not _empty_file(path):
                refused.append(f"{process.name}: its log {path} is not empty after it")
    if refused:
        raise rpc.SupervisorError(f"Not all logs were cleared. {'; '.join(refused)}")


def _empty_file(path: str) -> bool:
    """Nobody writes to the log of a process that is down. False where it is no file of this host."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        os.truncate(path, 0)
    except OSError:
        return False
    return True
