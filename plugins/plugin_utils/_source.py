# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory of sources on the controller, as a digest and as an archive."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Sequence


class SourceError(ValueError):
    """A source that can't be used; its text is for the user."""


def walk(root: str, exclude: Sequence[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Relative names below root, sorted, without what is excluded; links are not followed."""
    if not os.path.isdir(root):
        raise SourceError(f"source.path is {root!r}: there is no such directory on the controller")
    for folder, directories, files in os.walk(root):
        directories[:] = sorted(name for name in directories if not _excluded(name, exclude))
        links = [name for name in directories if os.path.islink(os.path.join(folder, name))]
        directories[:] = [name for name in directories if name not in links]
        for name in sorted([*files, *links]):
            if not _excluded(name, exclude):
                path = os.path.join(folder, name)
                found = os.lstat(path)
                if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
                    yield os.path.relpath(path, root), found


def _excluded(name: str, exclude: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude)


def tree_digest(root: str, exclude: Sequence[str]) -> str:
    """A digest of names, contents and executable bits: what the release is made of, and nothing else."""
    digest = hashlib.sha256()
    for name, found in walk(root, exclude):
        path = os.path.join(root, name)
        if stat.S_ISLNK(found.st_mode):
            kind, content = "link", os.fsencode(os.readlink(path))
        else:
            kind = "program" if found.st_mode & stat.S_IXUSR else "file"
            with open(path, "rb") as stream:
                content = stream.read()
        for part in (os.fsencode(name), kind.encode(), content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()


def pack(root: str, exclude: Sequence[str], archive: str) -> None:
    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for name, _found in walk(root, exclude):
            tar.add(os.path.join(root, name), arcname=name, recursive=False)


def file_digest(path: str) -> str:
    if not os.path.isfile(path):
        raise SourceError(f"source.archive is {path!r}: there is no such file on the controller")
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def wanted_digest(checksum: str) -> str:
    """The hexadecimal part of sha256:HEX."""
    kind, _colon, digits = checksum.partition(":")
    if kind != "sha256" or len(digits) != 64 or set(digits.lower()) - set("0123456789abcdef"):
        raise SourceError(f"source.checksum is {checksum!r}: it must be sha256: and 64 hexadecimal digits")
    return digits.lower()


def package_digest(package: str, lock: str) -> str:
    """A digest of a package's name, its version and the lock that it comes from."""
    if not os.path.isfile(lock):
        raise SourceError(f"source.lock is {lock!r}: there is no such file on the controller")
    name, _equals, version = package.partition("==")
    with open(lock, encoding="utf-8") as stream:
        text = stream.read()
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", text, flags=re.M)
    if (_canonical(name), version) not in {(_canonical(pinned), number) for pinned, number in pins}:
        raise SourceError(f"source.lock {lock} does not have {package} in it: lock anew, or correct source.package")
    return hashlib.sha256(f"{package}\0{text}".encode()).hexdigest()


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pack_lock(lock: str, archive: str) -> None:
    """The lock alone, under the name that apps have it by unless they say otherwise."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(lock, arcname="requirements.txt", recursive=False)
