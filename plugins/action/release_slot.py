# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names the run that works on an app, waits for others that do, and completes what an environment is built with."""

from __future__ import annotations

import getpass
import os
import socket
import time
from pathlib import Path
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes import processes
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._role_values import RoleValues

MODULE = "asgiops.fastapi_host.release_slot"
POLL_SECONDS = 2
display = Display()


def _start_of(pid: int) -> str:
    """When a process of this machine started, in ticks since its boot; empty when there is none."""
    fields = processes.stat_of(pid)
    # One that was killed and not waited for, as in a container whose first process waits for nobody, works no more.
    return fields[19].decode() if fields and fields[0] not in b"ZX" else ""


def _machine() -> str:
    """What no other controller has: many are called localhost, and containers of one machine share its id."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        machine = ""
    return " ".join([socket.gethostname(), machine, processes.link_of(os.getpid(), "ns/pid")])


def this_run() -> dict[str, Any]:
    """ansible-playbook, which all workers of a run have for their parent."""
    pid = os.getppid()
    return {
        "run": f"{_machine()}:{pid}:{_start_of(pid)}",
        "by": getpass.getuser(),
        "controller": socket.gethostname(),
        "pid": pid,
    }


def has_ended(holder: dict[str, Any]) -> bool:
    """Whether a holder of a lock was a run on this controller that is no more."""
    machine, _colon, process = str(holder.get("run", "")).rpartition(":")[0].rpartition(":")
    return machine == _machine() and holder["run"] != f"{machine}:{process}:{_start_of(int(process))}"


class ActionModule(ActionBase):
    _requires_connection = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = {**self._task.args, "owner": this_run()}
        if arguments.get("environment"):
            builder = RoleValues("python_venv", self._templar, self._loader, task_vars or {})
            arguments["environment"] = {**builder.value("python_venv_environment"), **arguments["environment"]}
        deadline = time.monotonic() + int(arguments.get("lock_timeout", 60))
        shown = False
        while True:
            answer = self._execute_module(MODULE, arguments, task_vars=task_vars)
            holder = answer.get("holder")
            if not answer.get("locked"):
                break
            if has_ended(holder or {}) and arguments.get("dead_run") != holder["run"]:
                arguments["dead_run"] = holder["run"]
                continue
            if time.monotonic() >= deadline:
                break
            if not shown:
                display.display(f"waiting: {answer.get('msg')}")
                shown = True
            time.sleep(POLL_SECONDS)
        result.update(answer)
        return result
