# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say in one sentence why uv failed, from what it printed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable


@dataclass(frozen=True)
class Circumstances:
    """What a sentence may need to name beside uv's own words."""

    source: str
    python: str
    lock: str


def explain(output: str, about: Circumstances) -> str:
    """The sentence for the first known failure in the output; the order goes from cause to consequence."""
    for pattern, sentence in _KNOWN:
        found = re.search(pattern, output)
        if found:
            return sentence(found, output, about)
    return "uv failed for a reason that is not known here; its own words follow."


Sentence = Callable[["re.Match[str]", str, Circumstances], str]


def _package(text: str) -> str:
    """`name==1.0` and `name @ file:///x` as `name 1.0` and `name`."""
    return re.sub(r"\s*@.*$", "", text).replace("===", " ").replace("==", " ").strip("`")


def _disk_full(_found: re.Match[str], _output: str, _about: Circumstances) -> str:
    return "The disk is full: free some space on the file systems of `path` and `cache_dir`, then run again."


def _not_writable(found: re.Match[str], _output: str, _about: Circumstances) -> str:
    return f"A file can't be written ({found.group(1)}): check the owner and mount of `path` and `cache_dir`."


def _wrong_hash(found: re.Match[str], _output: str, about: Circumstances) -> str:
    return (
        f"Wrong hash: the file of {_package(found.group(1))} in {about.source} is none of those that the lock names. "
        "Find out who replaced it, or lock again."
    )


def _build_failed(found: re.Match[str], output: str, _about: Circumstances) -> str:
    package = _package(found.group(1))
    refused = re.search(r"Network is unreachable|Permission denied|Read-only file system|[Nn]ame resolution", output)
    hint = " A build has no rights, no network, and no directory but its own." if refused else ""
    return f"{package} could not be built from source.{hint} A wheel of it needs no building on the host."


def _needs_build(found: re.Match[str], _output: str, about: Circumstances) -> str:
    name = found.group(1)
    return (
        f"{name} has only a source distribution in {about.source}, or no wheel for this interpreter ({about.python}), "
        f"and building runs its code: put a wheel of it there, or set `source_distributions: [{name}]` to have it "
        "built on the host by an account without rights."
    )


def _needs_of_build(found: re.Match[str], output: str, about: Circumstances) -> str:
    missing = re.search(r"Because (\S+) was not found in the", output)
    if missing:
        return (
            f"{_package(found.group(1))} has to be built from source, and its build requirement {missing.group(1)} was "
            f"not found in {about.source}. Put that there too, or a wheel of {_package(found.group(1))}."
        )
    reason = re.search(r"(Because .*?)(?:, we can conclude|\.\n|\Z)", output)
    return (
        f"The build requirements of {_package(found.group(1))} do not fit the versions that are pinned: "
        f"{reason.group(1) if reason else 'see below'}. Pin fitting ones by adding them to the lock, for example in a "
        "dependency group that `groups` names."
    )


def _refused(found: re.Match[str], output: str, about: Circumstances) -> str:
    url = re.search(r"An index(?: URL)? \((\S+?)\)", output) or re.search(r"(https?://[^\s`)]+)", output)
    return (
        f"The index {url.group(1) if url else about.source} refused access ({found.group(1)}): check its URL, and the "
        "host, username and password in `credentials`."
    )


def _untrusted(_found: re.Match[str], output: str, about: Circumstances) -> str:
    return (
        f"The certificate of {_address(output, about)} is not trusted: give the file of its authority's certificate "
        "as `ca_bundle`."
    )


def _unreachable(found: re.Match[str], output: str, about: Circumstances) -> str:
    causes: Sequence[str] = re.findall(r"(?:cause:|Caused by:)\s*(.+)", output)
    reason = causes[-1].strip() if causes else found.group(0)
    return f"The index can't be reached at {_address(output, about)}: {reason}."


def _address(output: str, about: Circumstances) -> str:
    url = re.search(r"Failed to fetch: `?(\S+?)`?(?:\s|$)", output) or re.search(r"for url \((\S+?)\)", output)
    return url.group(1) if url else about.source


def _no_wheel(found: re.Match[str], output: str, about: Circumstances) -> str:
    hint = re.search(r"hint: (.*(?:only found wheels|Wheels are available).*)", output)
    return (
        f"There is no wheel of {_package(found.group(1))} for this interpreter ({about.python})."
        f"{' ' + hint.group(1).rstrip('.') + '.' if hint else ''}"
    )


def _wrong_python(found: re.Match[str], _output: str, about: Circumstances) -> str:
    return f"{_package(found.group(1))} needs Python {found.group(2)}, and `python` is {about.python}."


def _not_found(found: re.Match[str], _output: str, about: Circumstances) -> str:
    return f"The package {_package(found.group(1))} was not found in {about.source}."


def _no_version(found: re.Match[str], _output: str, about: Circumstances) -> str:
    return f"There is no {_package(found.group(1))} in {about.source}: it has other versions of the package only."


def _conflict(found: re.Match[str], _output: str, about: Circumstances) -> str:
    return f"The lock {about.lock} asks for packages that exclude each other: {found.group(1)}."


def _unhashed(found: re.Match[str], _output: str, _about: Circumstances) -> str:
    return f"Without a hash in the lock: {found.group(1)}. Lock again with hashes."


def _bad_lock(found: re.Match[str], _output: str, about: Circumstances) -> str:
    return f"The lock {about.lock} can't be read: {found.group(0)}."


def _unknown_name(found: re.Match[str], _output: str, _about: Circumstances) -> str:
    kind, name = found.group(1).lower(), found.group(2)
    return f"`{kind}s` names {name!r}, which the project does not have: correct the name."


def _no_python(found: re.Match[str], _output: str, about: Circumstances) -> str:
    return f"`python` ({about.python}) is no usable interpreter: {found.group(0)}."


def _no_uv(found: re.Match[str], _output: str, _about: Circumstances) -> str:
    return f"`uv` can't be started ({found.group(1)}): {found.group(2)}. Install uv there for this kind of machine."


def _unhappy(found: re.Match[str], output: str, _about: Circumstances) -> str:
    first: re.Match[str] | None = re.search(r"The package `.*", output)
    return f"The packages do not fit together: {(first or found).group(0).rstrip('.')}."


_KNOWN: Sequence[tuple[str, Sentence]] = (
    (r"^(\S+) can't be started: (.*)", _no_uv),
    (r"No space left on device|Disk quota exceeded", _disk_full),
    # What a back end prints is not uv's.
    (r"\AFailed to build `([^`]+)`", _build_failed),
    (r"(?i)hash mismatch for `?([^`\n]+)`?", _wrong_hash),
    (r"Found \d+ incompatibilit", _unhappy),
    (r"invalid peer certificate|certificate verify failed|UnknownIssuer", _untrusted),
    (r"\b(401 Unauthorized|403 Forbidden|407 Proxy Authentication Required)\b", _refused),
    (r"error sending request|HTTP status (?:server|client) error|[Oo]peration timed out|Failed to fetch", _unreachable),
    (r"\ABuild requirements of `([^`]+)`", _needs_of_build),
    (r"Wheels are required for `([^`]+)`", _needs_build),
    (r"Building source distributions (?:for|is disabled, but attempted to build) `([^`]+)`", _needs_build),
    (r"Because (?:only )?(\S+) has no (?:usable )?wheels", _no_wheel),
    (r"(\S+) depends on Python ?([^\s,]+)", _wrong_python),
    (r"Because (\S+) was not found in the (?:package registry|provided package locations|cache)", _not_found),
    (r"there is no version of ([^\s,]+)", _no_version),
    (r"(Because you require .*?), we can conclude", _conflict),
    (r"none were provided for: (.+)", _unhashed),
    (r"(Extra|Group) `([^`]+)` is not defined", _unknown_name),
    (r"Failed to parse `uv\.lock`|Couldn't parse requirement.*", _bad_lock),
    (r"Failed to inspect Python interpreter.*|No interpreter found at path.*", _no_python),
    (r"(Permission denied|Read-only file system) \(os error \d+\)", _not_writable),
)
