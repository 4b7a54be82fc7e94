"""The example app, run by a real Uvicorn: the other tests deploy it and trust what it answers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

pytestmark = pytest.mark.controller

APP = Path(__file__).resolve().parents[2] / "examples" / "app"
VERSION = tomllib.loads((APP / "pyproject.toml").read_text())["project"]["version"]
KEY = "s3cret-key-of-the-test"
# A proxy of the machine's environment must not come between.
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def request(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
        try:
            with DIRECTLY.open(request, timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


def wait_for_port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        if match := re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text()):
            return int(match[1])
        time.sleep(0.05)
    raise AssertionError(f"Uvicorn did not start:\n{log.read_text()}")


@contextmanager
def serve(log: Path, **environment: str) -> Iterator[Server]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ORDERS_", "UVICORN_"))}
    command = [sys.executable, "-m", "uvicorn", "orders.main:app", "--port=0", "--no-use-colors"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=APP, env={**clean, **environment}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield Server(process, wait_for_port(process, log), log)
    finally:
        process.kill()
        process.wait(timeout=10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("orders") / "log"
    with serve(log, ORDERS_GREETING="Good morning", ORDERS_API_KEY=KEY) as running:
        yield running


def test_health(server: Server) -> None:
    assert server.request("/health") == (200, {"status": "ok"})


def test_version_shows_the_process_and_its_environment(server: Server) -> None:
    assert server.request("/version") == (
        200,
        {
            "version": VERSION,
            "greeting": "Good morning",
            "pid": server.process.pid,
            "python": "{}.{}.{}".format(*sys.version_info),
        },
    )


def test_an_order_can_be_read_again(server: Server) -> None:
    status, order = server.request("/orders", {"item": "tea", "quantity": 2})
    assert (status, order["item"], order["quantity"]) == (201, "tea", 2)
    assert server.request(f"/orders/{order['id']}") == (200, order)


@pytest.mark.parametrize("body", [{}, {"item": ""}, {"item": "tea", "quantity": 0}, {"item": "tea", "quantity": 1001}])
def test_a_bad_order_is_refused(server: Server, body: dict[str, Any]) -> None:
    assert server.request("/orders", body)[0] == 422


def test_an_unknown_order_is_not_found(server: Server) -> None:
    assert server.request("/orders/00000000-0000-4000-8000-000000000000")[0] == 404


def test_a_slow_request_does_not_hold_up_others(server: Server) -> None:
    with ThreadPoolExecutor() as pool:
        begin = time.monotonic()
        slow = pool.submit(server.request, "/slow?seconds=1")
        time.sleep(0.1)
        assert server.request("/health")[0] == 200
        assert time.monotonic() - begin < 0.9
        assert slow.result(timeout=10) == (200, {"slept": 1.0})
        assert time.monotonic() - begin >= 1.0


@pytest.mark.parametrize("seconds", ["-1", "30.1", "nan", "inf", "soon"])
def test_slow_is_bounded(server: Server, seconds: str) -> None:
    assert server.request(f"/slow?seconds={seconds}")[0] == 422


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"X-Api-Key": "wrong"}, 401), ({"X-Api-Key": "schlüssel"}, 401), ({"X-Api-Key": KEY}, 200)],
)
def test_the_list_of_orders_needs_the_key(server: Server, headers: dict[str, str], status: int) -> None:
    assert server.request("/orders", headers=headers)[0] == status


def test_without_a_key_on_the_host_nobody_gets_in(tmp_path: Path) -> None:
    with serve(tmp_path / "log") as running:
        assert running.request("/orders")[0] == 503
        assert running.request("/orders", headers={"X-Api-Key": ""})[0] == 503


def test_the_websocket_echoes(server: Server) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/ws", open_timeout=10, proxy=None) as websocket:
        for message in ("one", "zwölf"):
            websocket.send(message)
            assert websocket.recv(timeout=10) == message


def test_start_and_stop_are_logged_and_the_key_is_not(tmp_path: Path) -> None:
    with serve(tmp_path / "log", ORDERS_API_KEY=KEY) as running:
        answers = [running.request(path)[1] for path in ("/version", "/orders", "/openapi.json")]
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(timeout=10)
        log = running.log.read_text()
    assert f"INFO:orders: started: version {VERSION}, pid {running.process.pid}" in log
    assert f"INFO:orders: stopped: version {VERSION}, pid {running.process.pid}" in log
    assert KEY not in log + json.dumps(answers)


def test_the_lock_files_agree() -> None:
    uv_lock = tomllib.loads((APP / "uv.lock").read_text())["package"]
    pylock = tomllib.loads((APP / "pylock.toml").read_text())["packages"]
    requirements = (APP / "requirements.txt").read_text()
    versions = {package["name"]: package["version"] for package in uv_lock if "registry" in package["source"]}
    assert versions == {package["name"]: package["version"] for package in pylock}
    assert versions == dict(re.findall(r"^([\w.-]+)==(\S+)", requirements, re.MULTILINE))
    # The server that the role adds must be missing here, or the tests would not see it added.
    assert not {"gunicorn", "uvicorn-worker"} & set(versions)


@pytest.mark.parametrize("name", ["requirements.txt", "uv.lock", "pylock.toml"])
def test_the_lock_files_name_the_public_index_only(name: str) -> None:
    hosts = set(re.findall(r"\w+://[^/\s\"]*", (APP / name).read_text()))
    assert hosts <= {"https://pypi.org", "https://files.pythonhosted.org"}
