"""supervisor_log_clear against a real supervisord."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from _supervisor_daemon import (  # noqa: F401
    Daemon,
    daemon_fixture,
    shared_daemon_fixture,
    wait_for,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import log_clear as clearing
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.rpc import SupervisorError

# Writes a line at once and one at each HUP.
WRITE = "trap 'echo again' HUP; echo out; echo err >&2; touch $0/ready; while :; do sleep 0.05; done"
ONCE = "echo last words; exit 0"


def clear(daemon: Daemon, *names: str, check: bool = False) -> dict[str, Any]:
    return clearing.run(daemon.connection(), names, check)


def logs(daemon: Daemon, name: str) -> dict[str, Path]:
    process = daemon.processes()[name]
    return {"stdout": Path(process.stdout_log), "stderr": Path(process.stderr_log)}


def test_a_running_program(daemon: Daemon) -> None:
    daemon.program("web", WRITE)
    daemon.program("other", WRITE)
    daemon.start()
    for name in ("web", "other"):
        daemon.until_ready(name)
    wait_for(lambda: all(log.stat().st_size for log in logs(daemon, "web").values()), "both logs have a line")
    before = daemon.pids()
    checked = clear(daemon, "web", check=True)
    assert logs(daemon, "web")["stdout"].read_text() == "out\n"
    result = clear(daemon, "web")
    assert checked == result
    assert result["changed"]
    assert [(each["name"], each["bytes"]) for each in result["cleared"]] == [("web", 4), ("web", 4)]
    assert [log.read_text() for log in logs(daemon, "web").values()] == ["", ""]
    assert logs(daemon, "other")["stdout"].read_text() == "out\n"
    assert not clear(daemon, "web", check=True)["changed"]
    assert not clear(daemon, "web")["changed"]
    # It goes on writing to the same file.
    daemon.run("web", state="signalled", signal="HUP")
    wait_for(lambda: logs(daemon, "web")["stdout"].read_text() == "again\n", "a new line at the start of the log")
    assert daemon.pids() == before


def test_a_program_that_is_down(daemon: Daemon) -> None:
    daemon.program("job", ONCE, autorestart="false")
    daemon.start()
    daemon.until("job", "EXITED")
    wait_for(lambda: logs(daemon, "job")["stdout"].stat().st_size > 0, "its last words")
    assert clear(daemon, "job")["changed"]
    assert logs(daemon, "job")["stdout"].read_text() == ""
    assert not clear(daemon, "all")["changed"]


def test_one_log_for_both_and_none(daemon: Daemon) -> None:
    daemon.program("both", WRITE, redirect_stderr="true")
    daemon.program("none", WRITE, stdout_logfile="NONE", stderr_logfile="NONE")
    daemon.start()
    for name in ("both", "none"):
        daemon.until_ready(name)
    time.sleep(0.2)
    assert [each["name"] for each in clear(daemon, "all")["cleared"]] == ["both"]


def test_unknown_names(daemon: Daemon) -> None:
    daemon.program("web", WRITE)
    daemon.start()
    daemon.until_ready("web")
    with pytest.raises(SupervisorError, match="no such program or group loaded: wbe"):
        clear(daemon, "web", "wbe")
    assert logs(daemon, "web")["stdout"].read_text() == "out\n"


def test_the_result_is_plain_data(daemon: Daemon) -> None:
    daemon.program("web", WRITE)
    daemon.start()
    daemon.until_ready("web")
    assert json.loads(json.dumps(clear(daemon, "all")))["changed"]
