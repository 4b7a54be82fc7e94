"""Variables that cannot work: each set of the corpus is refused, for its reason and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.asgiops.fastapi_host.plugins.action import check_variables
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _preflight

pytestmark = pytest.mark.controller

CORPUS = Path(__file__).parent / "corpus" / "invalid"
ACCEPTED = yaml.safe_load((CORPUS.parent / "valid" / "accepted.yml").read_text(encoding="utf-8"))
GOOD: dict[str, Any] = {"name": "orders", "app": "orders.main:app", "source": {"path": "/src"}}


def cases() -> list[Any]:
    found = []
    for file in sorted(CORPUS.glob("*.yml")):
        for number, case in enumerate(yaml.safe_load(file.read_text(encoding="utf-8")), start=1):
            found.append(pytest.param(case, id=f"{file.stem}-{number}"))
    return found


def variables_of(case: dict[str, Any]) -> dict[str, Any]:
    apps = case.get("apps") or [case.get("app") or {}]
    return {"fastapi_apps": [{**GOOD, **app} for app in apps], **case.get("vars", {})}


def problems(variables: dict[str, Any]) -> list[str]:
    return _preflight.problems(variables, variables, check_variables.ROLES)


def test_the_corpus_is_large() -> None:
    assert len(cases()) >= 120


def test_what_all_sets_have_in_common_is_right() -> None:
    assert problems(variables_of({})) == []


@pytest.mark.parametrize("case", cases())
def test_refused(case) -> None:
    found = problems(variables_of(case))
    assert any(case["variable"] in problem and case["reason"] in problem for problem in found), found
    assert len(found) == case.get("count", 1), found
    assert "hunter2" not in str(found)
    assert "s3cr3t" not in str(found)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["title"].replace(" ", "-")) for case in ACCEPTED])
def test_accepted(case) -> None:
    assert problems(variables_of(case)) == []


def test_a_secret_too_short_to_hide_is_warned_of() -> None:
    variables = {
        "fastapi_apps": [{**GOOD, "secrets": {"PIN": "1234", "KEY": "hunter2", "NONE": ""}}],
        "supervisor_programs": [{"name": "a", "command": "/bin/x", "secrets": {"B": 5}}],
        "python_venv_credentials": [{"host": "h", "username": "u", "password": "pw"}],
        "supervisor_unix_http_server": {"username": "ops", "password": "ops"},
    }
    found = _preflight.warnings(variables, variables, check_variables.ROLES)
    assert [warning.partition(" has ")[0] for warning in found] == [
        "app orders: secrets.PIN",
        "supervisor_programs a: secrets.B",
        "supervisor_unix_http_server: password",
        "python_venv_credentials[0].password",
    ]
    assert "4 characters" in found[0]
    assert "1234" not in str(found)


def test_a_name_beside_a_family_of_ours_is_warned_of() -> None:
    names = ["supervisor_socket_mode", "nginx_worker_rlimit", "release_to", "gunicorn_uvicorn_rendered"]
    found = _preflight.warnings({}, names, check_variables.ROLES)
    assert [warning.partition(";")[2] for warning in found] == [" did you mean supervisor_socket_group?"]


def test_messages_are_lines_that_steer_no_terminal() -> None:
    odd = "a\x1b[2J\nb\u202e"
    app = {**GOOD, "name": odd, odd: odd, "user": odd, "environment": {odd: odd}, "gunicorn": {odd: 1}}
    variables = {"fastapi_apps": [app], "nginx_security_headers": {odd: odd}, "supervisord_unit_sandbox": {odd: odd}}
    found = problems(variables)
    assert len(found) > 6
    assert all(problem.isprintable() for problem in found), found
    assert all(problem.isprintable() for problem in _preflight.warnings(variables, variables, check_variables.ROLES))
