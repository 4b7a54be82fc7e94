# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all releases of an app share, and the links to it in each release.

The app's account may write in its shared directories and put links there. So root walks directory by directory, from
one open directory to the next, never through a link (openat(2) with O_NOFOLLOW), and works in no directory that the
account may write.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Optional

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Others may pass through a directory of root's, to what is theirs, and not look around.
_PASSAGE = 0o711


class SharedPathError(Exception):
    """A foreseeable failure; its text is for the user."""


def overlaps(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of names of which one is the other or lies below it."""
    for number, name in enumerate(names):
        for other in names[:number]:
            inner, outer = sorted((name, other), key=len, reverse=True)
            if (inner + "/").startswith(outer + "/"):
                yield inner, outer


def make_directory(shared: Path, name: str, uid: int, gid: int, mode: int = 0o750) -> bool:
    """Makes one shared directory, the account's own, if it is not there; returns whether it made it."""
    *parents, last = name.split("/")
    with _below(shared, parents, _PASSAGE) as parent:
        try:
            # Closed until it is its owner's.
            os.mkdir(last, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode):
                raise SharedPathError(
                    f"shared.directories: {shared / name} is there and is no directory\nMove it away, then run again"
                ) from None
            return False
        with _closing(_open_child(parent, last, shared / name)) as handle:
            os.fchown(handle, uid, gid)
            os.fchmod(handle, mode)
    return True


def link(source: Path, name: str, shared: Path) -> None:
    """Puts a link to the shared name into a release's source, in the place of what the source brings there."""
    *parents, last = name.split("/")
    target = str(shared / name)
    with _below(source, parents) as parent:
        found = _kind(parent, last)
        if found == stat.S_IFLNK and os.readlink(last, dir_fd=parent) == target:
            return
        if found is not None:
            _remove(parent, last, source)
        os.symlink(target, last, dir_fd=parent)


def _kind(parent: int, name: str) -> Optional[int]:
    try:
        return stat.S_IFMT(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None


def _remove(parent: int, name: str, source: Path) -> None:
    """Through a directory of root's: what is removed must not be looked up by a path that another one can change."""
    bin_path = tempfile.mkdtemp(prefix=".removed-", dir=source.parent)
    with _opened(Path(bin_path)) as bin_handle:
        os.rename(name, name, src_dir_fd=parent, dst_dir_fd=bin_handle)
    shutil.rmtree(bin_path)


@contextmanager
def _closing(handle: int) -> Iterator[int]:
    try:
        yield handle
    finally:
        os.close(handle)


def _opened(path: Path) -> AbstractContextManager[int]:
    return _closing(os.open(path, _FOLDER))


def _below(top: Path, parts: Sequence[str], made_mode: Optional[int] = None) -> AbstractContextManager[int]:
    """The directory below top that the parts lead to. Missing ones are made, like top when no mode is given."""
    handle, path = os.open(top, _FOLDER), top
    for part in parts:
        above, path = handle, path / part
        try:
            handle = _enter(above, part, path, made_mode)
        finally:
            os.close(above)
    return _closing(handle)


def _enter(above: int, name: str, path: Path, made_mode: Optional[int]) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=above)
        made = True
    except FileExistsError:
        made = False
    handle = _open_child(above, name, path)
    try:
        if made:
            like = os.fstat(above)
            os.fchown(handle, 0, like.st_gid)
            os.fchmod(handle, stat.S_IMODE(like.st_mode) if made_mode is None else made_mode)
        _refuse_writable(handle, path)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _open_child(parent: int, name: str, path: Path) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise SharedPathError(
            f"shared: {path} is a link or a file, and a shared name lies below it: root follows no link there\n"
            "Remove it if it is left from another setting of shared, or choose another name, then run again"
        ) from None


def _refuse_writable(handle: int, path: Path) -> None:
    found = os.fstat(handle)
    if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SharedPathError(
            f"shared: {path} can be written by others than root (owner {found.st_uid}, mode "
            f"{stat.S_IMODE(found.st_mode):04o}), and a shared name lies below it\n"
            "Share that directory itself instead of what is in it, or choose another name"
        )
