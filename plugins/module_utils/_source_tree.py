# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One release's source on the host: there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Optional

# Enough of a revision to tell releases apart, short enough to type.
NAME_LENGTH = 12
SOURCE = "app"
# What git, Python and their tools leave in a directory, and no release needs.
EXCLUDE = [".git", ".venv", "__pycache__", "*.pyc", ".mypy_cache", ".pytest_cache", ".ruff_cache"]


class SourceTreeError(Exception):
    """A foreseeable failure; its text is for the user."""


def release_path(releases: str, revision: str) -> str:
    return os.path.join(releases, revision[:NAME_LENGTH])


def is_there(releases: str, revision: str) -> bool:
    return os.path.isdir(os.path.join(release_path(releases, revision), SOURCE))


def unpack_release(releases: str, revision: str, archive: str, strip: int) -> None:
    """Unpacks under a temporary name and renames when whole: a run that is cut off leaves no half release."""
    final = release_path(releases, revision)
    partial = os.path.join(releases, f".{os.path.basename(final)}.new")
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(releases, mode=0o755, exist_ok=True)
    os.mkdir(partial, 0o755)
    try:
        unpack(archive, os.path.join(partial, SOURCE), strip)
        # What is left of a release without its source is of no use.
        shutil.rmtree(final, ignore_errors=True)
        os.rename(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def unpack(archive: str, place: str, strip: int) -> None:
    os.mkdir(place, 0o755)
    count = 0
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as bundle:
                for info in bundle.infolist():
                    target = _target(info.filename, place, strip)
                    if target and not info.is_dir():
                        with bundle.open(info) as stream:
                            _write(target, stream, bool(info.external_attr >> 16 & 0o100))
                        count += 1
        else:
            with tarfile.open(archive) as tar:
                for member, target in _tar_members(tar, place, strip):
                    _extract(tar, member, target, place)
                    count += 1
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise SourceTreeError(f"the archive can't be read, it must be a tar or zip file: {error}") from error
    if not count:
        raise SourceTreeError(f"the archive has no file in it with strip_components {strip}; lower strip_components")


def _tar_members(tar: tarfile.TarFile, place: str, strip: int) -> Iterator[tuple[tarfile.TarInfo, str]]:
    for member in tar:
        target = _target(member.name, place, strip)
        if target and (member.isreg() or member.issym()):
            yield member, target


def _target(name: str, place: str, strip: int) -> Optional[str]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise SourceTreeError(f"the archive names {name!r}, which lies outside of it")
    parts = path.parts[strip:]
    return os.path.join(place, *parts) if parts else None


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: str, place: str) -> None:
    if member.issym():
        pointed = os.path.normpath(os.path.join(os.path.dirname(target), member.linkname))
        if not (pointed + "/").startswith(place + "/"):
            raise SourceTreeError(f"the archive's link {member.name!r} points outside, to {member.linkname!r}")
        _make_parents(target, place)
        os.symlink(member.linkname, target)
        return
    stream = tar.extractfile(member)
    if stream is not None:
        with stream:
            _write(target, stream, bool(member.mode & 0o100), place)


def _make_parents(target: str, place: str) -> None:
    parent = os.path.dirname(target)
    os.makedirs(parent, mode=0o755, exist_ok=True)
    # A link among the parents could lead a later file of the archive elsewhere.
    if not (os.path.realpath(parent) + "/").startswith(os.path.realpath(place) + "/"):
        raise SourceTreeError(f"the archive writes through a link: {target}")


def _write(target: str, stream: IO[bytes], program: bool, place: str = "") -> None:
    _make_parents(target, place or os.path.dirname(target))
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o755 if program else 0o644)
    with os.fdopen(handle, "wb") as output:
        shutil.copyfileobj(stream, output)


def archive_commit(git: str, repository: str, revision: str, archive: str) -> None:
    """The files of one commit, without git's own, as a tar file."""
    done = subprocess.run(
        [git, "-C", repository, "archive", "--format=tar", f"--output={archive}", revision],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise SourceTreeError(f"git archive of {revision} failed: {done.stdout.decode('utf-8', 'replace').strip()}")


def prune(releases: str, live: str, keep: int, only_tell: bool = False) -> list[str]:
    """Removes the oldest releases beyond keep, never the live one, and what cut-off runs left. Returns what went."""
    if not os.path.isdir(releases):
        return []
    directories = [entry for entry in os.scandir(releases) if entry.is_dir(follow_symlinks=False)]
    others = [entry for entry in directories if entry.name != live and not entry.name.startswith(".")]
    others.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    gone = others[keep - 1 :] + [entry for entry in directories if entry.name.startswith(".")]
    for entry in gone:
        if not only_tell:
            shutil.rmtree(entry.path)
    return sorted(entry.name for entry in gone)
