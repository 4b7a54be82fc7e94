# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a list of apps on the controller, against the argument specs of the roles that serve them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Optional

from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import one_line
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import (
    _accounts,
    _app_shapes,
    _confinement,
    _description,
    _nginx,
    _server_options,
    _serving,
    _source,
    _spec,
    _supervisor_config,
)

# Of an entry of fastapi_apps.
REQUIRED = ("name", "app", "source")

APP_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
IMPORT_STRING = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(.*\))?")
SOURCES = ("path", "archive", "repo", "package")
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*")
# How long a server keeps idle connections, which must be longer than nginx does.
KEEPALIVES = {"gunicorn": "keepalive", "uvicorn": "timeout_keep_alive"}
SHORTEST_KEEPALIVE = 5
# By number as well, as supervisor takes them.
STOP_SIGNALS = ("TERM", "INT", "QUIT", "15", "2", "3")
# To bash, which is EL's sh.
READ_ONLY = {"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"}
# What the role settles for an app's program.
PROGRAM_INSTEAD = {
    "command": "the app's own server",
    "directory": "the app's own app_dir",
    "environment": "the app's own environment",
    "name": "the app's own name",
    "numprocs": "the app's own workers",
    "numprocs_start": "the app's own workers",
    "process_name": "the app's own name",
    "secrets": "the app's own secrets",
    "user": "the app's own user",
}


@functools.cache
def app_spec() -> dict[str, Any]:
    """The options of one app, as Ansible's validator takes them."""
    options: dict[str, Any] = {key: {**option, "required": False} for key, _name, option in _description.role_options()}
    options["supervisor"]["options"] = _supervisor_config.program_options()
    options.update(_description.nginx_options())
    return options


def app_problems(
    apps: Any, required: Iterable[str] = REQUIRED, defaults: Optional[Mapping[str, Any]] = None
) -> list[str]:
    """All that is wrong with a list of apps, a sentence each; an empty list when nothing is.

    defaults is what an app leaves out, by the names of its keys.
    """
    if not isinstance(apps, (list, tuple)):
        return [f"fastapi_apps is {_spec.kind_of(apps)}: it must be a list of apps"]
    problems: list[str] = []
    for number, app in enumerate(apps):
        if not isinstance(app, Mapping):
            problems.append(
                f"fastapi_apps[{number}] is {_spec.kind_of(app)}: it must be a mapping with name, app, source"
            )
            continue
        label = f"app {app['name']!s}" if app.get("name") else f"fastapi_apps[{number}]"
        problems.extend(f"{label}: {problem}" for problem in _problems_of(app, tuple(required), defaults or {}))
    whole = _description.complete_apps(apps, defaults or {})
    problems.extend(_used_twice(whole, "name"))
    problems.extend(_used_twice(whole, "bind"))
    problems.extend(_accounts.shared_by_accident(whole))
    problems.extend(_nginx.names_used_twice(whole))
    problems.extend(_programs_used_twice(whole))
    return list(map(one_line, problems))


def _programs_used_twice(apps: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    apps = list(apps)
    names = {str(app.get("name")) for app in apps}
    for app in apps:
        for program in _layout.slot_programs(str(app.get("name"))) if app.get("server_names") else ():
            if program in names:
                yield f"app {program} has the name of a slot of app {app.get('name')}: rename one of them"


def app_warnings(apps: Any, defaults: Optional[Mapping[str, Any]] = None) -> list[str]:
    """All that a list of apps asks for and that does nothing, a sentence each."""
    whole = _description.complete_apps(apps, defaults or {})
    return [f"app {app.get('name')}: {warning}" for app in whole for warning in _server_options.warnings(app)]


def _problems_of(app: Mapping[str, Any], required: tuple[str, ...], defaults: Mapping[str, Any]) -> Iterator[str]:
    for key in required:
        if app.get(key) in (None, "", {}):
            yield f"{key} is missing"
    given = {key: value for key, value in app.items() if key not in required or value not in (None, "", {})}
    for key, instead in {**_server_options.INSTEAD, "supervisor": PROGRAM_INSTEAD}.items():
        if isinstance(given.get(key), Mapping):
            given[key] = {name: value for name, value in given[key].items() if name not in instead}
    yield from _spec.problems(given, app_spec(), ranges=_server_options.RANGES)
    yield from _without_slots(app)
    yield from _illegal_values(_description.complete(app, defaults))


def _illegal_values(app: Mapping[str, Any]) -> Iterator[str]:
    name, target = app.get("name"), app.get("app")
    if isinstance(name, str) and name and not APP_NAME.fullmatch(name):
        yield f"name is {name!r}: it must be lower-case letters, digits, - and _, a letter first, 31 at most"
    yield from _accounts.problems(app)
    if isinstance(target, str) and target and not IMPORT_STRING.fullmatch(target):
        yield f"app is {target!r}: it must be MODULE:ATTRIBUTE, such as orders.main:app"
    source = app.get("source")
    if isinstance(source, Mapping) and source:
        given = [kind for kind in SOURCES if source.get(kind)]
        if len(given) != 1:
            yield f"source names {' and '.join(given) or 'nothing'}: it must name one of {', '.join(SOURCES)}"
        if "archive" in given and "://" in str(source["archive"]) and not source.get("checksum"):
            yield "source.archive is fetched from the network: source.checksum is missing (sha256:...)"
        if "package" in given:
            yield from _illegal_package(source)
        yield from _source.problems(source)
    yield from _app_shapes.problems(app)
    yield from _illegal_slot_values(app)
    path = app.get("health_path")
    if isinstance(path, str) and path and not re.fullmatch(r"/[^\s#]*", path):
        yield f"health_path is {path!r}: it must be a path that begins with /, or nothing"
    yield from _illegal_server_values(app)
    yield from _nginx.problems(app)
    yield from _confinement.problems(app)


def _illegal_package(source: Mapping[str, Any]) -> Iterator[str]:
    if not PACKAGE.fullmatch(str(source["package"])):
        yield f"source.package is {source['package']!r}: it must be NAME==VERSION"
    if not source.get("lock"):
        yield "source.lock is missing: a file of hashed requirements on the controller that has the package in it"


def _without_slots(app: Mapping[str, Any]) -> Iterator[str]:
    """What the app itself asks of slots and, without names, does not have."""
    for key in _description.SLOTTED_KEYS if not app.get("server_names") else ():
        if app.get(key) and str(app[key]) != str(app_spec()[key].get("default")):
            yield f"{key} is set, but without server_names the app has no slots and is restarted in place"


def _illegal_slot_values(app: Mapping[str, Any]) -> Iterator[str]:
    """What contradicts the two slots that an app with names has."""
    if not app.get("server_names"):
        return
    # What has no source is served by somebody else, who says where.
    own_bind = _layout.live_bind(str(app.get("name")))
    if app.get("source") and app.get("bind") and app["bind"] != own_bind:
        yield f"bind is {app['bind']!r}: an app with server_names listens on sockets of its own; remove bind"
    for server, key in KEEPALIVES.items():
        options = app.get(server)
        if isinstance(options, Mapping) and _seconds(options.get(key, SHORTEST_KEEPALIVE)) < SHORTEST_KEEPALIVE:
            yield (
                f"{server}.{key} is {options[key]!r}: nginx closes idle connections after 2 s, the app must keep them"
                f" longer, {SHORTEST_KEEPALIVE} s at least, or requests are lost"
            )
    soak = app.get("soak")
    if isinstance(soak, Mapping) and soak.get("seconds") and app.get("health_path") == "":
        yield "soak.seconds is set, but health_path is empty: there is nothing to watch"
    shared = app.get("shared")
    for kind, paths in shared.items() if isinstance(shared, Mapping) else ():
        for path in paths if isinstance(paths, list) else ():
            if str(path).startswith("/") or {"..", ".", ""} & set(str(path).split("/")):
                yield f"shared.{kind} has {path!r}: it must be a path below the source, without .."


def _seconds(value: Any) -> float:
    """A number, or what is none as one that is long enough: others complain of it."""
    return float(value) if isinstance(value, (int, float)) else float(SHORTEST_KEEPALIVE)


def _illegal_server_values(app: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(app.get("bind"), str):
        yield from _error_of(_serving.split_bind, app["bind"])
    if "workers" in app:
        yield from _error_of(_serving.worker_plan, app["workers"], "sync", 1, 1024, 1)
    for key in ("environment", "secrets"):
        if isinstance(app.get(key), Mapping):
            yield from _error_of(_serving.shell_environment, app[key])
            for name in sorted(READ_ONLY & set(app[key])):
                yield f"{key}.{name} can't be set: it is read-only in the shell that starts the app"
    both = set(app.get("environment") or {}) & set(app.get("secrets") or {})
    if both:
        yield f"{', '.join(sorted(map(str, both)))} is in environment and in secrets: keep one"
    yield from _server_options.problems(app)
    if isinstance(app.get("supervisor"), Mapping):
        yield from _program_problems(app["supervisor"])
    yield from _broken_timeouts(app)


def _program_problems(program: Mapping[str, Any]) -> Iterator[str]:
    for name, instead in PROGRAM_INSTEAD.items():
        if name in program:
            yield f"supervisor.{name} is not for here: set {instead} instead"
    rest = {name: value for name, value in program.items() if name not in PROGRAM_INSTEAD}
    yield from (f"supervisor.{problem}" for problem in _supervisor_config.program_problems(rest))
    stop = str(program.get("stopsignal", "TERM")).upper().removeprefix("SIG")
    if stop not in STOP_SIGNALS:
        yield (
            f"supervisor.stopsignal is {program['stopsignal']!r}: the servers stop on {', '.join(STOP_SIGNALS)} alone,"
            " gracefully on TERM"
        )


def _broken_timeouts(app: Mapping[str, Any]) -> Iterator[str]:
    program = app.get("supervisor")
    if not isinstance(program, Mapping) or "stopwaitsecs" not in program:
        return
    try:
        graceful = int(app.get("graceful_timeout", _serving.GRACEFUL_TIMEOUT))
        wait = int(program["stopwaitsecs"])
    except (TypeError, ValueError):
        return
    if wait <= graceful:
        yield (
            f"supervisor.stopwaitsecs is {wait}, graceful_timeout is {graceful}: supervisord would kill the server"
            " while it still serves; stopwaitsecs must be the longer one"
        )


def _error_of(function: Any, *args: Any) -> Iterator[str]:
    try:
        function(*args)
    except _serving.ServingError as error:
        yield str(error)


def _used_twice(apps: Iterable[Mapping[str, Any]], key: str) -> Iterator[str]:
    users: dict[str, list[str]] = {}
    for app in apps:
        if app.get(key):
            users.setdefault(str(app[key]), []).append(str(app.get("name")))
    for value, names in users.items():
        if len(names) > 1:
            yield f"{key} {value} is used by {len(names)} apps ({', '.join(names)}): each needs its own"
