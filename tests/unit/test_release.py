"""At which stages a release comes back to the controller, and what it runs where."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._release import release_plan

MIGRATE = {"command": ["alembic", "upgrade", "head"]}


@pytest.mark.parametrize(
    ("app", "move", "stages"),
    [
        ({}, True, ["settled"]),
        ({}, False, ["settled"]),
        ({"hooks": {"after_build": ["true"], "after_flip": ["true"]}}, True, ["settled"]),
        ({"hooks": {"before_flip": "/x.yml"}}, True, ["prepared", "settled"]),
        ({"hooks": {"before_flip": "/x.yml"}}, False, ["settled"]),
        ({"hooks": {"after_flip": "/x.yml"}}, False, ["live", "settled"]),
        ({"migrate": MIGRATE}, True, ["staged", "settled"]),
        ({"migrate": MIGRATE}, False, ["settled"]),
        (
            {"migrate": MIGRATE, "hooks": {"after_build": "/x.yml", "after_drain": "/y.yml"}},
            True,
            ["staged", "settled"],
        ),
    ],
)
def test_stages(app: dict[str, Any], move: bool, stages: list[str]) -> None:
    assert release_plan(app, move)["stages"] == stages


def test_commands_and_files_of_tasks() -> None:
    hooks = {"after_build": ["make", "assets"], "before_flip": "/x.yml", "after_drain": ["true"], "after_flip": ""}
    plan = release_plan({"hooks": hooks, "migrate": MIGRATE}, True, True)
    assert plan["tasks"] == {"prepared": "/x.yml"}
    assert plan["commands"] == [
        {"name": "the hook after_build", "argv": ["make", "assets"], "stage": "staged"},
        {"name": "the hook after_drain", "argv": ["true"], "stage": "settled"},
        {"name": "the migration", "argv": MIGRATE["command"], "stage": "staged", "timeout": 600},
    ]


def test_only_the_host_that_migrates_has_the_migration() -> None:
    assert release_plan({"migrate": MIGRATE}, True)["commands"] == []
