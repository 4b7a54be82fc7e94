# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run uv and interpreters: a clean environment, a time limit, no secret on a command line or in a message."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes import commands
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import printable, redact, without_logins

PASSED_ON = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
PROBE_SECONDS = 60
_TAIL_LINES = 20
# A colour of a terminal, or a move of its cursor.
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")

# Prints what markers need, and the TOML document of standard input if asked; the interpreter of the
# environment has tomllib (3.11+), the platform Python of EL9 that runs this module has not.
_PROBE = """
import json, os, platform, sys
def dotted(info):
    kind = info.releaselevel
    return "%d.%d.%d" % tuple(info[:3]) + ("" if kind == "final" else kind[0] + str(info.serial))
answer = {"executable": os.path.realpath(sys.executable), "environment": {
    "implementation_name": sys.implementation.name,
    "implementation_version": dotted(sys.implementation.version),
    "os_name": os.name,
    "platform_machine": platform.machine(),
    "platform_python_implementation": platform.python_implementation(),
    "platform_release": platform.release(),
    "platform_system": platform.system(),
    "platform_version": platform.version(),
    "python_full_version": platform.python_version(),
    "python_version": ".".join(platform.python_version_tuple()[:2]),
    "sys_platform": sys.platform,
}}
if sys.argv[1:] == ["toml"]:
    try:
        import tomllib
        answer["toml"] = tomllib.loads(sys.stdin.buffer.read().decode())
    except ImportError:
        answer["toml_error"] = "Python 3.11 is the first that reads TOML: choose a newer one, or hashed requirements"
    except ValueError as error:
        answer["toml_error"] = "it is no valid TOML (%s)" % error
print(json.dumps(answer, default=str))
"""


class RunError(Exception):
    """A program failed; `output` is what it printed."""

    def __init__(self, output: str, timed_out: bool = False) -> None:
        super().__init__(output)
        self.output = output
        self.timed_out = timed_out


@dataclass(frozen=True)
class Credential:
    """A login for one host of an index."""

    host: str
    username: str
    password: str


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter, as it described itself."""

    executable: str
    environment: Mapping[str, str]
    toml: Mapping[str, Any] | None = None
    toml_error: str = ""

    @property
    def version(self) -> str:
        return self.environment["python_full_version"]


class Deadline:
    """A number of seconds that several steps share."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())


def probe(python: str, toml: bytes | None = None) -> Interpreter:
    """Ask an interpreter what it is; with `toml`, have it parse that document too."""
    command = [python, "-I", "-S", "-B", "-c", _PROBE] + ([] if toml is None else ["toml"])
    output = run(command, commands.ENVIRONMENT, Deadline(PROBE_SECONDS), given=toml)
    try:
        return Interpreter(**json.loads(output))
    except (TypeError, ValueError) as error:
        raise RunError(output or "it printed nothing") from error


def version_of(python: str) -> str:
    """The version of an interpreter that must still run; never one of an environment, whose files packages bring."""
    command = [python, "-I", "-S", "-B", "-c", "import platform; print(platform.python_version())"]
    return run(command, commands.ENVIRONMENT, Deadline(PROBE_SECONDS)).strip()


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    deadline: Deadline,
    given: bytes | None = None,
    directory: str = "/",
    keep_open: Sequence[int] = (),
    remarks: list[str] | None = None,
) -> str:
    """Run a program and return its standard output; raise RunError with all it printed when it fails.

    What it printed on standard error all the same is added to the remarks.
    """
    try:
        ended = commands.run(
            command,
            deadline.left,
            environment,
            given=given,
            stderr=subprocess.PIPE,
            cwd=directory,
            umask=0o022,
            pass_fds=tuple(keep_open),
        )
    except OSError as error:
        raise RunError(f"{command[0]} can't be started: {error.strerror}") from error
    printed = (ended.output + ended.errors).strip()
    if ended.status is None:
        raise RunError(printed, timed_out=True)
    if ended.status != 0:
        raise RunError(printed or f"{command[0]} ended with status {ended.status}")
    if remarks is not None:
        remarks += ended.errors.splitlines()
    return ended.output


def base_environment(inherited: Mapping[str, str], ca_bundle: str | None) -> dict[str, str]:
    """uv's environment: nothing of the host but its proxies and its certificates."""
    environment = {
        **commands.ENVIRONMENT,
        "HOME": "/nonexistent",
        "NO_COLOR": "1",
        "UV_NO_CONFIG": "1",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }
    names = [name for upper in PASSED_ON for name in (upper, upper.lower())]
    if ca_bundle:
        environment["SSL_CERT_FILE"] = ca_bundle
    else:
        # The host's own trust store, to which a company's authority is added; uv's default is a list of its own.
        environment["UV_SYSTEM_CERTS"] = "true"
        names += ["SSL_CERT_FILE", "SSL_CERT_DIR"]
    environment.update((name, inherited[name]) for name in names if inherited.get(name))
    return environment


def netrc_text(credentials: Iterable[Credential]) -> str:
    """A netrc file; every word is quoted, since passwords hold blanks and number signs."""
    return "".join(
        f"machine {item.host} login {_quoted(item.username)} password {_quoted(item.password)}\n"
        for item in credentials
    )


def _quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def write_private(path: Path, text: str) -> None:
    """Write a new file that is its owner's alone from its first byte on."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def user_info(url: str) -> str:
    """What an address has where its user and password belong; of one that can't be parsed or has no scheme, too."""
    return re.sub(r"^\s*(?:[A-Za-z][A-Za-z0-9+.-]*:)?//", "", url).rpartition("@")[0]


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Take logins in URLs, the given secrets in any spelling, and what steers a terminal out of a text."""
    return printable(redact(without_logins(_SEQUENCE.sub("", text)), secrets))


def tail(text: str) -> str:
    """The end of a program's output."""
    return printable("\n".join([line for line in text.split("\n") if line.strip()][-_TAIL_LINES:]))


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """A signal to stop ends what is run meanwhile, and lets this process remove what it began."""

    def interrupted(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, interrupted) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
