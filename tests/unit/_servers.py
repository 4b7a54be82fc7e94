"""Real servers, started from the files that the role gunicorn_uvicorn renders, in an environment of its own pins."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import _roles
import yaml
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._http import HttpConnection
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.processes import ProcessTable, file_of

CHECKOUT = _roles.CHECKOUT
PINS = _roles.ROLES / "gunicorn_uvicorn" / "vars" / "main" / "pins.yml"
APP_LOCK = CHECKOUT / "examples" / "app" / "requirements.txt"
SECONDS = 20


def build_environment() -> Path:
    """The role's pins and what the example app brings (uvloop, httptools, websockets), built once for each lock."""
    pins = "\n".join(
        " ".join(line.split()) for line in yaml.safe_load(PINS.read_text())["__gunicorn_uvicorn_pins"].values()
    )
    locks = APP_LOCK.read_text(), pins
    place = CHECKOUT / ".cache" / "servers" / hashlib.sha256("\n".join([*locks, sys.version]).encode()).hexdigest()[:16]
    if not (place / "ready").exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, place], check=True)
        (place / "pins.txt").write_text(pins)
        install = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--python",
            place / "bin" / "python",
        ]
        for lock in (APP_LOCK, place / "pins.txt"):
            subprocess.run([*install, "--requirement", lock], check=True)
        (place / "ready").touch()
    return place


class Server:
    """One app of the collection as a process group of its own."""

    def __init__(self, folder: Path, venv: Path, app: dict[str, Any]) -> None:
        self.folder = folder
        self.log = folder / "log"
        slotted = bool(app.get("server_names"))
        # The name of a slot's folder is the slot's.
        self.place = folder / "blue" if slotted else folder
        self.socket = str(self.place / "app.sock" if slotted else folder / "s.sock")
        defaults = {
            "name": "probe",
            "app": "_probe_app:wsgi" if app.get("interface") == "wsgi" else "_probe_app:asgi",
            "directory": str(Path(__file__).parent),
            "lock": "",
            "venv": str(venv),
            "bind": f"unix:{self.socket}",
            "workers": 1,
        }
        self.app = {**defaults, **app}
        if slotted:
            (self.place / "release").mkdir(parents=True)
            (self.place / "release" / "app").symlink_to(self.app["directory"])
            (self.place / "venv").symlink_to(venv)
        for file in _roles.app_files(self.app)["files"]:
            text = file.get("content") or file["secret_content"]
            text = text.replace(f"/run/fastapi/{self.app['name']}/", f"{folder}/")
            (self.place / Path(file["path"]).name).write_text(text, encoding="utf-8")
        self.process: subprocess.Popen[bytes] | None = None

    def check(self) -> str:
        """What the host's check says of the candidate."""
        done = subprocess.run(
            ["/bin/sh", self.place / "run", "--check"],
            cwd="/",
            env={},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def __enter__(self) -> Server:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", self.place / "run"], cwd="/", env={}, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def __exit__(self, *_exception: object) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(SECONDS)

    def get(self, path: str = "/", **headers: str) -> tuple[dict[str, str], bytes]:
        connection = HttpConnection(unix_socket=self.socket, timeout=SECONDS)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def report(self) -> dict[str, Any]:
        """What the probe reports, once the server listens."""
        assert self.process is not None
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                _headers, body = self.get()
                return dict(json.loads(body))
            except (OSError, http.client.HTTPException):
                assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text(errors="replace")
                time.sleep(0.05)

    def workers(self) -> list[int]:
        """The processes that the master has started, the helpers of Python's multiprocessing left out."""
        assert self.process is not None
        children = ProcessTable().children(self.process.pid)
        return [pid for pid in children if b"resource_tracker" not in file_of(pid, "cmdline")]
