# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP over a Unix socket or TCP, whatever host the request names."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from email.message import Message
from typing import NamedTuple


class HttpConnection(http.client.HTTPConnection):
    """To a host, or, for requests to that host, to the Unix socket or the address that is given instead."""

    def __init__(
        self,
        host: str = "localhost",
        port: int | None = None,
        *,
        timeout: float,
        unix_socket: str | None = None,
        address: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.default_port = http.client.HTTPS_PORT if tls else http.client.HTTP_PORT
        super().__init__(host, port, timeout=timeout)
        self._to: str | tuple[str, int] = unix_socket or (address or self.host, self.port)
        self._tls = tls

    def connect(self) -> None:
        if isinstance(self._to, str):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._to)
        else:
            self.sock = socket.create_connection(self._to, self.timeout)
            # A request's head and body are two writes, of which the second shall not wait for an acknowledgement.
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)


class Reply(NamedTuple):
    status: int
    headers: Message
    # The beginning, as much as was asked for.
    body: str


class NoReply(Exception):
    """What came instead of a reply, in a few words."""


def no_answer(seconds: float, reason: str) -> str:
    return f"no answer in {round(seconds, 1):g} s: {reason}"


def get(connection: HttpConnection, target: str, headers: Mapping[str, str] | None = None, longest: int = 0) -> Reply:
    """One request over a connection, which is closed after it."""
    try:
        connection.request("GET", target, headers=dict(headers or {}))
        response = connection.getresponse()
        body = response.read(longest) if longest else b""
        return Reply(response.status, response.headers, body.decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException) as error:
        # What a timeout says of itself differs from one Python to the next.
        timed_out = isinstance(error, socket.timeout)
        reason = "timed out" if timed_out else getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NoReply(no_answer(connection.timeout or 0, reason)) from error
    finally:
        connection.close()
