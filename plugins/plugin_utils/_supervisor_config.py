# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sections of supervisor's configuration from the lists of the role supervisor, and what is wrong with these lists."""

from __future__ import annotations

import base64
import json
import re
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _serving, _shapes, _spec

# The lists of the role, and the sections that their entries become.
SECTIONS = {
    "programs": "program",
    "fcgi_programs": "fcgi-program",
    "event_listeners": "eventlistener",
    "groups": "group",
}
# Keys of an entry that are ours and no options of supervisor.
OWN_KEYS = ("name", "secrets")
LOG_DIRECTORY = "/var/log/supervisor"
# The variable in which the role's launcher finds the others; see files/with_environment.py of the role supervisor.
ENCODED = "FASTAPI_HOST_ENVIRONMENT"

# What supervisor.options.ProcessConfig and supervisorctl can take apart; ':' parts group and process.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# supervisor.datatypes.byte_size
SIZE = re.compile(r"\d+(KB|MB|GB)?", re.IGNORECASE)
# What supervisor takes for a log in the place of a path.
NO_FILE = ("AUTO", "NONE", "SYSLOG")
OWNER = re.compile(rf"{_shapes.ACCOUNT.pattern}(:{_shapes.ACCOUNT.pattern})?")
RUN_DIRECTORY = "/run/supervisor"
# Quoted in YAML, for a bare 022 is the number 18 there.
OCTAL = re.compile(r"0[0-7]{2,3}")
# A process's number in one of the forms of Python's % operator.
PROCESS_NUM = re.compile(r"%\(process_num\)[-#0 +]*\d*[ds]")
# What supervisor expands in a value.
EXPANSION = re.compile(r"%\(([A-Za-z_]\w*)\)[-#0 +]*\d*([ds])")
NUMBERS = ("process_num", "numprocs")
NAMES = ("here", "program_name", "group_name", "host_node_name")
# What ends a line for Python's text files, and what else no line of a file of people's holds; a tab is a blank.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
# What begins a comment within a line (supervisor.options.UnhosedConfigParser).
COMMENT = re.compile(r"\s[;#]")


def supervisor_sections(lists: Mapping[str, Any], launcher: str) -> str:
    """The text of a configuration file with one section for each entry of the lists in SECTIONS.

    launcher is the command that decodes what supervisor's syntax can't hold and executes what follows it.
    """
    return "\n".join(
        f"[{section}:{entry['name']}]\n{_options(section, entry, launcher)}"
        for key, section in SECTIONS.items()
        for entry in lists.get(key) or []
    )


def _options(section: str, entry: Mapping[str, Any], launcher: str) -> str:
    options = {key: value for key, value in entry.items() if key not in OWN_KEYS and value is not None}
    if section == "group":
        return _serving.supervisor_options(options)
    variables = {**(entry.get("environment") or {}), **(entry.get("secrets") or {})}
    environment = {name: _serving.text_of(name, value) for name, value in variables.items()}
    encoded = {name: text for name, text in environment.items() if not _is_plain(text)}
    if encoded:
        code = base64.b64encode(json.dumps(encoded).encode()).decode()
        environment = {**{name: text for name, text in environment.items() if name not in encoded}, ENCODED: code}
        options["command"] = f"{launcher} {options['command']}"
    options.pop("environment", None)
    text = _serving.supervisor_options({**_defaults(section, entry), **options})
    return text + (_serving.supervisor_options({"environment": environment}) if environment else "")


def _is_plain(text: str) -> bool:
    """Whether supervisor's syntax holds it: no line breaks, no escapes, and a comment begins within quotes too."""
    if not text.isprintable() or COMMENT.search(text):
        return False
    try:
        _serving.supervisor_options({"environment": {"A": text}})
    except _serving.ServingError:
        return False
    return True


def _defaults(section: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What supervisor would do otherwise: refuse a pool without numbers, and log into files of random names."""
    defaults: dict[str, Any] = {}
    name = str(entry["name"])
    number = "_%(process_num)02d" if _number(entry.get("numprocs", 1)) > 1 else ""
    if number:
        defaults["process_name"] = f"%(program_name)s{number}"
    log = f"{LOG_DIRECTORY}/{name}{number}.log"
    if section == "eventlistener":
        # Its stdout is its answer to supervisord.
        return {**defaults, "stdout_logfile": "NONE", "stderr_logfile": log}
    if "stderr_logfile" not in entry:
        defaults["redirect_stderr"] = True
    return {**defaults, "stdout_logfile": log}


def supervisor_groups(lists: Mapping[str, Any]) -> list[str]:
    """The groups that supervisord makes of the lists: the groups, and each program that is in none of them."""
    groups = lists.get("groups") or []
    grouped = {program for group in groups for program in _words(group["programs"])}
    names = [str(entry["name"]) for key in SECTIONS for entry in lists.get(key) or []]
    return sorted(set(names) - grouped)


def supervisor_problems(lists: Mapping[str, Any], taken: Iterable[str], prefix: str = "supervisor_") -> list[str]:
    """All that is wrong across the values of the role's lists, a sentence each."""
    problems = [*_name_problems(lists, set(taken), prefix)]
    for key, section in SECTIONS.items():
        for number, entry in enumerate(lists.get(key) or []):
            label = f"{prefix}{key}[{number}] {entry.get('name', '')}".rstrip()
            checks = [_group_problems(entry, lists)] if section == "group" else _host_program(entry, section)
            problems += [f"{label}: {problem}" for found in checks for problem in found]
    return problems


def _host_program(entry: Mapping[str, Any], section: str) -> list[Iterator[str]]:
    return [program_problems(entry, section), _log_problems(entry)]


def _log_problems(entry: Mapping[str, Any]) -> Iterator[str]:
    for key in ("stdout_logfile", "stderr_logfile"):
        value = entry.get(key)
        if isinstance(value, str) and value and value.upper() not in NO_FILE:
            problem = _shapes.written_by_root(value)
            if problem:
                yield f"{key} is {str(value)!r}: {problem}; or it may be AUTO, NONE or syslog"


def _name_problems(lists: Mapping[str, Any], taken: set[str], prefix: str) -> Iterator[str]:
    names = [(key, str(entry.get("name", ""))) for key in SECTIONS for entry in lists.get(key) or []]
    for key, name in names:
        if not NAME.fullmatch(name):
            yield f"{prefix}{key}: name {name!r}: it must be letters, digits, '_', '.' and '-', not '.' or '-' first"
        elif name in taken:
            yield f"{prefix}{key}: name {name!r} is that of an app or of a listener of this role: choose another one"
    for name, uses in Counter(name for _key, name in names).items():
        if uses > 1:
            keys = sorted({key for key, other in names if other == name})
            yield f"{prefix}{', '.join(keys)}: name {name!r} is used {uses} times: each section needs its own"


def _group_problems(group: Mapping[str, Any], lists: Mapping[str, Any]) -> Iterator[str]:
    programs = {str(entry.get("name")) for entry in lists.get("programs") or []}
    fcgi = {str(entry.get("name")) for entry in lists.get("fcgi_programs") or []}
    members = _words(group.get("programs"))
    if not members:
        yield "programs is empty: name the programs of the group"
    for name in members:
        if name in fcgi:
            yield f"programs: {name} is one of fcgi_programs, which lose their socket in a group: leave it out"
        elif name not in programs:
            known = ", ".join(sorted(programs)) or "none"
            yield f"programs: there is no {name} in programs; there are: {known}"
    for other in lists.get("groups") or []:
        shared = set(members) & set(_words(other.get("programs")))
        if other is not group and shared:
            yield f"programs: {', '.join(sorted(shared))} is in the group {other.get('name')} too: keep it in one"


def program_options() -> dict[str, Any]:
    """The argument spec of one entry of supervisor_programs; none of the options is required."""
    options: dict[str, Any] = _spec.role_options("supervisor")["supervisor_programs"]["options"]
    return {name: {**option, "required": False} for name, option in options.items()}


def program_problems(entry: Mapping[str, Any], section: str = "program") -> Iterator[str]:
    """What cannot work in the options of one program, beyond their types."""
    yield from _pool_problems(entry)
    yield from _format_problems(entry)
    environment, secrets = _mapping(entry.get("environment")), _mapping(entry.get("secrets"))
    both = set(environment) & set(secrets)
    if both:
        yield f"{', '.join(sorted(map(str, both)))} is in environment and in secrets: keep one"
    try:
        variables = {**environment, **secrets}
        _serving.shell_environment(variables)
    except _serving.ServingError as error:
        yield str(error)
    if not _is_signal(str(entry.get("stopsignal", "TERM"))):
        yield f"stopsignal is {entry['stopsignal']!r}: it must be the name or the number of a signal, such as TERM"
    url = str(entry.get("serverurl", "AUTO"))
    if url.upper() != "AUTO" and not re.fullmatch(r"(unix|https?)://\S+", url):
        yield f"serverurl is {url!r}: it must be AUTO, unix:///PATH or http://HOST:PORT"
    if entry.get("stopasgroup") and entry.get("killasgroup") is False:
        yield "stopasgroup is true and killasgroup is false: supervisor refuses that; leave killasgroup out"
    if section == "eventlistener":
        yield from _listener_problems(entry)
    if section == "fcgi-program":
        yield from _socket_problems(entry)


def _pool_problems(entry: Mapping[str, Any]) -> Iterator[str]:
    if _number(entry.get("numprocs", 1)) <= 1:
        return
    name = entry.get("process_name")
    if name and not PROCESS_NUM.search(str(name)):
        yield (
            f"numprocs is {entry['numprocs']} and process_name is {name!r}: it must hold the number, as "
            "'%(program_name)s_%(process_num)02d'"
        )
    for key in ("stdout_logfile", "stderr_logfile"):
        path = str(entry.get(key) or "")
        if path.startswith("/") and not path.startswith("/dev/") and not PROCESS_NUM.search(path):
            yield (
                f"numprocs is {entry['numprocs']} and {key} is {path!r}: all processes would write and rotate one file;"
                " put %(process_num)02d into it"
            )


def _format_problems(entry: Mapping[str, Any]) -> Iterator[str]:
    for key, value in entry.items():
        if key.endswith("_maxbytes") and not SIZE.fullmatch(str(value)):
            yield f"{key} is {value!r}: it must be a number of bytes, or one with KB, MB or GB, such as 50MB"
        if key in ("umask", "socket_mode"):
            open_to_all = (_shapes.umask if key == "umask" else _shapes.mode)(str(value))
            if not OCTAL.fullmatch(str(value)):
                yield f"{key} is {value!r}: it must be octal digits in quotes, such as '022'"
            elif open_to_all:
                yield f"{key} is {value!r}: {open_to_all}"
        if isinstance(value, str):
            yield from (f"{key}: {problem}" for problem in [*unwritable(value), *_unknown_expansions(value)])
    if isinstance(entry.get("user"), str) and entry["user"] and _shapes.account(entry["user"]):
        yield f"user is {str(entry['user'])!r}: {_shapes.account(entry['user'])}"
    if "command" in entry and not str(entry["command"] or "").strip():
        yield "command is empty: name the program to run"


def _unknown_expansions(text: str) -> Iterator[str]:
    for name, kind in EXPANSION.findall(text):
        if kind == "d" and name not in NUMBERS:
            yield f"%({name}){kind} is no expansion that supervisor knows as a number; known are {', '.join(NUMBERS)}"
        elif name not in (*NUMBERS, *NAMES) and not name.startswith("ENV_"):
            known = ", ".join(f"%({known})s" for known in NAMES)
            yield f"%({name}){kind} is no expansion of supervisor; known are {known}, %(process_num)02d and %(ENV_X)s"


def unwritable(text: str) -> Iterator[str]:
    """supervisor's files know no escape for either."""
    if CONTROL.search(text):
        yield "no value may hold a line break or another control character"
    if COMMENT.search(text):
        yield "white space before ';' or '#' begins a comment in supervisor's configuration"


def _listener_problems(entry: Mapping[str, Any]) -> Iterator[str]:
    if entry.get("redirect_stderr"):
        yield "redirect_stderr is true: the stdout of an event listener is its protocol; leave it out"
    if not entry.get("events"):
        yield "events is empty: name the events that it listens to, such as PROCESS_STATE_FATAL"
    if "buffer_size" in entry and _number(entry["buffer_size"]) < 1:
        yield f"buffer_size is {entry['buffer_size']}: it must be 1 event or more"
    handler = str(entry.get("result_handler", "supervisor.dispatchers:default_handler"))
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", handler):
        yield f"result_handler is {handler!r}: it must be MODULE:FUNCTION"


def _socket_problems(entry: Mapping[str, Any]) -> Iterator[str]:
    socket = str(entry.get("socket", ""))
    if not re.fullmatch(r"unix:///\S+|tcp://[^:\[\]/\s*]+:\d{1,5}", socket):
        yield f"socket is {socket!r}: it must be unix:///PATH or tcp://HOST:PORT, with a name or an IPv4 address"
    elif socket.startswith("tcp:") and (entry.get("socket_owner") or entry.get("socket_mode")):
        yield "socket_owner and socket_mode are for a socket unix:///PATH alone"
    elif socket.startswith("unix:"):
        path = socket[len("unix://") :]
        problem = _shapes.written_by_root(path, good=RUN_DIRECTORY) or _shapes.socket_size(path)
        if problem:
            yield f"socket is {socket!r}: {problem}"
    owner = str(entry.get("socket_owner") or "")
    if owner and not OWNER.fullmatch(owner):
        yield f"socket_owner is {owner!r}: it must be USER or USER:GROUP, of {_shapes.ACCOUNT_RULE}"


def _is_signal(text: str) -> bool:
    """As supervisor.datatypes.signal_number takes it."""
    if text.isdigit():
        return int(text) in set(signal.Signals)
    name = text.upper()
    return (name if name.startswith("SIG") else f"SIG{name}") in signal.Signals.__members__


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _words(value: Any) -> list[str]:
    """A list, or text with commas as Ansible takes it for one."""
    words = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
    return [str(word).strip() for word in words]


def _number(value: Any) -> int:
    """0 where it is none, which the argument spec reports."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0
