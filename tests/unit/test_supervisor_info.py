"""supervisor_info against a real supervisord."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from _supervisor_daemon import (  # noqa: F401
    FAIL,
    IGNORE_TERM,
    Daemon,
    daemon_fixture,
    own_daemon_fixture,
    shared_daemon_fixture,
    wait_for,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.rpc import Connection, SupervisorError
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.status import gather
from test_supervisor_rpc import free_port


def info(daemon: Daemon, *names: str, log_lines: int = 0) -> dict[str, Any]:
    return gather(daemon.connection(), names, log_lines)


def by_name(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {process["name"]: process for process in result["processes"]}


def test_states(daemon: Daemon) -> None:
    daemon.program("stopped", autostart="false")
    daemon.program("starting", startsecs=60)
    daemon.program("running", environment='TOKEN="s3cr3t"')
    daemon.program("backoff", FAIL, startsecs=1, startretries=500)
    daemon.program("stopping", IGNORE_TERM, stopwaitsecs=60)
    daemon.program("exited", "exit 7", autorestart="false")
    daemon.program("fatal", FAIL, startsecs=1, startretries=0)
    daemon.start()
    daemon.until("fatal", "FATAL")
    daemon.until("exited", "EXITED")
    daemon.until_ready("stopping")
    daemon.call("stopProcess", "stopping", False)
    daemon.until("backoff", "BACKOFF")
    result = info(daemon)
    processes = by_name(result)
    assert {name: process["state"].lower() for name, process in processes.items()} == {name: name for name in processes}
    assert len(processes) == 7
    assert processes["exited"]["exit_status"] == 7
    assert "Exited too quickly" in processes["fatal"]["spawn_error"]
    # supervisord says 0 here, which is not so.
    assert processes["fatal"]["exit_status"] is None
    assert processes["running"]["pid"] == daemon.pids()["running"]
    assert processes["running"]["uptime"] >= 0
    assert processes["stopped"]["pid"] is None
    assert processes["stopped"]["uptime"] is None
    assert (result["running"], result["state"], result["pid"]) == (
        True,
        "RUNNING",
        daemon.process and daemon.process.pid,
    )
    assert result["version"].startswith("4.")
    assert result["identification"] == "supervisor"
    assert "s3cr3t" not in str(result)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a program that supervisord's user may not signal")
def test_unknown_is_a_state_too(own_daemon: Daemon) -> None:
    """A supervisord of nobody, and a program of its that turns into root."""
    python = own_daemon.folder / "setuid-python"
    shutil.copy(shutil.which("python3", path="/usr/bin") or pytest.skip("no system Python to copy"), python)
    own_daemon.folder.chmod(0o777)
    python.chmod(0o4755)
    script = "import os, time; os.setresuid(0, 0, 0); open('ready', 'w').close(); time.sleep(1000)"
    own_daemon.program("web", command=f'{python} -c "{script}"', directory=own_daemon.folder)
    own_daemon.write()
    config = own_daemon.config.read_text().replace("[supervisord]\n", "[supervisord]\nuser=nobody\n")
    own_daemon.config.write_text(config)
    own_daemon.write = lambda: None  # type: ignore[method-assign]
    own_daemon.start()
    deadline = time.monotonic() + 5
    while not (own_daemon.folder / "ready").exists():
        if time.monotonic() > deadline:
            pytest.skip("programs cannot become root here")
        time.sleep(0.05)
    with pytest.raises(Exception, match=r"stop it|stop signal"):
        own_daemon.run("web", state="stopped")
    assert by_name(info(own_daemon))["web"]["state"] == "UNKNOWN"
    for state in ("stopped", "absent"):
        with pytest.raises(Exception, match="state UNKNOWN"):
            own_daemon.run("web", state=state, check=True)


def test_names(daemon: Daemon) -> None:
    daemon.program("web", numprocs=2, process_name="w%(process_num)d")
    daemon.program("other")
    daemon.start()
    assert set(by_name(info(daemon, "web"))) == {"w0", "w1"}
    result = info(daemon, "web:w1", "other", "web:w9", "nowhere")
    assert set(by_name(result)) == {"w1", "other"}
    assert result["missing"] == ["web:w9", "nowhere"]


def test_not_running(tmp_path: Path) -> None:
    result = gather(Connection(server_url=f"unix://{tmp_path}/s.sock", connect_timeout=0), ["web"], 5)
    assert result["running"] is False
    assert "there is no socket" in result["reason"]
    assert result["processes"] == []
    assert result["missing"] == ["web"]


def written(daemon: Daemon, **channels: str) -> dict[str, int]:
    """How many lines the programs' logs have."""
    processes = by_name(info(daemon, log_lines=10))
    return {name: len(processes[name][f"{channel}_tail"]) for name, channel in channels.items()}


NOISE = r"printf 'first\n\033[31mred\033[0m\nbad \377 byte\nbell \007\nl\303\244st\n'; echo oops >&2; exec sleep 1000"


def test_logs_from_their_files(daemon: Daemon) -> None:
    daemon.program("web", NOISE)
    daemon.program("merged", "echo out; echo err >&2; exec sleep 1000", redirect_stderr="true")
    daemon.program("silent", stdout_logfile="NONE", stderr_logfile="/dev/null", stderr_logfile_maxbytes=0)
    daemon.start()
    wait_for(lambda: written(daemon, web="stderr", merged="stdout") == {"web": 1, "merged": 2}, "logs")
    processes = by_name(info(daemon, log_lines=4))
    assert processes["web"]["stdout_tail"] == ["red", "bad \ufffd byte", "bell ?", "l\u00e4st"]
    assert processes["web"]["stderr_tail"] == ["oops"]
    assert Path(processes["web"]["logfiles"]["stdout"]).exists()
    assert processes["merged"]["stdout_tail"] == ["out", "err"]
    assert processes["merged"]["logfiles"]["stderr"] is None
    assert processes["silent"]["stdout_tail"] == processes["silent"]["stderr_tail"] == []
    assert "stdout_tail" not in by_name(info(daemon))["web"]


def test_logs_through_supervisord(own_daemon: Daemon) -> None:
    """Over TCP the files may be another host's."""
    port = free_port()
    own_daemon.url = f"http://127.0.0.1:{port}"
    own_daemon.server = f"[inet_http_server]\nport=127.0.0.1:{port}\n"
    own_daemon.program("noise", r"printf '\033[31mred\033[0m\nbell \007\n'; exec sleep 1000")
    own_daemon.program("not_utf8", r"printf 'bad \377 byte\n'; exec sleep 1000")
    # Three bytes a character: the tail of 4096 bytes begins inside of one.
    own_daemon.program("euros", r"for i in $(seq 3000); do printf '\342\202\254'; done; exec sleep 1000")
    own_daemon.start()
    channels = {"noise": "stdout", "not_utf8": "stdout", "euros": "stdout"}
    wait_for(lambda: written(own_daemon, **channels) == {"noise": 2, "not_utf8": 1, "euros": 1}, "logs")
    processes = by_name(info(own_daemon, log_lines=3))
    assert processes["noise"]["stdout_tail"] == ["?[31mred?[0m", "bell ?"]
    assert processes["not_utf8"]["stdout_tail"] == ["(supervisord cannot send this log, since it is not UTF-8)"]
    assert set(processes["euros"]["stdout_tail"][0]) == {"\u20ac"}


def test_reread_reports_and_changes_nothing(daemon: Daemon) -> None:
    daemon.program("web")
    daemon.program("old")
    daemon.program("same")
    daemon.start()
    daemon.program("web", environment='CHANGED="yes"')
    daemon.remove("old")
    daemon.program("new")
    before = daemon.pids()
    differences = {"added": ["new"], "changed": ["web"], "removed": ["old"]}
    for _run in range(2):
        assert gather(daemon.connection(), [], 0, reread=True)["differences"] == differences
    assert daemon.pids() == before
    daemon.program("broken", numprocs=2)
    with pytest.raises(SupervisorError, match="cannot read its configuration"):
        gather(daemon.connection(), [], 0, reread=True)


def test_all_is_a_name(daemon: Daemon) -> None:
    daemon.program("web")
    daemon.program("other")
    daemon.start()
    result = gather(daemon.connection(), ["all"], 0)
    assert [each["name"] for each in result["processes"]] == ["other", "web"]
    assert result["missing"] == []
