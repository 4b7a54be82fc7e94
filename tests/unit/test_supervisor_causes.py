"""Each cause is found from a real failure of supervisord, the shell, Python and the kernel."""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _failing_programs import NOBODY, Case, check, fail_all, place
from _supervisor_daemon import (  # noqa: F401
    SERVE,
    Daemon,
    own_daemon_fixture,
    supervisord,
    wait_for,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes import processes as host
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import causes, evidence
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.app_status import look
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.rpc import SupervisorError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as supervisord has it on a host")
PYTHON = shutil.which("python3", path="/usr/bin") or sys.executable
AS_NOBODY = {"user": NOBODY}

CASES = {
    "no_command": Case("", r"There is no command /no/such/program\.", r"command=", {"command": "/no/such/program"}),
    "a_directory": Case("", r"/usr is a directory", r"inside of it", {"command": "/usr"}),
    "not_executable": Case("", r"/etc/passwd is not executable", r"chmod \+x /etc/passwd", {"command": "/etc/passwd"}),
    "no_shebang": Case("", r"PLACE/no_shebang is no program", r"such a line", {"command": "PLACE/no_shebang"}),
    "bad_shebang": Case(
        "", r"PLACE/bad_shebang is there, and the interpreter", r"Correct", {"command": "PLACE/bad_shebang"}
    ),
    "no_folder": Case(SERVE, r"no directory /no/such/folder", r"directory=", {"directory": "/no/such/folder"}),
    "folder_of_another": Case(
        SERVE,
        rf"{NOBODY} may not enter .*PLACE/private",
        "directories above",
        {"directory": "PLACE/private", **AS_NOBODY},
    ),
    "log_is_a_folder": Case(SERVE, r"the log PLACE.* \(EISDIR", r"write to the log", {"stdout_logfile": "PLACE"}),
    "daemonizes": Case("sleep 1000 & exit 0", r"itself into the background .* process \d+ lives on", "daemon off"),
    "leaves_processes": Case("sleep 1000 & exit 3", r"process \d+ of it lives on", r"End process \d+"),
    "ends_at_once": Case("exit 0", r"by itself with status 0, too early", r"startsecs=0"),
    "exits": Case("echo nothing known >&2; exit 3", r"It ended \(exit status 3\)", r"run its command by hand"),
    "killed": Case("kill -9 $$", r"killed it with SIGKILL", r"journalctl -k"),
    "crashes": Case("kill -SEGV $$", r"crashed \(SIGSEGV\)", r"coredumpctl"),
    "not_found": Case("exec /no/venv/bin/python x", r"no command /no/venv/bin/python|There is no /no/venv", r"Install"),
    "not_in_path": Case("exec nosuchcommand", r"no command nosuchcommand", r"Install"),
    "script_not_executable": Case("exec /etc/passwd", r"may not open or run /etc/passwd", r"right to it"),
    "quiet_127": Case("exit 127", r"was not found \(status 127\)", r"paths"),
    "quiet_126": Case("exit 126", r"may not be executed \(status 126\)", r"rights"),
    "forbidden_file": Case(
        f"exec {PYTHON} -c 'open(\"/etc/shadow\")'",
        rf"user {NOBODY} may not read or write /etc/shadow",
        "right",
        AS_NOBODY,
    ),
    "forbidden_log": Case(
        "echo x > PLACE/private/log", rf"{NOBODY} may not open or run PLACE/private/log", "right", AS_NOBODY
    ),
    "no_dependency": Case(
        f"exec {PYTHON} -c 'import nosuchmodule.sub'", r"module nosuchmodule is missing: a dependency", r"lock again"
    ),
    "no_own_module": Case(
        f"cd PLACE && exec {PYTHON} -m orders.main",
        r"PLACE/orders/main.py imports orders.stroe in line 2, and the app's own package orders",
        r"Correct the import",
    ),
    "no_name": Case(
        f"exec {PYTHON} -c 'from os import nosuchname'", r"module os has no nosuchname", r"lock the version"
    ),
    "python_error": Case(f"exec {PYTHON} -c '{{}}[\"key\"]'", r"A Python error: KeyError: 'key'\.", r"lines above"),
    "no_memory": Case(
        f"ulimit -v 300000; exec {PYTHON} -c 'x = bytearray(10**9)'", r"Out of memory: no_memory", r"fewer workers"
    ),
    "many_files": Case(
        f"ulimit -n 16; exec {PYTHON} -c '[open(\"/dev/null\") for _ in range(99)].x'",
        r"as many open files",
        r"LimitNOFILE",
    ),
    "disk_full": Case(f'exec {PYTHON} -c \'open("/dev/full", "w", 1).write("x\\\\n")\'', r"No space is left", r"df -h"),
    "disk_full_shell": Case("exec cat /etc/passwd > /dev/full", r"No space is left", r"df -h"),
    "port_in_use": Case(
        f"exec {PYTHON} -c 'import socket; socket.create_server((\"127.0.0.1\", PORT))'",
        r"Another process",
        r"ss -lxtnp",
    ),
}


@pytest.fixture(name="reports", scope="module")
def reports_fixture() -> Iterator[dict[str, Any]]:
    with supervisord() as daemon, socket.create_server(("127.0.0.1", 0)) as busy:
        folder = place(daemon, "place")
        (folder / "private").mkdir(mode=0o700)
        (folder / "orders").mkdir()
        (folder / "orders" / "__init__.py").touch()
        (folder / "orders" / "main.py").write_text("import os\nimport orders.stroe\n")
        (folder / "no_shebang").write_bytes(b"\0\1\2 no program")
        (folder / "bad_shebang").write_text("#!/no/such/python\n")
        for name in ("no_shebang", "bad_shebang"):
            (folder / name).chmod(0o755)

        def settle(value: Any) -> Any:
            text = str(value).replace("PLACE", str(folder)).replace("PORT", str(busy.getsockname()[1]))
            return text if isinstance(value, str) else value

        cases = {
            name: case._replace(
                script=settle(case.script),
                cause=settle(case.cause),
                options={key: settle(value) for key, value in case.options.items()},
            )
            for name, case in CASES.items()
        }
        reports = fail_all(daemon, cases, startsecs=3)
        yield {name: (reports[name], cases[name]) for name in cases}


@as_root
@pytest.mark.parametrize("name", list(CASES))
def test_cause(reports: dict[str, Any], name: str) -> None:
    check(*reports[name])


@as_root
def test_out_of_memory_by_the_kernel(own_daemon: Daemon, memory_limit: Path) -> None:
    script = f"echo $$ > {memory_limit}/cgroup.procs; exec {PYTHON} -c 'x = bytearray(10**9)'"
    case = Case(
        script, r"the kernel killed process \d+ \(python3\S*\) of eater, because its control group", r"MemoryMax"
    )
    check(fail_all(own_daemon, {"eater": case}, startsecs=5)["eater"], case)


class KilledOnce:
    """What the kernel would log if it had killed a process of each pid at a time."""

    def __init__(self, at: float) -> None:
        self.kill = host.Kill("Out of memory: Killed process 1 (python3)", at)

    def keys(self) -> KilledOnce:
        return self

    def __rand__(self, pids: set[int]) -> set[int]:
        return pids

    def __getitem__(self, pid: int) -> host.Kill:
        return self.kill


@pytest.mark.parametrize(("seconds", "cause"), [(0, "Out of memory"), (3600, "exit status 3")])
def test_a_pid_is_used_again(own_daemon: Daemon, monkeypatch, seconds: int, cause: str) -> None:
    """What an hour ago had the pid of a process that ended now is another one."""
    monkeypatch.setattr(host, "kernel_kills", lambda: KilledOnce(time.time() - seconds))
    check(fail_all(own_daemon, {"web": Case("exit 3", cause, "")}, startsecs=1)["web"], Case("", cause, ""))


@pytest.fixture(name="memory_limit")
def memory_limit_fixture() -> Iterator[Path]:
    """A control group that may use 40 MiB."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root) / f"test-causes-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / limit).exists():
                (group / limit).write_text(str(40 * 2**20))
                if not os.access("/dev/kmsg", os.R_OK):
                    pytest.skip("the kernel's log can't be read here")
                yield group
                return
        finally:
            wait_for(lambda group=group: not (group / "cgroup.procs").read_text(), "an empty group")  # type: ignore[misc]
            group.rmdir()
    pytest.skip("no control group of memory can be made here")


# --- what needs a supervisord of its own


def configured(daemon: Daemon, *lines: str) -> None:
    """More settings of [supervisord]; its files are written once."""
    daemon.write()
    daemon.config.write_text(
        daemon.config.read_text().replace("[supervisord]\n", "\n".join(["[supervisord]", *lines, ""]))
    )
    daemon.write = lambda: None  # type: ignore[method-assign]


@as_root
def test_supervisord_that_is_not_root(own_daemon: Daemon) -> None:
    folder = place(own_daemon, "place")
    shutil.copy("/bin/true", folder / "roots_own")
    (folder / "roots_own").chmod(stat.S_IRWXU)
    cases = {
        "roots_own": Case("", r"own user may not run .*/roots_own", r"as root", {"command": folder / "roots_own"}),
        "roots": Case(SERVE, r"is to run as the user root, and supervisord, which", r"remove user=", {"user": "root"}),
    }
    own_daemon.folder.chmod(0o777)
    for name, case in cases.items():
        own_daemon.program(name, case.script, startsecs=1, startretries=0, autostart="false", **case.options)
    configured(own_daemon, f"user={NOBODY}")
    own_daemon.start()
    for name in ("roots_own", "roots"):
        check(fail_all(own_daemon, {name: cases[name]})[name], cases[name])


@as_root
def test_supervisord_without_processes(own_daemon: Daemon) -> None:
    case = Case(SERVE, r"limit of processes", r"LimitNPROC")
    own_daemon.folder.chmod(0o777)
    own_daemon.program("web", SERVE, startsecs=1, startretries=0, autostart="false")
    configured(own_daemon, f"user={NOBODY}", "minprocs=1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    # No limit for root, which this is, and one for whom supervisord becomes.
    resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
    try:
        own_daemon.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    check(fail_all(own_daemon, {"web": case})["web"], case)


def test_supervisord_without_descriptors(own_daemon: Daemon) -> None:
    case = Case(SERVE, r"too many open files to start web", r"LimitNOFILE")
    own_daemon.program("web", SERVE, startsecs=1, startretries=0, autostart="false")
    own_daemon.start()
    used = len(os.listdir(f"/proc/{own_daemon.pid}/fd"))
    # One for our connection, one for the configuration file; a program needs six.
    resource.prlimit(own_daemon.pid, resource.RLIMIT_NOFILE, (used + 3, used + 3))
    check(fail_all(own_daemon, {"web": case}, startsecs=1)["web"], case)


@pytest.mark.parametrize(
    ("section", "cause", "fix"),
    [
        ("[program:x]\ncommand=true\nuser=nosuchuser", r"no user nosuchuser", r"Create the user nosuchuser"),
        ("[program:x]\ncommand=true\nuser=54321", r"no user 54321", r"Create the user 54321"),
        ("[program:x]\ncommand=true\nstdout_logfile=/no/such/log", r"directory of the log /no/such/log", r"Create"),
        ("[program:x]\ncommand=%(nosuch)s", r"option program:x.command uses a name .*nosuch", r"%%"),
        ("[program:x]\nnumprocs=1", r"\[program:x\] has no command=", r"Give it one"),
        ("[program:x]\ncommand=true\nstartsecs=soon", r"refuses its configuration: .*soon", r"Correct the file"),
    ],
)
def test_configuration(own_daemon: Daemon, section: str, cause: str, fix: str) -> None:
    own_daemon.start()
    own_daemon.extra = section
    own_daemon.write()
    with pytest.raises(SupervisorError) as caught:
        own_daemon.run("x")
    text = str(caught.value)
    assert re.search(rf"Likely cause: .*{cause}", text), text
    assert re.search(rf"Fix: .*{fix}", text), text


def test_configuration_keeps_secrets(own_daemon: Daemon) -> None:
    own_daemon.start()
    own_daemon.extra = '[program:x]\ncommand=true\nenvironment=TOKEN="s3cr3t",%(oops)s'
    own_daemon.write()
    with pytest.raises(SupervisorError, match="Likely cause") as caught:
        own_daemon.run("x")
    assert "s3cr3t" not in str(caught.value)


def test_a_brief_log_of_supervisord_has_the_last_ending(own_daemon: Daemon) -> None:
    own_daemon.program("web", "exit 3", startsecs=1, startretries=1, autostart="false")
    configured(own_daemon, "loglevel=warn")
    own_daemon.start()
    with pytest.raises(SupervisorError) as caught:
        own_daemon.run("web")
    (report,) = caught.value.details["failures"]
    assert (report["ending"], report["exit_status"]) == ("exit status 3", 3)
    (process,) = look(own_daemon.connection(), [], [], 10)["processes"]
    assert process["restarts"] is None


def test_a_stop_that_fails_has_no_cause_of_an_ending(own_daemon: Daemon) -> None:
    noise = (
        "echo \"ModuleNotFoundError: No module named 'x'\"; trap '' TERM; touch $0/ready; while :; do sleep 0.1; done"
    )
    own_daemon.program("stubborn", noise, stopwaitsecs=60)
    own_daemon.start()
    own_daemon.until_ready("stubborn")
    with pytest.raises(SupervisorError) as caught:
        own_daemon.run("stubborn", state="stopped", timeout=0.5)
    assert caught.value.details["failures"][0]["causes"] == []


def test_no_log_lines_means_no_look_into_logs(own_daemon: Daemon) -> None:
    own_daemon.program("web", "echo \"No module named 's3cr3t'\"; exit 3", startsecs=1, startretries=0)
    own_daemon.start()
    with pytest.raises(SupervisorError) as caught:
        own_daemon.run("web", log_lines=0)
    assert "It ended (exit status 3)" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


# --- which of several

IN_USE = "[ERROR] connection to ('127.0.0.1', 8000) failed: [Errno 98] Address already in use"


def causes_of(**known: Any) -> list[str]:
    return [each["cause"] for each in causes.explain(causes.Evidence(name="web", **known))]


def test_the_last_message_counts() -> None:
    old = "ModuleNotFoundError: No module named 'x'"
    new = IN_USE
    assert "Port 8000" in causes_of(logs=[[old, new]])[0]
    assert "module x" in causes_of(logs=[[new, old]])[0]


def test_an_earlier_run_of_a_server_does_not_count() -> None:
    earlier = ["[INFO] Starting gunicorn 27.0.1", IN_USE]
    assert (
        "exit status 3" in causes_of(logs=[[*earlier, "[INFO] Starting gunicorn 27.0.1"]], endings=["exit status 3"])[0]
    )


def test_a_log_of_what_was_never_started_does_not_count() -> None:
    log = ["ModuleNotFoundError: No module named 'x'"]
    assert "There is no command /x" in causes_of(logs=[log], spawn_error="can't find command '/x'")[0]
    assert "could not start it: strange" in causes_of(logs=[log], spawn_error="strange")[0]


def test_what_runs_may_have_several_causes() -> None:
    log = ["[CRITICAL] WORKER TIMEOUT (pid:7)", "OSError: [Errno 24] Too many open files", "WORKER TIMEOUT (pid:8)"]
    assert len(causes_of(logs=[log], up=True, health="503")) == 2
    assert len(causes_of(logs=[log], endings=["exit status 1"])) == 1


def test_braces_in_a_log_are_harmless() -> None:
    assert "{name}" in causes_of(logs=[["ModuleNotFoundError: No module named '{name}'"]])[0]


def test_every_rule_can_be_rendered() -> None:
    for rule in (*causes.RULES, *causes.GENERAL_RULES):
        groups = dict.fromkeys(causes._compiled(rule.pattern).groupindex, "7")
        facts = causes._facts(groups, causes.Evidence(name="web"))
        assert rule.cause.format_map(facts) and rule.fix.format_map(facts), rule
        assert rule.channel in causes.CHANNELS


# --- supervisord's log


def line(text: str) -> str:
    return f"2026-11-24 10:00:00,123 INFO {text}"


def test_restarts_are_supervisords_own() -> None:
    log = [
        line("supervisord started with pid 1"),
        line("spawned: 'web' with pid 10"),
        line("exited: web (exit status 1; not expected)"),
        line("spawned: 'web' with pid 11"),
        line("exited: web (terminated by SIGKILL; not expected)"),
        line("spawned: 'web' with pid 12"),
    ]
    history = evidence.histories("\n".join(log))["web"]
    assert (history.restarts, history.pid) == (2, 12)
    assert history.endings == ["exit status 1", "terminated by SIGKILL"]
    on_request = [*log, line("stopped: web (terminated by SIGTERM)"), line("spawned: 'web' with pid 13")]
    assert evidence.histories("\n".join(on_request))["web"].restarts == 0
    given_up = [*log, line("gave up: web entered FATAL state, too many start retries too quickly")]
    assert evidence.histories("\n".join(given_up))["web"].restarts == 2
    assert evidence.histories("\n".join([*given_up, line("spawned: 'web' with pid 14")]))["web"].restarts == 0
    assert evidence.histories("\n".join([*log, line("supervisord started with pid 2")])) == {}
