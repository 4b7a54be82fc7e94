# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps clients from nginx, and nginx from the apps: firewalld and SELinux, where they are on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.commands import output_of

SERVICES = ("http", "https")
POLICY = "fastapi_nginx"
# EL9's rules are written for /var/run, to which it maps /run; from EL10 on it is the other way about.
CONTEXT = re.compile(rf"^(/var)?{_layout.RUN}\(/\.\*\)\?\s", re.M)
COMMAND_SECONDS = 30


def closed(firewalld: bool, root: str = "/") -> list[str]:
    """A sentence for each thing that the role nginx has to open."""
    return [*(_closed_services() if firewalld else ()), *_selinux(Path(root))]


def _closed_services() -> Iterator[str]:
    """Of the default zone, now and after a reload (firewall-cmd(1))."""
    for when, options in (("now", ()), ("permanently", ("--permanent",))):
        listed = output_of("firewall-cmd", *options, "--list-services", limit=COMMAND_SECONDS).split()
        yield from (f"firewalld: {service} is not open {when}" for service in SERVICES if service not in listed)


def _selinux(root: Path) -> Iterator[str]:
    if not (root / "sys/fs/selinux/enforce").exists():
        return
    kind = "targeted"
    for line in _lines(root / "etc/selinux/config"):
        key, _equals, value = line.partition("=")
        kind = value.strip() if key.strip() == "SELINUXTYPE" else kind
    if not (root / "var/lib/selinux" / kind / "active/modules/400" / POLICY).is_dir():
        yield f"SELinux: the policy {POLICY} is not loaded"
    if not CONTEXT.search("\n".join(_lines(root / "etc/selinux" / kind / "contexts/files/file_contexts.local"))):
        yield f"SELinux: {_layout.RUN} has no type of its own"
    if output_of("restorecon", "-R", "-i", "-n", "-v", _layout.RUN, limit=COMMAND_SECONDS):
        yield f"SELinux: {_layout.RUN} has labels of another type"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
