"""The messages about apps that cannot work."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._apps import app_problems

pytestmark = pytest.mark.controller

GOOD: dict[str, Any] = {"name": "orders", "app": "orders.main:app", "source": {"path": "/src"}}
SERVED: dict[str, Any] = {**GOOD, "server_names": ["orders.example.com"]}
NAMED: dict[str, Any] = {"server_names": ["orders.example.com"]}


def test_a_good_app_has_no_problem() -> None:
    assert app_problems([GOOD]) == []
    full = {
        **GOOD,
        "bind": "unix:/run/fastapi/orders/orders.sock",
        "workers": 4,
        "environment": {"A": 1},
        "secrets": {"B": "x"},
        "gunicorn": {"timeout": 60},
        "supervisor": {"stopwaitsecs": 60},
        "health_path": "/",
        "keep": 5,
    }
    assert app_problems([full, {**GOOD, "name": "shop"}]) == []
    slotted = {
        **GOOD,
        **NAMED,
        "drain_timeout": 60,
        "soak": {"seconds": 10, "max_failures": 2},
        "shared": {"directories": ["uploads"], "files": ["etc/local.ini"]},
        "hooks": {"after_build": ["alembic", "check"], "after_flip": __file__},
        "migrate": {"command": ["alembic", "upgrade", "head"], "irreversible": True},
    }
    assert app_problems([slotted]) == []
    assert app_problems([{**slotted, "bind": "unix:/run/fastapi/orders/live.sock"}]) == []


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"worker_clas": "asgi"}, ["app orders", "unknown variable worker_clas", "did you mean worker_class?"]),
        ({"source": {"pth": "/x"}}, ["unknown variable source.pth", "did you mean source.path?"]),
        ({"source": {"pth": "/x"}}, ["source names nothing"]),
        ({"source": {"path": "/x", "repo": "y"}}, ["source names path and repo"]),
        ({"source": {"archive": "https://x/y.tgz"}}, ["source.checksum is missing"]),
        ({"source": {"repo": "https://me:pw@x/y.git"}}, ["source.repo has a password"]),
        ({"source": {"package": "orders==1.0"}}, ["source.lock is missing"]),
        ({"source": {"package": "orders", "lock": "/x"}}, ["source.package is 'orders'", "NAME==VERSION"]),
        ({"name": "Orders"}, ["name is 'Orders'"]),
        ({"name": "nginx"}, ["an account of the system"]),
        ({"name": ""}, ["name is missing"]),
        ({"app": "orders.main"}, ["app is 'orders.main'", "MODULE:ATTRIBUTE"]),
        ({"server": "hypercorn"}, ["server", "gunicorn, uvicorn", "hypercorn"]),
        ({"workers": "lots"}, ["workers is 'lots'"]),
        ({"bind": "everywhere"}, ["bind is 'everywhere'"]),
        ({"graceful_timeout": "long"}, ["graceful_timeout", "long"]),
        ({"supervisor": {"stopwaitsecs": 10}}, ["stopwaitsecs is 10, graceful_timeout is 30"]),
        ({"environment": {"A-B": "x"}}, ["'A-B'"]),
        ({"environment": {"A": "x"}, "secrets": {"A": "y"}}, ["A is in environment and in secrets"]),
        ({"gunicorn": {"bind": "x"}}, ["gunicorn.bind", "app's own bind"]),
        ({"uvicorn": {"timeout_graceful_shutdown": 3}}, ["app's own graceful_timeout"]),
        ({"gunicorn": "timeout 30"}, ["gunicorn", "dict"]),
        ({**NAMED, "bind": "127.0.0.1:8000"}, ["bind is '127.0.0.1:8000'", "remove bind"]),
        ({**NAMED, "gunicorn": {"keepalive": 2}}, ["gunicorn.keepalive is 2", "5 s at least"]),
        ({**NAMED, "uvicorn": {"timeout_keep_alive": 1}}, ["uvicorn.timeout_keep_alive is 1"]),
        ({"soak": {"seconds": 5}}, ["soak is set, but without server_names"]),
        ({**NAMED, "soak": {"seconds": 5}, "health_path": ""}, ["health_path is empty"]),
        ({**NAMED, "soak": {"second": 5}}, ["unknown variable soak.second", "soak.seconds"]),
        ({**NAMED, "hooks": {"after_build": "tasks.yml"}}, ["hooks.after_build", "full path"]),
        ({**NAMED, "hooks": {"before": ["x"]}}, ["unknown variable hooks.before"]),
        ({**NAMED, "migrate": {"irreversible": True}}, ["migrate.command"]),
        ({**NAMED, "shared": {"files": ["../x"]}}, ["shared.files has '../x'"]),
        ({**NAMED, "proxy_url": "x"}, ["unknown variable proxy_url"]),
    ],
)
def test_a_problem_is_named(changes, fragments) -> None:
    problems = app_problems([{**GOOD, **changes}])
    assert any(all(fragment in problem for fragment in fragments) for problem in problems), problems


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"server_name": "x"}, ["unknown variable server_name", "did you mean server_names?"]),
        ({"server_names": ["https://a.example.com"]}, ["server_names has 'https://a.example.com'"]),
        ({"server_names": ["a.example.com:80"]}, ["server_names has 'a.example.com:80'"]),
        ({"server_names": ["a b"]}, ["server_names has 'a b'", "must be a host name"]),
        ({"server_names": "_"}, ["server_names has '_'"]),
        ({"server_names": ["a.*"]}, ["server_names has 'a.*'"]),
        ({"server_names": ["-a.example.com"]}, ["server_names has '-a.example.com'"]),
        ({"server_names": ["a.example.com", "A.example.com"]}, ["a.example.com is used 2 times"]),
        ({"server_names": [], "nginx": {"gzip": True}}, ["nginx is set, and server_names is not"]),
        ({"health_path": "health"}, ["health_path is 'health'"]),
        ({"tls": {"certficate": "/a"}}, ["unknown variable tls.certficate", "did you mean tls.certificate?"]),
        ({"tls": {"certificate": "/a.crt"}}, ["tls has a certificate and no key", "tls.key_content"]),
        ({"tls": {"key": "/a.key"}}, ["tls has a key and no certificate"]),
        ({"tls": {"certificate": "a.crt", "key": "/a.key"}}, ["tls.certificate is 'a.crt'", "full path"]),
        ({"tls": {"key": "/a", "key_content": "x"}}, ["tls.key and tls.key_content are set"]),
        ({"tls": {"certificate_content": "x"}}, ["tls.certificate_content is not PEM"]),
        ({"tls": {"hsts": "yes"}}, ["tls.hsts is 'yes'", "max-age="]),
        ({"tls": {"redirect": "perhaps"}}, ["redirect", "perhaps"]),
        ({"nginx": {"client_max_body_size": "10 MB"}}, ["nginx.client_max_body_size is '10 MB'"]),
        ({"nginx": {"client_max_body": "1m"}}, ["did you mean nginx.client_max_body_size?"]),
        ({"nginx": {"rate_limit": {"rate": "10/s"}}}, ["nginx.rate_limit.rate is '10/s'", "10r/s"]),
        ({"nginx": {"rate_limit": {"burst": 1}}}, ["rate"]),
        ({"nginx": {"rate_limit": {"rte": 1}}}, ["did you mean nginx.rate_limit.rate?"]),
        ({"nginx": {"static": {"static": "/x"}}}, ["nginx.static has 'static'"]),
        ({"nginx": {"static": {"/": "/x"}}}, ["nginx.static has '/'"]),
        ({"nginx": {"static": {"/static": "x"}}}, ["nginx.static[/static] is 'x'"]),
        ({"nginx": {"static": {"/static": "/x; }"}}}, ["nginx.static[/static] is '/x; }'"]),
        ({"nginx": {"proxy_connect_timeout": 0}}, ["nginx.proxy_connect_timeout is 0"]),
        ({"nginx": {"proxy_read_timeout": "long"}}, ["proxy_read_timeout", "long"]),
        ({"nginx": {"proxy_read_timeout": 20}}, ["nginx.proxy_read_timeout is 20, gunicorn.timeout is 30"]),
        (
            {"gunicorn": {"timeout": 120}, "nginx": {"proxy_read_timeout": 60}},
            ["nginx.proxy_read_timeout is 60, gunicorn.timeout is 120"],
        ),
    ],
)
def test_a_problem_with_nginx_is_named(changes, fragments) -> None:
    problems = app_problems([{**SERVED, **changes}])
    assert any(all(fragment in problem for fragment in fragments) for problem in problems), problems


def test_what_nginx_can_serve_has_no_problem() -> None:
    tls = {
        "certificate": "/etc/pki/tls/certs/a.crt",
        "key": "/etc/pki/tls/private/a.key",
        "hsts": "max-age=63072000; includeSubDomains; preload",
    }
    nginx = {
        "client_max_body_size": "1G",
        "proxy_read_timeout": 30,
        "rate_limit": {"rate": "300r/m", "burst": 5},
        "static": {"/static": "/srv/orders/static"},
        "maintenance": True,
    }
    names = ["orders.example.com", "*.orders.example.com", "xn--bcher-kva.example", "localhost", "192.0.2.1"]
    assert app_problems([{**GOOD, "server_names": names, "tls": tls, "nginx": nginx}]) == []
    assert app_problems([{**SERVED, "server": "uvicorn", "nginx": {"proxy_read_timeout": 5}}]) == []


def test_a_server_name_belongs_to_one_app() -> None:
    problems = app_problems([SERVED, {**SERVED, "name": "shop"}])
    assert any("orders.example.com is used 2 times (orders, shop)" in problem for problem in problems)


def test_all_problems_at_once() -> None:
    problems = app_problems([{**GOOD, "bind": "x", "workers": 0, "wokers": 2}, "no app", {**GOOD, "app": ""}])
    assert len(problems) == 6, problems


def test_names_and_binds_are_used_once() -> None:
    problems = app_problems([{**GOOD, "bind": "127.0.0.1:80"}, {**GOOD, "bind": "127.0.0.1:80"}])
    assert any("name orders is used by 2 apps" in problem for problem in problems)
    assert any("bind 127.0.0.1:80 is used by 2 apps" in problem for problem in problems)


def test_no_app_is_named_as_a_slot_of_another() -> None:
    problems = app_problems([{**GOOD, **NAMED}, {**GOOD, "name": "orders_blue"}])
    assert any("app orders_blue has the name of a slot" in problem for problem in problems), problems
    assert app_problems([GOOD, {**GOOD, "name": "orders_blue"}]) == []


@pytest.mark.parametrize("apps", [None, "orders", {"orders": {}}])
def test_no_list(apps) -> None:
    assert len(app_problems(apps)) == 1


def test_no_value_of_a_secret_is_shown() -> None:
    for secrets in ("hunter2", ["hunter2"], {"A": ["hunter2"]}, {"A B": "hunter2"}):
        problems = app_problems([{**GOOD, "secrets": secrets}])
        assert problems
        assert "hunter2" not in " ".join(problems)
    for key in ("hunter2", ["hunter2"], {"hunter2": 1}):
        problems = app_problems([{**SERVED, "tls": {"certificate": "/a.crt", "key_content": key}}])
        assert problems
        assert "hunter2" not in " ".join(problems)


def test_an_app_without_slots_may_have_their_defaults() -> None:
    """As the role release settles it, in whose variables a number may be text."""
    assert app_problems([{**GOOD, "drain_timeout": "30", "soak": {}, "keep": 3}]) == []
    assert "has no slots" in app_problems([{**GOOD, "drain_timeout": "31"}])[0]
