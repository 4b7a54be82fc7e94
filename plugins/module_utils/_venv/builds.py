# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds beside a link: names, completion stamps, publication, the lock against others, and pruning.

    /opt/x/venvs/orders -> .orders-3f2a1c9d0b77     the link that users know
    /opt/x/venvs/.orders-3f2a1c9d0b77/              a build, at its final path
    /opt/x/venvs/.orders.lock                       held while one builds
    /opt/x/venvs/.orders.tmp-XXXXXXXX/              uv's files while it runs

A build counts when its stamp is in it: the stamp is the last thing written, and the first removed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes import processes
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.markers import canonical_name

STAMP = ".asgiops-complete.json"
_LOCK_POLL = 0.1
# How far a process's start and a publication may lie apart on the two clocks that show them.
_CLOCK_SLACK = 5.0


class BuildsError(Exception):
    """The path of the environment can't be used; the text is a sentence for the user."""


@dataclass(frozen=True)
class Stamp:
    """What a complete build records of itself."""

    build: str
    fingerprint: str
    inputs: Mapping[str, Any]
    python_version: str
    packages: Mapping[str, str]
    added: Sequence[str]
    # What its bin/python leads to.
    interpreter: str = ""
    # A digest of what lay in it.
    contents: str = ""


@dataclass(frozen=True)
class Access:
    """Who may enter a build: its top directory's mode and group. All below it is readable."""

    mode: int
    gid: int

    def holds(self, build: Path) -> bool:
        status = os.stat(build)
        return (stat.S_IMODE(status.st_mode), status.st_gid) == (self.mode, self.gid)

    def give(self, build: Path) -> None:
        if not self.holds(build):
            os.chown(build, -1, self.gid)
            os.chmod(build, self.mode)


class EnvironmentPath:
    """The link of one environment, and the builds beside it."""

    def __init__(self, path: str) -> None:
        self.link = Path(os.path.normpath(path))
        self.name = self.link.name
        # Scripts embed the path of their build: it must not lead through a link that moves on.
        self.parent = Path(os.path.realpath(self.link.parent))
        self._build_name = re.compile(rf"\.{re.escape(self.name)}-[0-9a-f]{{12}}(?:\.\d+)?")

    def refuse_if_taken(self) -> None:
        """Only a link, or nothing, may be where the link goes."""
        if self.link.exists() and not self.link.is_symlink():
            kind = "directory" if self.link.is_dir() else "file"
            raise BuildsError(
                f"path={self.link} is a {kind}, not a symbolic link of this module. It was made by hand or by another "
                f"tool, and is left alone: move it away (mv {self.link} {self.link}.old) or choose another path"
            )

    def published(self) -> Path | None:
        """Where the link points to, whether that exists or not."""
        if not self.link.is_symlink():
            return None
        return Path(os.path.normpath(self.parent / os.readlink(self.link)))

    def builds(self) -> list[Path]:
        """All builds, complete or not."""
        if not self.parent.is_dir():
            return []
        return sorted(
            Path(entry.path)
            for entry in os.scandir(self.parent)
            if self._build_name.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        )

    def owns(self, path: Path) -> bool:
        """Whether a file or directory is the link, or one of the things beside it."""
        mine = path.name == self.name or re.match(rf"\.{re.escape(self.name)}[.-]", path.name)
        return bool(mine) and Path(os.path.realpath(path.parent)) == self.parent

    def is_build(self, path: Path) -> bool:
        return path.parent == self.parent and self._build_name.fullmatch(path.name) is not None

    def names_for(self, fingerprint: str) -> Iterator[Path]:
        """The paths that a build of this fingerprint may have; the later ones serve when a former is damaged."""
        first = self.parent / f".{self.name}-{fingerprint[:12]}"
        yield first
        for number in range(1, 1000):
            yield first.with_name(f"{first.name}.{number}")

    def publish(self, build: Path) -> None:
        """Point the link to a build, in one step."""
        # The stamp's time is when a build was published last, for pruning.
        os.utime(build / STAMP)
        fresh = self.parent / f".{self.name}.link-{os.getpid()}"
        os.symlink(build.name, fresh)
        os.replace(fresh, self.parent / self.name)
        _sync_directory(self.parent)

    @contextmanager
    def locked(self, seconds: float) -> Iterator[int]:
        """Keep others from building here; yields the descriptor that holds the lock."""
        path = self.parent / f".{self.name}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            end = time.monotonic() + seconds
            while not _try_lock(descriptor):
                if time.monotonic() >= end:
                    raise BuildsError(
                        f"another run has been building {self.link} for longer than timeout={seconds:g} seconds (it "
                        f"holds {path}): wait for it, or find it with `fuser {path}` and end it, then run again"
                    )
                time.sleep(_LOCK_POLL)
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private directory on the same file system for as long as uv runs."""
        path = Path(tempfile.mkdtemp(prefix=f".{self.name}.tmp-", dir=self.parent))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a run that was cut off left behind. Only for the holder of the lock."""
        for entry in os.scandir(self.parent):
            if entry.name.startswith(f".{self.name}.tmp-") and entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name.startswith(f".{self.name}.link-") and entry.is_symlink():
                os.unlink(entry.path)

    def prune(self, keep: int) -> None:
        """Remove what is neither published, nor among the last `keep`, nor used by a process."""
        current = self.published()
        times = {build: published_at(build) for build in self.builds()}
        current_stamp = read_stamp(current) if current else None
        kept = {build for build in times if build == current}
        for build in sorted(times, key=lambda item: times[item] or 0.0, reverse=True):
            stamp = read_stamp(build)
            superseded = stamp and current_stamp and stamp.fingerprint == current_stamp.fingerprint
            if len(kept) < keep and stamp and not superseded:
                kept.add(build)
        stale = [build for build in times if build not in kept]
        used = in_use({self.link, self.parent / self.name}, times) if stale else set()
        for build in stale:
            if build not in used:
                remove_build(build)


def read_stamp(build: Path) -> Stamp | None:
    """The stamp of a complete build; None for an incomplete one."""
    try:
        return Stamp(**json.loads((build / STAMP).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return None


def write_stamp(build: Path, stamp: Stamp) -> None:
    """Declare a build complete."""
    fresh = build / f"{STAMP}.new"
    with open(fresh, "w", encoding="utf-8") as file:
        json.dump(vars(stamp), file, indent=1, sort_keys=True)
        file.write("\n")
        os.fchmod(file.fileno(), 0o644)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, build / STAMP)
    _sync_directory(build)


@contextmanager
def whole_or_not_there(build: Path) -> Iterator[None]:
    """Begin a build anew, and whatever goes wrong, even an interruption, leave it only with its stamp."""
    if build.exists():
        # What an earlier run began, and did not finish.
        remove_build(build)
    try:
        yield
    finally:
        if read_stamp(build) is None:
            shutil.rmtree(build, ignore_errors=True)


def published_at(build: Path) -> float | None:
    try:
        return (build / STAMP).stat().st_mtime
    except OSError:
        return None


def remove_build(build: Path) -> None:
    """Remove a build; its stamp first, so that a half-removed one never counts."""
    try:
        (build / STAMP).unlink()
    except FileNotFoundError:
        pass
    shutil.rmtree(build)


def installed_packages(build: Path) -> dict[str, str]:
    """Packages by canonical name, from the names of their metadata directories: cheap, and no code runs."""
    packages = {}
    for info in build.glob("lib/python*/site-packages/*.dist-info"):
        name, _dash, version = info.name[: -len(".dist-info")].partition("-")
        packages[canonical_name(name)] = version
    return dict(sorted(packages.items()))


def make_readable(build: Path) -> None:
    """Open everything to readers and close it to writers but the owner, whatever umask and cache it came from."""
    for folder, _folders, files in os.walk(build):
        _set_mode(folder, 0o755)
        for name in files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                _set_mode(path, 0o755 if status.st_mode & stat.S_IXUSR else 0o644)


def in_use(links: Iterable[Path], times: Mapping[Path, float | None]) -> set[Path]:
    """Which of the builds a running process uses; `times` has all builds and when each was published last.

    A process that was started through the link may name no build: then the one that was published when it started
    counts.
    """
    names = [os.fsencode(link) + b"/" for link in links]
    used: set[Path] = set()
    for pid in processes.pids():
        if pid == os.getpid():
            continue
        # Others' maps are closed to those who are not root.
        command = processes.file_of(pid, "cmdline")
        traces = b"\0".join((command, os.fsencode(processes.link_of(pid, "exe")), processes.file_of(pid, "maps")))
        named = {build for build in times if os.fsencode(build) + b"/" in traces}
        if not named and any(name in command for name in names):
            named = _published_around(processes.start_of(pid), times)
        used |= named
    return used


def _published_around(moment: float | None, times: Mapping[Path, float | None]) -> set[Path]:
    """The builds that may have been the published one at a moment; all when that is unknown."""
    around: set[Path] = set()
    for edge in (-_CLOCK_SLACK, _CLOCK_SLACK):
        before = [] if moment is None else [(at, build) for build, at in times.items() if at and at <= moment + edge]
        if not before:
            return set(times)
        around.add(max(before)[1])
    return around


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _set_mode(path: str, mode: int) -> None:
    if stat.S_IMODE(os.lstat(path).st_mode) != mode:
        os.chmod(path, mode)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
