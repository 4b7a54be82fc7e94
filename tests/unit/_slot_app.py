"""A small server of the standard library for one slot: run script and settings, and a host's directories for it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from _supervisor_daemon import Daemon
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files.file_set import Item
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes import launcher as _launcher
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.lock import Run
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.move import Move, Options
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.slots import AppPaths, WantedSlot

# Answers with its settings; stops when all its connections are closed, or after its patience.
SERVER = """
import json, os, signal, socketserver, sys, threading, time
from http.server import BaseHTTPRequestHandler

settings = json.load(open(sys.argv[1]))
if settings.get("crash"):
    sys.exit("cannot start: " + settings["crash"])
path = sys.argv[2]
if os.path.exists(path):
    os.unlink(path)
started = time.monotonic()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if settings.get("hang"):
            time.sleep(60)
        body = json.dumps({"pid": os.getpid(), **settings}).encode()
        bad_after = settings.get("bad_after")
        bad = bad_after is not None and time.monotonic() - started > bad_after
        self.send_response(500 if bad else settings.get("status", 200))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

    def address_string(self):
        return "unix"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if "dies_after" in settings:
    threading.Timer(settings["dies_after"], lambda: os._exit(7)).start()
print("serving", settings, flush=True)
server = Server(path, Handler)
# A master that has one worker, and another when that one dies: requests wait for it meanwhile.
while "worker_dies_after" in settings:
    worker = os.fork()
    if not worker:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Timer(settings["worker_dies_after"], lambda: os._exit(1)).start()
        break
    signal.signal(signal.SIGTERM, lambda *_: (os.kill(worker, signal.SIGKILL), sys.exit(0)))
    os.waitpid(worker, 0)
server.serve_forever()
"""

RUN = """#!/bin/sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
case "${{1-}}" in
--check)
    grep -q '"bad_check"' "$here/settings.json" && {{ echo "error: bad settings" >&2; exit 1; }}
    echo uses loop none; exit 0 ;;
--exec) shift; RELEASE=$(readlink "$here/release"); export RELEASE; exec "$@" ;;
esac
exec {python} "$(readlink "$here/release")/app/server.py" "$here/settings.json" "{run}/${{here##*/}}/app.sock"
"""

PROGRAM = """[program:shop_{{slot}}]
command=/usr/bin/python3 -IS {etc}/{{slot}}/launch.py {etc}/{{slot}}/launch.json
environment=CONFIG="{{set_digest}}"
startsecs=0
startretries=0
stopwaitsecs=5
stdout_logfile={logs}/{{slot}}.log
redirect_stderr=true
"""


class Host:
    """Directories of one app, and a supervisord that includes its programs."""

    def __init__(self, daemon: Daemon) -> None:
        root = daemon.folder / "host"
        shutil.rmtree(root, ignore_errors=True)
        self.paths = AppPaths(
            name="shop",
            app=root / "opt",
            etc=root / "etc",
            run=root / "run",
            programs=root / "programs",
            tmpfiles=root / "tmpfiles.conf",
        )
        run = self.paths.run
        for folder in (root, run, run / "blue", run / "green", self.paths.programs, self.paths.app):
            folder.mkdir(exist_ok=True)
        self.root = root
        self.daemon = daemon
        daemon.extra = f"[include]\nfiles = {self.paths.programs}/*.ini"
        daemon.start()

    def release(self, name: str) -> str:
        """A release as the role builds it: a source, and a finished environment without packages."""
        place = self.paths.release(name)
        (place / "app").mkdir(parents=True)
        (place / "app" / "server.py").write_text(SERVER)
        build = place / ".venv-0123456789ab"
        build.mkdir()
        stamp = {
            "build": str(build),
            "fingerprint": "x",
            "inputs": {},
            "python_version": "3",
            "packages": {},
            "added": [],
        }
        (build / ".asgiops-complete.json").write_text(json.dumps(stamp))
        (place / "venv").symlink_to(build.name)
        return name

    def wanted(self, release: str, build: str = "one", **settings: Any) -> WantedSlot:
        paths = self.paths
        run = RUN.format(python=sys.executable, run=paths.run)
        # Without namespaces, since it lies below /tmp.
        launch = {"name": "shop_{slot}", "command": ["/bin/sh", "{here}/run"], "user": "root", "group": "root"}
        launch["sandbox"] = False
        return WantedSlot(
            release=release,
            revision=release * 3,
            build=build,
            directories=[Item(str(paths.etc), "root", "root", 0o755)],
            files=[
                Item("settings.json", "root", "root", 0o640, json.dumps(settings).encode(), secret=True),
                Item("run", "root", "root", 0o750, run.encode()),
                Item("launch.py", "root", "root", 0o644, Path(_launcher.__file__).read_bytes()),
                Item("launch.json", "root", "root", 0o644, json.dumps(launch).encode()),
            ],
            program=PROGRAM.format(etc=paths.etc, logs=self.root),
            tmpfiles=f"d {paths.run} 0755 root root -\n",
            group="root",
            key=b"key",
        )

    def move(self, wanted: WantedSlot, run: str = "run", **options: Any) -> Move:
        fast = {"health_path": "/", "health_timeout": 2, "health_period": 0.5, "drain_timeout": 2, "user": ""}
        fast["stage_parent"] = str(self.root)
        fast["connection"] = self.daemon.connection()
        owner = Run(run=run, by="me", controller="here", pid=os.getpid())
        return Move(self.paths, wanted, Options(**{**fast, **options}), owner)

    def deploy(self, release: str, run: str = "run", upto: str = "finalize", **settings: Any) -> dict[str, Any]:
        options = {key: settings.pop(key) for key in list(settings) if key in Options.__dataclass_fields__}
        move = self.move(self.wanted(release, **settings), run, **options)
        return go(move, upto)


def go(move: Move, upto: str = "finalize") -> dict[str, Any]:
    """The stages as the role calls them."""
    plan = move.run("plan")
    stages = ["configure", "start", "promote", "finalize"] if plan["move"] else ["promote", "finalize"]
    for stage in stages if plan["changed"] else []:
        if move.options.action != "deploy":
            move.wanted = type(move.wanted)(**{**vars(move.wanted), "release": plan["release"]})
        move.run(stage)
        if stage == upto:
            break
    return plan


def links(paths: AppPaths) -> str:
    """The slot that live.sock leads to."""
    return Path(os.readlink(paths.live_link)).parent.name if paths.live_link.is_symlink() else ""
