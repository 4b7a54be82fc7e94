# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lock files: three formats in, one list of hashed requirements out.

uv follows the addresses that stand in a pylock file, whatever index it is given. So that an index of one's own
and an offline wheelhouse serve every format alike, all of them become hashed requirement lines: the lock says
which files are right (by hash), the host says where they come from.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.markers import (
    MarkerError,
    Value,
    applies,
    canonical_name,
    satisfies,
)

_STRONG_HASHES = ("sha256", "sha384", "sha512")

_HASH = re.compile(r"\s--hash[=\s]\s*(\S+)")
_PINNED = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?P<extras>\[[^\]]*\])?\s*"
    r"(?:===?\s*(?P<version>[^\s;,*@]+)|@\s*(?P<url>\S+))\s*(?:;\s*(?P<marker>.*\S))?\s*$"
)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_HASH_FORM = re.compile(r"(?:sha256:[0-9a-fA-F]{64}|sha384:[0-9a-fA-F]{96}|sha512:[0-9a-fA-F]{128})$")
_INDEX_OPTION = re.compile(
    r"(?:-i|-f|--(?:extra-)?index-url|--index|--default-index|--find-links|--no-index)(?=[\s=]|$)"
)
_FILE_OPTION = re.compile(r"(?:-r|-e|--requirements?|--editable)(?=[\s=]|$)")
_NO_BINARY = re.compile(r"--no-binary(?=[\s=])")


class LockError(ValueError):
    """The lock (or an addition) can't be used; the text is a sentence for the user."""


@dataclass(frozen=True)
class Requirement:
    """One package at one version, with the hashes of the files that may be installed for it."""

    name: str
    version: str
    hashes: tuple[str, ...]
    extras: str = ""
    url: str = ""
    marker: str = ""

    @property
    def key(self) -> str:
        return canonical_name(self.name)

    @property
    def pin(self) -> str:
        return f"{self.name}{self.extras} @ {self.url}" if self.url else f"{self.name}{self.extras}=={self.version}"

    @property
    def line(self) -> str:
        marker = f" ; {self.marker}" if self.marker else ""
        return self.pin + marker + "".join(f" --hash={value}" for value in self.hashes)


@dataclass(frozen=True)
class Lock:
    """What a lock file asks for, and remarks for the user."""

    requirements: tuple[Requirement, ...]
    warnings: tuple[str, ...] = ()

    def applicable(self, environment: Mapping[str, Value]) -> list[Requirement]:
        return [item for item in self.requirements if _may_apply(item.marker, environment)]


def format_of(name: str) -> str:
    """The lock format that a file's name tells."""
    if name == "uv.lock":
        return "uv"
    if name.startswith("pylock") and name.endswith(".toml"):
        return "pylock"
    return "requirements"


def parse_requirements(text: str) -> Lock:
    """Read a hashed requirements file; refuse whatever a hash does not vouch for."""
    requirements: list[Requirement] = []
    warnings: list[str] = []
    unhashed: list[str] = []
    for number, line in _logical_lines(text):
        if line.startswith("-"):
            _read_option(number, line, warnings)
            continue
        requirement = _read_requirement(line, f"line {number}")
        if not requirement.hashes:
            unhashed.append(f"{requirement.name} (line {number})")
        requirements.append(requirement)
    if unhashed:
        raise LockError(
            f"these requirements have no hash: {', '.join(unhashed)}. Every line needs a --hash: compile the lock "
            "with `uv pip compile --generate-hashes` or `uv export`"
        )
    return Lock(tuple(requirements), tuple(warnings))


def parse_additions(lines: Iterable[str], what: str = "addition") -> tuple[Requirement, ...]:
    """Read the hashed requirement lines of `additions`, or of another option."""
    additions: list[Requirement] = []
    for line in lines:
        requirement = _read_requirement(" ".join(line.replace("\\\n", " ").split()), f"the {what} {line!r}")
        if requirement.url:
            raise LockError(f"the {what} {line!r} names a URL; give it as name==version --hash=sha256:...")
        if not requirement.hashes:
            raise LockError(f"the {what} {line!r} has no hash; append --hash=sha256:... for each of its files")
        if any(other.key == requirement.key for other in additions):
            raise LockError(f"{requirement.name} is in the {what}s twice; leave one of the lines")
        additions.append(requirement)
    return tuple(additions)


def parse_pylock(
    data: Mapping[str, Any],
    environment: Mapping[str, Value],
    extras: Collection[str],
    groups: Collection[str],
) -> Lock:
    """Turn the tables of a pylock file (PEP 751) into hashed requirements for one interpreter."""
    if str(data.get("lock-version", "")).split(".", maxsplit=1)[0] != "1":
        raise LockError(f"its lock-version is {data.get('lock-version')!r}; versions 1.x are understood")
    _refuse_unknown("extras", extras, data.get("extras", []))
    _refuse_unknown("groups", groups, data.get("dependency-groups", []))
    chosen: dict[str, Value] = {
        **environment,
        "extras": tuple(extras),
        "dependency_groups": tuple(groups) + tuple(data.get("default-groups", [])),
    }
    check_python(str(data.get("requires-python", "")), environment)
    requirements = []
    for package in data.get("packages", []):
        name = str(package.get("name", ""))
        try:
            wanted = applies(str(package.get("marker", "")), chosen)
        except MarkerError as error:
            raise LockError(f"package {name}: {error}") from error
        # The lock's own project is a matter of install_project, not of the lock.
        if wanted and not _is_own_project(package):
            requirements.append(_from_pylock_package(name, package))
    return Lock(tuple(requirements))


def check_python(requires: str, environment: Mapping[str, Value]) -> None:
    """Refuse an interpreter that the lock was not made for."""
    version = str(environment["python_full_version"])
    try:
        fits = satisfies(version, requires)
    except MarkerError as error:
        raise LockError(f"its requires-python is {requires!r}: {error}") from error
    if not fits:
        raise LockError(f"it is made for Python {requires}, and `python` is {version}. Choose another interpreter")


def requires_python_of_uv_lock(text: str) -> str:
    """The requires-python of a uv.lock; it stands before the first table."""
    found = re.search(r'^requires-python = "([^"]*)"', text.split("\n[", 1)[0], re.MULTILINE)
    return found.group(1) if found else ""


def has_user_info(url: str) -> bool:
    """Whether a web address carries a user name or password; git@host of ssh is no secret."""
    try:
        parts = urlsplit(url)
        return parts.scheme.split("+")[-1] in ("http", "https") and "@" in parts.netloc
    except ValueError:
        return "@" in url


def _logical_lines(text: str) -> Iterable[tuple[int, str]]:
    """Lines with continuations joined and comments dropped, each with the number at which it starts."""
    pending: list[str] = []
    start = 1
    for number, raw in enumerate([*text.splitlines(), ""], 1):
        if not pending:
            start = number
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        pending.append(line.removesuffix("\\"))
        if line.endswith("\\"):
            continue
        joined = " ".join(" ".join(pending).split())
        pending = []
        if joined:
            yield start, joined


def _read_option(number: int, line: str, warnings: list[str]) -> None:
    option = re.split(r"[\s=]", line, maxsplit=1)[0]
    if _FILE_OPTION.match(line):
        raise LockError(
            f"line {number} is {line!r}: a lock is one file with every package in it, by version and hash. "
            "Compile it into one file (`uv pip compile --generate-hashes`); the project itself is `install_project`"
        )
    if _NO_BINARY.match(line):
        warnings.append(
            f"--no-binary on line {number} of the lock is not followed: source_distributions names the packages that "
            "are built from source"
        )
    elif _INDEX_OPTION.match(line):
        # Its value is left out: it may hold a password.
        warnings.append(
            f"{option} on line {number} of the lock is not followed: index_url, extra_index_urls or "
            "wheelhouse say where packages come from"
        )
    elif option not in ("--require-hashes", "--only-binary"):
        warnings.append(f"{option} on line {number} of the lock has no meaning here and is not followed")


def _read_requirement(line: str, where: str) -> Requirement:
    hashes = tuple(_HASH.findall(line))
    found = _PINNED.match(_HASH.sub("", line).strip())
    if not found:
        raise LockError(f"{where} is not a pinned requirement: {_shown(line)!r}. Write name==version --hash=sha256:...")
    url = found.group("url") or ""
    if has_user_info(url):
        raise LockError(
            f"{where} ({found.group('name')}) has a user name or password in its URL: take it out, and "
            "give it in `credentials`"
        )
    for value in hashes:
        if not _HASH_FORM.match(value):
            raise LockError(f"{where} ({found.group('name')}): {value!r} is not a hash such as sha256:<64 hex digits>")
    return Requirement(
        name=found.group("name"),
        version=found.group("version") or "",
        hashes=hashes,
        extras=found.group("extras") or "",
        url=url,
        marker=found.group("marker") or "",
    )


def _shown(line: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//***@", _HASH.sub("", line))[:120]


def _may_apply(marker: str, environment: Mapping[str, Value]) -> bool:
    """A marker that is not understood here is left to uv, and its package counts as the lock's own."""
    try:
        return applies(marker, environment)
    except MarkerError:
        return True


def _refuse_unknown(option: str, wanted: Collection[str], known: Sequence[str]) -> None:
    names = {canonical_name(name) for name in known}
    for name in wanted:
        if canonical_name(name) not in names:
            raise LockError(f"{option} names {name!r}, and the lock has {', '.join(sorted(names)) or 'none'}")


def _is_own_project(package: Mapping[str, Any]) -> bool:
    directory = package.get("directory")
    return isinstance(directory, Mapping) and PurePosixPath(str(directory.get("path", ""))) == PurePosixPath(".")


def _from_pylock_package(name: str, package: Mapping[str, Any]) -> Requirement:
    if not _NAME.fullmatch(name):
        raise LockError(f"it has a package with the name {name!r}")
    for kind in ("vcs", "directory"):
        if kind in package:
            raise LockError(
                f"package {name} comes from a {kind} source, which no hash vouches for: put a built wheel "
                "of it into an index or the wheelhouse, and lock it anew"
            )
    archive = package.get("archive")
    if isinstance(archive, Mapping):
        url = str(archive.get("url", ""))
        if not url or has_user_info(url):
            raise LockError(f"package {name} is an archive without a URL, or with a password in it")
        return Requirement(name, "", _hashes(name, [archive]), url=url)
    version = str(package.get("version") or "")
    if not re.fullmatch(r"[A-Za-z0-9.!+_-]+", version):
        raise LockError(f"package {name} has no usable version ({version!r})")
    files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
    return Requirement(name, version, _hashes(name, files))


def _hashes(name: str, files: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    found = [
        f"{algorithm}:{str(value).lower()}"
        for file in files
        for algorithm, value in sorted(file.get("hashes", {}).items())
        if algorithm in _STRONG_HASHES
    ]
    bad: str | None = next((value for value in found if not _HASH_FORM.match(value)), None)
    if bad or not found:
        raise LockError(
            f"package {name} has {'a malformed hash' if bad else 'no sha256, sha384 or sha512 hash'}: lock it anew"
        )
    return tuple(dict.fromkeys(found))
