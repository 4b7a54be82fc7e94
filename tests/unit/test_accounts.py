"""The accounts of apps, as far as the controller can judge them; what it refuses is in corpus/invalid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import _roles
import pytest
import yaml
from ansible_collections.asgiops.fastapi_host.plugins.action import check_variables
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _preflight

pytestmark = pytest.mark.controller

CASES = yaml.safe_load((Path(__file__).parent / "corpus" / "valid" / "accounts.yml").read_text(encoding="utf-8"))


def problems(apps: list[dict[str, Any]], **variables: Any) -> list[str]:
    good = {"name": "orders", "app": "orders.main:app", "source": {"path": "/src"}}
    whole = [{**good, "bind": f"127.0.0.1:{8001 + number}", **app} for number, app in enumerate(apps)]
    variables["fastapi_apps"] = whole
    return _preflight.problems(variables, variables, check_variables.ROLES)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["title"].replace(" ", "-")) for case in CASES])
def test_accepted(case) -> None:
    assert problems(case["apps"], **case.get("vars", {})) == []


def test_an_app_that_is_listed_twice_shares_with_nobody() -> None:
    (problem,) = problems([{}, {}])
    assert "name orders is used by 2 apps" in problem


def test_the_home_of_an_app_is_its_own_with_any_account() -> None:
    app = {"name": "orders", "app": "a:b", "user": "webapps", "server_names": ["o.example.com"]}
    files = {file["path"]: file for file in _roles.app_files(app)["files"]}
    assert "HOME=/var/lib/fastapi/orders\n" in files["environment"]["secret_content"]
    launch = json.loads(files["launch.json"]["content"])
    assert launch["user"] == "webapps" and "/var/lib/fastapi/orders" in launch["writable"]
