"""One merge: what an app is, from its own keys, the variables of the roles and their defaults."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from _roles import Role
from ansible_collections.asgiops.fastapi_host.plugins.action import check_variables
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _description, _preflight

pytestmark = pytest.mark.controller

APP: dict[str, Any] = {"name": "orders", "app": "orders.main:app", "source": {"path": "/srv/orders"}}
SLOTTED = {**APP, "server_names": ["orders.example.com"]}


def described(app: dict[str, Any], **variables: Any) -> dict[str, Any]:
    return _description.complete(app, _description.defaults_of(variables))


def test_the_apps_own_keys_go_before_variables_and_these_before_defaults() -> None:
    app = described({**APP, "keep": 7}, release_keep=5, gunicorn_uvicorn_workers=4)
    assert (app["keep"], app["workers"], app["health_path"]) == (7, 4, "/health")


def test_mappings_are_merged_key_by_key() -> None:
    app = described(
        {**SLOTTED, "migrate": {"irreversible": True}, "environment": {"A": "own"}},
        release_migrate={"command": ["bin/alembic", "upgrade", "head"]},
        gunicorn_uvicorn_environment={"A": "all", "B": "all"},
    )
    assert app["migrate"] == {"command": ["bin/alembic", "upgrade", "head"], "irreversible": True}
    assert app["environment"] == {"A": "own", "B": "all"}


def test_lists_are_replaced() -> None:
    assert described({**APP, "extras": ["a"]}, gunicorn_uvicorn_extras=["b"])["extras"] == ["a"]


def test_an_app_with_names_listens_on_sockets_of_its_own() -> None:
    assert described(SLOTTED, gunicorn_uvicorn_bind="127.0.0.1:9000")["bind"] == "unix:/run/fastapi/orders/live.sock"
    assert described({**SLOTTED, "bind": "127.0.0.1:9001"})["bind"] == "127.0.0.1:9001"
    assert described(APP, gunicorn_uvicorn_bind="127.0.0.1:9000")["bind"] == "127.0.0.1:9000"


def test_an_app_without_names_has_nothing_of_slots_and_nginx() -> None:
    app = described(APP, release_drain_timeout=50, nginx_defaults={"tls": {"hsts": "max-age=5"}})
    assert not {*_description.SLOTTED_KEYS, "tls", "nginx"} & set(app)
    assert app["server_names"] == []


def test_a_certificate_is_replaced_with_its_key() -> None:
    defaults = {
        "tls": {"certificate": "/wild.crt", "key": "/wild.key", "hsts": "max-age=5"},
        "nginx": {"gzip": False, "keepalive": 4},
    }
    before = copy.deepcopy(defaults)
    assert described(SLOTTED, nginx_defaults=defaults)["tls"] == defaults["tls"]
    given = {"certificate_content": "a certificate", "key_content": "a key"}
    own = described({**SLOTTED, "tls": given}, nginx_defaults=defaults)
    assert own["tls"] == {**given, "hsts": "max-age=5"}
    assert own["nginx"] == {"gzip": False, "keepalive": 4}
    assert defaults == before


@pytest.mark.parametrize("role", ["release", "gunicorn_uvicorn"])
def test_each_role_has_a_variable_for_the_name(role: str) -> None:
    found = Role(role, **{f"{role}_name": "orders"})
    assert found.template("{{ (query('asgiops.fastapi_host.complete_apps', [{}]) | first).name }}") == "orders"


@pytest.mark.parametrize(
    ("role", "settings", "name"),
    [
        ("release", "release_settings", "__release_app"),
        ("gunicorn_uvicorn", "gunicorn_uvicorn_settings", "__gunicorn_uvicorn_complete"),
    ],
)
def test_roles_and_check_read_the_same(role: str, settings: str, name: str) -> None:
    variables: dict[str, Any] = {
        "release_migrate": {"command": ["true"]},
        "gunicorn_uvicorn_gunicorn": {"timeout": 120},
        "nginx_defaults": {"nginx": {"static": {"/static": "/opt/fastapi/apps/orders/current/app/static"}}},
    }
    app = {**SLOTTED, "migrate": {"irreversible": True}, "gunicorn": {"keepalive": 90}}
    lookup = "query('asgiops.fastapi_host.complete_apps', [" + settings + "]) | first"
    found = Role(role, **{settings: app}, **variables).template("{{ " + lookup + " }}")
    for key, value in described(app, **variables).items():
        # The defaults of a role are templates of its own, such as the home of what it installs.
        assert found[key] == value, key


def test_what_follows_from_a_variable_of_another_role() -> None:
    """Each read the app by itself before, and missed what was set for all apps."""
    variables = {
        "fastapi_apps": [SLOTTED],
        "gunicorn_uvicorn_gunicorn": {"timeout": 120},
        "gunicorn_uvicorn_health_path": "/up",
        "gunicorn_uvicorn_supervisor": {"stopwaitsecs": 400},
        "gunicorn_uvicorn_secrets": {"KEY": "hunter2hunter2"},
    }
    nginx = Role("nginx", **variables)
    (server,) = nginx.template("{{ __nginx_apps | asgiops.fastapi_host.nginx_servers }}")
    assert (server["nginx"]["proxy_read_timeout"], server["health_path"]) == (120, "/up")
    assert Role("supervisord_unit", **variables).value("__supervisord_unit_stop_budget") == 830
    secrets = "{{ query('asgiops.fastapi_host.complete_apps', fastapi_apps) | asgiops.fastapi_host.app_secrets }}"
    assert nginx.template(secrets) == ["hunter2hunter2"]


def test_the_check_looks_at_an_app_with_the_defaults_of_nginx() -> None:
    variables = {
        "fastapi_apps": [{**SLOTTED, "gunicorn": {"timeout": 300}}],
        "nginx_defaults": {"nginx": {"proxy_read_timeout": 100}},
    }
    (problem,) = _preflight.problems(variables, list(variables), check_variables.ROLES)
    assert "nginx.proxy_read_timeout is 100, gunicorn.timeout is 300" in problem


def test_one_problem_of_the_defaults_is_reported_once() -> None:
    variables = {"fastapi_apps": [SLOTTED], "nginx_defaults": {"tls": {"hsts": "for ever"}}}
    (problem,) = _preflight.problems(variables, list(variables), check_variables.ROLES)
    assert problem.startswith("nginx_defaults.tls.hsts is 'for ever'")
