# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories of a release that the proxy serves by itself: open to every account, while the rest is the app's alone.

A release is root's, so that nobody changes it meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

_ENTER, _READ = stat.S_IXOTH, stat.S_IROTH


def below(folder: Path, paths: Sequence[str]) -> list[str]:
    """Those of the paths that lie below a folder, relative to it."""
    normal = [os.path.normpath(path) for path in paths]
    return [os.path.relpath(path, folder) for path in normal if path.startswith(f"{folder}/")]


def closed(source: Path, names: Sequence[str]) -> list[str]:
    """Those of the names below the source that the proxy can't enter. What is not there is no matter of permissions."""
    found = []
    for name in names:
        ways = list(_way(source, name))
        if ways and not all(path.stat().st_mode & _ENTER for path in ways):
            found.append(name)
    return found


def open_up(source: Path, names: Sequence[str]) -> None:
    for name in closed(source, names):
        ways = list(_way(source, name))
        for path in ways:
            _allow(path, _ENTER)
        for folder, folders, files in os.walk(ways[-1]):
            _allow(Path(folder), _ENTER | _READ)
            for each in (*folders, *files):
                path = Path(folder, each)
                if stat.S_ISREG(path.lstat().st_mode):
                    _allow(path, _READ)


def _way(source: Path, name: str) -> Iterator[Path]:
    """The directories from the source to the named one; none when one of them is a link, as to what releases share."""
    ways = [source.joinpath(*Path(name).parts[:depth]) for depth in range(len(Path(name).parts) + 1)]
    if all(path.is_dir() and not path.is_symlink() for path in ways):
        yield from ways


def _allow(path: Path, bits: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & bits != bits:
        os.chmod(path, mode | bits)
