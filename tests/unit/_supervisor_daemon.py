"""A real supervisord on a socket of its own, for one test. SUPERVISORD names the program, if it is not at hand."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _supervisor_rpc as rpc
from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _supervisor_status as status
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor_process import Request, run

# What the programs do; $0 is a folder of their own to write into.
SERVE = "echo $$ >> $0/starts; exec sleep 1000"
FAIL = "echo $$ >> $0/starts; echo about to fail >&2; exit 3"
IGNORE_TERM = "trap '' TERM; while :; do sleep 0.1; done"

LISTS = ("added", "updated", "removed", "started", "stopped", "restarted", "signalled")


def find_supervisord() -> str:
    beside = Path(sys.executable).with_name("supervisord")
    found = os.environ.get("SUPERVISORD") or (str(beside) if beside.exists() else shutil.which("supervisord"))
    if not found:
        pytest.fail("no supervisord: set SUPERVISORD, or install supervisor beside this Python")
    return found


class Daemon:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "s.sock"
        self.config = folder / "s.conf"
        self.programs: dict[str, dict[str, Any]] = {}
        self.extra = ""
        self.server = f"[unix_http_server]\nfile={self.socket}\n"
        self.url = f"unix://{self.socket}"
        self.login: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    # Configuration

    def program(self, name: str, script: str = SERVE, section: str = "program", **options: Any) -> None:
        """Put a program into the configuration, or put another in its place. It counts as started at once."""
        home = self.folder / "programs" / f"{len(self.programs)}"
        home.mkdir(parents=True, exist_ok=True)
        quoted = script.replace('"', '\\"').replace("%", "%%")
        command = f'/bin/sh -c "{quoted}" {home}'
        known = self.programs.get(f"{section}:{name}", {})
        options = {
            "command": command,
            "home": str(known.get("home", home)),
            "startsecs": 0,
            "stopwaitsecs": 5,
            **options,
        }
        if known:
            options["command"] = options["command"].replace(str(home), options["home"])
        self.programs[f"{section}:{name}"] = options
        self.write()

    def forget(self, name: str) -> None:
        del self.programs[f"program:{name}"]
        self.write()

    def write(self) -> None:
        own = {"logfile": self.folder / "s.log", "pidfile": self.folder / "s.pid", "childlogdir": self.folder}
        lines = [self.server, "[supervisord]", "nodaemon=true", *(f"{key}={value}" for key, value in own.items())]
        lines += ["[rpcinterface:supervisor]"]
        lines += ["supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface", self.extra]
        for section, options in self.programs.items():
            lines += [f"[{section}]", *(f"{key}={value}" for key, value in options.items() if key != "home")]
        self.config.write_text("\n".join(lines) + "\n")

    def starts(self, name: str) -> int:
        """How often the program was started, by its own account."""
        file = Path(self.programs[f"program:{name}"]["home"]) / "starts"
        return len(file.read_text().split()) if file.exists() else 0

    # The daemon

    def start(self, wait: bool = True) -> None:
        self.write()
        self.process = subprocess.Popen(
            [find_supervisord(), "-c", str(self.config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if wait:
            rpc.connect(self.connection()).close()

    def kill(self) -> None:
        """supervisord and all that it started: they are the members of its session."""
        if self.process is None:
            return
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                try:
                    session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
                    if session == self.process.pid:
                        os.kill(int(entry.name), signal.SIGKILL)
                except (OSError, ValueError):
                    continue
        self.process.kill()
        self.process.wait()

    # What is tested

    def connection(self, **options: Any) -> rpc.Connection:
        return rpc.Connection(**{"server_url": self.url, **self.login, **options})

    def run(
        self, *names: str, check: bool = False, connection: rpc.Connection | None = None, **options: Any
    ) -> dict[str, Any]:
        return run(connection or self.connection(), Request(names, **options), check)

    def twice(self, *names: str, again: bool = False, **options: Any) -> dict[str, Any]:
        """Check, run, check, run: the checks change nothing and announce what the runs do."""
        before = self.pids()
        announced = self.run(*names, check=True, **options)
        assert self.pids() == before
        result = self.run(*names, **options)
        for key in ("changed", *LISTS, "diff", "warnings"):
            assert announced[key] == result[key], key
        assert result["changed"]
        assert self.run(*names, check=True, **options)["changed"] is again
        assert self.run(*names, **options)["changed"] is again
        return result

    # What is so

    def call(self, method: str, *params: Any) -> Any:
        supervisor = rpc.connect(self.connection())
        try:
            return supervisor.call(method, *params)
        finally:
            supervisor.close()

    def processes(self) -> dict[str, status.Process]:
        return {str(name): process for name, process in status.all_processes(rpc.connect(self.connection())).items()}

    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self.processes().items()}

    def states(self) -> dict[str, str]:
        return {name: process.state for name, process in self.processes().items()}

    def until(self, name: str, state: str) -> None:
        wait_for(lambda: self.states().get(name) == state, f"{name} {state}")


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.03)


def changes(result: dict[str, Any]) -> dict[str, list[str]]:
    """The lists of a result that are not empty."""
    return {key: result[key] for key in LISTS if result[key]}


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    # Not below tmp_path: a Unix socket's path has 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="supervisor-"))
    it = Daemon(folder)
    yield it
    it.kill()
    shutil.rmtree(folder)
