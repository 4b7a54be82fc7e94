# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a whole build at another path, for an app's next release with the same lock.

The files of a copy are hard links, as those are that uv takes from its cache, with the bytecode, which is valid by the
times of its sources. Only what names the build's own path is written anew.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.builds import STAMP

_PLAIN = re.compile(r"[A-Za-z0-9_./@+-]+")


def contents(build: Path) -> str:
    """A digest of what lies in a build, by names, sizes and times; empty where others may write, or are removing it."""
    total = hashlib.sha256()
    try:
        for path, status in _entries(build):
            if status.st_uid != os.geteuid() or _is_open(status):
                return ""
            name = os.fsencode(path.relative_to(build))
            if stat.S_ISLNK(status.st_mode):
                total.update(b"%s\0link %s\0" % (name, os.fsencode(os.readlink(path))))
            elif stat.S_ISDIR(status.st_mode):
                total.update(b"%s\0directory\0" % name)
            elif name != STAMP.encode():
                total.update(b"%s\0%o %d %d\0" % (name, status.st_mode, status.st_size, status.st_mtime_ns))
    except OSError:
        return ""
    return total.hexdigest()


def can_copy(source: Path, target: Path) -> bool:
    """Whether scripts can name the one path where they name the other: as it is, and in a first line as long."""
    paths = str(source), str(target)
    return all(_PLAIN.fullmatch(path) for path in paths) and len(paths[1]) <= len(paths[0])


def copy_build(source: Path, target: Path, expected: str) -> None:
    """Copy a build with these contents; raises OSError when it can't be linked, or is being changed or removed."""
    for path, status in _entries(source):
        copy = target / path.relative_to(source)
        if stat.S_ISDIR(status.st_mode):
            copy.mkdir(mode=0o755)
            copy.chmod(0o755)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(path), copy)
        elif path.name != STAMP:
            os.link(path, copy)
    if contents(target) != expected:
        raise OSError(f"{source} changed while it was copied")
    _name_anew(target, os.fsencode(source), os.fsencode(target))


def _name_anew(build: Path, before: bytes, after: bytes) -> None:
    """Scripts and what activates the environment name its path, and records have the digests of scripts."""
    records: dict[bytes, bytes] = {}
    for path in (build / "bin").iterdir():
        if path.is_symlink():
            continue
        old = path.read_bytes()
        if _rewrite(path, {before: after}):
            records[_record(path, old)] = _record(path, path.read_bytes())
    for path in build.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        _rewrite(path, records)


def _record(path: Path, content: bytes) -> bytes:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return b"bin/%s,sha256=%s,%d" % (os.fsencode(path.name), digest, len(content))


def _rewrite(path: Path, changes: Mapping[bytes, bytes]) -> bool:
    """Put a file with these changes in the place of a link; without any, the link stays."""
    content = old = path.read_bytes()
    for before, after in changes.items():
        content = content.replace(before, after)
    if content != old:
        mode = stat.S_IMODE(path.stat().st_mode)
        path.unlink()
        path.write_bytes(content)
        path.chmod(mode)
    return content != old


def _is_open(status: os.stat_result) -> bool:
    return not stat.S_ISLNK(status.st_mode) and bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _entries(build: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All that lies in a build, and itself first; a directory comes before what is in it."""
    yield build, os.lstat(build)
    for folder, folders, files in os.walk(build):
        folders.sort()
        for name in sorted(folders + files):
            path = Path(folder, name)
            yield path, os.lstat(path)
