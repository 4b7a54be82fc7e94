"""Who writes a line for each request: nginx alone for what it serves, unless the user wants the server's as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import _servers
import pytest

pytestmark = pytest.mark.controller

SERVED = {"server_names": ["probe.example.com"]}
WSGI = {"interface": "wsgi"}
ALONE = {"server": "uvicorn"}
H11 = {"worker_class": "uvicorn_worker.UvicornH11Worker"}
ASGI = {"worker_class": "asgi"}
SLOT = "x-fastapi-slot"


@pytest.fixture(scope="session")
def venv() -> Path:
    return _servers.build_environment()


def asked(folder: Path, venv: Path, app: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str], str]:
    """What the probe reports after a request with a mark, the headers of that one, and the server's log at its end."""
    with _servers.Server(folder, venv, app) as server:
        server.report()
        headers, _body = server.get("/?marked")
        found = server.report()
    return found, {name.lower(): value for name, value in headers.items()}, server.log.read_text()


@pytest.mark.parametrize(
    ("app", "slot"),
    [
        ({}, "blue"),
        (H11, "blue"),
        (ALONE, "blue"),
        ({**ALONE, "uvicorn": {"http": "h11", "access_log": None}}, "blue"),
        # Gunicorn's own classes have no setting for headers.
        (ASGI, None),
        ({**WSGI, "worker_class": "sync"}, None),
        ({**WSGI, "worker_class": "gthread"}, None),
        ({**WSGI, "worker_class": "gevent"}, None),
    ],
)
def test_a_server_behind_nginx_makes_no_line_and_names_its_slot(app, slot, venv, tmp_path) -> None:
    found, headers, log = asked(tmp_path, venv, {**SERVED, **app})
    assert found["access_records"] == []
    assert "marked" not in log
    assert headers.get(SLOT) == slot


@pytest.mark.parametrize(
    "app",
    [
        {"gunicorn": {"accesslog": "-"}},
        {"gunicorn": {"access_log_format": "%(r)s"}},
        {"uvicorn": {"access_log": True}},
        {**ALONE, "uvicorn": {"access_log": "yes"}},
        {**ASGI, "gunicorn": {"access_log_format": "%(r)s"}},
        {**WSGI, "worker_class": "gthread", "gunicorn": {"accesslog": "-"}},
    ],
)
def test_who_wants_the_servers_log_has_it(app, venv, tmp_path) -> None:
    _found, _headers, log = asked(tmp_path, venv, {**SERVED, **app})
    assert log.count("/?marked") == 1, log


@pytest.mark.parametrize("app", [{"gunicorn": {"accesslog": "{folder}/own.log"}}, {"uvicorn": {"access_log": False}}])
def test_who_wants_it_elsewhere_or_not_at_all(app, venv, tmp_path) -> None:
    app = {name: {key: str(value).format(folder=tmp_path) for key, value in app[name].items()} for name in app}
    _found, _headers, log = asked(tmp_path, venv, {**SERVED, **app})
    assert "marked" not in log
    assert [path.read_text().count("/?marked") for path in tmp_path.glob("own.log")] == [1] * ("gunicorn" in app)


def test_who_says_himself_what_is_logged(venv, tmp_path) -> None:
    config = tmp_path / "log.json"
    logger = {"handlers": ["own"], "level": "INFO"}
    handlers = {"own": {"class": "logging.StreamHandler"}}
    config.write_text(json.dumps({"version": 1, "handlers": handlers, "loggers": {"uvicorn.access": logger}}))
    app = {**SERVED, **ALONE, "uvicorn": {"log_config": str(config)}}
    _found, _headers, log = asked(tmp_path, venv, app)
    assert log.count("/?marked") == 1, log


@pytest.mark.parametrize("app", [{}, ALONE, ASGI, {**WSGI, "worker_class": "gthread"}])
def test_without_nginx_the_server_writes_the_log(app, venv, tmp_path) -> None:
    _found, headers, log = asked(tmp_path, venv, app)
    assert log.count("/?marked") == 1, log
    assert SLOT not in headers


@pytest.mark.parametrize("app", [{}, ALONE])
def test_headers_of_the_users_own_stay(app, venv, tmp_path) -> None:
    _found, headers, _log = asked(tmp_path, venv, {**SERVED, **app, "uvicorn": {"headers": ["X-A: b"]}})
    assert (headers["x-a"], headers[SLOT]) == ("b", "blue")


@pytest.mark.parametrize("app", [{}, ALONE])
def test_the_app_knows_the_client_that_nginx_names(app, venv, tmp_path) -> None:
    with _servers.Server(tmp_path, venv, {**SERVED, **app}) as server:
        server.report()
        _headers, body = server.get("/", **{"X-Forwarded-For": "192.0.2.7"})
    assert b'"client": "192.0.2.7"' in body
