# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One release's source on the host: there as a whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from typing import Callable

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.archive import (
    MAX_BYTES,
    SourceTreeError,
    Tree,
)

# Enough of a revision to distinguish releases, short enough to type.
NAME_LENGTH = 12
SOURCE = "app"
# What git, Python and their tools leave in a directory, and no release needs.
EXCLUDE = [".git", ".venv", "__pycache__", "*.pyc", ".mypy_cache", ".pytest_cache", ".ruff_cache"]
# Others go through to what they know the name of, and see no other name.
PASSAGE = 0o711


def release_path(releases: str, revision: str) -> str:
    return os.path.join(releases, revision[:NAME_LENGTH])


def is_there(releases: str, revision: str) -> bool:
    return os.path.isdir(os.path.join(release_path(releases, revision), SOURCE))


def group_id(name: str) -> int:
    """The number of a group that may read the source; none when it is not there yet."""
    try:
        return grp.getgrnam(name).gr_gid if name else -1
    except KeyError:
        return -1


def bring(
    releases: str,
    revision: str,
    fill: Callable[[Tree], None],
    strip: int = 0,
    max_bytes: int = MAX_BYTES,
    gid: int = -1,
) -> None:
    """Fills a temporary directory and renames it when whole: a run that is cut off leaves no half release."""
    final = release_path(releases, revision)
    partial = os.path.join(releases, f".{os.path.basename(final)}.new")
    with locked(os.path.dirname(releases)):
        # Another run may have brought it while this one waited.
        if is_there(releases, revision):
            return
        make_own(releases)
        os.chmod(releases, PASSAGE)
        remove(partial)
        os.mkdir(partial, 0o700)
        try:
            tree = Tree(os.path.join(partial, SOURCE), strip, max_bytes, gid=gid)
            try:
                fill(tree)
            finally:
                tree.close()
            # What is left of a release without its source is of no use.
            remove(final)
            os.chmod(partial, PASSAGE)
            os.rename(partial, final)
        except BaseException:
            remove(partial)
            raise


def regroup(releases: str, revision: str, gid: int, dry_run: bool = False) -> bool:
    """Gives a source that is there to its group, which was another one, or not there yet, when it was brought."""
    source = os.path.join(release_path(releases, revision), SOURCE)
    if gid < 0 or os.stat(source).st_gid == gid:
        return False
    if dry_run:
        return True
    with locked(os.path.dirname(releases)):
        for folder, folders, files in os.walk(source, topdown=False):
            for name in (*folders, *files):
                os.chown(os.path.join(folder, name), -1, gid, follow_symlinks=False)
        # Last, so that a run that was cut off is not taken for one that came to its end.
        os.chown(source, -1, gid, follow_symlinks=False)
    return True


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """One run at a time works in an app's directory, which is made if need be."""
    make_own(directory)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def make_own(directory: str) -> None:
    """A directory in which only root can list and write."""
    if not os.path.isdir(directory):
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        # Another run may be faster.
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)
            os.chmod(directory, PASSAGE)
    check_own(directory)


def check_own(directory: str) -> None:
    """Refuses a directory in which somebody else could put a link where root works."""
    found = os.stat(directory)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise SourceTreeError(
            f"{directory} can be written by others (owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}), who"
            f" could lead root elsewhere; run on the host: chown root:root {directory}; chmod 0711 {directory}"
        )


def remove(path: str) -> None:
    """A directory with all that is in it, however deep; links are not followed."""
    if not os.path.lexists(path):
        return
    try:
        shutil.rmtree(path)
    except (RecursionError, OSError):
        # It needs neither a path nor an open file for each level.
        done = subprocess.run(
            ["rm", "--recursive", "--force", "--", path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode != 0:
            output = done.stderr.decode("utf-8", "replace").strip()[:300]
            raise SourceTreeError(f"{path} could not be removed: {output!r}") from None


def prune(releases: str, live: str, keep: int, dry_run: bool = False) -> list[str]:
    """Removes the oldest releases beyond keep, never the live one, and what cut-off runs left. Returns what went."""
    if not os.path.isdir(releases):
        return []
    check_own(os.path.dirname(releases))
    check_own(releases)
    directories = [entry for entry in os.scandir(releases) if entry.is_dir(follow_symlinks=False)]
    others = [entry for entry in directories if entry.name != live and not entry.name.startswith(".")]
    others.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    gone = others[keep - 1 :] + [entry for entry in directories if entry.name.startswith(".")]
    for entry in gone:
        if not dry_run:
            remove(entry.path)
    return sorted(entry.name for entry in gone)
