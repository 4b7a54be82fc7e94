# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers of apps that share a name and a port with a server that somebody else configured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HTTP, HTTPS = 80, 443
# Names that are those of no request.
NO_NAMES = {"_", ""}


def nginx_conflicts(found: Iterable[Mapping[str, Any]], servers: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each server that is found on the host (see host_info) and one of the role's takes the place of.

    Whatever address it listens on: one that is more exact than the role's takes all that comes for it.
    """
    return list(dict.fromkeys(problem for other in found for problem in _problems(other, list(servers))))


def _problems(other: Mapping[str, Any], servers: list[Mapping[str, Any]]) -> Iterator[str]:
    names, ports = set(_expanded(other["names"])), set(other["ports"]) & {HTTP, HTTPS}
    for server in servers:
        taken = {HTTP, HTTPS} if server["tls"]["certificate"] else {HTTP}
        for name in sorted(names & set(_expanded(server["server_names"]))):
            for port in sorted(ports & taken):
                yield (
                    f"server_name {name} on port {port}: app {server['name']} has it, and so has {other['file']}; "
                    "nginx would give all its requests to the one that it reads first, and none to the other"
                )
    if not names - NO_NAMES:
        for port in sorted(ports):
            yield (
                f"server without a name of its own on port {port}: {other['file']} has one, which would get no request "
                "any more, since the role answers those for an unknown name with nothing"
            )


def _expanded(names: Iterable[str]) -> Iterator[str]:
    """.example.com is short for two names."""
    for name in names:
        yield from (name[1:], f"*{name}") if name.startswith(".") else (name,)
