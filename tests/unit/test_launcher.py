"""The launcher, with real accounts, namespaces and signals."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes import launcher as _launcher

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="it starts programs as other accounts")

LAUNCHER = _launcher.__file__
# No other run of these tests shall take what is there for its own.
NAME = f"unit-test-{os.getpid()}"
GROUP = "nogroup" if Path("/etc/debian_version").exists() else "nobody"
# What a compromised app starts to outlive its slot: a session of its own, and no parent.
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        open(sys.argv[1], "w").write("there")
        while True:
            time.sleep(0.05)
            os.utime(sys.argv[1])
    os._exit(0)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
"""


class Launcher:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "launch.json"
        self.started: list[subprocess.Popen[str]] = []

    def start(self, command: list[str], **settings: object) -> subprocess.Popen[str]:
        config = {"name": NAME, "command": command, "user": "nobody", "group": GROUP, **settings}
        self.config.write_text(json.dumps(config))
        process = subprocess.Popen(
            [sys.executable, "-IS", LAUNCHER, str(self.config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, command: list[str], **settings: object) -> subprocess.CompletedProcess[str]:
        process = self.start(command, **settings)
        out, err = process.communicate(timeout=20)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def python(self, code: str, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        return self.run(["/usr/bin/python3", "-c", code, *arguments], **settings)


@pytest.fixture(name="launcher")
def launcher_fixture() -> Iterator[Launcher]:
    # Not below /tmp, of which the program sees its own, and open to it.
    folder = Path(f"/var/lib/launcher-test-{os.getpid()}")
    folder.mkdir(mode=0o755)
    launcher = Launcher(folder)
    try:
        yield launcher
    finally:
        for process in launcher.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        subprocess.run(["rm", "-r", str(folder)], check=True)


@pytest.fixture(name="open_folder")
def open_folder_fixture(launcher: Launcher) -> Path:
    """One that everybody may write to."""
    folder = launcher.folder / "open"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def stands_still(path: Path) -> bool:
    before = path.stat().st_mtime_ns
    time.sleep(0.3)
    return path.stat().st_mtime_ns == before


def test_the_program_has_the_account_and_no_more(launcher: Launcher) -> None:
    code = "import os,resource; print(os.getresuid(), os.getresgid(), oct(os.umask(0)), resource.getrlimit(4))"
    done = launcher.python(code)
    assert done.returncode == 0, done.stderr
    nobody = pwd.getpwnam("nobody")
    assert done.stdout.strip() == f"{(nobody.pw_uid,) * 3} {(nobody.pw_gid,) * 3} 0o27 (0, 0)"
    status = launcher.run(["cat", "/proc/self/status"]).stdout
    assert "NoNewPrivs:\t1" in status and "CapEff:\t0000000000000000" in status


@pytest.mark.parametrize("sandbox", [True, False])
def test_what_the_program_started_ends_with_it(launcher: Launcher, open_folder: Path, sandbox: bool) -> None:
    trace = open_folder / "alive"
    done = launcher.python(DAEMON, str(trace), writable=[str(open_folder)], sandbox=sandbox)
    assert done.returncode == 0, done.stderr
    assert trace.exists()
    assert stands_still(trace)


@pytest.mark.parametrize("sandbox", [True, False])
def test_a_launcher_that_is_killed_takes_the_program_with_it(
    launcher: Launcher, open_folder: Path, sandbox: bool
) -> None:
    trace = open_folder / "alive"
    code = "import os,sys,time\nwhile True: open(sys.argv[1],'a').close(); os.utime(sys.argv[1]); time.sleep(0.02)"
    command = ["/usr/bin/python3", "-c", code, str(trace)]
    process = launcher.start(command, writable=[str(open_folder)], sandbox=sandbox)
    wait_for(trace.exists, "the program runs")
    process.kill()
    process.wait()
    wait_for(lambda: stands_still(trace), "the program ended")


def test_the_status_is_the_programs(launcher: Launcher) -> None:
    assert launcher.run(["sh", "-c", "exit 3"]).returncode == 3
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        assert launcher.python(f"import os; os.kill(os.getpid(), {int(number)})").returncode == -number
    missing = launcher.run(["/no/such/program"])
    assert missing.returncode == 127
    assert "/no/such/program: No such file or directory" in missing.stderr


@pytest.mark.parametrize("sandbox", [True, False])
def test_signals_reach_the_program(launcher: Launcher, sandbox: bool) -> None:
    code = (
        "import signal,sys\n"
        "numbers = {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, numbers)\n"
        "print('ready', flush=True)\n"
        "print(*[signal.sigwait(numbers).name for _ in range(3)])"
    )
    process = launcher.start(["/usr/bin/python3", "-c", code], sandbox=sandbox)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.2)
    assert process.stdout.read() == "SIGHUP SIGUSR1 SIGTERM\n"
    assert process.wait(timeout=10) == 0


def test_a_stop_that_comes_at_once_is_not_lost(launcher: Launcher) -> None:
    process = launcher.start(["sleep", "60"])
    time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=10) == -signal.SIGTERM


def test_only_what_is_named_can_be_written(launcher: Launcher, open_folder: Path) -> None:
    other = launcher.folder / "other"
    other.mkdir()
    other.chmod(0o777)
    code = (
        "import sys\n"
        "for path in sys.argv[1:]:\n"
        "    try: open(path, 'w').write('x'); print('written')\n"
        "    except OSError as error: print(error.strerror)\n"
    )
    paths = [f"{open_folder}/a", f"{other}/a", "/dev/shm/launcher-test", "/dev/null", "/tmp/a", "/var/tmp/a"]
    done = launcher.python(code, *paths, writable=[str(open_folder)])
    Path("/dev/shm/launcher-test").unlink(missing_ok=True)
    expected = ["written", "Read-only file system", "written", "written", "written", "written"]
    assert done.stdout.splitlines() == expected, done.stderr
    assert not Path("/tmp/a").exists()
    assert not list(Path(_launcher.PRIVATE).glob(f"{NAME}.*"))


def test_what_a_killed_launcher_left_is_removed_by_the_next(launcher: Launcher) -> None:
    process = launcher.start(["sleep", "60"])
    wait_for(lambda: list(Path(_launcher.PRIVATE).glob(f"{NAME}.*/var-tmp")), "the directory is there")
    running = list(Path(_launcher.PRIVATE).glob(f"{NAME}.*"))
    launcher.run(["true"])
    assert list(Path(_launcher.PRIVATE).glob(f"{NAME}.*")) == running
    process.kill()
    process.wait()
    wait_for(lambda: launcher.run(["true"]) and not running[0].exists(), "it is removed")


def test_other_processes_can_be_neither_seen_nor_ended(launcher: Launcher) -> None:
    """A release that is compromised could otherwise end each process of the one that replaces it."""
    victim = launcher.start(["sleep", "60"])
    time.sleep(0.3)
    attack = "import os,signal\ntry: os.kill(-1, signal.SIGKILL)\nexcept OSError: pass\nprint(os.listdir('/proc'))"
    seen = launcher.python(attack).stdout
    assert f"'{victim.pid}'" not in seen
    assert victim.poll() is None


def test_a_program_without_network_reaches_nothing(launcher: Launcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = (
            "import socket,sys\n"
            "try: socket.create_connection(('127.0.0.1', int(sys.argv[1])), 2); print('connected')\n"
            "except OSError: print('refused')"
        )
        port = str(server.getsockname()[1])
        assert launcher.python(code, port).stdout == "connected\n"
        assert launcher.python(code, port, network=False).stdout == "refused\n"


def test_what_cannot_be_started_says_why(launcher: Launcher) -> None:
    assert "no-such-user" in launcher.run(["true"], user="no-such-user").stderr
    refused = launcher.run(["true"], writable=["/no/such/place"])
    assert refused.returncode == 1
    assert "launcher: mount /no/such/place: No such file or directory" in refused.stderr
    ignored = launcher.run(["true"], cgroup="a/b", limits={"memory_max": "64M"})
    assert ignored.returncode == 0
    assert "limits.memory_max 64M is not applied" in ignored.stderr


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("memory_max", "512M", str(512 * 1024**2)),
        ("memory_max", "1g", str(1024**3)),
        ("memory_max", "1048576", "1048576"),
        ("cpu_quota", "150%", "150000 100000"),
        ("cpu_quota", "0.1%", "1000 100000"),
        ("tasks_max", "200", "200"),
    ],
)
def test_limits_are_written_as_the_kernel_takes_them(name: str, value: str, text: str) -> None:
    assert _launcher.limit_text(name, value) == text
