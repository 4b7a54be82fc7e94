"""What nginx serves of the apps, and the policy that lets it reach them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _description, _nginx
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._serving import ServingError

pytestmark = pytest.mark.controller

ROLE = Path(__file__).resolve().parents[2] / "roles" / "nginx"
APP: dict[str, Any] = {"name": "orders", "server_names": ["Orders.example.com"]}
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"


def server(defaults: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    (only,) = _nginx.servers(_description.complete_apps([{**APP, **changes}], defaults or {}))
    return only


def test_only_apps_with_names_are_served() -> None:
    assert _nginx.servers([{"name": "a"}, {"name": "b", "server_names": []}, APP])[0]["name"] == "orders"


def test_defaults_are_those_of_the_spec() -> None:
    found = server()
    assert found["server_names"] == ["orders.example.com"]
    assert found["upstream"] == "unix:/run/fastapi/orders/live.sock"
    assert found["health_path"] == "/health"
    assert found["tls"] == {"certificate": "", "key": "", "hsts": "", "redirect": True}
    options = _description.nginx_options()["nginx"]["options"]
    specified = {name: option["default"] for name, option in options.items() if "default" in option}
    assert specified.items() <= found["nginx"].items()


def test_values_have_their_types() -> None:
    nginx = {"proxy_read_timeout": "90", "gzip": "no", "client_max_body_size": 1024, "rate_limit": {"rate": "5r/s"}}
    found = server(nginx=nginx, server_names="a.example.com,b.example.com")
    assert found["server_names"] == ["a.example.com", "b.example.com"]
    assert found["nginx"]["proxy_read_timeout"] == 90
    assert found["nginx"]["gzip"] is False
    assert found["nginx"]["client_max_body_size"] == "1024"
    assert found["nginx"]["rate_limit"] == {"rate": "5r/s", "burst": 20}
    with pytest.raises(ServingError, match="keepalive"):
        server(nginx={"keepalive": "many"})


@pytest.mark.parametrize(
    ("bind", "upstream"),
    [
        (None, "unix:/run/fastapi/orders/live.sock"),
        ("unix:/run/fastapi/orders/orders.sock", "unix:/run/fastapi/orders/orders.sock"),
        ("0.0.0.0:8000", "127.0.0.1:8000"),
        ("[::]:8000", "[::1]:8000"),
        ("10.0.0.1:8000", "10.0.0.1:8000"),
    ],
)
def test_upstream(bind, upstream) -> None:
    assert server(bind=bind)["upstream"] == upstream


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 60),
        ({"gunicorn": {"timeout": 300}}, 300),
        ({"gunicorn": {"timeout": 0}}, 60),
        ({"server": "uvicorn", "gunicorn": {"timeout": 300}}, 60),
        ({"gunicorn": {"timeout": 300}, "nginx": {"proxy_read_timeout": 400}}, 400),
    ],
)
def test_nginx_waits_as_long_as_the_app(changes, seconds) -> None:
    assert server(**changes)["nginx"]["proxy_read_timeout"] == seconds


def test_contents_become_files_and_are_nowhere_else() -> None:
    app = {**APP, "tls": {"certificate_content": CERTIFICATE, "key_content": KEY}}
    files = _nginx.tls_files([app, {"name": "other", "tls": app["tls"]}])
    assert files == [
        {"path": "/etc/nginx/fastapi/tls/orders.crt", "content": CERTIFICATE},
        {"path": "/etc/nginx/fastapi/tls/orders.key", "secret_content": KEY + "\n", "mode": "0600"},
    ]
    assert "hunter2" not in str(_nginx.servers([app]))
    assert _nginx.tls_files([{**APP, "tls": {"certificate": "/a.crt", "key": "/a.key"}}]) == []


def test_the_health_path_is_a_location() -> None:
    assert server(health_path="/health?deep=1")["health_path"] == "/health"
    assert server(health_path="")["health_path"] == ""


def test_the_roles_defaults_are_those_of_its_spec() -> None:
    specs = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    options = specs["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
    assert defaults.pop("nginx_apps") == "{{ fastapi_apps | default([]) }}"
    assert defaults == {name: option["default"] for name, option in options.items() if "default" in option}
    assert {"nginx_apps", *defaults} == set(options)


# What the distribution's policy has of it.
POLICY = """
(class process (fork)) (class unix_stream_socket (connectto)) (class lnk_file (read getattr))
(classorder (process unix_stream_socket lnk_file))
(sid kernel) (sidorder (kernel)) (user user) (role role) (userrole user role) (roletype role httpd_t)
(type httpd_t) (type unconfined_service_t) (type httpd_var_run_t)
(sensitivity s0) (sensitivityorder (s0)) (userlevel user (s0)) (userrange user ((s0) (s0)))
(sidcontext kernel (user role httpd_t ((s0) (s0))))
"""


@pytest.mark.skipif(not shutil.which("secilc"), reason="secilc is not installed")
class TestPolicy:
    def compile(self, tmp_path: Path, *policies: str) -> subprocess.CompletedProcess[str]:
        files = []
        for number, policy in enumerate([POLICY, *policies]):
            files.append(tmp_path / f"{number}.cil")
            files[-1].write_text(policy, encoding="utf-8")
        command = ["secilc", f"--output={tmp_path}/policy", f"--filecontext={tmp_path}/contexts", *files]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_it_compiles(self, tmp_path) -> None:
        policy = (ROLE / "files" / "fastapi_nginx.cil").read_text(encoding="utf-8")
        done = self.compile(tmp_path, policy)
        assert done.returncode == 0, done.stderr
        wrong = self.compile(tmp_path, policy.replace("connectto", "connectfrom"))
        assert wrong.returncode != 0

    def test_it_allows_what_nothing_else_does(self, tmp_path) -> None:
        """A policy that forbids it is refused together with ours, by the compiler itself."""
        policy = (ROLE / "files" / "fastapi_nginx.cil").read_text(encoding="utf-8")
        for rule in ("unconfined_service_t (unix_stream_socket (connectto))", "httpd_var_run_t (lnk_file (read))"):
            forbidden = f"(neverallow httpd_t {rule})"
            assert self.compile(tmp_path, forbidden).returncode == 0
            assert "neverallow check failed" in self.compile(tmp_path, forbidden, policy).stderr
