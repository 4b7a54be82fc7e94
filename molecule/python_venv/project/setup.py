"""Builds a package that says what its build could do on the host."""

import os
import pwd
import socket
from pathlib import Path

from setuptools import setup


def attempt(action):
    try:
        action()
    except OSError as error:
        return error.strerror
    return "done"


answers = {
    "account": pwd.getpwuid(os.getuid()).pw_name,
    "shadow": attempt(lambda: Path("/etc/shadow").read_text()),
    "cache": attempt(lambda: os.listdir("/opt/fastapi/cache")),
    "opt": attempt(lambda: Path("/opt/fastapi/written").write_text("")),
    "tmp": attempt(lambda: Path("/tmp/written-by-a-build").write_text("")),
    "network": attempt(lambda: socket.create_connection(("127.0.0.1", 22), 2)),
}
Path("looker").mkdir(exist_ok=True)
Path("looker/__init__.py").write_text(f"ANSWERS = {answers!r}\n")
setup(packages=["looker"])
