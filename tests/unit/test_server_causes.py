"""Each cause is found from a real failure of today's Gunicorn and Uvicorn."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from _failing_programs import NOBODY, Case, check, fail_all, place
from _supervisor_daemon import Daemon, own_daemon_fixture, supervisord, wait_for  # noqa: F401
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.app_status import look
from test_supervisor_rpc import free_port

pytestmark = pytest.mark.controller

APPS = {
    "good.py": """
        async def app(scope, receive, send):
            while scope["type"] == "lifespan":
                kind = (await receive())["type"]
                await send({"type": kind + ".complete"})
                if kind == "lifespan.shutdown":
                    return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"well"})
        """,
    "needs.py": "import nosuchdependency\n",
    "blocks.py": "import time\ndef app(environ, start_response):\n    time.sleep(100)\n",
    "starts.py": """
        from contextlib import asynccontextmanager
        from fastapi import FastAPI

        @asynccontextmanager
        async def lifespan(app):
            raise RuntimeError("no database")
            yield

        app = FastAPI(lifespan=lifespan)
        """,
    "orders/__init__.py": "",
    "orders/main.py": "from orders.stroe import app\n",
    "broken.conf.py": "timeout = = 3\n",
    "wrong.conf.py": "timeout = 'soon'\n",
}


def python_for_everyone() -> str:
    """This Python, or the same version of the system where an account without rights can't get at it."""
    candidates = [
        sys.executable,
        f"env PYTHONPATH={Path(uvicorn.__file__).parents[1]} /usr/bin/python3.{sys.version_info[1]}",
    ]
    for candidate in candidates if os.geteuid() == 0 else []:
        command = [*candidate.split(), "-c", "import uvicorn, gunicorn"]
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run(command, user=NOBODY, extra_groups=[], cwd="/", check=True, capture_output=True)
            return candidate
    return ""


FOR_EVERYONE = python_for_everyone()
PYTHON = FOR_EVERYONE or sys.executable
GUNICORN = f"cd PLACE && exec {PYTHON} -m gunicorn --no-control-socket"
UVICORN = f"cd PLACE && exec {PYTHON} -m uvicorn"
WORKER = "-k uvicorn_worker.UvicornWorker"
AS_NOBODY = {"user": NOBODY}
LOCKED = "PLACE/locked"

CASES = {
    # Gunicorn
    "g_no_app": Case(f"{GUNICORN} nosuchapp:app", r"no module nosuchapp, the app itself", r"MODULE:ATTRIBUTE"),
    "g_no_dependency": Case(f"{GUNICORN} needs:app", r"module nosuchdependency is missing", r"lock again"),
    "g_no_own_module": Case(
        f"{GUNICORN} {WORKER} orders.main:app", r"orders/main.py imports orders.stroe in line 1", r"Correct the import"
    ),
    "g_no_attribute": Case(f"{GUNICORN} {WORKER} good:ap", r"module good has no attribute ap\.", r"after the colon"),
    "g_no_callable": Case(f"{GUNICORN} good:__name__", r"app is wrong: Application object must be callable", r"app"),
    "g_startup": Case(
        f"{GUNICORN} {WORKER} starts:app", r"startup \(lifespan\) failed: RuntimeError: no database", r"names"
    ),
    "g_startup_asgi": Case(
        f"{GUNICORN} -k asgi starts:app", r"startup \(lifespan\) failed: RuntimeError: no database", r"names"
    ),
    "g_port": Case(
        f"{GUNICORN} -b 127.0.0.1:BUSY good:app",
        r"Port BUSY of 127.0.0.1 is in use by process PID \(.*\) of user",
        r":BUSY'",
    ),
    "g_low_port": Case(
        f"{GUNICORN} -b 127.0.0.1:81 good:app", rf"user {NOBODY} may not listen on port 81", r"1024", AS_NOBODY
    ),
    "g_address": Case(f"{GUNICORN} -b 192.0.2.1:8000 good:app", r"192\.0\.2\.1 is no address of this host", r"bind"),
    "g_socket_forbidden": Case(
        f"{GUNICORN} -b unix:{LOCKED}/s.sock good:app",
        rf"{NOBODY} may not create the Unix socket {LOCKED}/s.sock",
        r"Let",
        AS_NOBODY,
    ),
    "g_socket_of_another": Case(
        f"{GUNICORN} -b unix:{LOCKED}/roots.sock good:app",
        r"socket .*roots.sock, or replace the one",
        r"remove",
        AS_NOBODY,
    ),
    "g_socket_nowhere": Case(
        f"{GUNICORN} -b unix:/no/such/s.sock good:app", r"directory of the Unix socket /no/such/s.sock", r"Create"
    ),
    "g_socket_is_a_file": Case(f"{GUNICORN} -b unix:PLACE/good.py good:app", r"good.py, where .* no socket", r"Remove"),
    "g_log_forbidden": Case(
        f"{GUNICORN} --error-logfile {LOCKED}/x.log good:app",
        rf"{NOBODY} may not write to {LOCKED}/x.log",
        r"Give",
        AS_NOBODY,
    ),
    "g_log_nowhere": Case(
        f"{GUNICORN} --error-logfile /no/such/x.log good:app", r"directory of /no/such/x.log", r"Create"
    ),
    "g_argument": Case(f"{GUNICORN} --bogus good:app", r"command line: unrecognized arguments: --bogus", r"option"),
    "g_value": Case(f"{GUNICORN} -c wrong.conf.py good:app", r"refuses the setting timeout: soon", r"timeout"),
    "g_syntax": Case(f"{GUNICORN} -c broken.conf.py good:app", r"broken.conf.py: SyntaxError", r"Correct the file"),
    "g_no_config": Case(f"{GUNICORN} -c /no/such.py good:app", r"no file /no/such.py", r"--config"),
    "g_no_user": Case(f"{GUNICORN} -u nosuchuser good:app", r"no user nosuchuser", r"setting user"),
    "g_no_chdir": Case(f"{GUNICORN} --chdir /no/such good:app", r"can't enter the directory /no/such", r"chdir"),
    "g_worker_class": Case(f"{GUNICORN} -k eventlet good:app", r"no worker class eventlet", r"eventlet is gone"),
    "g_worker_package": Case(
        f"{GUNICORN} -k nosuch_worker.Worker good:app",
        r"class nosuch_worker.Worker needs the module nosuch_worker",
        r"lock",
    ),
    "g_daemon": Case(
        f"{GUNICORN} --daemon -b 127.0.0.1:FREE1 good:app", r"itself into the background .* process \d+ lives on", r"-D"
    ),
    # Uvicorn
    "u_no_app": Case(f"{UVICORN} nosuchapp:app", r"no module nosuchapp, the app itself", r"MODULE:ATTRIBUTE"),
    "u_no_dependency": Case(f"{UVICORN} needs:app", r"module nosuchdependency is missing", r"lock again"),
    "u_no_own_module": Case(f"{UVICORN} orders.main:app", r"orders/main.py imports orders.stroe in line 1", r"import"),
    "u_no_attribute": Case(f"{UVICORN} good:ap", r"module good has no attribute ap\.", r"after the colon"),
    "u_no_colon": Case(f"{UVICORN} good", r"Import string .good. must be in format", r"MODULE:ATTRIBUTE"),
    "u_startup": Case(f"{UVICORN} --port FREE2 starts:app", r"failed: RuntimeError: no database", r"names"),
    "u_startup_workers": Case(
        f"{UVICORN} --port FREE3 --workers 2 starts:app", r"failed: RuntimeError: no database", r"names"
    ),
    "u_port": Case(f"{UVICORN} --port BUSY good:app", r"Port BUSY of 127.0.0.1 is in use by process PID", r":BUSY'"),
    "u_port_workers": Case(
        f"{UVICORN} --port BUSY --workers 2 good:app", r"Another process has the port", r"ss -lxtnp"
    ),
    "u_low_port": Case(f"{UVICORN} --port 81 good:app", rf"{NOBODY} may not listen on port 81", r"1024", AS_NOBODY),
    "u_low_port_workers": Case(
        f"{UVICORN} --port 81 --workers 2 good:app", rf"{NOBODY} may not listen", r"port from 1024 on", AS_NOBODY
    ),
    "u_address": Case(f"{UVICORN} --host 192.0.2.1 good:app", r"192\.0\.2\.1 is no address of this host", r"bind"),
    "u_socket_forbidden": Case(
        f"{UVICORN} --uds {LOCKED}/s.sock good:app",
        rf"{NOBODY} may not create the Unix socket",
        r"directory",
        AS_NOBODY,
    ),
    "u_socket_nowhere": Case(f"{UVICORN} --uds /no/such/s.sock good:app", r"directory of the Unix socket", r"Create"),
    "u_socket_is_a_file": Case(f"{UVICORN} --uds PLACE/a_file good:app", r"a_file, where .* no socket", r"Remove"),
    "u_socket_stale": Case(
        f"{UVICORN} --uds PLACE/stale.sock --workers 2 good:app", r"left its socket behind", r"remove"
    ),
    "u_value": Case(f"{UVICORN} --port soon good:app", r"refuses the option --port: 'soon'", r"Correct"),
    "u_option": Case(f"{UVICORN} --bogus good:app", r"knows no option --bogus", r"name"),
}


@pytest.fixture(name="reports", scope="module")
def reports_fixture() -> Iterator[dict[str, Any]]:
    with supervisord() as daemon, socket.create_server(("127.0.0.1", 0)) as busy:
        folder = place(daemon, "place")
        write_apps(folder)
        (folder / "a_file").touch()
        (folder / "locked").mkdir()
        for path in (folder / "stale.sock", folder / "locked" / "roots.sock"):
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(path))
        values = {"PLACE": folder, "BUSY": busy.getsockname()[1], "PID": os.getpid()}
        values.update({f"FREE{number}": free_port() for number in (1, 2, 3)})

        def settle(text: str) -> str:
            return re.sub(r"PLACE|BUSY|PID|FREE\d", lambda found: str(values[found[0]]), text)

        def command(name: str, case: Case) -> str:
            # Its default is one port for all.
            own = "" if " -b " in case.script else f" -b unix:PLACE/{name}.sock"
            return settle(case.script.replace("-m gunicorn", f"-m gunicorn{own}"))

        cases = {
            name: case._replace(script=command(name, case), cause=settle(case.cause), fix=settle(case.fix))
            for name, case in CASES.items()
        }
        # Gunicorn tries five times, a second apart, to get its address.
        reports = fail_all(daemon, cases, startsecs=60)
        yield {name: (reports[name], cases[name]) for name in cases}


def write_apps(folder: Path) -> None:
    for name, text in APPS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        indent = len(text) - len(text.lstrip("\n ")) - 1
        (folder / name).write_text(re.sub(rf"^ {{{max(indent, 0)}}}", "", text, flags=re.M))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as supervisord has it on a host")
@pytest.mark.parametrize("name", list(CASES))
def test_cause(reports: dict[str, Any], name: str) -> None:
    if "user" in CASES[name].options and not FOR_EVERYONE:
        pytest.skip(f"{NOBODY} can't read this Python environment")
    check(*reports[name])


@pytest.fixture(name="serving")
def serving_fixture(own_daemon: Daemon) -> Daemon:
    write_apps(place(own_daemon, "place"))
    return own_daemon


def serve(daemon: Daemon, command: str, port: int) -> None:
    script = f"{command} 127.0.0.1:{port}".replace("PLACE", str(daemon.folder / "place"))
    daemon.program("web", script, redirect_stderr="true")
    daemon.start()
    daemon.until("web", "RUNNING")


def status_of(daemon: Daemon, port: int) -> dict[str, Any]:
    health = {"name": "web", "url": f"http://127.0.0.1:{port}/", "timeout": 0.5}
    (process,) = look(daemon.connection(), [], [health], 10)["processes"]
    return dict(process)


def causes_of(daemon: Daemon, port: int) -> str:
    return " ".join(each["cause"] for each in status_of(daemon, port)["causes"])


def test_worker_timeout(serving: Daemon) -> None:
    """It runs all the time, and its health shows that something is wrong."""
    port = free_port()
    serve(serving, f"{GUNICORN} blocks:app --timeout 1 --bind", port)
    wait_for(lambda: "gave no sign of life" in causes_of(serving, port), "the timeout's cause")
    process = status_of(serving, port)
    assert process["state"] == "RUNNING"
    assert process["well"] is False
    assert process["health"] == "no answer in 0.5 s: timed out"


def test_killed_worker(serving: Daemon) -> None:
    """Its master goes on, so that only a health that fails makes anybody look."""
    port = free_port()
    serve(serving, f"{GUNICORN} {WORKER} good:app --bind", port)
    wait_for(lambda: str(status_of(serving, port)["health"]).startswith("200 in "), "an answer")
    assert status_of(serving, port)["causes"] == []
    worker = wait_for_worker(serving)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: f"pid:{worker}) was sent SIGKILL" in log_of(serving), "Gunicorn's message")
    # No check meets status 201.
    health = {"name": "web", "url": f"http://127.0.0.1:{port}/", "status": 201}
    (process,) = look(serving.connection(), [], [health], 10)["processes"]
    assert [each["cause"] for each in process["causes"]] == [
        f"Something killed Gunicorn's worker {worker} with SIGKILL, as the kernel does when memory runs out."
    ]


def log_of(daemon: Daemon) -> str:
    return Path(daemon.processes()["web"].stdout_log).read_text()


def wait_for_worker(daemon: Daemon) -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = re.findall(r"Booting worker with pid: (\d+)", log_of(daemon))
        if found:
            return int(found[-1])
        time.sleep(0.05)
    raise AssertionError("no worker")
