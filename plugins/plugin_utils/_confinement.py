# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the sandbox and the limits of an app. Types are checked elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _shapes

MEMORY = re.compile(r"[1-9]\d*[KMGT]?", re.I)
QUOTA = re.compile(r"[1-9]\d*(\.\d+)?%")
UMASK = re.compile(r"0?[0-7]{3}")
# What an app that may write it could take over, or what is there already.
NEVER_WRITABLE = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/root", "/sbin", "/sys", "/usr")


def problems(app: Mapping[str, Any]) -> Iterator[str]:
    sandbox, limits = app.get("sandbox"), app.get("limits")
    if isinstance(sandbox, Mapping):
        yield from _sandbox_problems(sandbox)
    if isinstance(limits, Mapping):
        yield from _limit_problems(limits)


def _sandbox_problems(sandbox: Mapping[str, Any]) -> Iterator[str]:
    writable = sandbox.get("writable")
    for path in writable if isinstance(writable, (list, tuple)) else ():
        text = str(path)
        if not re.fullmatch(r"/[^\s\x00-\x1f{}]*", text) or ".." in PurePosixPath(text).parts:
            yield f"sandbox.writable has {text!r}: it must be the full path of a directory, without spaces and .."
        elif _shapes.is_above(text, "/") or _shapes.below(text, NEVER_WRITABLE):
            yield f"sandbox.writable has {text!r}: it must not be the system's; allowed is such as /srv/uploads"
    umask = sandbox.get("umask")
    if umask is not None and not UMASK.fullmatch(str(umask)):
        yield f"sandbox.umask is {umask!r}: it must be octal digits in quotes, such as '0027'"
    elif umask is not None and _shapes.umask(str(umask)):
        yield f"sandbox.umask is {umask!r}: {_shapes.umask(str(umask))}"


def _limit_problems(limits: Mapping[str, Any]) -> Iterator[str]:
    for name, pattern, meaning in (
        ("memory_max", MEMORY, "a number of bytes, or one with K, M, G or T, such as 512M"),
        ("cpu_quota", QUOTA, "a percentage of one CPU, such as 150%"),
    ):
        value = limits.get(name)
        if value is not None and not pattern.fullmatch(str(value)):
            yield f"limits.{name} is {value!r}: it must be {meaning}"
    tasks = limits.get("tasks_max")
    if isinstance(tasks, int) and tasks < 10:
        yield f"limits.tasks_max is {tasks}: it must be 10 at least, since a server has several processes and threads"
