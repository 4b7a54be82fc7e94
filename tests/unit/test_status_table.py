"""The filters of the playbook status."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.asgiops.fastapi_host.plugins.filter.status import FilterModule

pytestmark = pytest.mark.controller

FILTERS = FilterModule().filters()
DEFAULTS: dict[str, Any] = {"bind": "127.0.0.1:8000", "health_path": "/health", "health_status": 200}


def process(**facts: Any) -> dict[str, Any]:
    well = {
        "group": "orders",
        "name": "orders",
        "state": "RUNNING",
        "since": "2026-11-24T08:15:00Z",
        "pid": 4711,
        "memory": 183500800,
        "restarts": 0,
        "health": "200 in 3 ms",
        "well": True,
        "spawn_error": None,
        "logfiles": {"stdout": "/var/log/x.log", "stderr": None},
        "causes": [],
        "log_tail": {"stdout": [], "stderr": []},
    }
    return {**well, **facts}


def result(*processes: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {
        "running": True,
        "reason": None,
        "causes": [],
        "log_tail": [],
        "missing": [],
        "processes": processes,
        **facts,
    }


def table(**hosts: Any) -> list[str]:
    return list(FILTERS["status_table"](hosts))


def test_aligned() -> None:
    idle = process(
        group="mailer", name="m_00", state="STOPPED", since=None, pid=None, memory=None, restarts=None, health=None
    )
    assert table(a=result(process()), longer_name=result(idle)) == [
        "host         app     process  state    since (UTC)          pid   memory   restarts  health",
        "a            orders  orders   RUNNING  2026-11-24 08:15:00  4711  175 MiB  0         200 in 3 ms",
        "longer_name  mailer  m_00     STOPPED  -                    -     -        -         -",
    ]


def test_what_is_not_well_is_explained() -> None:
    failed = process(
        state="FATAL",
        well=False,
        health=None,
        spawn_error="Exited too quickly",
        causes=[{"cause": "Because.", "fix": "Do."}],
        log_tail={"stdout": ["one", "two"], "stderr": []},
    )
    assert table(a=result(process(name="w1"), failed))[3:] == [
        "",
        "a: orders: FATAL; Exited too quickly",
        "  Likely cause: Because.",
        "  Fix: Do.",
        "  The end of its stdout log /var/log/x.log:",
        "    one",
        "    two",
    ]


def test_hosts_without_anything() -> None:
    down = result(running=False, reason="no socket", causes=[{"cause": "C.", "fix": "D."}], log_tail=["last words"])
    lines = table(a=down, b=result(), c=result(missing=["web:w0", "x"]))
    assert [line.split()[1:4] for line in lines[1:5]] == [
        ["supervisord", "-", "NOT"],
        ["-", "-", "NO"],
        ["web", "w0", "NOT"],
        ["x", "-", "NOT"],
    ]
    assert lines[5:] == [
        "",
        "a: supervisord does not run: no socket",
        "  Likely cause: C.",
        "  Fix: D.",
        "  The end of its journal:",
        "    last words",
    ]


def test_health_checks() -> None:
    apps = [
        {"name": "a", "bind": "0.0.0.0:8001"},
        {"name": "b", "bind": "unix:/run/b.sock", "health_path": "/up", "health_status": 204},
        {"name": "c", "health_path": ""},
    ]
    assert FILTERS["health_checks"]([{**DEFAULTS, **app} for app in apps]) == [
        {"name": "a", "status": 200, "url": "http://127.0.0.1:8001/health", "unix_socket": ""},
        {"name": "b", "status": 204, "url": "http://localhost/up", "unix_socket": "/run/b.sock"},
    ]


def test_a_bad_bind_is_reported() -> None:
    with pytest.raises(AnsibleFilterError, match="bind is 'nonsense'"):
        FILTERS["health_checks"]([{**DEFAULTS, "name": "a", "bind": "nonsense"}])
