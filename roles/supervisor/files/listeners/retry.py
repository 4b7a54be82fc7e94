# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An event listener of supervisord that starts FATAL programs again, with growing pauses.

supervisord itself gives up after startretries. This listener goes on: it starts the program after a first pause, and
each time that the program ends in FATAL again the next pause is twice as long, up to a longest. Once the program has
been RUNNING for longer than the pause that would come next, the pauses begin from the first.

It gives way to the operator: a program that is no longer FATAL when its pause is over (started, stopped or removed
by hand) is left alone. supervisord refuses to stop what is FATAL already, so to end the retries of such a program
stop it while it is starting, remove it, or stop this listener.

Programs that are FATAL already when the listener starts are retried as well.

Section: events=PROCESS_STATE_FATAL. Environment variables:

RETRY_FIRST_PAUSE    seconds before the first retry, from 0.1 to 86400 (10)
RETRY_LONGEST_PAUSE  seconds that a pause grows to, from RETRY_FIRST_PAUSE to 86400 (300)
RETRY_PROGRAMS       comma-separated groups, or group:process, to retry; a program outside a group is a group of its
                     own (all)
SUPERVISOR_SERVER_URL, SUPERVISOR_USERNAME, SUPERVISOR_PASSWORD
                     where supervisord listens, which it sets itself, and its user, which it doesn't
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, NamedTuple
from xmlrpc.client import Fault

from _protocol import Event, SettingError, ask, display_name, log, number, run, serve
from supervisor.xmlrpc import Faults

LONGEST = 24 * 60 * 60
# Where a program that was started may be on its way back to FATAL.
UNDECIDED = ("STARTING", "RUNNING", "BACKOFF", "EXITED")


class Settings(NamedTuple):
    first_pause: float
    longest_pause: float
    programs: frozenset[str]

    @classmethod
    def from_environment(cls) -> Settings:
        if "SUPERVISOR_SERVER_URL" not in os.environ:
            raise SettingError("SUPERVISOR_SERVER_URL is not set: supervisord must have a [unix_http_server]")
        first = number("RETRY_FIRST_PAUSE", 10, 0.1, LONGEST)
        longest = number("RETRY_LONGEST_PAUSE", max(first, 300), 0.1, LONGEST)
        if longest < first:
            raise SettingError(f"RETRY_LONGEST_PAUSE is {longest:g}: it must be at least RETRY_FIRST_PAUSE, {first:g}")
        programs = os.environ.get("RETRY_PROGRAMS", "").split(",")
        return cls(first, longest, frozenset(name.strip() for name in programs if name.strip()))


class Name(NamedTuple):
    group: str
    process: str

    @property
    def rpc(self) -> str:
        return f"{self.group}:{self.process}"

    def __str__(self) -> str:
        return display_name(*self)


@dataclass
class Retry:
    """When to look at a program next: to start it, if it is waiting for that, or to see how it does."""

    pause: float
    due: float = 0
    waiting: bool = False


def is_settled(info: dict[str, Any], seconds: float) -> bool:
    """supervisord has EXITED what it starts again as well, for a moment."""
    since = {"RUNNING": "start", "EXITED": "stop"}.get(info["statename"])
    return since is not None and info["now"] - info[since] >= seconds


class Retries:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._retries: dict[Name, Retry] = {}

    def add_fatal(self) -> None:
        for info in ask("getAllProcessInfo"):
            if info["statename"] == "FATAL":
                self.add(Name(info["group"], info["name"]))

    def handle(self, event: Event) -> None:
        if event.name == "PROCESS_STATE_FATAL":
            self.add(Name(event.group, event.process))

    def add(self, name: Name) -> None:
        programs = self._settings.programs
        if programs and name.group not in programs and name.rpc not in programs:
            return
        retry = self._retries.setdefault(name, Retry(self._settings.first_pause))
        if not retry.waiting:
            # The event may be older than our own last start.
            retry.due = time.monotonic()

    def work(self) -> float | None:
        """Do what is due; the seconds until there is more."""
        for name, retry in list(self._retries.items()):
            if retry.due <= time.monotonic():
                self._look(name, retry)
        if not self._retries:
            return None
        return max(0, min(retry.due for retry in self._retries.values()) - time.monotonic())

    def _look(self, name: Name, retry: Retry) -> None:
        retry.due = time.monotonic() + retry.pause
        try:
            info = ask("getProcessInfo", name.rpc)
            state = info["statename"]
            was_waiting, retry.waiting = retry.waiting, state == "FATAL"
            if state == "FATAL" and was_waiting:
                self._start(name, retry)
            elif state == "FATAL":
                log(f"{name} is FATAL: retry in {retry.pause:g} s")
            elif state not in UNDECIDED or is_settled(info, retry.pause):
                self._forget(name, f"is {state}")
        except Fault as fault:
            self._forget(name, f"can't be looked at: {fault.faultString}")
        except Exception as error:
            # Whatever it was, it may be over by the next time, and the other programs are not to wait.
            log(f"{name}: supervisord doesn't answer: {error!r}")

    def _start(self, name: Name, retry: Retry) -> None:
        retry.waiting = False
        retry.pause = min(2 * retry.pause, self._settings.longest_pause)
        retry.due = time.monotonic() + retry.pause
        try:
            ask("startProcess", name.rpc, False)
            log(f"{name}: started")
        except Fault as fault:
            # What can't be executed stays FATAL, without an event.
            retry.waiting = fault.faultCode in (Faults.NO_FILE, Faults.NOT_EXECUTABLE)
            log(f"{name}: start failed: {fault.faultString}")

    def _forget(self, name: Name, why: str) -> None:
        del self._retries[name]
        log(f"{name} {why}: nothing to retry")


def main() -> None:
    retries = Retries(Settings.from_environment())
    try:
        retries.add_fatal()
    except Exception as error:
        log(f"supervisord doesn't say what is FATAL already: {error!r}")
    serve(retries.handle, retries.work)


if __name__ == "__main__":
    run(main)
