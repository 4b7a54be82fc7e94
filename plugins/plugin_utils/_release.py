# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release does at which stage of the module release_slot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The stages that fill the idle slot, and those that make it the only one.
FILLING = ("configure", "start")
SETTLING = ("promote", "finalize")
# At whose end a hook belongs.
HOOKS = {"configure": "after_build", "start": "before_flip", "promote": "after_flip", "finalize": "after_drain"}
MIGRATION_TIMEOUT = 600


def release_plan(app: Mapping[str, Any], move: bool, migrates: bool = False) -> dict[str, Any]:
    """The stages that are a call of their own, the commands of all stages, and the files of tasks.

    A run comes back to the controller for a file of tasks, and once migrated, so that other hosts know of it.
    """
    hooks, migrate = app.get("hooks") or {}, app.get("migrate") or {}
    given = {stage: hooks[name] for stage, name in HOOKS.items() if hooks.get(name)}
    tasks = {stage: hook for stage, hook in given.items() if isinstance(hook, str)}
    commands: list[dict[str, Any]] = [
        {"name": f"the hook {HOOKS[stage]}", "argv": hook, "stage": stage}
        for stage, hook in given.items()
        if stage not in tasks
    ]
    if migrates:
        timeout = migrate.get("timeout", MIGRATION_TIMEOUT)
        commands.append({"name": "the migration", "argv": migrate["command"], "stage": "configure", "timeout": timeout})
    stops = {*tasks, "finalize", *(["configure"] if migrate.get("command") else [])}
    stages = [stage for stage in (*(FILLING if move else ()), *SETTLING) if stage in stops]
    return {"stages": stages, "commands": commands, "tasks": tasks}
