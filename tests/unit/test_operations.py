"""What the playbooks of operations make of an app's name."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _description, _operations
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._status import health_checks

pytestmark = pytest.mark.controller

APPS: list[dict[str, Any]] = [
    {"name": "orders", "server_names": ["orders.example.com"], "secrets": {"KEY": "s3cr3t", "NONE": ""}},
    {"name": "shop"},
]


def test_programs() -> None:
    assert _operations.app_programs("orders, shop,jobs:w_00,shop", APPS) == [
        "orders_blue|orders_green",
        "shop",
        "jobs:w_00",
    ]
    assert _operations.app_programs("all", APPS) == ["all"]
    assert _operations.slot_programs(APPS) == ["orders_blue", "orders_green"]


def test_a_restart_moves_slots_and_restarts_the_rest() -> None:
    for name, slotted, rest in (("orders", [0], []), ("shop", [], ["shop"]), ("all", [0], ["all"])):
        assert _operations.slotted_apps(APPS, name) == [APPS[index] for index in slotted]
        assert _operations.unslotted_programs(name, APPS) == rest


def test_a_report_steers_no_terminal() -> None:
    process = {
        "group": "a",
        "name": "a",
        "logfiles": {"stdout": "/var/log/a", "stderr": None},
        "stdout_tail": ["\x1b[2Jb"],
    }
    info = {"running": True, "missing": [], "processes": [process]}
    assert _operations.log_report(info) == ["--- a stdout: /var/log/a", "\\x1b[2Jb"]
    assert _operations.log_report({"running": False, "reason": "\x1b[2J"}) == ["\\x1b[2J"]


def test_secrets() -> None:
    assert _operations.app_secrets(APPS) == ["s3cr3t"]


def test_health_of_slots() -> None:
    checks = health_checks(_description.complete_apps(APPS, _description.defaults_of({})))
    assert [(check["name"], check["unix_socket"]) for check in checks] == [
        ("orders_blue", "/run/fastapi/orders/blue/app.sock"),
        ("orders_green", "/run/fastapi/orders/green/app.sock"),
        ("shop", ""),
    ]


def test_logs() -> None:
    logs = {"stdout": "/var/log/o.log", "stderr": None}
    process = {"group": "jobs", "name": "w_00", "logfiles": logs, "stdout_tail": ["one", "two"], "stderr_tail": []}
    info = {"running": True, "processes": [process], "missing": ["nowhere"]}
    assert _operations.log_report(info) == [
        "supervisord knows no nowhere",
        "--- jobs:w_00 stdout: /var/log/o.log",
        "one",
        "two",
    ]
    assert _operations.log_report({"running": False, "reason": "there is no socket"}) == ["there is no socket"]
