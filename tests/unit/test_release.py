"""At which stages a release comes back to the controller, and what it runs where."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._release import release_plan

MIGRATE = {"command": ["alembic", "upgrade", "head"]}


@pytest.mark.parametrize(
    ("app", "move", "stages"),
    [
        ({}, True, ["finalize"]),
        ({}, False, ["finalize"]),
        ({"hooks": {"after_build": ["true"], "after_flip": ["true"]}}, True, ["finalize"]),
        ({"hooks": {"before_flip": "/x.yml"}}, True, ["start", "finalize"]),
        ({"hooks": {"before_flip": "/x.yml"}}, False, ["finalize"]),
        ({"hooks": {"after_flip": "/x.yml"}}, False, ["promote", "finalize"]),
        ({"migrate": MIGRATE}, True, ["configure", "finalize"]),
        ({"migrate": MIGRATE}, False, ["finalize"]),
        (
            {"migrate": MIGRATE, "hooks": {"after_build": "/x.yml", "after_drain": "/y.yml"}},
            True,
            ["configure", "finalize"],
        ),
    ],
)
def test_stages(app: dict[str, Any], move: bool, stages: list[str]) -> None:
    assert release_plan(app, move)["stages"] == stages


def test_commands_and_files_of_tasks() -> None:
    hooks = {"after_build": ["make", "assets"], "before_flip": "/x.yml", "after_drain": ["true"], "after_flip": ""}
    plan = release_plan({"hooks": hooks, "migrate": MIGRATE}, True, True)
    assert plan["tasks"] == {"start": "/x.yml"}
    assert plan["commands"] == [
        {"name": "the hook after_build", "argv": ["make", "assets"], "stage": "configure"},
        {"name": "the hook after_drain", "argv": ["true"], "stage": "finalize"},
        {"name": "the migration", "argv": MIGRATE["command"], "stage": "configure", "timeout": 600},
    ]


def test_only_the_host_that_migrates_has_the_migration() -> None:
    assert release_plan({"migrate": MIGRATE}, True)["commands"] == []
