"""The plan of a run: what is wanted, and how the differences read; molecule/plan compares it with real hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import _roles
import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files.file_set import items_of
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _app_files, _description, _plan
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._role_values import RoleValues

pytestmark = pytest.mark.controller

ROLES = ("python_venv", "supervisor", "supervisord_unit", "nginx")
AROUND = _app_files.Surroundings(cpus=2, memory_mb=4000, interpreter="/usr/bin/python3.12")
APP = {"name": "orders", "app": "orders.main:app", "source": {"path": "/src"}}
SLOTTED = {**APP, "server_names": ["orders.example.com"], "nginx": {"static": {"/static": "/srv/static"}}}
FOUND = {"before": "1c2d3e4f5a6b", "after": "1c2d3e4f5a6b", "slot": "", "texts": []}


def complete(app: dict[str, Any]) -> dict[str, Any]:
    return _description.complete(app, _description.defaults_of({}))


def values_of(role: str, **variables: Any) -> RoleValues:
    given = {
        "ansible_facts": _roles.FACTS,
        "fastapi_host_info": _roles.HOST,
        "ansible_managed": "Written.",
        **variables,
    }
    return RoleValues(role, Templar(loader=DataLoader(), variables=given), DataLoader(), given)


@pytest.mark.parametrize("role", ROLES)
def test_a_plan_reads_of_a_role_what_its_tasks_write(role: str) -> None:
    """The tasks take the same variable, which they would see with these values."""
    variables = {"fastapi_apps": [SLOTTED], "ansible_managed": "Written."}
    wanted = values_of(role, **variables).value(f"{role}_wanted")
    assert wanted == _roles.Role(role, **variables).value(f"{role}_wanted")
    assert all(item.path.startswith("/") for item in items_of(wanted))
    text = (_roles.ROLES / role / "tasks" / ("install.yml" if role == "python_venv" else "configure.yml")).read_text()
    for part in ("directories", "files"):
        assert f'{part}: "{{{{ {role}_wanted.{part} }}}}"' in text


def test_a_users_variable_goes_before_the_default_of_a_role() -> None:
    values = values_of("nginx", nginx_status_port=8009)
    (status,) = [file for file in values.value("nginx_wanted")["files"] if file["path"].endswith("fastapi-status.conf")]
    assert "listen 127.0.0.1:8009;" in status["content"]


def test_supervisor_by_pip_wants_an_environment() -> None:
    (inputs,) = values_of("supervisor", supervisor_install_method="pip").value("supervisor_wanted")["environments"]
    environment = values_of("python_venv").value("python_venv_environment", **inputs)
    assert environment["path"] == "/opt/fastapi/supervisor"
    assert environment["lock"] == "/opt/fastapi/supervisor.requirements.txt"


def test_nothing_of_a_slot_depends_on_the_release() -> None:
    first, second = (_plan.wanted_app(complete(SLOTTED), AROUND, revision, {}) for revision in ("a" * 40, "b" * 40))
    assert first["slots"] == second["slots"]
    assert first["slots"]["static"] == ["/srv/static"]


def test_an_app_in_place_has_its_release_and_the_hosts_environment_in_its_files() -> None:
    app = _plan.placed(complete({**APP, "bind": "127.0.0.1:8000"}), "/opt/fastapi", "a" * 40)
    wanted = _plan.wanted_app(app, _plan.around_for(app, AROUND), "a" * 40, {"uv": "/opt/uv"})
    place = wanted["in_place"]
    assert place["links"] == [{"path": "/opt/fastapi/apps/orders/current", "target": f"releases/{'a' * 12}"}]
    assert place["environment"]["lock"] == f"/opt/fastapi/apps/orders/releases/{'a' * 12}/app/requirements.txt"
    assert place["environment"]["uv"] == "/opt/uv"
    (run,) = [file for file in place["files"] if file["path"].endswith("/run")]
    # A token that a shell needs no quotes for, since it is replaced after they were set.
    assert "python=@build@/bin/python" in run["content"]


def host(**changes: Any) -> dict[str, Any]:
    return {**_roles.HOST, **changes}


NGINX = {"active": True, "enabled": True, "needs_reload": False}


@pytest.mark.parametrize(
    ("role", "wanted", "looked", "texts"),
    [
        ("nginx", {"packages": ["nginx"]}, host(), []),
        ("nginx", {"packages": ["nginx"]}, host(packages={}), ["package nginx: not installed"]),
        ("python_venv", {"accounts": ["build"]}, host(accounts=[]), ["account build: new"]),
        ("python_venv", {"uv": "0.13"}, host(uv=["0.12"]), ["uv 0.13: not installed"]),
        ("nginx", {}, host(nginx_closed=["firewalld: http is not open now"]), ["firewalld: http is not open now"]),
        (
            "supervisor",
            {},
            host(supervisor_existing=True),
            ["/etc/supervisord.conf: has programs that the role did not write"],
        ),
        (
            "nginx",
            {"units": ["nginx"]},
            host(units={"nginx": {"active": False, "enabled": False, "needs_reload": True}}),
            ["unit nginx: not running", "unit nginx: not enabled", "unit nginx: systemd has not read its files"],
        ),
        ("nginx", {"units": ["nginx"], "loaded_digest": "same"}, host(units={"nginx": NGINX}), []),
        (
            "nginx",
            {"units": ["nginx"], "loaded_digest": "other"},
            host(units={"nginx": NGINX}),
            ["unit nginx: runs with another configuration than the one that is wanted"],
        ),
    ],
)
def test_what_a_host_lacks(role: str, wanted: dict[str, Any], looked: dict[str, Any], texts: list[str]) -> None:
    assert _plan.role_differences(role, wanted, looked, "same") == texts


def test_supervisors_role_leaves_the_restart_to_that_of_its_unit() -> None:
    differences = {"python_venv": [], "supervisor": ["x"], "supervisord_unit": [], "nginx": []}
    assert _plan.roles_to_apply(differences, ROLES) == ["supervisor", "supervisord_unit"]
    assert _plan.roles_to_apply({"nginx": ["x"]}, ["nginx"]) == ["nginx"]
    assert _plan.roles_to_apply({}, ROLES) == []


@pytest.mark.parametrize(
    ("found", "summary"),
    [
        (
            {
                "after": "3f786850e387",
                "slot": "green",
                "texts": ["release x -> y", "/etc/fastapi/orders/blue/run: content"],
            },
            "orders: code 1c2d3e4f5a6b -> 3f786850e387, move to green",
        ),
        (
            {"before": "", "slot": "blue", "texts": ["no slot is live yet"]},
            "orders: new, code 1c2d3e4f5a6b, move to blue",
        ),
        (
            {"slot": "green", "texts": ["/etc/fastapi/orders/blue/run: content", "orders_blue is FATAL"]},
            "orders: /etc/fastapi/orders/blue/run, orders_blue is FATAL, move to green",
        ),
        (
            {"texts": [f"/etc/{number}: mode 0666 -> 0644" for number in range(6)]},
            "orders: /etc/0, /etc/1, /etc/2, /etc/3, 2 more",
        ),
    ],
)
def test_an_app_in_one_line(found: dict[str, Any], summary: str) -> None:
    assert _plan.app_summary("orders", {**FOUND, **found}) == summary


def test_an_apps_releases_take_their_environments_from_each_other() -> None:
    base = {"group": "orders"}
    role = _roles.Role(
        "release",
        fastapi_base_dir="/opt/fastapi",
        __release_app={"name": "orders", "lock": "uv.lock"},
        __release_files={"environment": base},
        __release_revision="3f786850e387550fdab836ed7e6dc881de23001b",
    )
    settings = role.value("__release_environment")
    assert settings.items() >= base.items()
    place = Path(settings["path"])
    assert place.name == "venv"
    assert place.match(settings["siblings"])
    options = _roles.Role("python_venv", python_venv_settings=settings).value("__python_venv_environment")
    task = (_roles.ROLES / "python_venv" / "tasks" / "venv.yml").read_text()
    assert options["siblings"] == settings["siblings"]
    assert "\n    siblings: " in task
