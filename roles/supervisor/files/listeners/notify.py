# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An event listener of supervisord that reports FATAL programs and unexpected exits to a webhook, to syslog, or both.

Neither supervisord nor its buffer of events ever waits for a delivery: each way out has a thread and a queue of its
own. A delivery that fails is tried again, after 1, 5 and 15 seconds, unless the webhook's answer says that this is no
use; then it is dropped, as is what a full queue can't take, and a line in the log says so. Of the webhook's address
the log has the host only.

The first event of a kind (a program, and FATAL or exit) is reported at once. Those that follow within NOTIFY_REPEAT
seconds are counted, and reported as one when the time is over.

Section: events=PROCESS_STATE_FATAL,PROCESS_STATE_EXITED. Environment variables, with at least one of the first two:

NOTIFY_WEBHOOK        http or https URL that gets a POST; user:password@ in it become basic authentication. Redirects
                      are not followed.
NOTIFY_SYSLOG         facility, such as daemon or local0; the priority is err
NOTIFY_TIMEOUT        seconds that one try of a delivery may take between two bytes, from 0.1 to 60 (5)
NOTIFY_REPEAT         seconds in which repeats are counted, from 0 (each is reported) to 86400 (300)
NOTIFY_SYSLOG_SOCKET  syslog's datagram socket (/dev/log)

The POST's body is a JSON object:

host, identifier      the host's name, and supervisord's identifier
group, process        of the program
event                 PROCESS_STATE_FATAL or PROCESS_STATE_EXITED
from_state            the state before
expected              false for an exit, null for FATAL
pid                   of the process that exited, null for FATAL
exit_status           of the exit, null for FATAL or if it isn't known: the event has none, so it is read from
                      supervisord's log
reason                supervisord's own words, such as "exit status 3", "terminated by SIGKILL" or "Exited too quickly
                      (process log may have details)", null if they can't be found
count                 how many events this stands for
time                  when the (last) event came, as 2026-01-31T23:59:59+00:00
text                  all that in one sentence, which Slack and Mattermost show
"""

from __future__ import annotations

import base64
import json
import logging.handlers
import os
import re
import socket
import threading
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from http.client import HTTPException
from typing import Any, NamedTuple, Protocol

from _protocol import Event, SettingError, ask, display_name, log, number, run, serve

PAUSES = (1, 5, 15)
LONGEST_QUEUE = 100
# What the end of supervisord may be delayed by.
LAST_DELIVERIES = 0.5
LOG_TAIL = 64 * 1024
FACILITIES = logging.handlers.SysLogHandler.facility_names
USER_AGENT = "supervisor-notify"


class DeliveryError(Exception):
    def __init__(self, message: str, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


class Sink(Protocol):
    name: str

    def send(self, notice: dict[str, Any]) -> None: ...


# What there is to say


class Report(NamedTuple):
    event: Event
    time: str
    times: int = 1


def is_bad(event: Event) -> bool:
    return event.name == "PROCESS_STATE_FATAL" or (event.name == "PROCESS_STATE_EXITED" and event.expected is False)


def find_reason(event: Event) -> str | None:
    """What supervisord knows about it. The event itself has neither the exit status nor the error of the start."""
    try:
        if event.name == "PROCESS_STATE_EXITED":
            names = [info["name"] for info in ask("getAllProcessInfo")]
            # supervisord drops an exit as soon as it starts the program again; its log doesn't, but has no groups.
            return exit_in_log(ask("readLog", -LOG_TAIL, 0), event) if names.count(event.process) == 1 else None
        return ask("getProcessInfo", f"{event.group}:{event.process}")["spawnerr"] or None
    except Exception:
        # No reason to keep the rest back.
        return None


def exit_in_log(text: str, event: Event) -> str | None:
    """The exit after this pid was spawned; if that is too long ago to be in the text, the last exit of the name."""
    name = re.escape(event.process)
    spawned = re.search(rf" spawned: '{name}' with pid {event.pid}$", text, re.MULTILINE)
    later = text[spawned.end() :] if spawned else text
    exits: list[str] = re.findall(rf" exited: {name} \((.+); not expected\)$", later, re.MULTILINE)
    if not exits:
        return None
    return exits[0 if spawned else -1]


def compose(report: Report, repeat: float) -> dict[str, Any]:
    event, host, reason = report.event, socket.gethostname(), find_reason(report.event)
    status = re.match(r"exit status (\d+)", reason or "")
    what = "ended in FATAL" if event.name == "PROCESS_STATE_FATAL" else "exited unexpectedly"
    times = f" {report.times} times within {repeat:g} s, the last time" if report.times > 1 else ""
    text = f"{host}: {display_name(event.group, event.process)} {what}{times}{': ' if reason else ''}{reason or ''}"
    return {
        "host": host,
        "identifier": event.identifier,
        "group": event.group,
        "process": event.process,
        "event": event.name,
        "from_state": event.from_state,
        "expected": event.expected,
        "pid": event.pid,
        "exit_status": int(status[1]) if status else None,
        "reason": reason,
        "count": report.times,
        "time": report.time,
        "text": " ".join(text.split()),
    }


# Where it goes


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET, and look delivered."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


class Webhook:
    def __init__(self, url: str, timeout: float) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urllib.parse.SplitResult("", "", "", "", ""), None
        if parts.scheme not in ("http", "https") or not parts.hostname or not re.fullmatch(r"[!-~]+", url):
            # Without the value, which may be a secret.
            raise SettingError("NOTIFY_WEBHOOK is no URL: it must look like https://host/path, in printable ASCII")
        self.name = f"webhook at {parts.hostname}"
        self._timeout = timeout
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._url = parts._replace(netloc=host if port is None else f"{host}:{port}", fragment="").geturl()
        self._headers = {"Content-Type": "application/json", "User-Agent": USER_AGENT}
        if parts.username is not None:
            login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        self._opener = urllib.request.build_opener(NoRedirect)

    def send(self, notice: dict[str, Any]) -> None:
        request = urllib.request.Request(self._url, json.dumps(notice).encode(), self._headers, method="POST")
        try:
            self._opener.open(request, timeout=self._timeout).close()
        except urllib.error.HTTPError as error:
            error.close()
            busy = error.code >= 500 or error.code in (408, 429)
            raise DeliveryError(f"status {error.code}", lasting=not busy) from None
        except urllib.error.URLError as error:
            # Any other reason might quote the address.
            raise DeliveryError(str(error.reason) if isinstance(error.reason, OSError) else "no connection") from None
        except OSError as error:
            raise DeliveryError(str(error)) from None
        except (HTTPException, ValueError) as error:
            raise DeliveryError(type(error).__name__) from None


class Syslog:
    def __init__(self, facility: str, path: str, timeout: float) -> None:
        if facility not in FACILITIES:
            raise SettingError(f"NOTIFY_SYSLOG is {facility!r}: it must be one of {', '.join(sorted(FACILITIES))}")
        self.name = "syslog"
        self._priority = FACILITIES[facility] << 3 | logging.handlers.SysLogHandler.LOG_ERR
        self._path = path
        self._timeout = timeout

    def send(self, notice: dict[str, Any]) -> None:
        # Syslog itself knows the host.
        text = notice["text"].partition(": ")[2]
        try:
            # Each time anew, since journald may have been restarted.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.settimeout(self._timeout)
                connection.connect(self._path)
                connection.send(f"<{self._priority}>{USER_AGENT}[{os.getpid()}]: {text}".encode())
        except OSError as error:
            raise DeliveryError(f"{self._path}: {error}") from None


# How it gets there


@dataclass
class Repeats:
    """The events of a kind that came after one that was reported."""

    due: float
    count: int = 0
    last: Report | None = None


class Outbox:
    """What a sink still has to get."""

    def __init__(self, repeat: float, limit: int = LONGEST_QUEUE, clock: Callable[[], float] = time.monotonic) -> None:
        self._repeat, self._limit, self._clock = repeat, limit, clock
        self._changed = threading.Condition()
        self._queue: deque[Report] = deque()
        self._repeats: dict[tuple[str, str, str], Repeats] = {}
        self._closed = False

    def put(self, event: Event) -> bool:
        """False if there is no room for it. Never waits for a delivery."""
        report = Report(event, datetime.now(timezone.utc).isoformat(timespec="seconds"))
        kind = (event.group, event.process, event.name)
        with self._changed:
            if kind in self._repeats:
                self._repeats[kind].count += 1
                self._repeats[kind].last = report
                return True
            if len(self._queue) >= self._limit:
                return False
            self._queue.append(report)
            if self._repeat:
                self._repeats[kind] = Repeats(self._clock() + self._repeat)
            self._changed.notify()
            return True

    def take(self) -> Report | None:
        """Wait for the next; None when there will be no more."""
        with self._changed:
            while True:
                self._end_repeats()
                if self._queue:
                    return self._queue.popleft()
                if self._closed:
                    return None
                dues = [repeats.due for repeats in self._repeats.values()]
                self._changed.wait(max(0, min(dues) - self._clock()) if dues else None)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _end_repeats(self) -> None:
        now = self._clock()
        for kind, repeats in list(self._repeats.items()):
            if not self._closed and now < repeats.due:
                continue
            del self._repeats[kind]
            if repeats.last is not None:
                self._queue.append(repeats.last._replace(times=repeats.count))
                if not self._closed:
                    self._repeats[kind] = Repeats(now + self._repeat)


class Courier(threading.Thread):
    """Carries reports to one sink."""

    def __init__(self, sink: Sink, repeat: float) -> None:
        super().__init__(daemon=True)
        self._sink, self._repeat = sink, repeat
        self._outbox = Outbox(repeat)
        self._closing = threading.Event()

    def put(self, event: Event) -> None:
        if not self._outbox.put(event):
            log(f"{self._sink.name}: {LONGEST_QUEUE} reports wait already: dropped that of {event.process}")

    def run(self) -> None:
        while (report := self._outbox.take()) is not None:
            try:
                self._deliver(report)
            except Exception:
                log(f"{self._sink.name}: unexpected error, going on:\n{traceback.format_exc()}")

    def _deliver(self, report: Report) -> None:
        notice = compose(report, self._repeat)
        for pause in (*PAUSES, None):
            try:
                return self._sink.send(notice)
            except DeliveryError as error:
                failure = error
            if pause is None or failure.lasting or self._closing.wait(pause):
                break
        log(f"{self._sink.name}: {failure}: dropped: {notice['text']}")

    def close(self) -> None:
        """No more pauses from now on."""
        self._closing.set()
        self._outbox.close()

    def finish(self, deadline: float) -> None:
        self.join(max(0, deadline - time.monotonic()))
        if self.is_alive():
            log(f"{self._sink.name}: ended with reports undelivered")


def sinks_from_environment() -> list[Sink]:
    timeout = number("NOTIFY_TIMEOUT", 5, 0.1, 60)
    sinks: list[Sink] = []
    if url := os.environ.get("NOTIFY_WEBHOOK", ""):
        sinks.append(Webhook(url, timeout))
    if facility := os.environ.get("NOTIFY_SYSLOG", ""):
        sinks.append(Syslog(facility, os.environ.get("NOTIFY_SYSLOG_SOCKET", "") or "/dev/log", timeout))
    if not sinks:
        raise SettingError("neither NOTIFY_WEBHOOK nor NOTIFY_SYSLOG is set: there is nowhere to report to")
    return sinks


def main() -> None:
    repeat = number("NOTIFY_REPEAT", 300, 0, 24 * 60 * 60)
    couriers = [Courier(sink, repeat) for sink in sinks_from_environment()]

    def handle(event: Event) -> None:
        if is_bad(event):
            for courier in couriers:
                courier.put(event)

    for courier in couriers:
        courier.start()
    try:
        serve(handle)
    finally:
        for courier in couriers:
            courier.close()
        deadline = time.monotonic() + LAST_DELIVERIES
        for courier in couriers:
            courier.finish(deadline)


if __name__ == "__main__":
    run(main)
