# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a slot shows from outside: its answers, who listens on its socket, and who is still connected to it."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Optional
from urllib.parse import urlsplit

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._http import HttpConnection, NoReply, get
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.launcher import FILE_NAME
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.processes import (
    ProcessTable,
    file_of,
    open_files,
    unix_sockets,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.proof import HEADER

_REDIRECTS = (301, 302, 307, 308)
_LONGEST_BODY = 2000


@dataclass(frozen=True)
class Answer:
    """A status, or what went wrong instead of one."""

    status: Optional[int]
    text: str
    # What a proxy of ours adds when it is asked for it; see proof.py.
    proof: str = ""

    def __str__(self) -> str:
        return f"status {self.status}: {self.text}" if self.status else self.text


def ask(path: str, target: str, host: str, timeout: float) -> Answer:
    """GET target over the Unix socket at path."""
    try:
        return _get(HttpConnection(host, unix_socket=path, timeout=timeout), target, host)[0]
    except NoReply as error:
        return Answer(None, str(error))


def ask_proxy(url: str, target: str, host: str, timeout: float, number: str) -> Optional[Answer]:
    """GET target of the host through the proxy at url, over TLS if that is where it leads; None if none is there.

    The number asks it for a proof of whom it reached.
    """
    proxy = urlsplit(url)

    def through(scheme: str, port: Optional[int]) -> tuple[Answer, str]:
        tls = _any_certificate() if scheme == "https" else None
        connection = HttpConnection(host, port, address=proxy.hostname or "", tls=tls, timeout=timeout)
        return _get(connection, target, host, number)

    try:
        answer, location = through(proxy.scheme, proxy.port)
        if answer.status in _REDIRECTS and location.startswith("https://"):
            answer, _location = through("https", urlsplit(location).port)
        return answer
    except NoReply as error:
        return None if isinstance(error.__cause__, ConnectionRefusedError) else Answer(None, str(error))


def _any_certificate() -> ssl.SSLContext:
    """The question is whether the way to the app is open, not whose certificate this is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _get(connection: HttpConnection, target: str, host: str, number: str = "") -> tuple[Answer, str]:
    asked = {HEADER: number} if number else {}
    reply = get(connection, target, {"Host": host, "Connection": "close", **asked}, _LONGEST_BODY)
    text = " ".join(reply.body.split()) or "(no text)"
    return Answer(reply.status, text, reply.headers.get(HEADER, "")), reply.headers.get("Location", "")


def listener(path: str) -> Optional[int]:
    """The process that listens at path, as the kernel knows it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix:
        unix.settimeout(5)
        try:
            unix.connect(path)
        except OSError:
            return None
        credentials = unix.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])


def servers(path: str, pid: int) -> set[int]:
    """Which processes of the tree serve the socket at path: not what the app itself may have started.

    In a container without CAP_SYS_PTRACE nobody may look at others' open files; then the children count, which are
    Gunicorn's workers.
    """
    table = ProcessTable()
    sockets = set(unix_sockets(path, listening=True))
    holders = {process for process in table.tree(pid) if sockets & open_files(process)}
    return holders or set(table.children(_program(table, pid)))


def _program(table: ProcessTable, pid: int) -> int:
    """What the launcher at pid started, the child of its child; pid itself where it is no launcher."""
    words = file_of(pid, "cmdline").split(b"\0")
    if not any(os.path.basename(word) == FILE_NAME.encode() for word in words[1:3]):
        return pid
    return min((child for init in table.children(pid) for child in table.children(init)), default=pid)
