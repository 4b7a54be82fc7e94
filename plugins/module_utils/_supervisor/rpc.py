# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""XML-RPC with supervisord over its Unix socket or HTTP: many calls in one request, and errors that say what to do."""

from __future__ import annotations

import base64
import http.client
import os
import re
import socket
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._http import HttpConnection
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import ctl as _supervisor_ctl

CONFIG = "/etc/supervisord.conf"
# Where no configuration says another one.
DEFAULT_URL = "unix:///run/supervisor/supervisor.sock"
URL_FORMS = "unix:///path/of/the.sock or http://host:port"
# supervisord answers from one thread; this is the longest silence that is taken for work and not for a hang.
CALL_TIMEOUT = 30.0
RETRY_PAUSE = 0.2

# The fault codes that are dealt with by name.
UNKNOWN_METHOD = 1
SHUTDOWN_STATE = 6
BAD_NAME = 10
SPAWN_ERROR = 50
ALREADY_STARTED = 60
NOT_RUNNING = 70
STILL_RUNNING = 91

SUPERVISOR_RUNNING = 1

# What supervisord puts into XML unescaped though XML forbids it, such as the escape codes of a coloured log.
_NOT_XML = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]")

# Supervisor's complaints about a configuration quote the text, which may be a program's environment with its secrets.
_QUOTED_SETTINGS = (
    (re.compile(r"Format string .* for (['\"])environment\1", re.DOTALL), "The value of 'environment'"),
    (re.compile(r"(key/value pairs in value) '.*'(?= in section |$)", re.DOTALL), r"\1 (not shown)"),
    (re.compile(r"(\[line +\d+\]): .*"), r"\1 (not shown)"),
    (re.compile(r"(, line: \d+)\n.*", re.DOTALL), r"\1 (not shown)"),
    (re.compile(r" Available names: .*?(?= in section |$)", re.DOTALL), ""),
)


# What the modules have in common, for their argument_spec.
CONNECTION_OPTIONS: dict[str, dict[str, Any]] = {
    "config": {"type": "path", "default": CONFIG},
    "server_url": {"type": "str"},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "redact": {"type": "list", "elements": "str", "default": [], "no_log": True},
}


class SupervisorError(Exception):
    """A foreseeable failure; its text is for the user, details go into the result beside it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.details: dict[str, Any] = {}


class NotRunning(SupervisorError):
    """Nobody listens at the address."""


class OtherLogin(SupervisorError):
    """The login of the configuration file is not, or not yet, that of the supervisord that runs."""


class ShuttingDown(SupervisorError):
    pass


class ConnectionLost(SupervisorError):
    pass


class NoAnswer(SupervisorError):
    pass


@dataclass(frozen=True)
class Fault:
    """supervisord's refusal of one call."""

    code: int
    text: str


class CallFailed(SupervisorError):
    def __init__(self, call: Call, fault: Fault) -> None:
        super().__init__(f"supervisord refused {call}: {fault.text}")
        self.fault = fault


class Call(NamedTuple):
    method: str
    params: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.method, *(str(param) for param in self.params if not isinstance(param, bool))])


@dataclass(frozen=True)
class Address:
    url: str
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Connection:
    """Where supervisord is and how to be let in; without server_url the file config says both."""

    server_url: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    connect_timeout: float = 10
    config: str = CONFIG

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Connection:
        """That of a module, whose argument_spec has CONNECTION_OPTIONS and connect_timeout."""
        return cls(**{each.name: params[each.name] for each in fields(cls)})


def require_not_negative(**options: float) -> None:
    for option, value in options.items():
        if value < 0:
            raise SupervisorError(f"{option} {value:g}: it must be 0 or more")


def redact(text: str) -> str:
    for pattern, replacement in _QUOTED_SETTINGS:
        text = pattern.sub(replacement, text)
    return text


def parse_url(url: str, label: str = "server_url") -> Address:
    if url.startswith("unix://"):
        path = url[len("unix://") :]
        if not path.startswith("/"):
            raise SupervisorError(
                f"{label} {url}: the path must be absolute, as in unix:///run/supervisor/supervisor.sock"
            )
        return Address(url, path=path)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SupervisorError(f"{label} {url}: {error}; allowed is {URL_FORMS}") from None
    if "@" in parts.netloc:
        # The URL is not repeated, since it holds the password.
        raise SupervisorError(f"{label} holds a user name or password; set username and password instead")
    if parts.scheme != "http":
        raise SupervisorError(f"{label} {url}: unknown kind of address; allowed is {URL_FORMS}")
    if not parts.hostname or not port or parts.path not in ("", "/", "/RPC2") or parts.query or parts.fragment:
        raise SupervisorError(f"{label} {url}: a host and a port and nothing else must follow; allowed is {URL_FORMS}")
    return Address(url, host=parts.hostname, port=port)


def _settings(path: str) -> _supervisor_ctl.CtlSettings | None:
    try:
        return _supervisor_ctl.read(path)
    except PermissionError:
        raise SupervisorError(
            f"config {path}: permission denied for user id {os.geteuid()}; run the task with become, or set server_url"
        ) from None
    except OSError as error:
        raise SupervisorError(f"config {path}: {error.strerror}") from None
    except _supervisor_ctl.Unreadable as error:
        raise SupervisorError(f"config {path}: {error}; correct the file, or set server_url") from None


class Supervisor:
    """One kept connection. Every call goes through system.multicall: it gives a reason where a call alone gives 500."""

    def __init__(self, connection: Connection, call_timeout: float = CALL_TIMEOUT) -> None:
        self._config = connection.config
        found = None if connection.server_url else _settings(connection.config)
        self._label = f"{connection.config}: serverurl" if found else "server_url"
        self._fix = f"restart it if {connection.config} has changed since" if found else "correct server_url"
        # Whether the login is the file's, or none because the file has none.
        self._login_of_file = found is not None and connection.username is None
        if found and self._login_of_file:
            connection = replace(connection, username=found.username, password=found.password)
        url = connection.server_url or (found.server_url if found else DEFAULT_URL)
        self.address = parse_url(url, self._label)
        self._username = connection.username
        self._call_timeout = call_timeout
        self._headers = {"Content-Type": "text/xml", "Host": "localhost"}
        if (connection.username is None) != (connection.password is None):
            raise SupervisorError("username and password belong together: set both or neither")
        if connection.username is not None:
            login = f"{connection.username}:{connection.password}".encode()
            self._headers["Authorization"] = "Basic " + base64.b64encode(login).decode()
        self._http = HttpConnection(
            self.address.host, self.address.port, unix_socket=self.address.path, timeout=call_timeout
        )

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, *params: Any) -> Any:
        call = Call(method, params)
        (answer,) = self.multicall([call])
        if isinstance(answer, Fault):
            raise CallFailed(call, answer)
        return answer

    def multicall(self, calls: Sequence[Call]) -> list[Any]:
        """The calls' answers in their order; a Fault where one was refused."""
        if not calls:
            return []
        structs = [{"methodName": f"supervisor.{call.method}", "params": list(call.params)} for call in calls]
        body = xmlrpc.client.dumps((structs,), "system.multicall").encode()
        answers = self._parse(self._post(body, calls[0].method))
        return [self._answer(call, answer) for call, answer in zip(calls, answers)]

    def _answer(self, call: Call, answer: Any) -> Any:
        if not (isinstance(answer, dict) and "faultCode" in answer):
            return answer
        fault = Fault(answer["faultCode"], redact(str(answer["faultString"])))
        if fault.code == SHUTDOWN_STATE:
            raise ShuttingDown(
                f"supervisord at {self.address} is shutting down or restarting and takes no commands; "
                "wait until it is back, or start it"
            )
        if fault.code == UNKNOWN_METHOD:
            raise SupervisorError(
                f"supervisord at {self.address} does not know the call supervisor.{call.method}; "
                "its configuration needs the section [rpcinterface:supervisor]"
            )
        return fault

    def _parse(self, data: bytes) -> list[Any]:
        try:
            (answers,), _method = xmlrpc.client.loads(_NOT_XML.sub(b"?", data))
        except xmlrpc.client.Fault as fault:
            raise SupervisorError(f"{self.address} refused system.multicall: {redact(fault.faultString)}") from None
        except (ExpatError, xmlrpc.client.ResponseError, ValueError, TypeError):
            raise SupervisorError(
                f"{self.address} answered with something that is not XML-RPC; is it supervisord?"
            ) from None
        if not isinstance(answers, list):
            raise SupervisorError(
                f"{self.address} answered system.multicall with no list of answers; is it supervisord?"
            )
        return answers

    def _post(self, body: bytes, method: str) -> bytes:
        if self._http.sock is None:
            self._open()
        try:
            self._http.request("POST", "/RPC2", body, self._headers)
            response = self._http.getresponse()
            data = response.read()
        except socket.timeout:
            self.close()
            raise NoAnswer(
                f"supervisord at {self.address} did not answer {method} within {self._call_timeout:g} s; "
                "it hangs or the host is overloaded"
            ) from None
        except (ConnectionError, http.client.IncompleteRead) as error:
            self.close()
            raise ConnectionLost(
                f"supervisord at {self.address} closed the connection in the middle of {method} "
                f"({type(error).__name__}): it ended or was restarted; its own log says why"
            ) from None
        except http.client.HTTPException as error:
            self.close()
            raise SupervisorError(
                f"{self.address} does not speak HTTP as supervisord does ({type(error).__name__}); check {self._label}"
            ) from None
        if response.status != 200:
            self.close()
            raise self._http_error(response.status, response.reason, method)
        return data

    def _open(self) -> None:
        try:
            self._http.connect()
        except OSError as error:
            self.close()
            raise self._connect_error(error) from None

    def _connect_error(self, error: OSError) -> SupervisorError:
        where = f"{self._label} {self.address.url}"
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return NotRunning(
                f"{where}: there is no socket {self.address.path}. supervisord is not running, or the file= of its "
                f"[unix_http_server] is another one; start supervisord or {self._fix}"
            )
        if isinstance(error, ConnectionRefusedError):
            return NotRunning(
                f"{where}: connection refused, nobody listens at {self.address}. supervisord is not running, "
                f"or its configuration has no HTTP server there; start supervisord or {self._fix}"
            )
        if isinstance(error, PermissionError):
            return SupervisorError(
                f"{where}: permission denied for user id {os.geteuid()}; run the task with become. Who may use the "
                "socket is set by chmod and chown in the section [unix_http_server] of supervisord's configuration"
            )
        if isinstance(error, (socket.timeout, BlockingIOError)):
            # EAGAIN is a Unix socket's full queue: supervisord is there and does not get round to accepting.
            return NoAnswer(f"{where}: supervisord accepts no connection within {self._call_timeout:g} s; it hangs")
        if isinstance(error, socket.gaierror):
            return SupervisorError(f"{where}: the host name {self.address.host} is unknown ({error.strerror})")
        return SupervisorError(f"{where}: cannot connect: {error.strerror or error}")

    def _http_error(self, status: int, reason: str, method: str) -> SupervisorError:
        if status == 401 and self._login_of_file:
            return OtherLogin(
                f"supervisord at {self.address} runs with another login than the section [supervisorctl] of "
                f"{self._config} has (HTTP 401); restart it if that file has changed since, or correct the file"
            )
        if status == 401 and self._username is None:
            return SupervisorError(
                f"supervisord at {self.address} asks for a user name and a password (HTTP 401): "
                "set the options username and password"
            )
        if status == 401:
            return SupervisorError(
                f"supervisord at {self.address} refused the user name {self._username} with this password (HTTP 401): "
                "compare both with the section [unix_http_server] or [inet_http_server] of its configuration"
            )
        if status == 500:
            return SupervisorError(
                f"supervisord at {self.address} failed inside {method} (HTTP 500); its own log says why"
            )
        return SupervisorError(f"{self.address} answered HTTP {status} {reason}; is server_url that of supervisord?")


def connect(connection: Connection) -> Supervisor:
    """A supervisord that takes commands; waits for one that is on its way up."""
    supervisor = Supervisor(connection)
    deadline = time.monotonic() + connection.connect_timeout
    while True:
        try:
            state = supervisor.call("getState")
            break
        except (NotRunning, ShuttingDown, ConnectionLost) as error:
            if not connection.connect_timeout:
                raise
            if time.monotonic() + RETRY_PAUSE > deadline:
                raise type(error)(
                    f"{error} (waited {connection.connect_timeout:g} s, option connect_timeout)"
                ) from None
        time.sleep(RETRY_PAUSE)
    if state["statecode"] != SUPERVISOR_RUNNING:
        raise SupervisorError(f"supervisord at {supervisor.address} is in state {state['statename']}, not RUNNING")
    return supervisor
