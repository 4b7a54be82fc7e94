"""What somebody else has nginx serve: what of it a run would end or share, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._host import nginx_existing as existing
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots import proof
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._nginx import servers
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._nginx_conflicts import nginx_conflicts

PROJECT = Path(__file__).resolve().parents[2]
ROLE = PROJECT / "roles" / "nginx"
PACKAGES = """
user nginx;
include /usr/share/nginx/modules/*.conf;
events { worker_connections 1024; }
http {
    log_format main '$remote_addr "$request" {';
    include             /etc/nginx/mime.types;
    include FOLDER/conf.d/*.conf;
    server {
        listen       80;
        listen       [::]:80;
        server_name  _;
        root         /usr/share/nginx/html;
        # Load configuration files for the default server block.
        include FOLDER/default.d/*.conf;
        error_page 404 /404.html;
        location = /404.html {
        }
    }
    # server { server_name example.com; }
    MORE
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("conf.d", "default.d"):
        (tmp_path / name).mkdir()
    return tmp_path


def found(folder: Path, text: str, more: str = "") -> list[str]:
    (folder / "nginx.conf").write_text(text.replace("FOLDER", str(folder)).replace("MORE", more))
    return existing.existing(str(folder))


def test_no_nginx_serves_nothing(tmp_path: Path) -> None:
    assert existing.existing(str(tmp_path)) == []
    assert existing.other_servers(str(tmp_path)) == []


def test_the_packages_page_may_go(folder: Path) -> None:
    assert found(folder, PACKAGES) == []


def test_the_roles_file_serves_nothing_itself(folder: Path) -> None:
    template = (ROLE / "templates" / "nginx.conf.j2").read_text()
    assert found(folder, re.sub(r"{{.*?}}", "x", template.partition("\n")[2])) == []


@pytest.mark.parametrize(
    ("more", "lost"),
    [
        ("server { listen 80; server_name A.example.com b; }", ["server a.example.com b"]),
        ("server { listen 81; root /srv; }", ["server without a name"]),
        ("server { server_name _; root /usr/share/nginx/html; location / { return 200; } }", ["server _"]),
        ("upstream back { server 127.0.0.1:1; }", ["upstream back"]),
        ("} stream { server { listen 53; }", ["stream"]),
        ("include sites/*; include nothing/*;", ["include sites/*"]),
    ],
)
def test_what_would_be_lost_is_named(folder: Path, more: str, lost: list[str]) -> None:
    (folder / "sites").mkdir()
    (folder / "sites" / "a").write_text("")
    assert found(folder, PACKAGES, more) == lost


def test_locations_of_the_packages_page_count(folder: Path) -> None:
    (folder / "default.d" / "app.conf").write_text("location /app { }")
    assert found(folder, PACKAGES) == [f"include {folder}/default.d/*.conf"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a \"b c\" 'd;e' f\\ g;", [["a", "b c", "d;e", "f\\ g"]]),
        ("a ${b}c; d $e; # f;\ng;", [["a", "${b}c"], ["d", "$e"], ["g"]]),
        ('a b"c;', [["a", 'b"c']]),
        ("} a;", [["a"]]),
        ("a", []),
    ],
)
def test_the_syntax(text: str, words: list[list[str]]) -> None:
    assert [directive.words for directive in existing.parse(text)] == words


@pytest.mark.parametrize(
    ("listen", "ports"),
    [
        ("", [80]),
        ("listen 8080;", [8080]),
        ("listen 80; listen [::]:443 ssl;", [80, 443]),
        ("listen 192.0.2.1:80;", [80]),
        ("listen localhost;", [80]),
        ("listen [::1];", [80]),
        ("listen unix:/run/x.sock;", []),
    ],
)
def test_servers_of_others(folder: Path, listen: str, ports: list[int]) -> None:
    (folder / "conf.d" / "legacy.conf").write_text(f"server {{ {listen} server_name Orders.example.com; }}")
    (folder / "conf.d" / "fastapi.conf").write_text("server { server_name mine.example.com; }")
    assert existing.other_servers(str(folder)) == [
        {"file": f"{folder}/conf.d/legacy.conf", "names": ["orders.example.com"], "ports": ports}
    ]


def other(*names: str, ports: tuple[int, ...] = (80,)) -> list[dict[str, Any]]:
    return [{"file": "/etc/nginx/conf.d/legacy.conf", "names": list(names), "ports": list(ports)}]


ORDERS = {"name": "orders", "server_names": ["orders.example.com", "*.eu.example.com"]}
TLS = {"certificate": "/c", "key": "/k"}


@pytest.mark.parametrize(
    ("others", "tls", "problems"),
    [
        (other("orders.example.com"), {}, 1),
        (other("orders.example.com", ports=(80, 443)), TLS, 2),
        (other("orders.example.com", ports=(443, 8080)), {}, 0),
        (other("other.example.com"), {}, 0),
        (other(".eu.example.com"), {}, 1),
        (other("_"), {}, 1),
        (other(), {}, 1),
        (other(ports=(8080,)), {}, 0),
    ],
)
def test_a_name_that_two_servers_have(others: list[dict[str, Any]], tls: dict[str, str], problems: int) -> None:
    lines = nginx_conflicts(others, servers([{**ORDERS, "tls": tls}]))
    assert len(lines) == problems
    assert all("/etc/nginx/conf.d/legacy.conf" in line for line in lines)


# --- the check of a candidate

DUMP = """\
# configuration file {stage}/etc/nginx/nginx.conf:
http { include conf.d/*.conf; }
# configuration file {stage}/etc/nginx/conf.d/fastapi.conf:
server { listen 80; server_name orders.example.com *.eu.example.com; }
# configuration file /srv/sites/legacy:
# server_name down.example.com;
server { listen 80; server_name Orders.example.com
    x.example.com; }
# configuration file {stage}/etc/nginx/conf.d/a.conf:
server { server_name x.example.com; }
"""
WARNING = 'nginx: [warn] conflicting server name "{name}" on 0.0.0.0:80, ignored\n'


def check(tmp_path: Path, messages: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    stage = str(tmp_path / "stage")
    (tmp_path / "out").write_text(DUMP.replace("{stage}", stage))
    (tmp_path / "err").write_text(messages)
    (tmp_path / "nginx").write_text(f"#!/bin/sh\ncat {tmp_path}/out; cat {tmp_path}/err >&2; exit {status}\n")
    (tmp_path / "nginx").chmod(0o755)
    return subprocess.run(
        [sys.executable, "-c", (ROLE / "files" / "check.py").read_text(), stage],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_good_candidate_passes_in_silence(tmp_path: Path) -> None:
    done = check(tmp_path, "nginx: configuration file is ok\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_nginx_refuses_is_shown(tmp_path: Path) -> None:
    done = check(tmp_path, "nginx: [emerg] unexpected end of file\n", 1)
    assert done.returncode == 1
    assert "[emerg] unexpected end of file" in done.stdout


def test_a_shared_name_fails_and_names_the_other_file(tmp_path: Path) -> None:
    done = check(tmp_path, WARNING.format(name="orders.example.com"))
    assert done.returncode == 1
    assert (
        "error: server_name orders.example.com on 0.0.0.0:80: an app has it, and so has /srv/sites/legacy"
        in done.stdout
    )


def test_a_name_that_two_others_share_is_only_shown(tmp_path: Path) -> None:
    done = check(tmp_path, WARNING.format(name="x.example.com"))
    assert (done.returncode, done.stdout) == (0, WARNING.format(name="x.example.com"))


# --- the proof of where requests go


def test_a_proof() -> None:
    sent, path = proof.number(), "/run/fastapi/orders/live.sock"
    good = f"{sent} fastapi_probe-orders unix:{path}"
    assert re.fullmatch("[0-9a-f]{32}", sent)
    assert proof.problem(good, sent, "orders", path) == ""
    assert proof.problem(f"{sent} fastapi_probe-orders unix:/x, unix:{path}", sent, "orders", path) == ""
    for answer, cause in [
        ("", "another server"),
        (good.replace(sent, proof.number()), "another request"),
        (good.replace("probe-orders", "probe-orders-2"), "(orders-2)"),
        (f"{good}.old", "older configuration"),
        (f"{sent}  ", "(none)"),
    ]:
        assert cause in proof.problem(answer, sent, "orders", path)
