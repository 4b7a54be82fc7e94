# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the templates of the server roles need: worker counts, binds, and the syntaxes of the files written."""

from __future__ import annotations

import pprint
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Union

from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _spec

# Gunicorn's design page: (2 x cores) + 1 for workers that handle one request at a time.
SYNC_CLASSES = ("sync", "gthread")
# What workers may take of the host's memory.
MEMORY_SHARE = 0.8

GRACEFUL_TIMEOUT = 30
# supervisord's stopwaitsecs exceeds the server's graceful timeout by this, for the app's own shutdown after it.
STOP_MARGIN = 10
SMALLEST_STOP_BUDGET = 90
STOP_BUDGET_MARGIN = 30
# supervisor's own default of stopwaitsecs.
STOP_WAIT = 10
PERCENT = re.compile("%")
# A percent sign that begins none of supervisor's expansions, such as %(here)s and %(process_num)02d.
LITERAL_PERCENT = re.compile(r"%(?!\([A-Za-z_]\w*\)[-#0 +]*\d*[ds])")


class ServingError(ValueError):
    """A value that can't be rendered; its text is for the user."""


def is_synchronous(worker_class: str) -> bool:
    return worker_class in SYNC_CLASSES


def worker_plan(
    workers: Union[int, str], worker_class: str, cpus: int, memory_mb: int, worker_memory_mb: int
) -> dict[str, Any]:
    """How many workers to run, and the sentence that says why."""
    cpus = max(1, int(cpus))
    if str(workers) not in ("auto", "classic"):
        try:
            count = int(str(workers))
        except ValueError:
            count = 0
        if count < 1:
            raise ServingError(f"workers is {workers!r}: it must be auto, classic or a whole number from 1")
        return {"count": count, "reason": f"{count} as asked"}
    if workers == "classic" or is_synchronous(worker_class):
        count, why = 2 * cpus + 1, f"2 x {cpus} CPUs + 1"
        why += " by the classical rule" if workers == "classic" else f" for the synchronous class {worker_class}"
    else:
        count, why = cpus, f"one for each of {cpus} CPUs, for the asynchronous class {worker_class}"
    room = max(1, int(memory_mb * MEMORY_SHARE / max(1, worker_memory_mb)))
    if room < count:
        why = f"{why}, bounded to {room} by {memory_mb} MiB of memory at {worker_memory_mb} MiB a worker"
        count = room
    return {"count": count, "reason": f"{count}: {why}"}


def split_bind(bind: str) -> dict[str, Any]:
    """A bind as Gunicorn writes it, taken apart: {uds} or {host, port}."""
    if bind.startswith("unix:"):
        path = bind[len("unix:") :]
        if not path.startswith("/"):
            raise ServingError(f"bind is {bind!r}: a Unix socket needs a full path, unix:/run/fastapi/NAME/NAME.sock")
        return {"uds": path}
    found = re.fullmatch(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]/\s]+)):(?P<port>\d{1,5})", bind)
    if not found or not 0 < int(found["port"]) < 65536:
        raise ServingError(f"bind is {bind!r}: it must be HOST:PORT, [IPV6]:PORT or unix:/PATH")
    return {"host": found["v6"] or found["host"], "port": int(found["port"])}


def probe_address(bind: str, path: str) -> dict[str, str]:
    """Where the host itself asks for the health of what listens there: {url, unix_socket}."""
    place = split_bind(bind)
    if "uds" in place:
        return {"url": f"http://localhost{path}", "unix_socket": place["uds"]}
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(place["host"], place["host"])
    host = f"[{host}]" if ":" in host else host
    return {"url": f"http://{host}:{place['port']}{path}", "unix_socket": ""}


def text_of(name: str, value: Any) -> str:
    """A scalar of YAML as the text that a user means by it."""
    value = _spec.unvaulted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, str)):
        return str(value)
    raise ServingError(f"{name} is {_spec.kind_of(value)}: it must be text, a number or true/false")


def shell_environment(variables: Mapping[str, Any]) -> str:
    """Assignments that a POSIX shell reads back exactly, whatever is in the values."""
    lines = []
    for name, value in variables.items():
        if not isinstance(name, str):
            raise ServingError(f"{name!r} is no name of an environment variable: YAML reads it so without quotes")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ServingError(f"{str(name)!r} is no name of an environment variable: letters, digits and _ only")
        text = text_of(f"environment variable {name}", value)
        if "\0" in text:
            raise ServingError(f"environment variable {name}: no variable can hold a NUL character")
        lines.append(f"{name}={shlex.quote(text)}\n")
    return "".join(lines)


def supervisor_options(options: Mapping[str, Any]) -> str:
    """Lines of a section of supervisor's configuration.

    A literal percent sign is doubled, as its parser wants it. Its own expansions are left to it, except in an
    environment, which is taken literally.
    """
    lines = []
    for key, value in options.items():
        percent = LITERAL_PERCENT
        if isinstance(value, Mapping):
            percent = PERCENT
            rendered = ",".join(f"{name}={_supervisor_quote(text_of(name, item))}" for name, item in value.items())
        elif isinstance(value, (list, tuple)):
            rendered = ",".join(text_of(key, item) for item in value)
        else:
            rendered = text_of(key, value)
        if "\n" in rendered:
            raise ServingError(f"supervisor option {key}: no value may hold a line break")
        lines.append(f"{key}={percent.sub('%%', rendered)}\n")
    return "".join(lines)


def _supervisor_quote(text: str) -> str:
    """In quotes that both parsers of supervisor read alike: the one up to 4.3, which knows no escapes and strips
    quotes of both kinds from both ends, and the one of POSIX rules that follows it, for which a backslash escapes
    within double quotes.
    """
    kinds = [quote for quote in "\"'" if quote not in text]
    if "\\" in text and '"' in kinds:
        kinds.remove('"')
    if not kinds or text[:1] in ("'", '"') or text[-1:] in ("'", '"'):
        raise ServingError(
            f"supervisor's configuration can't hold the environment value {text!r}: its releases agree on no escapes"
            " for quotes at an end, for both kinds of them in one value, or for a backslash beside a single quote"
        )
    return f"{kinds[0]}{text}{kinds[0]}"


def systemd_quote(assignment: str) -> str:
    """An item of Environment= in a unit file: double quotes, C escapes, percent signs doubled (systemd.syntax(7))."""
    if "\n" in assignment:
        raise ServingError("no variable of a unit may hold a line break")
    return '"' + assignment.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def python_literal(value: Any) -> str:
    """Python source of plain data."""
    return pprint.pformat(_plain(value), width=100, sort_dicts=True)


def _plain(value: Any) -> Any:
    """The value free of Ansible's own str and int types, whose repr could differ."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise ServingError(f"{type(value).__name__} can't be written as a Python value")


def stop_budget(apps: Iterable[Mapping[str, Any]], programs: Iterable[Mapping[str, Any]] = ()) -> int:
    """Seconds that supervisord may need to stop all apps and programs, one after the other, and a margin.

    apps are complete ones.
    """
    total = sum(int(program.get("stopwaitsecs", STOP_WAIT)) for program in programs)
    for app in apps:
        wait = int(app.get("graceful_timeout", GRACEFUL_TIMEOUT)) + STOP_MARGIN
        program = app.get("supervisor")
        wait = int(program.get("stopwaitsecs", wait)) if isinstance(program, Mapping) else wait
        # During a deploy both slots run.
        total += 2 * wait if app.get("server_names") else wait
    return max(SMALLEST_STOP_BUDGET, total + STOP_BUDGET_MARGIN)
