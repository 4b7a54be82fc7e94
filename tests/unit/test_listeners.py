"""The event listeners notify and retry, under a real supervisord, with a real webhook and a real syslog socket."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from _supervisor_daemon import (  # noqa: F401
    FAIL,
    Daemon,
    daemon_fixture,
    own_daemon_fixture,
    shared_daemon_fixture,
    wait_for,
)
from test_supervisor_rpc import free_port

LISTENERS = Path(__file__).parents[2] / "roles" / "supervisor" / "files" / "listeners"
FAILURES = "PROCESS_STATE_FATAL,PROCESS_STATE_EXITED"
# At 1 second supervisord takes some for RUNNING that have ended already, since its loop is as slow.
FATAL_AT_ONCE = {"startsecs": 2, "startretries": 0}
# Serves as soon as there is a fix, and writes down when it was started.
FIXABLE = "date +%s.%N >> $0/times; [ -e $0/fix ] || exit 3; exec sleep 1000"
# What supervisord's loop may be late by.
LATE = 2.6


@pytest.fixture(name="notify", scope="module")
def notify_fixture() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(LISTENERS))
        patch.setattr(sys, "dont_write_bytecode", True)
        yield importlib.import_module("notify")


@pytest.fixture(name="protocol", scope="module")
def protocol_fixture(notify: ModuleType) -> ModuleType:
    return sys.modules["_protocol"]


class Webhook(ThreadingHTTPServer):
    """Answers with the statuses given, then with 200; a number below 100 is how many seconds it says nothing."""

    daemon_threads = True

    def __init__(self, answers: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers = answers
        self.posts: list[dict[str, Any]] = []
        self.requests: list[BaseHTTPRequestHandler] = []
        self.ending = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/s3cr3t?token=s3cr3t"

    def await_posts(self, count: int, seconds: float = 10) -> list[dict[str, Any]]:
        wait_for(lambda: len(self.posts) >= count, f"{count} posts", seconds)
        return self.posts


class Answer(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(self)
        self.server.posts.append(body)
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status < 100:
            self.server.ending.wait(status)
            return
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.requests.append(self)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


@contextlib.contextmanager
def webhook(*answers: int) -> Iterator[Webhook]:
    with Webhook(list(answers)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.ending.set()
        server.shutdown()


class Syslog:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(10)

    def receive(self) -> str:
        return self.socket.recv(4096).decode()


@pytest.fixture(name="syslog")
def syslog_fixture(daemon: Daemon) -> Iterator[Syslog]:
    path = daemon.folder / "log.sock"
    syslog = Syslog(path)
    yield syslog
    syslog.socket.close()
    path.unlink()


def listen(daemon: Daemon, script: str | Path, events: str, options: dict[str, Any] | None = None, **env: Any) -> None:
    """Put a listener into the configuration, as the role would."""
    path = LISTENERS / script
    quoted = {key: str(value).replace("%", "%%") for key, value in env.items()}
    daemon.program(
        path.stem,
        section="eventlistener",
        command=f"{sys.executable} -B {path}",
        events=events,
        environment=",".join(f'{key}="{value}"' for key, value in quoted.items()),
        stderr_logfile=log_file(daemon, path.stem),
        **(options or {}),
    )


def listen_notify(daemon: Daemon, options: dict[str, Any] | None = None, **env: Any) -> None:
    listen(daemon, "notify.py", FAILURES, options, **env)


def listen_retry(daemon: Daemon, **env: Any) -> None:
    listen(daemon, "retry.py", "PROCESS_STATE_FATAL", **env)


def log_file(daemon: Daemon, name: str) -> Path:
    # Beside its programs, so that it goes with them.
    return daemon.home(name) / "log"


def log_of(daemon: Daemon, name: str) -> str:
    file = log_file(daemon, name)
    return file.read_text() if file.exists() else ""


def until_logged(daemon: Daemon, name: str, text: str, seconds: float = 10) -> str:
    wait_for(lambda: text in log_of(daemon, name), f"{text!r} in the log of {name}", seconds)
    return log_of(daemon, name)


def supervisord_log(daemon: Daemon) -> str:
    return (daemon.folder / "s.log").read_text()


def until_times(daemon: Daemon, name: str, count: int, seconds: float = 15) -> list[float]:
    """When a FIXABLE program was started."""
    file = daemon.home(name) / "times"
    wait_for(lambda: file.exists() and file.read_text().count("\n") >= count, f"{count} starts of {name}", seconds)
    return [float(line) for line in file.read_text().split()]


def fix(daemon: Daemon, name: str) -> None:
    (daemon.home(name) / "fix").touch()


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# notify


def test_fatal_is_reported(daemon: Daemon) -> None:
    with webhook() as hook:
        listen_notify(daemon, NOTIFY_WEBHOOK=hook.url.replace("//", "//us%2Fer:pass%25word@"))
        daemon.program("broken", FAIL, **FATAL_AT_ONCE)
        daemon.start()
        daemon.until("broken", "FATAL")
        (notice,) = hook.await_posts(1, seconds=2)
    host = socket.gethostname()
    age = time.time() - time.mktime(time.strptime(notice.pop("time"), "%Y-%m-%dT%H:%M:%S+00:00")) + time.timezone
    assert -1 <= age < 5
    assert notice == {
        "host": host,
        "identifier": "supervisor",
        "group": "broken",
        "process": "broken",
        "event": "PROCESS_STATE_FATAL",
        "from_state": "BACKOFF",
        "expected": None,
        "pid": None,
        "exit_status": None,
        "reason": "Exited too quickly (process log may have details)",
        "count": 1,
        "text": f"{host}: broken ended in FATAL: Exited too quickly (process log may have details)",
    }
    (request,) = hook.requests
    assert request.path == "/hooks/s3cr3t?token=s3cr3t"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Authorization"] == "Basic dXMvZXI6cGFzcyV3b3Jk"


def test_only_unexpected_exits_are_reported(daemon: Daemon) -> None:
    with webhook() as hook:
        listen_notify(daemon, NOTIFY_WEBHOOK=hook.url)
        daemon.program("done", "exit 0", autorestart="false")
        daemon.program("stopped")
        daemon.program("one", process_name="web")
        # What supervisord's log has of these could be the other's.
        for group in ("two", "three"):
            daemon.program(group, process_name="same")
        daemon.start()
        daemon.until("done", "EXITED")
        daemon.call("stopProcess", "stopped")
        pids = daemon.pids()
        os.kill(pids["one:web"], signal.SIGKILL)
        os.kill(pids["two:same"], signal.SIGKILL)
        killed, same = sorted(hook.await_posts(2), key=lambda notice: str(notice["group"]))
        daemon.program("seven", "exit 7", autorestart="false")
        daemon.start()
        seven = hook.await_posts(3)[2]
        assert len(hook.posts) == 3
    assert (killed["group"], killed["process"], killed["pid"]) == ("one", "web", pids["one:web"])
    assert (killed["event"], killed["from_state"]) == ("PROCESS_STATE_EXITED", "RUNNING")
    assert (killed["expected"], killed["exit_status"]) == (False, None)
    assert killed["reason"] == "terminated by SIGKILL"
    assert killed["text"].endswith(": one:web exited unexpectedly: terminated by SIGKILL")
    assert (same["group"], same["process"], same["reason"]) == ("two", "same", None)
    assert same["text"].endswith(": two:same exited unexpectedly")
    assert (seven["process"], seven["exit_status"], seven["reason"]) == ("seven", 7, "exit status 7")


def test_slow_webhook_delays_nothing_else(daemon: Daemon, syslog: Syslog) -> None:
    """While it hangs supervisord gets rid of more events than its buffer has room for, and the other sink gets all."""
    names = [f"broken{number}" for number in range(5)]
    with webhook(60) as hook:
        env = {"NOTIFY_SYSLOG": "daemon", "NOTIFY_SYSLOG_SOCKET": syslog.path, "NOTIFY_WEBHOOK": hook.url}
        listen_notify(daemon, {"buffer_size": 2}, NOTIFY_TIMEOUT=60, **env)
        daemon.program("first", "exit 3", autorestart="false")
        daemon.start()
        hook.await_posts(1)
        assert "first" in syslog.receive()
        for name in names:
            daemon.program(name, "exit 3", autorestart="false")
            daemon.start()
            assert f"]: {name} exited unexpectedly: exit status 3" in syslog.receive()
        assert len(hook.posts) == 1
    assert "pool notify event buffer overflowed" not in supervisord_log(daemon)


def test_webhook_in_trouble_is_tried_again(daemon: Daemon) -> None:
    with webhook(503) as hook:
        listen_notify(daemon, NOTIFY_WEBHOOK=hook.url)
        daemon.program("broken", FAIL, **FATAL_AT_ONCE)
        daemon.start()
        first, second = hook.await_posts(2)
    assert first == second
    assert "dropped" not in log_of(daemon, "notify")


def test_hanging_webhook_is_tried_again(daemon: Daemon) -> None:
    with webhook(20) as hook:
        listen_notify(daemon, NOTIFY_WEBHOOK=hook.url, NOTIFY_TIMEOUT=0.3)
        daemon.program("broken", FAIL, **FATAL_AT_ONCE)
        daemon.start()
        first, second = hook.await_posts(2, seconds=5)
    assert first == second


@pytest.mark.parametrize("status", [404, 302])
def test_refused_report_is_dropped_at_once(daemon: Daemon, status: int) -> None:
    with webhook(status) as hook:
        listen_notify(daemon, NOTIFY_WEBHOOK=hook.url)
        daemon.program("broken", FAIL, **FATAL_AT_ONCE)
        daemon.start()
        log = until_logged(daemon, "notify", "dropped")
        assert f"webhook at 127.0.0.1: status {status}: dropped" in log
        assert "broken ended in FATAL" in log
        assert len(hook.requests) == 1
    assert "s3cr3t" not in log


def test_report_is_dropped_where_no_webhook_answers(daemon: Daemon) -> None:
    listen_notify(daemon, NOTIFY_WEBHOOK=f"http://s3cr3t:s3cr3t@127.0.0.1:{free_port()}/s3cr3t?s3cr3t")
    daemon.program("broken", FAIL, **FATAL_AT_ONCE)
    daemon.start()
    daemon.until("broken", "FATAL")
    time.sleep(1)
    # It pauses, and gives up as soon as it is to end.
    begin = time.monotonic()
    daemon.call("stopProcess", "notify")
    assert time.monotonic() - begin < 1.5
    log = log_of(daemon, "notify")
    assert "webhook at 127.0.0.1: [Errno 111] Connection refused: dropped: " in log
    assert log.count("\n") == 1
    assert "s3cr3t" not in log
    assert "stopped: notify (exit status 0)" in supervisord_log(daemon)


@pytest.mark.parametrize("answer", [b"garbage s3cr3t\r\n\r\n", b""])
def test_answer_that_is_no_http_does_not_end_it(daemon: Daemon, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        listen_notify(daemon, NOTIFY_WEBHOOK=f"http://127.0.0.1:{server.getsockname()[1]}/s3cr3t")
        daemon.program("broken", FAIL, **FATAL_AT_ONCE)
        daemon.start()
        server.settimeout(10)
        for _try in range(2):
            connection, _address = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
    daemon.call("stopProcess", "notify")
    log = until_logged(daemon, "notify", "dropped")
    assert "s3cr3t" not in log
    assert "unexpected" not in log


def test_repeats_become_one_report(daemon: Daemon) -> None:
    with webhook() as hook:
        listen_notify(daemon, NOTIFY_WEBHOOK=hook.url, NOTIFY_REPEAT=5)
        daemon.program("looping", FAIL, autorestart="true")
        daemon.start()
        first = hook.await_posts(1)[0]
        begin = time.monotonic()
        second = hook.await_posts(2)[1]
        assert time.monotonic() - begin > 4
    assert (first["count"], "times" in first["text"]) == (1, False)
    assert second["count"] > 1
    assert second["pid"] != first["pid"]
    assert f": looping exited unexpectedly {second['count']} times within 5 s, the last time: exit" in second["text"]


def test_each_is_reported_where_nothing_is_collapsed(daemon: Daemon) -> None:
    with webhook() as hook:
        listen_notify(daemon, NOTIFY_WEBHOOK=hook.url, NOTIFY_REPEAT=0)
        daemon.program("looping", "sleep 0.1; exit 4", autorestart="true")
        daemon.start()
        assert [notice["count"] for notice in hook.await_posts(3)[:3]] == [1, 1, 1]


def test_repeats_that_wait_are_reported_at_the_end(daemon: Daemon) -> None:
    with webhook() as hook:
        listen_notify(daemon, NOTIFY_WEBHOOK=hook.url)
        daemon.program("looping", FAIL, autorestart="true")
        daemon.start()
        hook.await_posts(1)
        daemon.starts("looping", 3)
        daemon.call("stopProcess", "notify")
        assert hook.await_posts(2)[1]["count"] > 0


def test_syslog(daemon: Daemon, syslog: Syslog) -> None:
    listen_notify(daemon, NOTIFY_SYSLOG="local3", NOTIFY_SYSLOG_SOCKET=syslog.path)
    daemon.program("broken", FAIL, **FATAL_AT_ONCE)
    daemon.start()
    reason = "Exited too quickly (process log may have details)"
    pid = daemon.pids()["notify"]
    # local3 is 19, err is 3.
    assert syslog.receive() == f"<155>supervisor-notify[{pid}]: broken ended in FATAL: {reason}"


def test_syslog_that_is_missing_does_not_keep_the_webhook_back(daemon: Daemon) -> None:
    with webhook() as hook:
        env = {"NOTIFY_SYSLOG": "daemon", "NOTIFY_SYSLOG_SOCKET": "/nonexistent/log", "NOTIFY_WEBHOOK": hook.url}
        listen_notify(daemon, **env)
        daemon.program("broken", FAIL, **FATAL_AT_ONCE)
        daemon.start()
        hook.await_posts(1)
    daemon.call("stopProcess", "notify")
    assert "syslog: /nonexistent/log: [Errno 2] No such file" in log_of(daemon, "notify")


def test_odd_names(own_daemon: Daemon) -> None:
    own_daemon.extra = "[supervisord]\nidentifier=rack 7: läuft len:3 server:x"
    with webhook() as hook:
        listen_notify(own_daemon, NOTIFY_WEBHOOK=hook.url)
        listen_retry(own_daemon, RETRY_FIRST_PAUSE=0.2, RETRY_PROGRAMS="größe-🐢")
        own_daemon.program("größe-🐢", FIXABLE, **FATAL_AT_ONCE)
        own_daemon.program("second", "exit 1", autorestart="false", process_name="[x].(y)*")
        own_daemon.start()
        notices = {notice["group"]: notice for notice in hook.await_posts(2)}
        until_times(own_daemon, "größe-🐢", 2)
    assert notices["größe-🐢"]["process"] == "größe-🐢"
    assert notices["größe-🐢"]["identifier"] == "rack 7: läuft len:3 server:x"
    assert notices["größe-🐢"]["reason"] == "Exited too quickly (process log may have details)"
    assert (notices["second"]["process"], notices["second"]["exit_status"]) == ("[x].(y)*", 1)
    assert "UNKNOWN" not in supervisord_log(own_daemon)


def test_full_queue_refuses(notify: ModuleType, protocol: ModuleType) -> None:
    outbox = notify.Outbox(repeat=60, limit=2)
    events = [protocol.Event("PROCESS_STATE_FATAL", "s", f"g{n}", "p", "BACKOFF", None, None) for n in range(3)]
    assert [outbox.put(event) for event in events] == [True, True, False]
    assert outbox.put(events[0]), "a repeat needs no room"
    assert outbox.take().event == events[0]
    assert outbox.put(events[2])
    outbox.close()
    assert [(report.event.group, report.times) for report in iter(outbox.take, None)] == [
        ("g1", 1),
        ("g2", 1),
        ("g0", 1),
    ]


def test_quiet_program_is_reported_at_once_again(notify: ModuleType, protocol: ModuleType) -> None:
    now = [0.0]
    outbox = notify.Outbox(repeat=60, clock=lambda: now[0])
    event = protocol.Event("PROCESS_STATE_FATAL", "s", "g", "p", "BACKOFF", None, None)
    reports = []
    for seconds, events in (
        (0, 1),
        (10, 1),
        (20, 1),
        (59, 0),
        (60, 0),
        (70, 1),
        (119, 0),
        (120, 0),
        (180, 0),
        (190, 1),
    ):
        now[0] = seconds
        for _each in range(events):
            outbox.put(event)
        # What is due joins the queue when something is taken, so behind the first of these marks, before the second.
        for mark in ("a", "b"):
            outbox.put(event._replace(group=mark, process=str(seconds)))
            while (report := outbox.take()).event.group != mark:
                if report.event.group == "g":
                    reports.append((seconds, report.times))
    assert reports == [(0, 1), (60, 2), (120, 1), (190, 1)]


# Both


@pytest.mark.parametrize(
    ("payload", "group", "process", "expected", "pid"),
    [
        ("processname:a groupname:b from_state:RUNNING expected:0 pid:12", "b", "a", False, 12),
        ("processname:a groupname:b from_state:RUNNING expected:1 pid:12", "b", "a", True, 12),
        ("processname:a b:c groupname:d : e from_state:BACKOFF", "d : e", "a b:c", None, None),
        ("processname:a groupname: from_state:RUNNING pid:7 new tries:x", "", "a", None, 7),
    ],
)
def test_parse(
    protocol: ModuleType, payload: str, group: str, process: str, expected: bool | None, pid: int | None
) -> None:
    header = "ver:3.0 server:my own: host serial:21 pool:notify poolserial:10 eventname:PROCESS_STATE_EXITED len:9"
    event = protocol.parse(header, payload)
    assert (event.name, event.identifier) == ("PROCESS_STATE_EXITED", "my own: host")
    assert (event.group, event.process, event.expected, event.pid) == (group, process, expected, pid)


def test_error_and_other_events_are_acknowledged(daemon: Daemon) -> None:
    """A listener whose handler fails each time still gets each event once, also those it can't read."""
    script = daemon.home("failing") / "failing.py"
    script.parent.mkdir(parents=True)
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(LISTENERS)!r})\nfrom _protocol import log, run, serve\n"
        "def handle(event):\n    raise RuntimeError(event.process + '-' + event.name)\nrun(lambda: serve(handle))\n"
    )
    listen(daemon, script, "PROCESS_STATE_FATAL,REMOTE_COMMUNICATION,PROCESS_STATE_RUNNING")
    daemon.start()
    daemon.program("broken", FAIL, **FATAL_AT_ONCE)
    daemon.start()
    daemon.call("sendRemoteCommEvent", "größe", "zwei\nZeilen ver: größer")
    until_logged(daemon, "failing", "RuntimeError: broken-PROCESS_STATE_FATAL")
    daemon.program("later")
    daemon.start()
    log = until_logged(daemon, "failing", "RuntimeError: later-PROCESS_STATE_RUNNING")
    assert log.count("RuntimeError: broken-PROCESS_STATE_FATAL") == 1


def test_both_end_with_supervisord(own_daemon: Daemon) -> None:
    with webhook(20) as hook:
        listen_notify(own_daemon, NOTIFY_WEBHOOK=hook.url)
        listen_retry(own_daemon)
        own_daemon.program("broken", FAIL, **FATAL_AT_ONCE)
        own_daemon.start()
        # One waits for its webhook, one for its pause.
        hook.await_posts(1)
        until_logged(own_daemon, "retry", "retry in")
        pids = own_daemon.pids()
        assert own_daemon.process
        own_daemon.process.kill()
        own_daemon.process.wait()
        wait_for(lambda: has_ended(pids["notify"]) and has_ended(pids["retry"]), "end of the listeners", seconds=1)


def test_both_end_at_term(daemon: Daemon) -> None:
    with webhook(20) as hook:
        listen_notify(daemon, NOTIFY_WEBHOOK=hook.url)
        listen_retry(daemon)
        daemon.program("broken", FAIL, **FATAL_AT_ONCE)
        daemon.start()
        hook.await_posts(1)
        until_logged(daemon, "retry", "retry in")
        already = len(supervisord_log(daemon))
        for name in ("notify", "retry"):
            begin = time.monotonic()
            daemon.call("stopProcess", name)
            assert time.monotonic() - begin < 1.8
            assert f"stopped: {name} (exit status 0)" in supervisord_log(daemon)[already:]


@pytest.mark.parametrize(
    ("script", "env", "message"),
    [
        ("notify.py", {}, "neither NOTIFY_WEBHOOK nor NOTIFY_SYSLOG is set"),
        ("notify.py", {"NOTIFY_WEBHOOK": "ftp://s3cr3t/s3cr3t"}, "NOTIFY_WEBHOOK is no URL"),
        ("notify.py", {"NOTIFY_WEBHOOK": "http://host:s3cr3t/"}, "NOTIFY_WEBHOOK is no URL"),
        ("notify.py", {"NOTIFY_WEBHOOK": "http://[s3cr3t/"}, "NOTIFY_WEBHOOK is no URL"),
        ("notify.py", {"NOTIFY_WEBHOOK": "http://host/s3cr3t space"}, "NOTIFY_WEBHOOK is no URL"),
        ("notify.py", {"NOTIFY_SYSLOG": "loca1"}, "NOTIFY_SYSLOG is 'loca1': it must be one of"),
        ("notify.py", {"NOTIFY_SYSLOG": "user", "NOTIFY_TIMEOUT": "soon"}, "NOTIFY_TIMEOUT is 'soon': it must be"),
        ("notify.py", {"NOTIFY_SYSLOG": "user", "NOTIFY_REPEAT": "nan"}, "NOTIFY_REPEAT is 'nan': it must be"),
        ("retry.py", {}, "SUPERVISOR_SERVER_URL is not set"),
        ("retry.py", {"SUPERVISOR_SERVER_URL": "x", "RETRY_FIRST_PAUSE": "0"}, "RETRY_FIRST_PAUSE is '0': it must be"),
        (
            "retry.py",
            {"SUPERVISOR_SERVER_URL": "x", "RETRY_FIRST_PAUSE": "9", "RETRY_LONGEST_PAUSE": "8"},
            "RETRY_LONGEST_PAUSE is 8: it must be at least RETRY_FIRST_PAUSE, 9",
        ),
    ],
)
def test_wrong_settings_are_refused(script: str, env: dict[str, str], message: str) -> None:
    command = [sys.executable, "-B", str(LISTENERS / script)]
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "s3cr3t" not in done.stderr


# retry


def test_retries_with_growing_pauses_until_it_runs(daemon: Daemon) -> None:
    listen_retry(daemon, RETRY_FIRST_PAUSE=0.5, RETRY_LONGEST_PAUSE=2)
    daemon.program("web", FIXABLE, **FATAL_AT_ONCE)
    daemon.start()
    times = until_times(daemon, "web", 5)
    for number, pause in enumerate((0.5, 1, 2, 2)):
        assert pause <= times[number + 1] - times[number] <= pause + LATE, times
    assert re.findall(r"retry in (\S+) s", log_of(daemon, "retry"))[:4] == ["0.5", "1", "2", "2"]
    fix(daemon, "web")
    until_times(daemon, "web", 6)
    daemon.until("web", "RUNNING")
    # It begins from the first pause, but only after it ran for a while.
    until_logged(daemon, "retry", "web is RUNNING: nothing to retry")
    (daemon.home("web") / "fix").unlink()
    os.kill(daemon.pids()["web"], signal.SIGKILL)
    until_times(daemon, "web", 8)
    assert log_of(daemon, "retry").count("retry in 0.5 s") == 2


def test_program_that_soon_fails_again_is_not_started_sooner(daemon: Daemon) -> None:
    """It runs for longer than startsecs each time, but not as long as the pause."""
    listen_retry(daemon, RETRY_FIRST_PAUSE=3)
    daemon.program("web", FIXABLE, **FATAL_AT_ONCE)
    daemon.start()
    until_logged(daemon, "retry", "retry in 3 s")
    fix(daemon, "web")
    daemon.until("web", "RUNNING")
    (daemon.home("web") / "fix").unlink()
    os.kill(daemon.pids()["web"], signal.SIGKILL)
    until_logged(daemon, "retry", "retry in 6 s")
    assert "nothing to retry" not in log_of(daemon, "retry")


@pytest.mark.parametrize(
    ("state", "start", "stop", "settled"),
    [
        ("RUNNING", 90, 0, True),
        ("RUNNING", 91, 90, False),
        ("EXITED", 80, 90, True),
        ("EXITED", 80, 91, False),
        ("STARTING", 80, 80, False),
        ("BACKOFF", 80, 80, False),
    ],
)
def test_settled(notify: ModuleType, state: str, start: int, stop: int, settled: bool) -> None:
    retry = importlib.import_module("retry")
    assert retry.is_settled({"statename": state, "start": start, "stop": stop, "now": 100}, 10) is settled


def test_gives_way_to_the_operator(daemon: Daemon) -> None:
    listen_retry(daemon, RETRY_FIRST_PAUSE=3)
    for name in ("stopped", "removed", "left"):
        daemon.program(name, FIXABLE, **FATAL_AT_ONCE)
    daemon.start()
    for name in ("stopped", "removed", "left"):
        until_logged(daemon, "retry", f"{name} is FATAL: retry in 3 s")
        fix(daemon, name)
    daemon.call("startProcess", "stopped", False)
    until_times(daemon, "stopped", 2)
    daemon.call("stopProcess", "stopped")
    daemon.call("removeProcessGroup", "removed")
    daemon.until("left", "RUNNING")
    until_logged(daemon, "retry", "stopped is STOPPED: nothing to retry")
    until_logged(daemon, "retry", "removed can't be looked at: BAD_NAME: removed:removed: nothing to retry")
    time.sleep(1)
    assert daemon.states() == {"retry": "RUNNING", "stopped": "STOPPED", "left": "RUNNING"}
    assert [len(until_times(daemon, name, 1)) for name in ("stopped", "removed", "left")] == [2, 1, 2]


def test_stop_of_a_retry_ends_the_retries(daemon: Daemon) -> None:
    listen_retry(daemon, RETRY_FIRST_PAUSE=1)
    daemon.program("web", FIXABLE, startsecs=60, startretries=0)
    daemon.start()
    until_logged(daemon, "retry", "retry in 1 s")
    fix(daemon, "web")
    daemon.until("web", "STARTING")
    until_times(daemon, "web", 2)
    daemon.call("stopProcess", "web")
    until_logged(daemon, "retry", "web is STOPPED: nothing to retry")
    assert len(until_times(daemon, "web", 2)) == 2


def test_retries_only_what_is_listed(daemon: Daemon) -> None:
    listen_retry(daemon, RETRY_FIRST_PAUSE=0.2, RETRY_PROGRAMS="group, pool:b")
    pool = {"numprocs": 2, "numprocs_start": 10, "process_name": "%(process_num)x", **FATAL_AT_ONCE}
    daemon.program("pool", f"printf '%s ' $SUPERVISOR_PROCESS_NAME >> $0/names; {FIXABLE}", **pool)
    daemon.program("group", FIXABLE, **FATAL_AT_ONCE)
    daemon.program("other", FIXABLE, **FATAL_AT_ONCE)
    daemon.start()
    until_times(daemon, "group", 3)
    until_times(daemon, "pool", 4)
    names = (daemon.home("pool") / "names").read_text().split()
    assert names.count("a") == 1
    assert names.count("b") >= 3
    assert len(until_times(daemon, "other", 1)) == 1


def test_retries_what_was_fatal_before(daemon: Daemon) -> None:
    daemon.program("web", FIXABLE, **FATAL_AT_ONCE)
    daemon.start()
    daemon.until("web", "FATAL")
    listen_retry(daemon, RETRY_FIRST_PAUSE=0.2)
    daemon.start()
    until_times(daemon, "web", 2)


def test_retries_what_could_not_even_be_executed(daemon: Daemon) -> None:
    """supervisord refuses to start it, and sends no event."""
    listen_retry(daemon, RETRY_FIRST_PAUSE=0.2, RETRY_LONGEST_PAUSE=0.5)
    program = daemon.home("web") / "program"
    daemon.program("web", command=program, **FATAL_AT_ONCE)
    daemon.start()
    until_logged(daemon, "retry", "start failed: NO_FILE")
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    daemon.until("web", "RUNNING")


def test_retries_where_supervisord_wants_a_password(own_daemon: Daemon) -> None:
    own_daemon.login = {"username": "ops", "password": "s3cr3t"}
    own_daemon.server += "username=ops\npassword=s3cr3t\n"
    login = {"SUPERVISOR_USERNAME": "ops", "SUPERVISOR_PASSWORD": "s3cr3t"}
    listen_retry(own_daemon, RETRY_FIRST_PAUSE=0.2, **login)
    own_daemon.program("web", FIXABLE, **FATAL_AT_ONCE)
    own_daemon.start()
    until_times(own_daemon, "web", 2)


def test_password_that_is_wrong_is_reported_and_survived(own_daemon: Daemon) -> None:
    own_daemon.login = {"username": "ops", "password": "s3cr3t"}
    own_daemon.server += "username=ops\npassword=s3cr3t\n"
    listen_retry(own_daemon, RETRY_FIRST_PAUSE=0.2)
    own_daemon.program("web", FIXABLE, **FATAL_AT_ONCE)
    own_daemon.start()
    log = until_logged(own_daemon, "retry", "web: supervisord doesn't answer")
    assert "401 Unauthorized" in log
    assert own_daemon.states()["retry"] == "RUNNING"
