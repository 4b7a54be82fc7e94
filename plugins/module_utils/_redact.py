# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people may read of a program's output: no secret, whole or shortened, and nothing that steers a terminal.

Ansible itself replaces each occurrence of a no_log value in all that a module returns, in names and paths that the next
task needs as well. Here only texts for people are changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NoReturn
from urllib.parse import quote, quote_plus

REDACTED = "********"
# A shorter value occurs by chance too often to be redacted.
SHORTEST = 5
# Of a longer one a beginning or an end of this length is redacted beside a mark of what was cut out, ...
SHORTEST_PART = 8
# ... and one of this length anywhere.
LONG_PART = 16
# How libraries mark that they cut something out.
CUT = re.compile(r"\s?[\[<(]?(?:\.{2,}|\u2026|\*{3,})(?: ?truncated)?[\]>)]?\s?")
# No library leaves more on either side of it.
LONGEST_PART = 512
# What shows that an argument was given, as Ansible does.
HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
# The keys of results whose values, and all below them, are for people and not for the next task.
TEXTS = frozenset(
    {
        "after",
        "before",
        "causes",
        "check_output",
        "ending",
        "health",
        "log_tail",
        "messages",
        "msg",
        "output",
        "reason",
        "skipped_reason",
        "spawn_error",
        "stderr_tail",
        "stdout_tail",
        "warnings",
    }
)
_LOGIN = re.compile(r"(?<=://)[^/@\s]*@")
# Controls but for tab and line feed, the C1 controls, and marks that turn the direction of a text (Unicode, UAX 9).
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with what would steer a terminal as visible escapes, such as \\x1b."""
    return _STEERING.sub(_escaped, text)


def one_line(text: str) -> str:
    """The same for a text that is one line: what it quotes cannot begin another one."""
    return printable(text).replace("\n", "\\n")


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def without_logins(text: str) -> str:
    """The text without user names and passwords in URLs."""
    return _LOGIN.sub("***@", text)


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets, and without beginnings and ends of them that a library left."""
    spellings = _spellings(tuple(secrets))
    for spelling in spellings:
        text = text.replace(spelling, REDACTED)
    parts = [part for spelling in spellings if len(spelling) > SHORTEST_PART for part in _parts(text, spelling)]
    pieces, done = [], 0
    for begin, end in sorted(parts):
        if begin >= done:
            pieces += [text[done:begin], REDACTED]
        done = max(done, end)
    return "".join([*pieces, text[done:]])


@lru_cache(maxsize=8)
def _spellings(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """The secrets as programs write them, the longest first."""
    found = {spelling for secret in secrets for spelling in _spellings_of(str(secret))}
    return tuple(sorted(found, key=lambda spelling: (-len(spelling), spelling)))


def _spellings_of(secret: str) -> Iterator[str]:
    if len(secret) < SHORTEST:
        return
    yield from (secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1], json.dumps(secret)[1:-1])
    # As a log has a value of several lines.
    yield from (line.strip() for line in secret.splitlines() if len(line.strip()) >= SHORTEST_PART)


def _parts(text: str, secret: str) -> Iterator[tuple[int, int]]:
    yield from _parts_at_cuts(text, secret)
    if len(secret) > LONG_PART:
        yield from _long_parts(text, secret)


def _parts_at_cuts(text: str, secret: str) -> Iterator[tuple[int, int]]:
    """Where a beginning is before a mark of a cut, an end behind it, or both."""
    for cut in CUT.finditer(text):
        head, tail = _head_before(text, cut.start(), secret), _tail_behind(text, cut.end(), secret)
        if head + tail >= SHORTEST_PART:
            yield cut.start() - head if head else cut.end(), cut.end() + tail if tail else cut.start()


def _head_before(text: str, end: int, secret: str) -> int:
    """The length of the longest beginning of the secret that ends there."""
    for size in range(min(len(secret) - 1, end, LONGEST_PART), 0, -1):
        if secret[size - 1] == text[end - 1] and text.startswith(secret[:size], end - size):
            return size
    return 0


def _tail_behind(text: str, begin: int, secret: str) -> int:
    """The length of the longest end of the secret that begins there."""
    for size in range(min(len(secret) - 1, len(text) - begin, LONGEST_PART), 0, -1):
        if secret[-size] == text[begin] and text.startswith(secret[-size:], begin):
            return size
    return 0


def _long_parts(text: str, secret: str) -> Iterator[tuple[int, int]]:
    """Where a long beginning or end is without any mark, as where a column ends."""
    for found in re.finditer(re.escape(secret[:LONG_PART]), text):
        begin, size = found.start(), LONG_PART
        while size < len(secret) and text.startswith(secret[size], begin + size):
            size += 1
        yield begin, begin + size
    for found in re.finditer(re.escape(secret[-LONG_PART:]), text):
        end, size = found.end(), LONG_PART
        while size < len(secret) and end > size and text[end - size - 1] == secret[-size - 1]:
            size += 1
        yield end - size, end


class Output:
    """The way out of a module: its texts for people are redacted, and all else is returned as it is."""

    def __init__(self, module: Any, secrets: Iterable[str] = ()) -> None:
        self._module = module
        self._secrets = tuple(str(secret) for secret in secrets if secret)
        # A command or a reason among the arguments may repeat a secret, and -vvv shows them.
        self._arguments = self._all_texts(without_secrets(module.params, module.argument_spec))
        # From here on it would put stars into names that the next task needs.
        module.no_log_values.clear()

    def text(self, text: str) -> str:
        return printable(redact(text, self._secrets))

    def warn(self, text: str) -> None:
        self._module.warn(self.text(text))

    def exit(self, **result: Any) -> NoReturn:
        self._module.exit_json(invocation={"module_args": self._arguments}, **self.result(result))
        raise AssertionError("exit_json returned")

    def fail(self, msg: str, **result: Any) -> NoReturn:
        self._module.fail_json(msg=self.text(msg), invocation={"module_args": self._arguments}, **self.result(result))
        raise AssertionError("fail_json returned")

    def result(self, result: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self._all_texts(value) if key in TEXTS else self._inner(value) for key, value in result.items()}

    def _inner(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self.result(value)
        if isinstance(value, (list, tuple)):
            return [self._inner(item) for item in value]
        return value

    def _all_texts(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self._all_texts(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._all_texts(item) for item in value]
        return value


def without_secrets(arguments: Mapping[str, Any], spec: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A module's arguments as its result may show them."""
    shown: dict[str, Any] = {}
    for name, value in arguments.items():
        option = spec.get(name, {})
        options = option.get("options")
        if option.get("no_log") and value not in (None, "", [], {}):
            shown[name] = HIDDEN
        elif options and isinstance(value, Mapping):
            shown[name] = without_secrets(value, options)
        elif options and isinstance(value, (list, tuple)):
            shown[name] = [
                without_secrets(item, options) if isinstance(item, Mapping) else _shown(item) for item in value
            ]
        else:
            shown[name] = _shown(value)
    return shown


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return without_logins(value)
    return [_shown(item) for item in value] if isinstance(value, list) else value
