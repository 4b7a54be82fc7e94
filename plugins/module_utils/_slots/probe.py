# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a slot tells from outside: its answers, who listens on its socket, and who is still connected to it."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional
from urllib.parse import urlsplit

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.launcher import FILE_NAME
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.proof import HEADER

_UNIX_SOCKETS = "/proc/net/unix"
# The flag of a socket that listens (SO_ACCEPTCON of the kernel, printed in hexadecimal).
_LISTENS = 0x10000
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
    connection = http.client.HTTPConnection(host, timeout=timeout)
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.settimeout(timeout)
    try:
        unix.connect(path)
    except OSError as error:
        unix.close()
        return Answer(None, f"no connection to {path}: {error.strerror or error}")
    connection.sock = unix
    return _get(connection, target, host, timeout)[0]


def ask_proxy(url: str, target: str, host: str, timeout: float, number: str) -> Optional[Answer]:
    """GET target of the host through the proxy at url, over TLS if that is where it leads; None if none is there.

    The number asks it for a proof of whom it reached.
    """
    address = urlsplit(url)
    place = address.hostname or ""
    try:
        connection = _to(place, address.port, address.scheme, host, timeout)
        answer, location = _get(connection, target, host, timeout, number)
        if answer.status in _REDIRECTS and location.startswith("https://"):
            port = urlsplit(location).port
            answer, _location = _get(_to(place, port, "https", host, timeout), target, host, timeout, number)
        return answer
    except ConnectionRefusedError:
        return None
    except OSError as error:
        return Answer(None, f"no connection to {url}: {error}")


def _to(place: str, port: Optional[int], scheme: str, host: str, timeout: float) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(host, timeout=timeout)
    plain = socket.create_connection((place, port or (443 if scheme == "https" else 80)), timeout)
    if scheme == "https":
        # The question is whether the way to the app is open, not whose certificate this is.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection.sock = context.wrap_socket(plain, server_hostname=host)
    else:
        connection.sock = plain
    return connection


def _get(
    connection: http.client.HTTPConnection, target: str, host: str, timeout: float, number: str = ""
) -> tuple[Answer, str]:
    asked = {HEADER: number} if number else {}
    try:
        connection.request("GET", target, headers={"Host": host, "Connection": "close", **asked})
        response = connection.getresponse()
        body = response.read(_LONGEST_BODY).decode("utf-8", "replace")
        answer = Answer(response.status, " ".join(body.split()) or "(no text)", response.headers.get(HEADER, ""))
        return answer, response.headers.get("Location", "")
    except socket.timeout:
        return Answer(None, f"no answer within {timeout:.1f} s"), ""
    except (OSError, http.client.HTTPException) as error:
        return Answer(None, f"no answer: {type(error).__name__} {error}".rstrip()), ""
    finally:
        connection.close()


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


def connections(path: str) -> int:
    """How many connections to the socket that was bound as path are open, those included that wait to be accepted."""
    count = 0
    with open(_UNIX_SOCKETS, encoding="utf-8", errors="replace") as stream:
        for row in stream:
            fields = row.split(None, 7)
            if len(fields) == 8 and fields[7].rstrip("\n") == path and not int(fields[3], 16) & _LISTENS:
                count += 1
    return count


def tree(pid: int) -> set[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found: set[int] = set()
    ahead = [pid]
    while ahead:
        process = ahead.pop()
        found.add(process)
        ahead += [child for child in children.get(process, []) if child not in found]
    return found


def _parents() -> Iterable[tuple[int, int]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stream:
                    state, parent = stream.read().rpartition(")")[2].split()[:2]
            except (OSError, ValueError):
                continue
            if state != "Z":
                yield int(name), int(parent)


def servers(path: str, pid: int) -> set[int]:
    """Which processes of the tree serve the socket at path: not what the app itself may have started.

    In a container without CAP_SYS_PTRACE nobody may look at others' open files; then the children count, which are
    Gunicorn's workers.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening(path)}
    holders = {process for process in tree(pid) if sockets & _open_files(process)}
    return holders or _children(program(pid))


def program(pid: int) -> int:
    """What the launcher at pid started, the child of its child; pid itself where it is no launcher."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            words = stream.read().split(b"\0")
    except OSError:
        return pid
    if not any(os.path.basename(word) == FILE_NAME.encode() for word in words[1:3]):
        return pid
    started = {child for init in _children(pid) for child in _children(init)}
    return min(started, default=pid)


def _children(pid: int) -> set[int]:
    return {child for child, parent in _parents() if parent == pid}


def _listening(path: str) -> Iterable[str]:
    with open(_UNIX_SOCKETS, encoding="utf-8", errors="replace") as stream:
        for row in stream:
            fields = row.split(None, 7)
            if len(fields) == 8 and fields[7].rstrip("\n") == path and int(fields[3], 16) & _LISTENS:
                yield fields[6]


def _open_files(process: int) -> set[str]:
    folder = f"/proc/{process}/fd"
    found = set()
    try:
        for name in os.listdir(folder):
            found.add(os.readlink(f"{folder}/{name}"))
    except OSError:
        # It ended meanwhile, or closed one of them.
        pass
    return found
