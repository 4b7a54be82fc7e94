# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of the host, each with a time limit after which it is ended with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple

# For commands that shall not depend on who runs them.
ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
)
_KILL_AFTER = 5


class Ended(NamedTuple):
    """How a command ended; the status is none when it was at its limit."""

    status: int | None
    output: str
    errors: str = ""


def run(
    command: Sequence[str],
    limit: float,
    environment: Mapping[str, str] | None = ENVIRONMENT,
    *,
    given: bytes | None = None,
    stderr: int = subprocess.STDOUT,
    **options: Any,
) -> Ended:
    """Runs a command; its errors are in its output unless stderr says where else. OSError when it can't start."""
    process = subprocess.Popen(
        list(command),
        env=environment,
        stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        # The session is what can be ended as a whole.
        start_new_session=True,
        **options,
    )
    try:
        outputs, status = process.communicate(given, timeout=limit), process.returncode
    except subprocess.TimeoutExpired:
        outputs, status = _end(process), None
    except BaseException:
        _end(process)
        raise
    return Ended(status, *((output or b"").decode(errors="replace") for output in outputs))


def _end(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Ends a whole session and returns what its command had printed."""
    outputs = b"", b""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            outputs = process.communicate(timeout=_KILL_AFTER)
    return outputs


def output_of(*command: str, limit: float) -> str:
    """What a command prints; nothing where it is missing or takes longer than limit seconds."""
    try:
        ended = run(command, limit, environment=None, stderr=subprocess.DEVNULL)
    except OSError:
        return ""
    return "" if ended.status is None else ended.output
