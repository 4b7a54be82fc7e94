"""A real supervisord on a socket of its own, for one test. SUPERVISORD names the program, if it is not at hand."""

from __future__ import annotations

import contextlib
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
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import rpc, status
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.process import Request, run

# What the programs do; $0 is a folder of their own to write into.
SERVE = "echo $$ >> $0/starts; exec sleep 1000"
FAIL = "echo $$ >> $0/starts; echo about to fail >&2; exit 3"
IGNORE_TERM = "trap '' TERM; touch $0/ready; while :; do sleep 0.1; done"
STOP_SLOWLY = "trap 'sleep 0.5; exit' TERM; touch $0/ready; while :; do sleep 0.05; done"

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
        home = self.home(name)
        home.mkdir(parents=True, exist_ok=True)
        quoted = script.replace('"', '\\"').replace("%", "%%")
        command = f'/bin/sh -c "{quoted}" {home}'
        self.programs[f"{section}:{name}"] = {"command": command, "startsecs": 0, "stopwaitsecs": 5, **options}
        self.write()

    def home(self, name: str) -> Path:
        return self.folder / "programs" / name.encode().hex()

    def remove(self, name: str) -> None:
        del self.programs[f"program:{name}"]
        self.write()

    def write(self) -> None:
        own = {"logfile": self.folder / "s.log", "pidfile": self.folder / "s.pid", "childlogdir": self.folder}
        lines = [self.server, "[supervisord]", "nodaemon=true", *(f"{key}={value}" for key, value in own.items())]
        lines += ["[rpcinterface:supervisor]"]
        lines += ["supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface", self.extra]
        for section, options in self.programs.items():
            lines += [f"[{section}]", *(f"{key}={value}" for key, value in options.items())]
        self.config.write_text("\n".join(lines) + "\n")

    def starts(self, name: str, at_least: int) -> int:
        """How often the program was started, by its own account, which may come a moment late."""
        file = self.home(name) / "starts"
        wait_for(lambda: file.exists() and len(file.read_text().split()) >= at_least, f"{at_least} starts of {name}")
        return len(file.read_text().split())

    # The daemon

    def start(self, wait: bool = True) -> None:
        """Start supervisord with its programs, or load them into the one that an earlier test left."""
        self.write()
        if self.process is not None:
            ((added, _changed, _removed),) = self.call("reloadConfig")
            self.calls(*(rpc.Call("addProcessGroup", (group,)) for group in added))
            return
        self.process = subprocess.Popen(
            [find_supervisord(), "-c", str(self.config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if wait:
            rpc.connect(self.connection()).close()

    def empty(self) -> None:
        """Leave supervisord running without any program."""
        if self.process is None:
            return
        self.programs.clear()
        self.extra = ""
        self.write()
        shutil.rmtree(self.folder / "programs", ignore_errors=True)
        deadline = time.monotonic() + 5
        while groups := self.call("reloadConfig")[0][2]:
            assert time.monotonic() < deadline, f"supervisord keeps {groups}"
            # Those in BACKOFF have no process that could be killed.
            self.calls(*(rpc.Call("stopProcess", (each.name.rpc, False)) for each in self.processes().values()))
            self.kill_programs()
            self.calls(*(rpc.Call("removeProcessGroup", (group,)) for group in groups))

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill_programs(self) -> None:
        """All that supervisord started: they are the members of its session."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.pid:
                try:
                    session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
                    if session == self.pid:
                        os.kill(int(entry.name), signal.SIGKILL)
                except (OSError, ValueError):
                    continue

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            # Only now, since it starts again what is killed.
            self.kill_programs()
            self.process = None

    # What is tested

    def connection(self, **options: Any) -> rpc.Connection:
        return rpc.Connection(**{"server_url": self.url, **self.login, **options})

    def run(self, *names: str, check: bool = False, **options: Any) -> dict[str, Any]:
        return run(self.connection(), Request(names, **options), check)

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

    def calls(self, *calls: rpc.Call) -> list[Any]:
        supervisor = rpc.connect(self.connection())
        try:
            return supervisor.multicall(calls)
        finally:
            supervisor.close()

    def processes(self) -> dict[str, status.Process]:
        return {str(name): process for name, process in status.all_processes(rpc.connect(self.connection())).items()}

    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self.processes().items()}

    def states(self) -> dict[str, str]:
        return {name: process.state for name, process in self.processes().items()}

    def until_ready(self, name: str) -> None:
        wait_for((self.home(name) / "ready").exists, f"{name} ready")

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


@contextlib.contextmanager
def supervisord() -> Iterator[Daemon]:
    # Not below tmp_path: a Unix socket's path has 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="supervisor-"))
    daemon = Daemon(folder)
    try:
        yield daemon
    finally:
        daemon.kill()
        shutil.rmtree(folder)


@pytest.fixture(name="own_daemon")
def own_daemon_fixture() -> Iterator[Daemon]:
    """A supervisord for a test that configures or ends it."""
    with supervisord() as daemon:
        yield daemon


@pytest.fixture(name="shared_daemon", scope="session")
def shared_daemon_fixture() -> Iterator[Daemon]:
    with supervisord() as daemon:
        yield daemon


@pytest.fixture(name="daemon")
def daemon_fixture(shared_daemon: Daemon) -> Iterator[Daemon]:
    """A supervisord without programs, for a test that needs no other settings of it: each start takes a while."""
    yield shared_daemon
    try:
        shared_daemon.empty()
    except BaseException:
        shared_daemon.kill()
        raise
