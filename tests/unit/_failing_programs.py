"""Programs that fail on purpose, all of them at once under one supervisord, and why they did by our account."""

from __future__ import annotations

import pwd
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from _supervisor_daemon import Daemon
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.rpc import SupervisorError

NOBODY = pwd.getpwuid(65534).pw_name


class Case(NamedTuple):
    """How it fails, and patterns of the cause and the fix that must be reported."""

    script: str
    cause: str
    fix: str
    options: Mapping[str, Any] = {}


def fail_all(daemon: Daemon, cases: Mapping[str, Case], **options: Any) -> dict[str, dict[str, Any]]:
    """The reports of all failures, by name."""
    for name, case in cases.items():
        merged = {"startretries": 0, "autostart": "false", **options, **case.options}
        daemon.program(name, case.script, **merged)
    daemon.start()
    with pytest.raises(SupervisorError) as caught:
        daemon.run(*cases)
    return {report["name"]: {**report, "message": str(caught.value)} for report in caught.value.details["failures"]}


def check(report: Mapping[str, Any], case: Case) -> None:
    """One symptom, one cause; the message says the same."""
    (found,) = report["causes"]
    assert re.search(case.cause, found["cause"]), (found, report["stderr_tail"], report["stdout_tail"])
    assert re.search(case.fix, found["fix"]), found
    assert "{" not in found["cause"] + found["fix"]
    assert f"Likely cause: {found['cause']}\n  Fix: {found['fix']}" in report["message"]


def place(daemon: Daemon, name: str) -> Path:
    """A folder for what a case needs, which everyone may enter."""
    daemon.folder.chmod(0o755)
    folder = daemon.folder / name
    folder.mkdir(mode=0o755)
    return folder
