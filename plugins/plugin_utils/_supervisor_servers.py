# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where supervisord listens and how supervisorctl gets in: the sections, and what is wrong with their variables."""

from __future__ import annotations

import hashlib
import ipaddress
import os.path
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _serving, _shapes, _spec, _supervisor_config

SOCKET = "/run/supervisor/supervisor.sock"
SHA_PREFIX = "{SHA}"
UNIX, INET = "unix_http_server", "inet_http_server"
# Of a kind there is one without a name, and any number with names: a variable each.
VARIABLES = {UNIX: (UNIX, f"{UNIX}s"), INET: (INET, f"{INET}s")}
# In the order in which they are written.
OPTIONS = {UNIX: ("file", "username", "password", "chmod", "chown"), INET: ("port", "username", "password")}
# The longest path of a Unix socket, less '.' and a process number: supervisord binds FILE.PID and renames that.
LONGEST_FILE = 107 - len(".4194304")
# Replaced by supervisord even where it is escaped.
HERE = "%(here)s"


class Server(NamedTuple):
    """One section: the variable that it is from, without the role's prefix, and its options."""

    kind: str
    label: str
    name: str
    options: Mapping[str, Any]

    def text(self, option: str) -> str:
        value = _spec.unvaulted(self.options.get(option))
        return "" if value is None else str(value)

    @property
    def place(self) -> str:
        """The value that says where it listens."""
        return (self.text("file") or SOCKET) if self.label == UNIX else self.text(OPTIONS[self.kind][0])

    @property
    def urls(self) -> list[str]:
        """What a client on the host may call it."""
        if self.kind == UNIX:
            return [f"unix://{self.place}"]
        host, _colon, port = self.place.rpartition(":")
        hosts = {"0.0.0.0": ["127.0.0.1", "localhost"], "*": ["127.0.0.1", "localhost"]}.get(host, [host])
        return [f"http://{each}:{port}" for each in hosts]


def servers_of(variables: Mapping[str, Any], kind: str) -> list[Server]:
    """All of a kind, the one without a name first; its section is there whenever it has options, a socket's always."""
    one, many = VARIABLES[kind]
    options = variables.get(one)
    found = []
    options = options if isinstance(options, Mapping) else {}
    if kind == UNIX or options:
        found.append(Server(kind, one, "", options))
    listed = variables.get(many)
    for number, entry in enumerate(listed if isinstance(listed, (list, tuple)) else []):
        if isinstance(entry, Mapping):
            found.append(Server(kind, f"{many}[{number}]", str(entry.get("name") or ""), entry))
    return found


def all_servers(variables: Mapping[str, Any]) -> list[Server]:
    return [*servers_of(variables, UNIX), *servers_of(variables, INET)]


def supervisor_servers(variables: Mapping[str, Any], kind: str) -> str:
    """The text of the sections of one kind; a password is written as its hash."""
    return "\n".join(_section(server) for server in servers_of(variables, kind))


def _section(server: Server) -> str:
    values = {option: server.text(option) for option in OPTIONS[server.kind]}
    values[OPTIONS[server.kind][0]] = server.place
    values["password"] = supervisor_password(values["password"])
    heading = f"[{server.kind}:{server.name}]" if server.name else f"[{server.kind}]"
    return f"{heading}\n" + _literal({option: value for option, value in values.items() if value})


def _literal(values: Mapping[str, str]) -> str:
    """Lines of a section in which nothing is expanded."""
    return "".join(f"{option}={_escaped(value)}\n" for option, value in values.items())


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def supervisor_client(variables: Mapping[str, Any]) -> str:
    """The options of the section supervisorctl: where and who, in clear text as a client needs it, and the rest."""
    options = _client(variables)
    known = {"serverurl": _url(variables), **_login(variables)}
    rest = {key: options[key] for key in ("prompt", "history_file") if options.get(key)}
    return _literal({key: value for key, value in known.items() if value}) + _serving.supervisor_options(rest)


def supervisor_login(variables: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What a program of supervisord's, such as an event listener, needs to ask supervisord: options of the program.

    supervisord gives it the address of its first socket, so the login is that one's.
    """
    server = servers_of(variables, UNIX)[0]
    if not server.text("username"):
        return {}
    return {
        "environment": {"SUPERVISOR_USERNAME": server.text("username")},
        "secrets": {"SUPERVISOR_PASSWORD": server.text("password")},
    }


def _client(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    options = variables.get("supervisorctl")
    return options if isinstance(options, Mapping) else {}


def _url(variables: Mapping[str, Any]) -> str:
    return str(_client(variables).get("serverurl") or servers_of(variables, UNIX)[0].urls[0]).rstrip("/")


def _reached(variables: Mapping[str, Any]) -> Server | None:
    """The server that supervisorctl speaks to."""
    return next((server for server in all_servers(variables) if _url(variables) in server.urls), None)


def _login(variables: Mapping[str, Any]) -> dict[str, str]:
    """supervisorctl's own, or else the server's."""
    own, server = _client(variables), _reached(variables)
    login = {}
    for key in ("username", "password"):
        value = _spec.unvaulted(own.get(key))
        login[key] = str(value) if value is not None else server.text(key) if server else ""
    return login


def supervisor_password(password: str) -> str:
    """A password as supervisor compares it without holding it: {SHA} and the SHA-1 in hexadecimal; empty for none."""
    if not password or password.startswith(SHA_PREFIX):
        return password
    return SHA_PREFIX + hashlib.sha1(password.encode()).hexdigest()


def supervisor_secrets(lists: Mapping[str, Any], variables: Mapping[str, Any]) -> list[str]:
    """All values that must not show: the programs' secrets, and passwords as they are given and as they are written."""
    entries = [entry for key in _supervisor_config.SECTIONS for entry in lists.get(key) or []]
    found = [str(value) for entry in entries for value in (entry.get("secrets") or {}).values()]
    for server in all_servers(variables):
        found += [server.text("password"), supervisor_password(server.text("password"))]
    password = _login(variables)["password"]
    found += [password, _escaped(password)]
    return [value for value in dict.fromkeys(found) if value]


# --- what is wrong


def server_problems(variables: Mapping[str, Any]) -> Iterator[str]:
    """All that cannot work, a sentence each."""
    for server in all_servers(variables):
        checks = _inet_problems(server) if server.kind == INET else _unix_problems(server)
        for problem in [*_name_problems(server, variables), *checks, *_login_problems(server)]:
            yield f"supervisor_{server.label}: {problem}"
    for problem in _client_problems(variables):
        yield f"supervisor_supervisorctl: {problem}"


def _name_problems(server: Server, variables: Mapping[str, Any]) -> Iterator[str]:
    # One that is missing is reported by the check of types.
    if not server.name:
        return
    first, *_more = [other for other in servers_of(variables, server.kind) if other.name == server.name]
    if not _supervisor_config.NAME.fullmatch(server.name):
        yield f"name is {server.name!r}: it must be letters, digits, '_', '.' and '-', not '.' or '-' first"
    elif first.label != server.label:
        yield f"name is {server.name!r}, as that of {first.label}: supervisor would make one section of both"


def _unix_problems(server: Server) -> Iterator[str]:
    mode, owner, path = server.options.get("chmod"), server.text("chown"), server.place
    # One that is missing is reported by the check of types.
    if path:
        yield from _path_problems(path)
    if mode is not None and not _supervisor_config.OCTAL.fullmatch(str(mode)):
        yield f"chmod is {mode!r}: it must be octal digits in quotes, such as '0770'"
    elif mode is not None and _shapes.mode(str(mode)) and not server.text("username"):
        yield (
            f"chmod is {mode!r}: every account of the host could start programs as root; leave out what others may, or"
            " set username and password"
        )
    if owner and not _supervisor_config.OWNER.fullmatch(owner):
        yield f"chown is {owner!r}: it must be USER or USER:GROUP, of {_shapes.ACCOUNT_RULE}"


def _path_problems(path: str) -> Iterator[str]:
    size = len(path.encode())
    if not re.fullmatch(r"/[^\s%;#]+", path) or os.path.normpath(path) != path:
        yield f"file is {path!r}: it must be a full path without spaces and '%', such as {SOCKET}"
    elif size > LONGEST_FILE:
        yield (
            f"file is {path!r}, {size} bytes long: {LONGEST_FILE} are the most, since the kernel allows a socket 107"
            " and supervisord needs 8 of them for a temporary name; choose a shorter path"
        )
    # There it would also get the password.
    elif _shapes.below(path, _shapes.OPEN_TO_ALL):
        yield (
            f"file is {path!r}: every user may put a socket of that name there while supervisord is down; choose a"
            " directory of root's, such as /run/supervisor"
        )


def _inet_problems(server: Server) -> Iterator[str]:
    for key in ("username", "password"):
        if not server.text(key):
            yield f"{key} is missing: whoever reaches the port can start programs as any user"
    port = server.place
    found = re.fullmatch(r"(?P<host>[^:\[\]\s%]+):(?P<port>\d{1,5})", port)
    if not found or not 0 < int(found["port"]) < 65536:
        yield f"port is {port!r}: it must be HOST:PORT, such as 127.0.0.1:9001; supervisor knows no IPv6 there"
    elif not _is_loopback(found["host"]) and not server.options.get("public"):
        yield (
            f"port is {port!r}, which other hosts reach, with the password in clear text: use 127.0.0.1 and an SSH"
            " tunnel, or set public to true if that is meant"
        )


def _login_problems(server: Server) -> Iterator[str]:
    username, password = server.text("username"), server.text("password")
    if server.kind == UNIX and bool(username) != bool(password):
        missing = "password" if username else "username"
        yield f"{missing} is missing: supervisor wants both a username and a password, or neither"
    if ":" in username:
        yield "username holds ':', which parts it from the password in HTTP"
    if HERE in username:
        yield f"username holds {HERE}, which supervisord replaces by a directory"
    yield from (f"username {problem}" for problem in _unwritable(username))
    if password.startswith(SHA_PREFIX):
        if not re.fullmatch(r"[0-9a-f]{40}", password[len(SHA_PREFIX) :]):
            yield (
                "password begins with {SHA}, so 40 lower-case hexadecimal digits must follow, the SHA-1 of the password"
            )
        if server.label == UNIX:
            yield (
                "password begins with {SHA}: give it in clear text, which supervisorctl and the modules need; its"
                " section gets the hash alone"
            )


def _unwritable(text: str) -> Iterator[str]:
    """supervisor's files have no escape for these."""
    if not text.isprintable() or text != text.strip():
        yield "holds a control character, or a space at an end, which supervisor's configuration can't hold"
    if _supervisor_config.COMMENT.search(text):
        yield "holds a space before ';' or '#', which begins a comment in supervisor's configuration"


def _client_problems(variables: Mapping[str, Any]) -> Iterator[str]:
    options, server, login = _client(variables), _reached(variables), _login(variables)
    if server is None:
        known = ", ".join(url for each in all_servers(variables) for url in each.urls)
        yield (
            f"serverurl is {str(options.get('serverurl'))!r}: supervisord does not listen there; it must be one of"
            f" {known}"
        )
        return
    hashed = login["password"].startswith(SHA_PREFIX)
    if login["username"] != server.text("username"):
        yield f"username is {login['username']!r}, and that of {server.label}, where it goes, is {_named(server)}"
    elif hashed and server.label != UNIX:
        yield (
            f"password, which is that of {server.label}, is a hash: set it here in clear text, since a client has to"
            " send it"
        )
    elif supervisor_password(login["password"]) != supervisor_password(server.text("password")):
        yield f"password is not that of {server.label}, where it goes: leave it out, or make both the same"
    yield from (f"password {problem}" for problem in _unwritable(login["password"]))
    for key in ("prompt", "history_file"):
        text = str(options.get(key) or "")
        if not text.isprintable() or _supervisor_config.COMMENT.search(text):
            yield f"{key} is {text!r}: it may hold no line break, and no white space before ';' or '#'"
    history = str(options.get("history_file") or "")
    if history and not history.startswith(("/", "~/", "%(here)s/")):
        yield f"history_file is {history!r}: it must be a full path, or one from the user's home, as ~/.supervisorctl"


def _named(server: Server) -> str:
    return repr(server.text("username")) if server.text("username") else "none"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
