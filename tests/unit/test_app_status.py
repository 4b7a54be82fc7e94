"""app_status against a real supervisord, real processes and real HTTP servers."""

from __future__ import annotations

import http.server
import os
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _supervisor_daemon import (  # noqa: F401
    FAIL,
    SERVE,
    Daemon,
    daemon_fixture,
    own_daemon_fixture,
    shared_daemon_fixture,
    wait_for,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes import processes as host
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import app_status
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.rpc import (
    Connection,
    SupervisorError,
)
from test_supervisor_rpc import free_port


def look(daemon: Daemon, *names: str, health: Any = (), log_lines: int = 10) -> dict[str, Any]:
    return app_status.look(daemon.connection(), names, health, log_lines)


def by_name(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {process["name"]: process for process in result["processes"]}


def test_what_is_well(daemon: Daemon) -> None:
    daemon.program("web", "sleep 1000 & exec sleep 1000")
    daemon.program("idle", autostart="false")
    daemon.program("job", "exit 0", autorestart="false")
    daemon.start()
    daemon.until("job", "EXITED")
    result = look(daemon)
    assert (result["running"], result["state"], result["causes"], result["pid"]) == (True, "RUNNING", [], daemon.pid)
    processes = by_name(result)
    web = processes["web"]
    assert (web["state"], web["restarts"], web["health"], web["pid"]) == ("RUNNING", 0, None, daemon.pids()["web"])
    assert web["since"].endswith("Z")
    started = time.mktime(time.strptime(web["since"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert abs(time.time() - started) < 10
    assert processes["idle"]["since"] is processes["idle"]["memory"] is processes["idle"]["pid"] is None
    for process in processes.values():
        assert process["well"] is True
        assert process["causes"] == []
        assert process["log_tail"] == {"stdout": [], "stderr": []}


def test_names(daemon: Daemon) -> None:
    daemon.program("web", numprocs=2, process_name="w%(process_num)d")
    daemon.program("other")
    daemon.start()
    result = look(daemon, "web:w1", "other", "nowhere")
    assert set(by_name(result)) == {"w1", "other"}
    assert result["missing"] == ["nowhere"]


def test_what_is_not_well(daemon: Daemon) -> None:
    daemon.program("fatal", FAIL, startsecs=1, startretries=0)
    daemon.program("exited", "echo out; sleep 1.2; exit 7", startsecs=1, autorestart="false")
    daemon.program("bystander")
    daemon.start()
    daemon.until("fatal", "FATAL")
    daemon.until("exited", "EXITED")
    processes = by_name(look(daemon, log_lines=1))
    assert [name for name, process in processes.items() if not process["well"]] == ["exited", "fatal"]
    assert "exit status 3" in processes["fatal"]["causes"][0]["cause"]
    assert processes["fatal"]["log_tail"] == {"stdout": [], "stderr": ["about to fail"]}
    assert "exit status 7" in processes["exited"]["causes"][0]["cause"]
    assert by_name(look(daemon, log_lines=0))["fatal"]["log_tail"]["stderr"] == []


def test_restarts(daemon: Daemon) -> None:
    daemon.program("flaps", "echo $$ >> $0/starts; sleep 0.3", autorestart="true")
    daemon.program("retried", FAIL, startsecs=1, startretries=1)
    daemon.program("web")
    daemon.start()
    daemon.starts("flaps", 3)
    daemon.until("retried", "FATAL")
    daemon.run("web", state="restarted")
    processes = by_name(look(daemon))
    assert processes["flaps"]["restarts"] >= 2
    assert processes["retried"]["restarts"] == 1
    assert processes["web"]["restarts"] == 0
    os.kill(daemon.pids()["web"], 9)
    wait_for(lambda: by_name(look(daemon, "web"))["web"]["restarts"] == 1, "the restart")


def test_what_starts_again_and_again_is_not_well_while_it_starts(daemon: Daemon) -> None:
    """It runs for longer than startsecs each time, so that supervisord never gives it up."""
    daemon.program("loops", "echo no database >&2; sleep 1.3; exit 3", startsecs=1, autorestart="true")
    daemon.start()

    def starting() -> dict[str, Any] | None:
        found = by_name(look(daemon))["loops"]
        return found if found["state"] == "STARTING" and found["restarts"] else None

    found: list[dict[str, Any]] = []
    wait_for(lambda: found.append(seen) or True if (seen := starting()) else False, "it starts again", 20)
    assert found[0]["well"] is False
    assert "no database" in found[0]["log_tail"]["stderr"]
    assert found[0]["causes"]


def test_restarts_that_nobody_knows(own_daemon: Daemon) -> None:
    own_daemon.program("one", process_name="same")
    own_daemon.program("two", process_name="same")
    own_daemon.program("other")
    own_daemon.start()
    assert [process["restarts"] for process in look(own_daemon)["processes"]] == [None, 0, None]


def test_memory_is_that_of_the_tree(daemon: Daemon) -> None:
    eater = f"{sys.executable} -c 'x = bytearray(40 * 2**20); import time; time.sleep(1000)'"
    daemon.program("web", f"{eater} & exec {eater}")
    daemon.program("small")
    daemon.start()
    wait_for(lambda: by_name(look(daemon))["web"]["memory"] > 80 * 2**20, "memory in use")
    processes = by_name(look(daemon))
    assert processes["web"]["memory"] < 200 * 2**20
    assert processes["small"]["memory"] < 10 * 2**20


def test_two_hundred_programs_are_quick(own_daemon: Daemon) -> None:
    own_daemon.program("many", numprocs=200, process_name="p%(process_num)03d")
    own_daemon.start()
    wait_for(lambda: set(own_daemon.states().values()) == {"RUNNING"}, "200 programs", 30)
    began = time.monotonic()
    assert len(look(own_daemon)["processes"]) == 200
    assert time.monotonic() - began < 5


# --- health


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/hangs":
            time.sleep(3)
        if self.path == "/drips":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for number in range(30):
                self.wfile.write(b"X-%d: y\r\n" % number)
                time.sleep(0.1)
        self.send_response(int(self.path.strip("/")) if self.path.strip("/").isdigit() else 200)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass

    def address_string(self) -> str:
        return "somebody"


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture(name="port")
def port_fixture() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def check(url: str, **options: Any) -> app_status.HealthCheck:
    return app_status.HealthCheck(name="web", url=url, **options)


def test_probes(port: int, tmp_path: Path) -> None:
    local = f"http://127.0.0.1:{port}"
    path = tmp_path / "s.sock"
    with UnixServer(str(path), Answer) as server:  # type: ignore[arg-type]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        answers = app_status.probe_all(
            [
                check(f"{local}/health?deep=yes"),
                check(f"{local}/503"),
                check(f"{local}/204", status=204),
                check("http://localhost/health", unix_socket=str(path)),
                check(f"http://127.0.0.1:{free_port()}/"),
                check("http://localhost/", unix_socket=str(tmp_path / "none.sock")),
                check(f"{local}/hangs", timeout=0.5),
            ]
        )
        server.shutdown()
    texts = [answer.text for answer in answers]
    assert [answer.well for answer in answers] == [True, False, True, True, False, False, False]
    assert texts[0].startswith("200 in ") and texts[0].endswith(" ms")
    assert texts[1] == "503"
    assert texts[4] == "no answer in 2 s: Connection refused"
    assert texts[5] == "no answer in 2 s: No such file or directory"
    assert texts[6] == "no answer in 0.5 s: timed out"


def test_probes_are_side_by_side_and_bounded(port: int) -> None:
    began = time.monotonic()
    slow = [check(f"http://127.0.0.1:{port}/{path}", timeout=0.5) for path in ["hangs"] * 20 + ["drips"]]
    answers = app_status.probe_all(slow)
    assert time.monotonic() - began < 2
    assert {answer.text for answer in answers} == {"no answer in 0.5 s: timed out"}


def test_health_shows_what_is_not_well(daemon: Daemon, port: int) -> None:
    for name in ("good", "bad", "missing", "silent", "down"):
        daemon.program(name, autostart="false" if name == "down" else "true")
    daemon.start()
    paths = {"good": "200", "bad": "500", "missing": "404", "silent": "hangs", "down": "200"}
    health = [
        {"name": name, "url": f"http://127.0.0.1:{port}/{path}", "unix_socket": None, "timeout": 0.5}
        for name, path in paths.items()
    ]
    processes = by_name(look(daemon, health=health))
    assert [name for name, process in processes.items() if process["well"]] == ["down", "good"]
    assert processes["down"]["health"] is None
    assert "says itself that it is not well (status 500)" in processes["bad"]["causes"][0]["cause"]
    assert "no such path" in processes["missing"]["causes"][0]["cause"]
    assert "busy or blocked" in processes["silent"]["causes"][0]["cause"]


@pytest.mark.parametrize(
    ("health", "complaint"),
    [
        ({"name": "web", "url": "ftp://x/"}, "must begin with http"),
        ({"name": "web", "url": "http://x/", "timeout": 0}, "must be more than 0"),
        ({"name": ":x", "url": "http://x/"}, "is no name"),
    ],
)
def test_bad_checks(daemon: Daemon, health: dict[str, Any], complaint: str) -> None:
    daemon.start()
    with pytest.raises(SupervisorError, match=complaint):
        look(daemon, health=[health])


# --- without supervisord


def test_no_supervisord(tmp_path: Path) -> None:
    connection = Connection(server_url=f"unix://{tmp_path}/s.sock", connect_timeout=0)
    result = app_status.look(connection, ["web"], [], 10)
    assert result["running"] is False
    assert "there is no socket" in result["reason"]
    assert len(result["causes"]) == 1
    assert (result["processes"], result["missing"]) == ([], ["web"])


def test_supervisord_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.rpc.CALL_TIMEOUT", 0.5
    )
    monkeypatch.setattr(app_status.rpc.Supervisor.__init__, "__defaults__", (0.5,))
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "s.sock"))
        deaf.listen()
        result = app_status.look(Connection(server_url=f"unix://{tmp_path}/s.sock", connect_timeout=0), [], [], 10)
    assert result["running"] is False
    assert "does not answer" in result["causes"][0]["cause"]


# --- /proc


def test_strays_are_of_this_supervisord_only(own_daemon: Daemon) -> None:
    own_daemon.program("web", SERVE)
    own_daemon.start()
    # Before, it is a copy of supervisord without the mark.
    own_daemon.starts("web", 1)
    pid = own_daemon.pids()["web"]
    table = host.ProcessTable()
    assert pid not in [each for pids in table.strays(own_daemon.pid, own_daemon.url).values() for each in pids]
    # Seen from another supervisord's pid, it is one.
    assert table.strays(os.getpid() + 2**22, own_daemon.url)["web", "web"] == [pid]
    assert ("web", "web") not in table.strays(os.getpid() + 2**22, "unix:///another.sock")


def test_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        assert f" by process {os.getpid()} (" in host.holder(busy.getsockname()[1])
    assert host.holder(free_port()) == ""


def test_logs_are_not_read_of_what_is_well(daemon: Daemon) -> None:
    daemon.program("web", "echo \"No module named 'x'\"; " + SERVE)
    daemon.start()
    assert by_name(look(daemon))["web"]["causes"] == []
