"""What is found out about a host, from programs that print what the real ones print."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._host import info as _host_info
from ansible_collections.asgiops.fastapi_host.plugins.modules import host_info

ROLES = Path(__file__).resolve().parents[2] / "roles"

UNITS = """Id=firewalld.service
ActiveState=inactive
UnitFileState=
NeedDaemonReload=no

Id=nginx.service
ActiveState=active
UnitFileState=enabled
NeedDaemonReload=yes

Id=supervisord.service
ActiveState=activating
UnitFileState=disabled
NeedDaemonReload=no
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def write(name: str, says: str, status: int = 0) -> None:
        (tmp_path / f"{name}.txt").write_text(says)
        (tmp_path / name).write_text(f"#!/bin/sh\ncat {tmp_path}/{name}.txt; exit {status}\n")
        (tmp_path / name).chmod(0o755)

    return write


def test_packages_that_are_missing_are_left_out(program: Any) -> None:
    # rpm's status is the number of those that are missing.
    program("rpm", "nginx\t1.20.1\npackage supervisor is not installed\npython3.12\t3.12.4\n", 1)
    assert _host_info.packages() == {"nginx": "1.20.1", "python3.12": "3.12.4"}


def test_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_host_info, "ACCOUNTS", ("no-such-account", "nobody"))
    assert _host_info.accounts() == ["nobody"]


def test_units(program: Any) -> None:
    program("systemctl", UNITS)
    found = _host_info.units()
    assert found["nginx"] == _host_info.Unit(active=True, enabled=True, needs_reload=True)
    assert found["supervisord"] == found["firewalld"] == _host_info.Unit()


def test_nothing_is_there_where_nothing_can_be_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _host_info.packages() == {}
    assert set(_host_info.units().values()) == {_host_info.Unit()}
    assert _host_info.uv_releases(str(tmp_path)) == []
    assert _host_info.nginx_configuration(1) == ""


def test_cpus_and_memory() -> None:
    assert _host_info.cpus() == int(subprocess.run(["nproc"], check=True, stdout=subprocess.PIPE).stdout)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    assert abs(_host_info.memory_mb() - pages) <= 1


def test_releases_of_uv(tmp_path: Path) -> None:
    for release in ("0.13.9", "0.12.0"):
        (tmp_path / "uv" / release / "bin").mkdir(parents=True)
    (tmp_path / "uv" / "0.13.9" / "bin" / "uv").write_text("")
    assert _host_info.uv_releases(str(tmp_path)) == ["0.13.9"]


@pytest.fixture
def nginx() -> Iterator[Any]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.server.says)  # type: ignore[attr-defined]

        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("says", "configuration"), [(b"configuration:0a1b\n", "0a1b"), (b"<html>another server's</html>", ""), (b"", "")]
)
def test_configuration_that_nginx_has_read(nginx: Any, says: bytes, configuration: str) -> None:
    nginx.says = says
    assert _host_info.nginx_configuration(nginx.server_port) == configuration


def test_ports_that_are_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as closed:
        port, free = taken.getsockname()[1], closed.getsockname()[1]
        closed.close()
        (text,) = _host_info.ports_taken([free, port])
    assert text.startswith(f"port {port} by process {os.getpid()} (")


def test_the_port_is_the_roles() -> None:
    module = yaml.safe_load(host_info.DOCUMENTATION)["options"]["nginx_status_port"]
    role = yaml.safe_load((ROLES / "nginx" / "defaults" / "main.yml").read_text())
    assert module["default"] == role["nginx_status_port"]
