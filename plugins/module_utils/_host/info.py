# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles want to know of a host before they do anything to it. What can't be found out counts as not there."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._http import HttpConnection, NoReply, get
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.commands import output_of
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.processes import holder

# All that the roles install by name. One that is missing here is never seen, so that dnf is asked for it every time.
PACKAGES = (
    "epel-release",
    "git-core",
    "nginx",
    "openssh-clients",
    "policycoreutils-python-utils",
    "python3",
    "python3-pip",
    *(f"python3.{minor}{part}" for minor in range(10, 16) for part in ("", "-pip")),
    "supervisor",
)
# Of the roles' own, not of an app.
ACCOUNTS = ("fastapi-build",)
UNITS = ("firewalld", "nginx", "supervisord")
COMMAND_SECONDS = 30
NGINX_SECONDS = 5
NGINX_PORTS = (80, 443)
NGINX_MARK = "configuration:"


class Unit(NamedTuple):
    """A unit of systemd's as systemctl show prints it (systemctl(1))."""

    active: bool = False
    enabled: bool = False
    # Its files are newer than what systemd has read.
    needs_reload: bool = False


def packages() -> dict[str, str]:
    """The versions of those that are installed."""
    output = output_of("rpm", "--query", "--queryformat", "%{NAME}\t%{VERSION}\n", *PACKAGES, limit=COMMAND_SECONDS)
    return {name: version for name, tab, version in (line.partition("\t") for line in output.splitlines()) if tab}


def units() -> dict[str, Unit]:
    output = output_of(
        *("systemctl", "show", "--property=Id,ActiveState,UnitFileState,NeedDaemonReload"),
        *(f"{unit}.service" for unit in UNITS),
        limit=COMMAND_SECONDS,
    )
    found = dict.fromkeys(UNITS, Unit())
    for block in output.split("\n\n"):
        values = {key: value for key, _equals, value in (line.partition("=") for line in block.splitlines())}
        name = values.get("Id", "").rpartition(".service")[0]
        if name in found:
            found[name] = Unit(
                active=values.get("ActiveState") == "active",
                enabled=values.get("UnitFileState") == "enabled",
                needs_reload=values.get("NeedDaemonReload") == "yes",
            )
    return found


def accounts() -> list[str]:
    """Those that are there."""
    found = []
    for name in ACCOUNTS:
        try:
            found.append(pwd.getpwnam(name).pw_name)
        except KeyError:
            continue
    return found


def groups() -> list[str]:
    return sorted(entry.gr_name for entry in grp.getgrall())


def cpus() -> int:
    """Those that a process may run on, as nproc(1) counts them."""
    return len(os.sched_getaffinity(0))


def memory_mb(meminfo: str = "/proc/meminfo") -> int:
    """The host's memory in MiB, the line MemTotal of proc_meminfo(5)."""
    for line in Path(meminfo).read_text(encoding="ascii").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0


def uv_releases(base_dir: str) -> list[str]:
    return sorted(path.parent.parent.name for path in Path(base_dir).glob("uv/*/bin/uv"))


def ports_taken(ports: Iterable[int]) -> list[str]:
    """Those that a process listens on, and which one."""
    return [f"port {port}{who}" for port in ports for who in [holder(port)] if who]


def nginx_configuration(port: int) -> str:
    """The digest of what nginx has read, which its status port shows; empty when there is none."""
    try:
        text = get(HttpConnection("127.0.0.1", port, timeout=NGINX_SECONDS), "/configuration", longest=200).body.strip()
    except NoReply:
        return ""
    return text.partition(NGINX_MARK)[2] if text.startswith(NGINX_MARK) else ""
