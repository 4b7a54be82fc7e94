# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Environment markers and version specifiers, as far as lock files use them.

The platform Python of the host has no `packaging`, and asking uv would need an index: so that check mode can
tell what a lock installs here, this small evaluator answers. What it does not understand it says so.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Collection, Mapping
from typing import Any, Callable, Union

Value = Union[str, Collection[str]]

VERSION_VARIABLES = frozenset({"python_version", "python_full_version", "implementation_version"})

# A marker is read as an expression of Python: strings stay as they are, two operators get other words, and what has a
# meaning in Python alone has none.
_TOKEN = re.compile(r"""'[^']*'|"[^"]*"|===|~=|\bis\b|#""")
_IN_PYTHON = {"===": "==", "~=": " is "}
_OPERATORS = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Is: "~=",
    ast.In: "in",
    ast.NotIn: "not in",
}
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "===": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_RELEASE = re.compile(r"\s*v?(\d+(?:\.\d+)*)")
_PLAIN_RELEASE = re.compile(r"\s*\d+(\.\d+)*(\.\*)?\s*")
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
    try:
        return _holds(ast.parse(_TOKEN.sub(_in_python, marker.strip()), mode="eval").body, environment)
    except MarkerError as error:
        raise MarkerError(f"the marker {marker!r} is not understood: {error}") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise MarkerError(f"the marker {marker!r} is not understood") from error


def satisfies(version: str, specifiers: str) -> bool:
    """Whether a Python version lies within specifiers such as `>=3.9,<4`."""
    for specifier in filter(None, (part.strip() for part in specifiers.split(","))):
        found = _SPECIFIER.match(specifier)
        if not found:
            raise MarkerError(f"{specifier!r} is not a version specifier")
        if not _compare_versions(version, found.group(1), found.group(2)):
            return False
    return True


def _in_python(found: re.Match[str]) -> str:
    token = found.group()
    if token[0] in "'\"":
        return token
    if token not in _IN_PYTHON:
        raise MarkerError(f"{token!r} has no meaning in it")
    return _IN_PYTHON[token]


def _holds(node: ast.expr, environment: Mapping[str, Value]) -> bool:
    if isinstance(node, ast.BoolOp):
        results = [_holds(each, environment) for each in node.values]
        return all(results) if isinstance(node.op, ast.And) else any(results)
    if not isinstance(node, ast.Compare) or len(node.ops) != 1:
        raise MarkerError("it is more than comparisons")
    sides = node.left, node.comparators[0]
    left, right = (_operand(side, environment) for side in sides)
    word = _OPERATORS.get(type(node.ops[0]))
    if word is None:
        raise MarkerError("it has an operator of Python's")
    if word in ("in", "not in"):
        return _contains(left, right) == (word == "in")
    if not isinstance(left, str) or not isinstance(right, str):
        raise MarkerError("it compares a set")
    if any(isinstance(side, ast.Name) and side.id in VERSION_VARIABLES for side in sides):
        return _compare_versions(left, word, right)
    if word not in ("==", "!="):
        raise MarkerError("it orders what is not a version")
    return _ORDER[word](left, right)


def _operand(node: ast.expr, environment: Mapping[str, Value]) -> Value:
    if isinstance(node, ast.Name):
        if node.id not in environment:
            raise MarkerError(f"{node.id!r} is not known")
        return environment[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        length = (node.end_col_offset or 0) - node.col_offset
        # One that is longer in the text has an escape, a prefix or several parts, as only Python's have.
        if length == len(node.value.encode()) + 2:
            return node.value
    raise MarkerError("it compares more than variables and strings")


def _contains(left: Value, right: Value) -> bool:
    if isinstance(right, str):
        return str(left) in right
    return canonical_name(str(left)) in {canonical_name(item) for item in right}


def _compare_versions(left: str, word: str, right: str) -> bool:
    if not _PLAIN_RELEASE.fullmatch(right):
        raise MarkerError(f"{right!r} is not a plain version")
    mine, wanted = _release(left), _release(right)
    if right.strip().endswith(".*"):
        if word not in ("==", "!="):
            raise MarkerError(f"{word}{right} has no meaning")
        return (mine[: len(wanted)] == wanted) == (word == "==")
    # 3.12 and 3.12.0 are the same.
    size = max(len(mine), len(wanted))
    padded = [release + (0,) * (size - len(release)) for release in (mine, wanted)]
    if word == "~=":
        if len(wanted) < 2:
            raise MarkerError(f"~={right} has no meaning")
        return padded[0] >= padded[1] and mine[: len(wanted) - 1] == wanted[:-1]
    return _ORDER[word](*padded)


def _release(version: str) -> tuple[int, ...]:
    found = _RELEASE.match(version)
    if not found:
        raise MarkerError(f"{version!r} is not a version")
    return tuple(int(part) for part in found.group(1).split("."))
