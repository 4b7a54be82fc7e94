# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nginx serves by files that the role nginx did not write. Only reads; a file that can't be read has nothing."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

FOLDER = "/etc/nginx"
CONFIG = "nginx.conf"
# Read by the role's own nginx.conf, too.
STILL_READ = ("mime.types", "conf.d/*.conf", "/usr/share/nginx/modules/*.conf")
# Those of the role among conf.d/*.conf.
OWN_FILES = ("fastapi.conf", "fastapi-status.conf")
DEFAULT_ROOT = "/usr/share/nginx/html"
# Blocks beside http that serve something.
OTHER_SERVICES = ("stream", "mail")

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
    | (?P<comment>\#[^\n]*)
    | (?P<mark>[;{}])
    | "(?P<double>(?:[^"\\]|\\.)*)"
    | '(?P<single>(?:[^'\\]|\\.)*)'
    | (?P<word>(?:\\.|\$\{|[^\s;{}"'\\])(?:\\.|\$\{|[^\s;{\\])*)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass
class Directive:
    """A directive with its arguments, and what is in its braces if it has some."""

    words: list[str]
    block: Optional[list[Directive]] = None

    @property
    def name(self) -> str:
        return self.words[0] if self.words else ""

    @property
    def arguments(self) -> list[str]:
        return self.words[1:]


@dataclass
class NginxServer:
    names: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)


def existing(folder: str = FOLDER) -> list[str]:
    """What the role's nginx.conf would no longer serve of the one that is there, other than the package's own page."""
    return list(_lost(parse(_read(os.path.join(folder, CONFIG))), folder))


def other_servers(folder: str = FOLDER) -> list[dict[str, Any]]:
    """The servers in conf.d that are not the role's: {file, names, ports}."""
    return [
        {"file": path, "names": server.names, "ports": server.ports}
        for path in sorted(glob.glob(os.path.join(folder, "conf.d", "*.conf")))
        if os.path.basename(path) not in OWN_FILES
        for server in _servers(parse(_read(path)))
    ]


def parse(text: str) -> list[Directive]:
    """The directives of a file; what follows a mistake that nginx would refuse is taken as it comes."""
    root: list[Directive] = []
    stack, words = [root], []
    for found in _TOKEN.finditer(text):
        kind = found.lastgroup
        if kind in ("double", "single", "word"):
            words.append(found[kind])
        elif kind == "mark":
            if found[kind] == "}":
                if len(stack) > 1:
                    stack.pop()
            elif words or found[kind] == "{":
                directive = Directive(words, [] if found[kind] == "{" else None)
                stack[-1].append(directive)
                if directive.block is not None:
                    stack.append(directive.block)
            words = []
    return root


def _lost(directives: Sequence[Directive], folder: str) -> Iterator[str]:
    for directive in directives:
        if directive.name == "http":
            for inner in directive.block or []:
                if inner.name == "server" and not _is_package_page(inner):
                    yield f"server {' '.join(_server(inner).names) or 'without a name'}"
                elif inner.name == "server":
                    yield from _lost_includes(inner.block or [], folder)
                elif inner.name == "upstream":
                    yield " ".join(inner.words)
            yield from _lost_includes(directive.block or [], folder)
        elif directive.name in OTHER_SERVICES:
            yield directive.name
    yield from _lost_includes(directives, folder)


def _lost_includes(directives: Sequence[Directive], folder: str) -> Iterator[str]:
    still_read = [os.path.join(folder, pattern) for pattern in STILL_READ]
    for directive in directives:
        for pattern in directive.arguments if directive.name == "include" else []:
            full = os.path.join(folder, pattern)
            if full not in still_read and glob.glob(full):
                yield f"include {pattern}"


def _is_package_page(server: Directive) -> bool:
    """The page that EL's package shows for any name."""
    block = server.block or []
    roots = [directive.arguments for directive in block if directive.name == "root"]
    serves = any(directive.block for directive in block) or any(directive.name == "return" for directive in block)
    return _server(server).names == ["_"] and roots == [[DEFAULT_ROOT]] and not serves


def _servers(directives: Sequence[Directive]) -> Iterator[NginxServer]:
    return (_server(directive) for directive in directives if directive.name == "server" and directive.block)


def _server(directive: Directive) -> NginxServer:
    found = NginxServer()
    for inner in directive.block or []:
        if inner.name == "server_name":
            found.names += [name.lower() for name in inner.arguments]
        elif inner.name == "listen" and inner.arguments and not inner.arguments[0].startswith("unix:"):
            found.ports.append(_port(inner.arguments[0]))
    listens = any(inner.name == "listen" for inner in directive.block or [])
    found.ports = sorted(set(found.ports)) if listens else [80]
    return found


def _port(address: str) -> int:
    """PORT, HOST:PORT, [IPV6]:PORT, or a host alone, which means 80."""
    if address.isdigit():
        return int(address)
    port = address.rpartition("]")[2].rpartition(":")[2] if ":" in address.rpartition("]")[2] else ""
    return int(port) if port.isdigit() else 80


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""
