"""Reaching supervisord, and the messages when it cannot be reached."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _supervisor_daemon import IGNORE_TERM, Daemon, daemon_fixture, own_daemon_fixture, shared_daemon_fixture  # noqa: F401
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import rpc
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.process import Request, run
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.status import gather

CHECKOUT = Path(__file__).resolve().parents[2]
MODULE = CHECKOUT / "plugins/modules/supervisor_process.py"


def refusal(url: str, **options: Any) -> rpc.SupervisorError:
    with pytest.raises(rpc.SupervisorError) as caught:
        rpc.connect(rpc.Connection(**{"server_url": url, "connect_timeout": 0, **options}))
    return caught.value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_no_socket(tmp_path: Path) -> None:
    began = time.monotonic()
    error = refusal(f"unix://{tmp_path}/s.sock", connect_timeout=0.5)
    assert isinstance(error, rpc.NotRunning)
    assert f"there is no socket {tmp_path}/s.sock" in str(error)
    assert "waited 0.5 s" in str(error)
    assert 0.2 < time.monotonic() - began < 3


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "s.sock"))
    port = free_port()
    for url in (f"unix://{tmp_path}/s.sock", f"http://127.0.0.1:{port}"):
        error = refusal(url)
        assert isinstance(error, rpc.NotRunning)
        assert "connection refused" in str(error)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lose rights to test them")
def test_permission_denied(own_daemon: Daemon) -> None:
    own_daemon.start()
    own_daemon.folder.chmod(0o755)
    os.seteuid(65534)
    try:
        error = refusal(own_daemon.url)
    finally:
        os.seteuid(0)
    assert "user id 65534" in str(error)
    assert "become" in str(error)


@pytest.mark.parametrize("inet", [False, True])
def test_passwords(own_daemon: Daemon, inet: bool) -> None:
    if inet:
        port = free_port()
        own_daemon.url = f"http://127.0.0.1:{port}"
        own_daemon.server = f"[inet_http_server]\nport=127.0.0.1:{port}"
    own_daemon.server += "\nusername=ops\npassword=hunter2:ü\n"
    own_daemon.login = {"username": "ops", "password": "hunter2:ü"}
    own_daemon.program("web")
    own_daemon.start()
    assert own_daemon.states() == {"web": "RUNNING"}
    missing = refusal(own_daemon.url)
    assert "asks for a user name and a password" in str(missing)
    wrong = refusal(own_daemon.url, username="ops", password="hunter3")
    assert "refused the user name ops" in str(wrong)
    assert "hunter" not in str(wrong) + repr(own_daemon.connection())


def test_shutting_down(own_daemon: Daemon) -> None:
    own_daemon.program("stubborn", IGNORE_TERM, stopwaitsecs=60)
    own_daemon.start()
    own_daemon.until_ready("stubborn")
    own_daemon.call("shutdown")
    error = refusal(own_daemon.url)
    assert isinstance(error, rpc.ShuttingDown)
    assert "is shutting down or restarting" in str(error)


def test_a_restart_is_waited_for(own_daemon: Daemon) -> None:
    own_daemon.program("web", IGNORE_TERM, stopwaitsecs=1)
    own_daemon.start()
    own_daemon.until_ready("web")
    own_daemon.call("restart")
    assert isinstance(refusal(own_daemon.url), rpc.ShuttingDown)
    assert rpc.connect(own_daemon.connection()).call("getState")["statename"] == "RUNNING"


def test_a_start_is_waited_for(own_daemon: Daemon) -> None:
    threading.Timer(0.5, own_daemon.start, [False]).start()
    assert rpc.connect(own_daemon.connection()).call("getState")["statename"] == "RUNNING"


def test_no_rpc_interface(own_daemon: Daemon) -> None:
    own_daemon.start(wait=False)
    config = own_daemon.config.read_text().replace("[rpcinterface:supervisor]", "[rpcinterface:other]")
    own_daemon.kill()
    own_daemon.config.write_text(config)
    own_daemon.write = lambda: None  # type: ignore[method-assign]
    own_daemon.start(wait=False)
    assert "[rpcinterface:supervisor]" in str(refusal(own_daemon.url, connect_timeout=10))


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("https://localhost:9001", "https://localhost:9001"),
        ("/run/s.sock", "/run/s.sock"),
        ("unix://run/s.sock", "absolute"),
        ("http://localhost", "a port"),
        ("http://localhost:99999", "99999"),
        ("http://localhost:9001/other", "nothing else"),
        ("http://no-such-host.invalid:9001", "no-such-host.invalid"),
        (f"unix:///{'x' * 200}", "too long"),
    ],
)
def test_unknown_urls(url: str, named: str) -> None:
    error = refusal(url)
    assert "server_url" in str(error)
    assert named in str(error)


def test_a_login_in_the_url_is_not_repeated() -> None:
    error = refusal("http://ops:hunter2@localhost:9001")
    assert "username and password" in str(error)
    assert "hunter2" not in str(error)


@pytest.fixture
def website() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda *_args: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_something_else_than_supervisord(website: str) -> None:
    error = refusal(website)
    assert "HTTP 501" in str(error)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"SSH-2.0-OpenSSH\r\n", rpc.SupervisorError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhey!", rpc.SupervisorError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<?xml", rpc.ConnectionLost),
        (b"", rpc.ConnectionLost),
        (None, rpc.NoAnswer),
    ],
)
def test_odd_answers(answer: bytes | None, kind: type[rpc.SupervisorError]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        supervisor = rpc.Supervisor(
            rpc.Connection(server_url=f"http://127.0.0.1:{listener.getsockname()[1]}"), call_timeout=0.2
        )

        def serve() -> None:
            client, _address = listener.accept()
            with client:
                client.recv(65536)
                if answer is None:
                    time.sleep(0.4)
                else:
                    client.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(kind) as caught:
            supervisor.call("getState")
        server.join()
    assert "127.0.0.1" in str(caught.value)


def test_a_check_on_a_fresh_host(own_daemon: Daemon) -> None:
    for state, expected in [
        ("present", {"added": ["web"], "started": []}),
        ("started", {"added": ["web"], "started": ["web"]}),
        ("restarted", {"added": ["web"], "started": ["web"]}),
        ("signalled", {"signalled": ["web"]}),
    ]:
        result = own_daemon.run("web", state=state, signal="HUP", check=True)
        assert result["changed"]
        assert {key: result[key] for key in expected} == expected
        assert "supervisord is not there yet" in result["warnings"][0]
        assert result["diff"]["before"] != result["diff"]["after"]
    for state in ("stopped", "absent"):
        result = own_daemon.run("web", state=state, check=True)
        assert not result["changed"]
        assert result["diff"]["before"] == result["diff"]["after"]
    with pytest.raises(rpc.NotRunning):
        run(own_daemon.connection(connect_timeout=0), Request(["web"], state="stopped"), check_mode=False)


def test_negative_numbers(daemon: Daemon) -> None:
    for option in ("timeout", "log_lines"):
        with pytest.raises(rpc.SupervisorError, match=f"{option} -1"):
            daemon.run("web", **{option: -1})
    with pytest.raises(rpc.SupervisorError, match="log_lines -1"):
        gather(daemon.connection(), [], -1)
    with pytest.raises(rpc.SupervisorError, match="connect_timeout -1"):
        gather(daemon.connection(connect_timeout=-1), [], 0)


def run_module(module: Path, options: dict[str, Any], tmp_path: Path) -> tuple[dict[str, Any], str]:
    arguments = tmp_path / "arguments.json"
    arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": options}))
    done = subprocess.run(
        [sys.executable, str(module), str(arguments)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / ".cache/collections")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return json.loads(done.stdout), done.stdout + done.stderr


def test_the_modules_themselves(own_daemon: Daemon, tmp_path: Path) -> None:
    own_daemon.server += "username=ops\npassword=hunter2\n"
    own_daemon.login = {"username": "ops", "password": "hunter2"}
    own_daemon.program("web", autostart="false")
    own_daemon.start()
    login = {"server_url": own_daemon.url, **own_daemon.login}
    result, output = run_module(MODULE, {**login, "names": ["web"], "_ansible_diff": True}, tmp_path)
    assert result["changed"]
    assert result["started"] == ["web"]
    assert result["diff"]["after"] == "web: RUNNING (started)\n"
    assert "hunter2" not in output
    result, output = run_module(MODULE, {**login, "password": "hunter3", "names": ["web"]}, tmp_path)
    assert result["failed"]
    assert "HTTP 401" in result["msg"]
    assert "hunter" not in output
    info, output = run_module(MODULE.with_name("supervisor_info.py"), login, tmp_path)
    assert info["running"]
    assert not info["changed"]
    assert info["processes"][0]["state"] == "RUNNING"
    assert "hunter2" not in output
