"""Unusual sets of options end in a running server whose actual settings, by its own report, are as asked."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import _roles
import _servers
import pytest
import yaml
from _supervisor_daemon import find_supervisord
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import rpc
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _apps, _preflight

pytestmark = pytest.mark.controller

CORPUS = Path(__file__).parent / "corpus" / "valid"
SERVERS = yaml.safe_load((CORPUS / "servers.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def venv() -> Path:
    return _servers.build_environment()


def filled(value: Any, **places: str) -> Any:
    """The case with the test's own paths."""
    if isinstance(value, dict):
        return {key: filled(item, **places) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, **places) for item in value]
    for name, place in places.items() if isinstance(value, str) else ():
        value = value.replace("{" + name + "}", place)
    return value


def problems(app: dict[str, Any]) -> list[str]:
    return _apps.app_problems([{"source": {"path": "/src"}, "name": "probe", "app": "a:b", **app}])


@pytest.mark.parametrize("case", [pytest.param(case, id=case["title"].replace(" ", "-")) for case in SERVERS])
def test_server(case, venv, tmp_path) -> None:
    hooks = tmp_path / "users_hooks.py"
    hooks.write_text(case.get("hooks", ""), encoding="utf-8")
    case = filled(case, folder=str(tmp_path), hooks=str(hooks), here=str(Path(__file__).parent))
    assert problems(case["app"]) == []
    server = _servers.Server(tmp_path, venv, case["app"])
    assert case.get("uses", "") in server.check()
    with server:
        report = server.report()
        for key in ("gunicorn", "uvicorn"):
            assert {name: report[key][name] for name in case.get(key, {})} == case.get(key, {})
        expected = dict(case.get("process", {}))
        environment = expected.pop("environment", {})
        assert {name: report["environment"].get(name) for name in environment} == environment
        assert {name: report[name] for name in expected} == expected
        if "workers" in case:
            wait_for(lambda: len(server.workers()) == case["workers"])
        if "headers" in case:
            given = {name.lower(): value for name, value in server.get()[0].items()}
            assert {name: given.get(name) for name in case["headers"]} == case["headers"]
        if "socket_mode" in case:
            assert f"{Path(server.socket).stat().st_mode & 0o7777:04o}" == case["socket_mode"]
        for name in case.get("files", []):
            wait_for((tmp_path / name).exists)
        if case.get("dies_with_parent"):
            workers = server.workers()
            assert workers
            os.kill(server.process.pid, signal.SIGKILL)
            wait_for(lambda: not any(is_running(pid) for pid in workers))


# --- supervisor

PROGRAMS = yaml.safe_load((CORPUS / "programs.yml").read_text(encoding="utf-8"))
LISTS = ("supervisor_programs", "supervisor_fcgi_programs", "supervisor_event_listeners", "supervisor_groups")


def programs(folder: str) -> dict[str, Any]:
    sections = [filled(case["vars"], folder=folder) for case in PROGRAMS]
    return {key: [entry for section in sections for entry in section.get(key, [])] for key in LISTS}


@pytest.fixture(scope="module")
def supervisord(tmp_path_factory, request) -> Iterator[tuple[Path, rpc.Supervisor]]:
    """One supervisord that runs all programs of the corpus, from the role's own templates."""
    folder = tmp_path_factory.mktemp("supervisord")
    given = programs(str(folder))
    # As on a host: the check refuses the folders of a test, where any account may write.
    on_host = programs("/var/log/supervisor")
    assert _preflight.problems(on_host, on_host, ("supervisor",)) == []
    own = {"supervisor_logfile": f"{folder}/s.log", "supervisor_pidfile": f"{folder}/s.pid"}
    # Where an unprivileged program can read it, unlike pytest's folders.
    open_to_all = Path(tempfile.mkdtemp(prefix="fastapi-host-"))
    open_to_all.chmod(0o755)
    request.addfinalizer(lambda: shutil.rmtree(open_to_all))
    shutil.copy(_roles.ROLES / "supervisor" / "files" / "with_environment.py", open_to_all)
    launcher = f"/usr/bin/python3 -IS {open_to_all}/with_environment.py"
    role = _roles.Role("supervisor", **given, **own, __supervisor_launcher=launcher)
    (folder / "logs").mkdir()
    main = role.render("supervisord.conf.j2").replace("/run/supervisor/supervisor.sock", f"{folder}/s.sock")
    sections = role.render("programs.ini.j2").replace("/var/log/supervisor/", f"{folder}/logs/")
    (folder / "s.conf").write_text(main.replace("/etc/supervisord.d/*.ini", f"{folder}/programs.ini"), encoding="utf-8")
    (folder / "programs.ini").write_text(sections, encoding="utf-8")
    process = subprocess.Popen(
        [find_supervisord(), "--nodaemon", "--configuration", folder / "s.conf"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_for(lambda: (folder / "s.sock").exists() or process.poll() is not None)
        assert process.poll() is None, (folder / "s.log").read_text()
        with closing(rpc.connect(rpc.Connection(f"unix://{folder}/s.sock"))) as server:
            yield folder, server
    finally:
        process.terminate()
        process.wait(30)


def proc(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


@pytest.mark.parametrize("case", [pytest.param(case, id=case["title"].replace(" ", "-")) for case in PROGRAMS])
def test_program(case, supervisord) -> None:
    folder, server = supervisord
    case = filled(case, folder=str(folder))
    for name, expected in case["processes"].items():
        group, _colon, process = name.partition(":")
        full = f"{group}:{process or group}"
        wait_for(lambda full=full: server.call("getProcessInfo", full)["statename"] == "RUNNING")
        pid = server.call("getProcessInfo", full)["pid"]
        (config,) = [found for found in server.call("getAllConfigInfo") if f"{found['group']}:{found['name']}" == full]
        actual = {**config, **of_process(pid)}
        settings = dict(expected)
        environment = settings.pop("environment", {})
        assert {key: actual["environment"].get(key) for key in environment} == environment
        assert {key: actual[key] for key in settings} == settings
    for name in case.get("files", []):
        assert Path(name).exists()


def of_process(pid: int) -> dict[str, Any]:
    """What the kernel says of it."""
    # A launcher may be on its way to the command still.
    wait_for(lambda: b"with_environment" not in proc(pid, "cmdline"))
    status = dict(line.split(":", 1) for line in proc(pid, "status").decode().splitlines() if ":" in line)
    environment = dict(item.split("=", 1) for item in proc(pid, "environ").decode().split("\0") if item)
    return {
        "environment": environment,
        "cwd": os.readlink(f"/proc/{pid}/cwd"),
        "umask": status["Umask"].strip(),
        "account": pwd.getpwuid(int(status["Uid"].split()[0])).pw_name,
        "words": proc(pid, "cmdline").decode().split("\0")[:-1],
        "stdin_is_a_socket": os.readlink(f"/proc/{pid}/fd/0").startswith("socket:"),
    }


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Any, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
