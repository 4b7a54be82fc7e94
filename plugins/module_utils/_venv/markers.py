# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Environment markers and version specifiers, as far as lock files use them.

The platform Python of the host has no `packaging`, and asking uv would need an index: so that check mode can
tell what a lock installs here, this small evaluator answers. What it does not understand it says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Callable, Union

Release = tuple[int, ...]
Value = Union[str, Collection[str]]

VERSION_VARIABLES = frozenset({"python_version", "python_full_version", "implementation_version"})

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>'[^']*'|"[^"]*")
      | (?P<operator>===|==|~=|!=|<=|>=|<|>|\bnot\s+in\b|\bin\b)
      | (?P<word>[A-Za-z_][A-Za-z0-9_.]*)
      | (?P<bracket>[()])
    )""",
    re.VERBOSE,
)
_RELEASE = re.compile(r"\s*v?(\d+(?:\.\d+)*)")
_SPECIFIER = re.compile(r"\s*(===|==|~=|!=|<=|>=|<|>)\s*(\S+)\s*$")


class MarkerError(ValueError):
    """The marker or specifier is outside what is understood here."""


def canonical_name(name: str) -> str:
    """The one spelling of a package's, extra's or group's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def applies(marker: str, environment: Mapping[str, Value]) -> bool:
    """Whether a marker holds in an environment; an empty marker does."""
    if not marker.strip():
        return True
    return _Parser(marker, environment).parse()


def satisfies(version: str, specifiers: str) -> bool:
    """Whether a Python version lies within specifiers such as `>=3.9,<4`."""
    for specifier in filter(None, (part.strip() for part in specifiers.split(","))):
        found = _SPECIFIER.match(specifier)
        if not found:
            raise MarkerError(f"{specifier!r} is not a version specifier")
        if not _compare_versions(version, found.group(1), found.group(2)):
            return False
    return True


def _release(version: str) -> Release:
    found = _RELEASE.match(version)
    if not found:
        raise MarkerError(f"{version!r} is not a version")
    return tuple(int(part) for part in found.group(1).split("."))


def _is_plain_release(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)*(\.\*)?", text.strip()) is not None


def _trimmed(release: Release) -> Release:
    end = len(release)
    while end > 1 and release[end - 1] == 0:
        end -= 1
    return release[:end]


def _compare_versions(left: str, operator: str, right: str) -> bool:
    if not _is_plain_release(right):
        raise MarkerError(f"{right!r} is not a plain version")
    mine, wanted = _release(left), _release(right)
    if right.strip().endswith(".*"):
        if operator not in ("==", "!="):
            raise MarkerError(f"{operator}{right} has no meaning")
        return (mine[: len(wanted)] == wanted) == (operator == "==")
    if operator == "~=":
        if len(wanted) < 2:
            raise MarkerError(f"~={right} has no meaning")
        return _trimmed(mine) >= _trimmed(wanted) and mine[: len(wanted) - 1] == wanted[:-1]
    return _ORDER[operator](_trimmed(mine), _trimmed(wanted))


_ORDER: Mapping[str, Callable[[Release, Release], bool]] = {
    "==": lambda a, b: a == b,
    "===": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


class _Parser:
    """Recursive descent over `or`, `and`, brackets and comparisons."""

    def __init__(self, marker: str, environment: Mapping[str, Value]) -> None:
        self.marker = marker
        self.environment = environment
        self.tokens = self._tokens(marker)
        self.position = 0

    def parse(self) -> bool:
        result = self._either()
        if self.position != len(self.tokens):
            raise self._error()
        return result

    def _tokens(self, marker: str) -> list[tuple[str, str]]:
        tokens: list[tuple[str, str]] = []
        at = 0
        text = marker.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if not found or found.lastgroup is None:
                raise self._error()
            tokens.append((found.lastgroup, found.group(found.lastgroup)))
            at = found.end()
        return tokens

    def _error(self) -> MarkerError:
        return MarkerError(f"the marker {self.marker!r} is not understood")

    def _next_is(self, kind: str, text: str) -> bool:
        if self.position < len(self.tokens) and self.tokens[self.position] == (kind, text):
            self.position += 1
            return True
        return False

    def _take(self, *kinds: str) -> tuple[str, str]:
        if self.position >= len(self.tokens) or self.tokens[self.position][0] not in kinds:
            raise self._error()
        self.position += 1
        return self.tokens[self.position - 1]

    def _either(self) -> bool:
        result = self._both()
        while self._next_is("word", "or"):
            result = self._both() or result
        return result

    def _both(self) -> bool:
        result = self._one()
        while self._next_is("word", "and"):
            result = self._one() and result
        return result

    def _one(self) -> bool:
        if self._next_is("bracket", "("):
            result = self._either()
            if not self._next_is("bracket", ")"):
                raise self._error()
            return result
        left, left_variable = self._operand()
        operator = " ".join(self._take("operator")[1].split())
        right, right_variable = self._operand()
        if operator in ("in", "not in"):
            return self._contains(left, right) == (operator == "in")
        return self._compare(left, operator, right, left_variable or right_variable)

    def _operand(self) -> tuple[Value, str | None]:
        kind, text = self._take("string", "word")
        if kind == "string":
            return text[1:-1], None
        if text not in self.environment:
            raise MarkerError(f"the marker {self.marker!r} uses {text!r}, which is not known")
        return self.environment[text], text

    @staticmethod
    def _contains(left: Value, right: Value) -> bool:
        if isinstance(right, str):
            return str(left) in right
        return canonical_name(str(left)) in {canonical_name(item) for item in right}

    def _compare(self, left: Value, operator: str, right: Value, variable: str | None) -> bool:
        if not isinstance(left, str) or not isinstance(right, str):
            raise self._error()
        if variable in VERSION_VARIABLES:
            return _compare_versions(left, operator, right)
        if operator in ("==", "==="):
            return left == right
        if operator == "!=":
            return left != right
        raise MarkerError(f"the marker {self.marker!r} orders what is not a version")
