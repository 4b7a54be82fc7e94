"""Where supervisord listens: the sections as supervisor reads them, and a supervisord that runs with them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _roles
import pytest
from _supervisor_daemon import find_supervisord, wait_for
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import rpc
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _supervisor_servers as servers
from hypothesis import given, settings
from hypothesis import strategies as st
from supervisor.options import ClientOptions, ServerOptions
from test_supervisor_rpc import free_port

pytestmark = pytest.mark.controller

UNIX = {"file": "/run/supervisor/s.sock", "username": "ops", "password": "hunter2"}
INET = {"port": "127.0.0.1:9001", "username": "web", "password": "hunter3"}


def problems(**variables: Any) -> list[str]:
    return list(servers.server_problems(variables))


def sha(password: str) -> str:
    return "{SHA}" + hashlib.sha1(password.encode()).hexdigest()


def read_back(folder: Path, variables: dict[str, Any]) -> tuple[list[dict[str, Any]], ClientOptions]:
    """What supervisord and supervisorctl read."""
    config = folder / "supervisord.conf"
    sections = [servers.supervisor_servers(variables, kind) for kind in servers.VARIABLES]
    client = f"[supervisorctl]\n{servers.supervisor_client(variables)}"
    # supervisor expands %(here)s in all sections once there is an include.
    text = "\n".join(["[supervisord]", *sections, client, "[include]", f"files={folder}/*.ini"])
    config.write_text(text, encoding="utf-8")
    server, ctl = ServerOptions(), ClientOptions()
    server.realize(["-n", "-c", str(config)])
    ctl.realize(["-c", str(config), "status"])
    return server.server_configs, ctl


def test_without_variables(tmp_path) -> None:
    assert problems() == []
    (server,), ctl = read_back(tmp_path, {})
    assert (server["file"], server["username"], server["chmod"]) == (servers.SOCKET, None, 0o700)
    assert (ctl.serverurl, ctl.username, ctl.password) == (f"unix://{servers.SOCKET}", None, None)
    assert servers.supervisor_login({}) == {}


def test_all_of_them(tmp_path) -> None:
    variables = {
        "unix_http_server": {**UNIX, "chmod": "0770", "chown": "root:root"},
        "unix_http_servers": [{"name": "a", "file": "/run/a", "username": "a", "password": sha("x")}],
        "inet_http_server": INET,
        "inet_http_servers": [{**INET, "name": "b", "port": "0.0.0.0:9002", "public": True}],
        "supervisorctl": {"prompt": "ops", "history_file": "%(here)s/history"},
    }
    assert problems(**variables) == []
    found, ctl = read_back(tmp_path, variables)
    sections = {each["section"]: each for each in found}
    assert list(sections) == [
        f"{kind}{name}" for kind, name in [("inet_http_server", ""), ("inet_http_server", ":b")]
    ] + [
        "unix_http_server",
        "unix_http_server:a",
    ]
    main = sections["unix_http_server"]
    assert (main["file"], main["password"], main["chmod"]) == (UNIX["file"], sha("hunter2"), 0o770)
    assert sections["unix_http_server:a"]["password"] == sha("x")
    assert sections["inet_http_server:b"]["host"] == "0.0.0.0"
    assert (ctl.serverurl, ctl.username, ctl.password) == (f"unix://{UNIX['file']}", "ops", "hunter2")
    assert (ctl.prompt, ctl.history_file) == ("ops", f"{tmp_path}/history")


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ({"serverurl": "http://127.0.0.1:9001"}, ("http://127.0.0.1:9001", "web", "hunter3")),
        ({"serverurl": "http://127.0.0.1:9001/"}, ("http://127.0.0.1:9001", "web", "hunter3")),
        ({"serverurl": "http://localhost:9002", "password": "hunter4"}, ("http://localhost:9002", "web", "hunter4")),
        ({"serverurl": "unix:///run/open"}, ("unix:///run/open", None, None)),
        ({"username": "ops", "password": "hunter2"}, (f"unix://{UNIX['file']}", "ops", "hunter2")),
    ],
)
def test_supervisorctl_goes_to_any_of_them(tmp_path, client, expected) -> None:
    second = {"name": "b", "port": "*:9002", "username": "web", "password": sha("hunter4"), "public": True}
    variables = {
        "unix_http_server": UNIX,
        "unix_http_servers": [{"name": "open", "file": "/run/open"}],
        "inet_http_server": INET,
        "inet_http_servers": [second],
        "supervisorctl": client,
    }
    assert problems(**variables) == []
    _servers, ctl = read_back(tmp_path, variables)
    assert (ctl.serverurl, ctl.username, ctl.password) == expected


@settings(max_examples=150, deadline=None)
@given(username=st.text(min_size=1, max_size=12), password=st.text(min_size=1, max_size=12))
def test_any_login_arrives_or_is_refused(username, password) -> None:
    variables = {"unix_http_server": {"username": username, "password": password}}
    if problems(**variables):
        return
    with tempfile.TemporaryDirectory() as folder:
        (server,), ctl = read_back(Path(folder), variables)
    assert (server["username"], server["password"]) == (username, sha(password))
    assert (ctl.username, ctl.password) == (username, password)


@pytest.mark.parametrize("text", ["50%", "%(here)s x", "a;b#c", ";", "#", 'it\'s "so"', "grün 🐟", "{SHA", "="])
def test_hard_passwords_are_fine(tmp_path, text) -> None:
    variables = {"unix_http_server": {"username": "ops", "password": text}}
    assert problems(**variables) == []
    assert read_back(tmp_path, variables)[1].password == text


def test_the_longest_path() -> None:
    longest = "/run/".ljust(99, "x")
    assert problems(unix_http_server={"file": longest}) == []
    assert len(problems(unix_http_server={"file": longest + "x"})) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"password": ""}, "password is missing"),
        ({"username": None}, "username is missing"),
        ({"username": "a:b"}, "username holds ':'"),
        ({"password": "{SHA}123"}, "40 lower-case hexadecimal digits"),
        ({"port": "9001"}, "port is '9001': it must be HOST:PORT"),
        ({"port": "*:9001"}, "port is '*:9001', which other hosts reach"),
        ({"port": "0.0.0.0:9001"}, "set public to true"),
        ({"port": "[::1]:9001"}, "supervisor knows no IPv6"),
        ({"port": "127.0.0.1:90010"}, "port is '127.0.0.1:90010'"),
    ],
)
def test_refused_ports(changes, reason) -> None:
    for variable, found in [
        ("inet_http_server", problems(inet_http_server={**INET, **changes})),
        ("inet_http_servers[0]", problems(inet_http_servers=[{**INET, "name": "b", **changes}])),
    ]:
        assert len(found) == 1
        assert found[0].startswith(f"supervisor_{variable}: ")
        assert reason in found[0]
        assert "hunter" not in found[0]


def test_ports_that_are_fine() -> None:
    for changes in ({}, {"port": "localhost:9001"}, {"port": "0.0.0.0:9001", "public": True}):
        assert problems(inet_http_server={**INET, **changes}) == []


def test_secrets() -> None:
    lists = {"programs": [{"name": "a", "secrets": {"KEY": "s3cr3t", "EMPTY": ""}}], "event_listeners": [{"name": "b"}]}
    variables = {"unix_http_server": {**UNIX, "password": "50%"}, "inet_http_server": INET}
    found = servers.supervisor_secrets(lists, variables)
    assert found == ["s3cr3t", "50%", sha("50%"), "hunter3", sha("hunter3"), "50%%"]
    assert servers.supervisor_password(sha("x")) == sha("x")


# --- one that runs


@pytest.fixture(name="folder")
def folder_fixture() -> Iterator[Path]:
    """Not below tmp_path: a Unix socket's path has 107 characters at most."""
    folder = Path(tempfile.mkdtemp(prefix="servers-"))
    yield folder
    shutil.rmtree(folder)


def test_a_supervisord_with_all_of_them(folder) -> None:
    """Each lets in who may, supervisorctl gets in by itself, and the role's own listener can start a FATAL program."""
    port = free_port()
    fails_once = {
        "name": "once",
        "command": f"/bin/sh -c 'test -e {folder}/failed && exec sleep 1000; touch {folder}/failed; exit 1'",
        "startretries": 0,
        "startsecs": 1,
    }
    role = _roles.Role(
        "supervisor",
        supervisor_unix_http_server={"file": f"{folder}/main.sock", "username": "ops", "password": "hunter2 50%"},
        supervisor_unix_http_servers=[{"name": "more", "file": f"{folder}/more.sock", "chmod": "0750"}],
        supervisor_inet_http_servers=[{**INET, "name": "web", "port": f"127.0.0.1:{port}"}],
        supervisor_logfile=f"{folder}/s.log",
        supervisor_pidfile=f"{folder}/s.pid",
        supervisor_programs=[fails_once],
        supervisor_retry_fatal=True,
        supervisor_retry_first_pause=1,
        __supervisor_python=sys.executable,
        __supervisor_listeners_dir=str(_roles.ROLES / "supervisor" / "files" / "listeners"),
    )
    config = folder / "s.conf"
    main = role.render("supervisord.conf.j2").replace("/etc/supervisord.d/", f"{folder}/")
    config.write_text(main, encoding="utf-8")
    programs = role.render("programs.ini.j2").replace("/var/log/supervisor/", f"{folder}/")
    (folder / "programs.ini").write_text(programs, encoding="utf-8")
    (folder / "inet.ini").write_text(role.render("inet_http_server.ini.j2"), encoding="utf-8")
    process = subprocess.Popen(
        [find_supervisord(), "--nodaemon", "--configuration", config],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_for(lambda: (folder / "more.sock").exists() or process.poll() is not None, "sockets")
        assert process.poll() is None, (folder / "s.log").read_text()
        ctl = [Path(find_supervisord()).with_name("supervisorctl"), "-c", config, "pid"]
        done = subprocess.run(ctl, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(process.pid)
        places: list[dict[str, Any]] = [
            {"config": str(config)},
            {"server_url": f"unix://{folder}/more.sock"},
            {"server_url": f"http://127.0.0.1:{port}", "username": "web", "password": "hunter3"},
        ]
        for place in places:
            server = rpc.connect(rpc.Connection(**place))
            assert server.call("getPID") == process.pid
            server.close()
        for url in (f"unix://{folder}/main.sock", f"http://127.0.0.1:{port}"):
            with pytest.raises(rpc.SupervisorError, match="asks for a user name and a password"):
                rpc.connect(rpc.Connection(server_url=url))
        assert (folder / "more.sock").stat().st_mode & 0o777 == 0o750
        server = rpc.connect(rpc.Connection(config=str(config)))
        wait_for(lambda: server.call("getProcessInfo", "once")["statename"] == "RUNNING", "a second start", 15)
    finally:
        process.terminate()
        process.wait(30)
