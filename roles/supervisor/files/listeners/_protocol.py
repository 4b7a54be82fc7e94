# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What supervisord and its event listeners say to each other, over stdin, stdout and XML-RPC; stderr is the log."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from supervisor.childutils import getRPCInterface

STDIN, STDOUT, STDERR = 0, 1, 2
RPC_TIMEOUT = 10

# Read by their keys, since an identifier may contain spaces and colons; supervisor's own childutils fails on those.
_HEADER = re.compile(r"ver:\S+ server:(?P<identifier>.*) serial:\d+ pool:.* eventname:(?P<name>\S+) len:(?P<size>\d+)")
_PAYLOAD = re.compile(r"processname:(?P<process>.*) groupname:(?P<group>.*) from_state:(?P<from_state>\S+)(?P<more>.*)")


class SettingError(Exception):
    """Says which environment variable is wrong, and what is allowed."""


class Event(NamedTuple):
    """A change of a process's state. supervisord sends pid and expected of an exit, and neither with FATAL."""

    name: str
    identifier: str
    group: str
    process: str
    from_state: str
    pid: int | None
    expected: bool | None


def parse(header: str, payload: str) -> Event | None:
    """None for an event that isn't a change of a process's state."""
    head, body = _HEADER.match(header), _PAYLOAD.match(payload)
    if head is None or body is None:
        return None
    more = dict(token.split(":", 1) for token in body["more"].split() if ":" in token)
    return Event(
        name=head["name"],
        identifier=head["identifier"],
        group=body["group"],
        process=body["process"],
        from_state=body["from_state"],
        pid=int(more["pid"]) if "pid" in more else None,
        expected=more["expected"] == "1" if "expected" in more else None,
    )


def display_name(group: str, process: str) -> str:
    """As supervisorctl shows it."""
    return process if process == group else f"{group}:{process}"


def log(message: str) -> None:
    line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {message}\n"
    try:
        # Past Python's buffer, whose lock a thread might still hold when the process ends.
        os.write(STDERR, line.encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # supervisord is gone


def number(name: str, default: float, lowest: float, highest: float) -> float:
    text = os.environ.get(name, "") or str(default)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not lowest <= value <= highest:
        raise SettingError(f"{name} is {text!r}: it must be a number of seconds from {lowest:g} to {highest:g}")
    return value


def ask(method: str, *params: Any) -> Any:
    """One call of supervisord. SUPERVISOR_USERNAME and SUPERVISOR_PASSWORD are its user, if it wants one."""
    # The only way to give supervisor's own client a limit.
    socket.setdefaulttimeout(RPC_TIMEOUT)
    with getRPCInterface(os.environ) as server:
        return getattr(server.supervisor, method)(*params)


def run(main: Callable[[], None]) -> None:
    """Ends with status 0 on SIGTERM, and with 2 and a line in the log on a setting that is wrong."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    try:
        main()
    except SettingError as error:
        log(str(error))
        sys.exit(2)


def nothing_due() -> float | None:
    return None


def serve(handle: Callable[[Event], None], work: Callable[[], float | None] = nothing_due) -> None:
    """Hand over events until supervisord is gone. Between them, work does what is due and says when to call it again.

    An event is acknowledged even when handle fails: supervisord would send it again for ever.
    """
    # supervisord counts the payload's length in characters.
    stream = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace", newline="\n")
    while _say("READY\n"):
        # Nothing can wait in the buffer, since supervisord sends one event for one READY.
        while not select.select([STDIN], [], [], work())[0]:
            pass
        header = stream.readline().rstrip("\n")
        if not header:
            return
        head = _HEADER.match(header)
        payload = stream.read(int(head["size"])) if head else ""
        event = parse(header, payload)
        if event is not None:
            _guarded(handle, event)
        if not _say("RESULT 2\nOK"):
            return


def _say(answer: str) -> bool:
    try:
        os.write(STDOUT, answer.encode())
    except BrokenPipeError:
        return False
    return True


def _guarded(handle: Callable[[Event], None], event: Event) -> None:
    try:
        handle(event)
    except Exception:
        log(f"unexpected error with {event}:\n{traceback.format_exc()}")
