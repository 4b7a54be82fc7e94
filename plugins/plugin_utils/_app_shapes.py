# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the values of one app must look like so that nothing of it reaches beyond the app's own directories."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _serving, _shapes, _supervisor_config

# PEP 508's name of a distribution, which those of extras and groups follow. It begins no option of a program.
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
# Whose word a server takes for the client's address.
TRUSTING = {
    "gunicorn": ("forwarded_allow_ips", "proxy_allow_ips", "uwsgi_allow_ips"),
    "uvicorn": ("forwarded_allow_ips",),
}


def problems(app: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each value of an app that is none of its kind; types are checked elsewhere."""
    for key, rule in (("app_dir", _shapes.relative), ("lock", _shapes.relative), ("directory", _shapes.absolute)):
        yield from shaped(key, app.get(key), rule)
    # Without a lock it is used as it is, and nothing is written there.
    yield from shaped("venv", app.get("venv"), _shapes.tree if app.get("lock", True) else _shapes.absolute)
    for key in ("user", "group"):
        # That root has this number is a matter of its own.
        yield from shaped(key, "" if app.get(key) == "0" else app.get(key), _shapes.account)
    for key in ("extras", "groups"):
        for name in _texts(app.get(key)):
            if not NAME.fullmatch(name):
                yield f"{key} has {name!r}: it must be letters, digits, '.', '_' and '-', not a sign first or last"
    if isinstance(app.get("shared"), Mapping):
        yield from _shared_problems(app["shared"])
    if isinstance(app.get("environment"), Mapping):
        yield from (f"environment.{problem}" for problem in _shapes.search_paths(app["environment"]))
    yield from _bind_problems(app)
    yield from _command_problems(app)
    gunicorn, supervisor = _mapping(app.get("gunicorn")), _mapping(app.get("supervisor"))
    yield from shaped("gunicorn.umask", gunicorn.get("umask"), _shapes.umask)
    yield from shaped("gunicorn.control_socket", gunicorn.get("control_socket"), _shapes.socket_size)
    yield from shaped("gunicorn.control_socket_mode", gunicorn.get("control_socket_mode"), _shapes.mode)
    for key in ("stdout_logfile", "stderr_logfile"):
        yield from _log_problems(str(app.get("name")), f"supervisor.{key}", supervisor.get(key))


def shaped(label: str, value: Any, rule: Any) -> Iterator[str]:
    """What a rule says of a text; what is none, or nothing, is for others to refuse."""
    if isinstance(value, str) and value:
        problem = rule(value)
        if problem:
            yield f"{label} is {str(value)!r}: {problem}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: Any) -> list[str]:
    """A list, or text with commas as Ansible takes it for one."""
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
    return [str(item).strip() for item in items]


def _shared_problems(shared: Mapping[str, Any]) -> Iterator[str]:
    names = [
        (f"shared.{kind}", path)
        for kind in ("directories", "files")
        for path in _texts(shared.get(kind))
        if path and not path.startswith("/")
    ]
    for number, (label, path) in enumerate(names):
        for other_label, other in names[:number]:
            inner, outer = sorted(((label, path), (other_label, other)), key=lambda item: -len(item[1].strip("/")))
            if path.strip("/") == other.strip("/"):
                yield f"{label} has {path!r}, and so has {other_label}: name it once, as a file or as a directory"
            elif f"{inner[1].strip('/')}/".startswith(f"{outer[1].strip('/')}/"):
                yield (
                    f"{inner[0]} has {inner[1]!r}, which lies below {outer[1]!r} of {outer[0]}: what is below a shared"
                    f" directory is shared with it; leave {inner[1]!r} out"
                )


def _bind_problems(app: Mapping[str, Any]) -> Iterator[str]:
    bind = app.get("bind")
    try:
        place = _serving.split_bind(bind) if isinstance(bind, str) and bind else {}
    except _serving.ServingError:
        # Others refuse it.
        return
    if "uds" in place:
        problem = _shapes.socket_path(place["uds"])
        if not problem and _shapes.below(place["uds"], _shapes.OPEN_TO_ALL):
            problem = (
                "any account may put a socket of that name there while the app is down; choose a directory of its own,"
                f" such as unix:{_shapes.RUNS}/NAME/NAME.sock"
            )
        if problem:
            yield f"bind is {bind!r}: {problem}"
    elif place and not _is_loopback(place["host"]):
        for server, keys in TRUSTING.items():
            for key in keys:
                if "*" in _texts(_mapping(app.get(server)).get(key)):
                    yield (
                        f"{server}.{key} is '*' and bind is {bind!r}: whoever reaches that port could claim any address"
                        " for a client's; name the addresses of the proxies, or bind to 127.0.0.1 or a Unix socket"
                    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _command_problems(app: Mapping[str, Any]) -> Iterator[str]:
    for name, hook in _mapping(app.get("hooks")).items():
        if isinstance(hook, str) and hook.startswith("/"):
            if not os.path.isfile(hook):
                yield f"hooks.{name} is {str(hook)!r}: there is no such file of tasks on the controller"
        elif hook is not None:
            problem = _shapes.command(hook)
            if problem:
                yield f"hooks.{name} {problem}, or the full path of a file of tasks"
    migrate = _mapping(app.get("migrate"))
    if migrate:
        problem = _shapes.command(migrate.get("command"))
        if problem:
            yield f"migrate.command {problem}"


def _log_problems(name: str, label: str, value: Any) -> Iterator[str]:
    """root opens it, and the app must not be able to put a link there."""
    if not isinstance(value, str) or value.upper() in _supervisor_config.NO_FILE or value in _shapes.DEVICES:
        return
    directory = f"{_shapes.LOGS}/{name}"
    if _shapes.absolute(value) or not _shapes.below(value, [directory]) or value.rstrip("/") == directory:
        allowed = ", ".join(["AUTO", "NONE", "syslog", *_shapes.DEVICES])
        yield f"{label} is {str(value)!r}: it must be a file below {directory}, or one of {allowed}"


def apart(apps: Iterable[Mapping[str, Any]], base_dir: str) -> Iterator[str]:
    """What nginx would hand out of another app's directories, or of all apps' at once."""
    for app in apps:
        static = _mapping(_mapping(app.get("nginx")).get("static"))
        for url, directory in static.items():
            if not isinstance(directory, str) or _shapes.served(directory):
                continue
            label = f"app {app.get('name')}: nginx.static[{url}] is {str(directory)!r}"
            for top in (f"{base_dir}/apps", f"{base_dir}/venvs", _shapes.HOMES):
                own = f"{top}/{app.get('name')}"
                if _shapes.below(directory, [top]) and not _shapes.below(directory, [own]):
                    yield f"{label}, another app's directory: it must lie below {own}, or outside of {top}"
                    break
                if _shapes.is_above(directory, top):
                    yield f"{label}, below which {top} with the files of all apps lies: name the directory itself"
                    break
