"""Variables that cannot work: each set of the corpus is refused, for its reason and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.asgiops.fastapi_host.plugins.action import check_variables
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _preflight

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
