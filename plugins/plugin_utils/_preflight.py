# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that is wrong with the variables of a host, before anything on it changes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Optional

from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import SHORTEST, one_line
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import (
    _app_shapes,
    _apps,
    _description,
    _host_shapes,
    _nginx,
    _server_options,
    _serving,
    _shapes,
    _spec,
    _supervisor_config,
    _supervisor_servers,
)

# What a variable of the whole collection is.
COLLECTION = {
    "fastapi_apps": {"type": "list"},
    "fastapi_base_dir": {"type": "path"},
}
# How near a name that no role knows must come to one of theirs to be taken for it, and to be warned of: other roles
# may have variables that begin so, too.
NEAR = 0.9
SIMILAR = 0.8

RANGES: dict[str, tuple[int, Optional[int]]] = {
    "python_venv_keep": (1, None),
    "supervisor_event_listeners.buffer_size": (1, None),
    "supervisor_event_listeners.numprocs": (1, None),
    "supervisor_event_listeners.priority": (-1, None),
    "supervisor_fcgi_programs.numprocs": (1, None),
    "supervisor_fcgi_programs.socket_backlog": (1, 65535),
    "supervisor_minfds": (1, 1048576),
    "supervisor_minprocs": (1, 1048576),
    "supervisor_programs.numprocs": (1, None),
    "supervisor_retry_first_pause": (1, None),
    "supervisor_retry_longest_pause": (1, None),
    "nginx_status_port": (1, 65535),
    # What each of nginx and an app's server asks for by itself, and supervisor's own default of minfds.
    "supervisord_unit_limit_nofile": (1024, 1048576),
    **{f"supervisor_{key}.exitcodes": (0, 255) for key in ("programs", "fcgi_programs", "event_listeners")},
    # Those of an app, by the names that the roles' variables have.
    **{f"{role}_{key}": bounds for role in _description.ROLES for key, bounds in _server_options.RANGES.items()},
}
ABSOLUTE = r"/\S*"
IMPORT_STRING = r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"
# Text that must look like something, and what to say else.
PATTERNS = {
    "release_proxy_url": (r"https?://[^\s/@]+", "the address of nginx on the host, such as http://127.0.0.1"),
    "python_venv_version": (r"3\.(1[1-9]|[2-9]\d)", 'two numbers in quotes, "3.11" or newer, which FastAPI needs'),
    "supervisor_identifier": (r"[\w.-]+", "letters, digits, '_', '.' and '-'"),
    "supervisor_logfile_maxbytes": (r"(?i)\d+(KB|MB|GB)?", "a number of bytes, or one with KB, MB or GB, such as 50MB"),
    "supervisor_notify_webhook": (r"https?://[^\s/]+.*", "a URL that begins with https:// or http://"),
    "supervisor_umask": (r"0[0-7]{2,3}", "octal digits in quotes, such as '022'"),
    "supervisord_unit_umask": (r"0[0-7]{2,3}", "octal digits in quotes, such as '022'"),
}


class Listener(NamedTuple):
    """Where something listens: a path, or a host and a port."""

    label: str
    path: str
    host: str = ""
    port: int = 0


def prefixes(roles: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{role}_" for role in roles)


def known_variables(roles: Iterable[str]) -> dict[str, Any]:
    """The options of the roles and of the collection, by their names."""
    known: dict[str, Any] = dict(COLLECTION)
    for role in roles:
        known.update(_spec.role_options(role))
    return known


def problems(variables: Mapping[str, Any], names: Iterable[str], roles: tuple[str, ...]) -> list[str]:
    """A sentence for each thing that is wrong.

    variables are the known ones with their values, names are all that the host has.
    """
    known = known_variables(roles)
    found = [*_misspelt(names, known, roles)]
    # The apps have rules of their own, and one list must not be reported twice.
    typed = {name: option for name, option in known.items() if name != "fastapi_apps"}
    given = {name: value for name, value in variables.items() if name in typed and not _is_left_out(value, typed[name])}
    optional = {name: {**option, "required": False} for name, option in typed.items()}
    found += _spec.problems(given, optional, ranges=RANGES)
    found += _pattern_problems(given)
    found += _host_shapes.problems(given, roles)
    defaults = _description.defaults_of(variables)
    apps = variables.get("fastapi_apps")
    whole = _description.complete_apps(apps, defaults)
    of_all = _nginx_default_problems(variables)
    if apps is not None and "release" in roles:
        # What is wrong with the defaults is wrong with each app.
        found += [
            problem
            for problem in _apps.app_problems(apps, defaults=defaults)
            if f"{_description.NGINX_DEFAULTS}.{problem.partition(': ')[2]}" not in of_all
        ]
    if "supervisor" in roles:
        found += _supervisor_problems(variables, apps)
    if {"release", "supervisor"} & set(roles):
        found += _shared_places(variables, whole)
    if "nginx" in roles:
        found += [*of_all, *_proxy_problems(variables, defaults, whole)]
    if "supervisord_unit" in roles:
        found += _unit_problems(variables, whole)
    return list(dict.fromkeys(map(one_line, found)))


def warnings(variables: Mapping[str, Any], names: Iterable[str] = (), roles: tuple[str, ...] = ()) -> list[str]:
    """A sentence for each thing that is asked for and does nothing, or less than one may think."""
    apps, defaults = variables.get("fastapi_apps"), _description.defaults_of(variables)
    found = _apps.app_warnings(apps, defaults)
    found += [
        f"variable {name} has no effect, no role of this collection has it; did you mean {near}?"
        for name, near in _near(names, known_variables(roles), roles, SIMILAR)
        # One of a family of two words or more; what only begins with a role's name may be anybody's.
        if name.rpartition("_")[0] == near.rpartition("_")[0] and name.rpartition("_")[0] not in (*roles, "fastapi")
    ]
    found += [
        f"{label} has {len(value)} characters, too few to be redacted where a program prints it; {SHORTEST} are enough"
        for label, value in _secrets(variables)
        if 0 < len(value) < SHORTEST
    ]
    return list(map(one_line, found))


def _secrets(variables: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """All secrets with what they are called."""
    for app in _description.complete_apps(variables.get("fastapi_apps"), {}):
        label = f"app {app.get('name')}:"
        yield from _mapped(f"{label} secrets.", app.get("secrets"))
        uvicorn = app.get("uvicorn")
        if isinstance(uvicorn, Mapping):
            yield f"{label} uvicorn.ssl_keyfile_password", _text(uvicorn.get("ssl_keyfile_password"))
    yield from _mapped("gunicorn_uvicorn_secrets.", variables.get("gunicorn_uvicorn_secrets"))
    for key in ("programs", "fcgi_programs", "event_listeners"):
        for entry in _entries(variables.get(f"supervisor_{key}")):
            yield from _mapped(f"supervisor_{key} {entry.get('name')}: secrets.", entry.get("secrets"))
    for server in _supervisor_servers.all_servers(_servers(variables)):
        yield f"supervisor_{server.label}: password", server.text("password")
    for number, entry in enumerate(_entries(variables.get("python_venv_credentials"))):
        yield f"python_venv_credentials[{number}].password", _text(entry.get("password"))


def _mapped(prefix: str, secrets: Any) -> Iterator[tuple[str, str]]:
    for name, value in secrets.items() if isinstance(secrets, Mapping) else ():
        yield f"{prefix}{name}", _text(value)


def _text(value: Any) -> str:
    value = _spec.unvaulted(value)
    return "" if value is None else str(value)


def _is_left_out(value: Any, option: Mapping[str, Any]) -> bool:
    """Nothing is as good as an option's default where that is nothing."""
    return value is None or (value == "" and option.get("default", "") == "")


def _misspelt(names: Iterable[str], known: Mapping[str, Any], roles: tuple[str, ...]) -> Iterator[str]:
    for name, near in _near(names, known, roles, NEAR):
        yield f"unknown variable {name}; did you mean {near}?"


def _near(
    names: Iterable[str], known: Mapping[str, Any], roles: tuple[str, ...], cutoff: float
) -> Iterator[tuple[str, str]]:
    """Names that begin as ours do and that no role knows, each with the one that it may stand for."""
    ours = prefixes((*roles, "fastapi"))
    for name in sorted(set(names) - set(known)):
        if name.startswith(ours):
            near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
            if near:
                yield name, near[0]


def _pattern_problems(variables: Mapping[str, Any]) -> Iterator[str]:
    for name, (pattern, meaning) in PATTERNS.items():
        value = variables.get(name)
        if isinstance(value, (str, int, float)) and not re.fullmatch(pattern, str(value)):
            # A webhook may hold a token.
            shown = "a value that is not shown" if name == "supervisor_notify_webhook" else repr(str(value))
            yield f"{name} is {shown}: it must be {meaning}"


# --- supervisor


def _supervisor_problems(variables: Mapping[str, Any], apps: Any) -> Iterator[str]:
    lists = {key: _entries(variables.get(f"supervisor_{key}")) for key in _supervisor_config.SECTIONS}
    taken = ["fastapi_notify", "fastapi_retry"]
    for app in _description.complete_apps(apps, {}):
        name = str(app.get("name"))
        taken += [name, *_layout.slot_programs(name)]
    yield from _supervisor_config.supervisor_problems(lists, taken)
    yield from _supervisor_servers.server_problems(_servers(variables))
    yield from _environment_problems(variables.get("supervisor_environment"))
    for key, factory in (("rpcinterfaces", "rpcinterface"), ("ctlplugins", "ctlplugin")):
        for number, plugin in enumerate(_entries(variables.get(f"supervisor_{key}"))):
            label = f"supervisor_{key}[{number}]"
            if not _supervisor_config.NAME.fullmatch(str(plugin.get("name", ""))):
                yield f"{label}.name is {plugin.get('name')!r}: it must be letters, digits, '_', '.' and '-'"
            elif plugin["name"] == "supervisor" and factory == "rpcinterface":
                yield f"{label}.name is 'supervisor', which is there already: choose another one"
            if not re.fullmatch(IMPORT_STRING, str(plugin.get("factory", ""))):
                yield f"{label}.factory is {plugin.get('factory')!r}: it must be MODULE:FUNCTION"
    for number, pattern in enumerate(_list(variables.get("supervisor_include_files"))):
        if not re.fullmatch(ABSOLUTE, str(pattern)) or str(pattern).startswith("/etc/supervisord.d/"):
            yield (
                f"supervisor_include_files[{number}] is {pattern!r}: it must be a full path without spaces, and not in"
                " /etc/supervisord.d, whose *.ini files are read anyway"
            )
    first, longest = (_number(variables.get(f"supervisor_retry_{key}_pause")) for key in ("first", "longest"))
    if first and longest and first > longest:
        yield (
            f"supervisor_retry_first_pause is {first}, supervisor_retry_longest_pause is {longest}: the first one must"
            " not be the longer one"
        )


def _environment_problems(environment: Any) -> Iterator[str]:
    if not isinstance(environment, Mapping):
        return
    for name, value in environment.items():
        try:
            _serving.shell_environment({name: value})
            _serving.supervisor_options({"environment": {name: value}})
        except _serving.ServingError as error:
            yield f"supervisor_environment: {error}"
            continue
        if "%" in str(value) or _supervisor_config.COMMENT.search(str(value)):
            yield (
                f"supervisor_environment.{name} is {value!r}: it may hold no percent sign and no white space before ';'"
                " or '#'; set it for the programs one by one"
            )


def _servers(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that say where supervisord listens, without the role's prefix."""
    names = [name for names in _supervisor_servers.VARIABLES.values() for name in names]
    return {name: variables.get(f"supervisor_{name}") for name in [*names, "supervisorctl"]}


def _entries(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in _list(value) if isinstance(entry, Mapping)]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _number(value: Any) -> int:
    """0 where it is none, which the check of types reports."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


# --- across the roles


def _shared_places(variables: Mapping[str, Any], apps: list[dict[str, Any]]) -> Iterator[str]:
    listeners = list(_listeners(variables, apps))
    for number, one in enumerate(listeners):
        for other in listeners[:number]:
            if _overlap(one, other) and not (one.label.startswith("app ") and other.label.startswith("app ")):
                yield f"{other.label} and {one.label} both listen on {one.path or one.port}: each needs its own"
            elif _overlap(one, other) and (one.host, one.path) != (other.host, other.path):
                yield f"{other.label} and {one.label} both listen on port {one.port}: each needs its own"


def _overlap(one: Listener, other: Listener) -> bool:
    if one.path or other.path:
        return one.path == other.path
    anywhere = {"0.0.0.0", "::", "*", ""}
    return one.port == other.port and (one.host == other.host or bool(anywhere & {one.host, other.host}))


def _listeners(variables: Mapping[str, Any], apps: list[dict[str, Any]]) -> Iterator[Listener]:
    """Where apps, programs and supervisord itself listen, as far as their variables can be read."""
    for server in _supervisor_servers.all_servers(_servers(variables)):
        if server.kind == _supervisor_servers.UNIX:
            yield Listener(f"supervisor_{server.label}", server.place)
        else:
            yield from _tcp(f"supervisor_{server.label}", server.place)
    for entry in _entries(variables.get("supervisor_fcgi_programs")):
        label, socket = f"supervisor_fcgi_programs {entry.get('name')}", str(entry.get("socket", ""))
        if socket.startswith("unix://"):
            yield Listener(label, socket[len("unix://") :])
        elif socket.startswith("tcp://"):
            yield from _tcp(label, socket[len("tcp://") :])
    if any(app.get("server_names") for app in apps):
        yield Listener("nginx", "", "0.0.0.0", 80)
        yield Listener("nginx", "", "0.0.0.0", 443)
        default = _spec.role_options("nginx")["nginx_status_port"]["default"]
        yield from _tcp("nginx_status_port", f"127.0.0.1:{variables.get('nginx_status_port', default)}")
    for app in apps:
        label, bind = f"app {app.get('name')}", str(app.get("bind") or "")
        if bind.startswith("unix:"):
            yield Listener(label, bind[len("unix:") :])
        else:
            yield from _tcp(label, bind)


def _nginx_default_problems(variables: Mapping[str, Any]) -> list[str]:
    defaults = variables.get(_description.NGINX_DEFAULTS)
    return list(_nginx.default_problems(defaults)) if isinstance(defaults, Mapping) else []


def _proxy_problems(
    variables: Mapping[str, Any], defaults: Mapping[str, Any], apps: list[dict[str, Any]]
) -> Iterator[str]:
    own = variables.get("nginx_apps")
    if own is not None and own != variables.get("fastapi_apps"):
        # Those that this role alone is given.
        served = _description.complete_apps(own, defaults)
        for app in served:
            yield from (f"nginx_apps: app {app.get('name')}: {problem}" for problem in _nginx.problems(app))
        yield from (f"nginx_apps: {problem}" for problem in _nginx.names_used_twice(served))
    base_dir = str(variables.get("fastapi_base_dir") or _layout.BASE_DIR).rstrip("/")
    # One that is refused is no measure of what lies below it.
    base_dir = _layout.BASE_DIR if _shapes.tree(base_dir) else base_dir
    yield from _app_shapes.apart(apps, base_dir)


def _tcp(label: str, address: str) -> Iterator[Listener]:
    host, _colon, port = address.rpartition(":")
    if port.isdigit():
        yield Listener(label, "", {"localhost": "127.0.0.1"}.get(host, host.strip("[]")), int(port))


def _unit_problems(variables: Mapping[str, Any], apps: list[dict[str, Any]]) -> Iterator[str]:
    given = _number(variables.get("supervisord_unit_timeout_stop_sec"))
    programs = [
        entry
        for key in ("programs", "fcgi_programs", "event_listeners")
        for entry in _entries(variables.get(f"supervisor_{key}"))
    ]
    try:
        budget = _serving.stop_budget(apps, programs)
    except (TypeError, ValueError):
        return
    if given and given < budget:
        yield (
            f"supervisord_unit_timeout_stop_sec is {given}, and all programs may take {budget} s to stop, one after the"
            " other: systemd would cut them off; raise it, or leave it out"
        )
    environment = variables.get("supervisord_unit_environment")
    if isinstance(environment, Mapping):
        try:
            _serving.shell_environment(environment)
            for name, value in environment.items():
                _serving.systemd_quote(f"{name}={value}")
        except _serving.ServingError as error:
            yield f"supervisord_unit_environment: {error}"
