# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds a wheel from source as an account without rights, and takes it from that account without trust."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import stat
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Optional

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.backend import BuildSystem
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.markers import canonical_name
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.run import (
    Deadline,
    RunError,
    run,
    write_private,
)

_WHEEL = re.compile(r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[A-Za-z0-9_.!+]+)(?:-\d[^-/]*)?-[^-/]+-[^-/]+-[^-/]+\.whl")
_LARGEST_FILE = 512 * 1024**2
_LARGEST_CONTENT, _MOST_FILES = 2 * 1024**3, 100_000

_NO_NAMESPACES = "this host lets root make no namespaces, so that only the account's lack of rights kept the build in"

# The front end: what pip or uv would do in an environment that has all build requirements. It runs as the account.
_FRONT_END = """
import importlib, importlib.metadata, json, os, re, shutil, sys, tarfile
work, archive, backend, path = json.loads(sys.argv[1])
source = os.path.join(work, "source")
if archive:
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") and not archive.endswith(".zip") else {}
    shutil.unpack_archive(os.path.join(work, archive), source, **safely)
    source = os.path.join(source, *os.listdir(source))
os.chdir(source)
sys.path[:0] = [os.path.join(source, entry) for entry in path]
name, _colon, attributes = backend.partition(":")
hooks = importlib.import_module(name)
for attribute in filter(None, attributes.split(".")):
    hooks = getattr(hooks, attribute)
for need in getattr(hooks, "get_requires_for_build_wheel", lambda: [])():
    try:
        if ";" not in need:
            importlib.metadata.version(re.match(r"[A-Za-z0-9._-]+", need).group())
    except importlib.metadata.PackageNotFoundError:
        sys.exit("the back end also needs %s: add it to build-system.requires of pyproject.toml" % need)
hooks.build_wheel(os.path.join(work, "wheel"))
"""


@dataclass(frozen=True)
class BuildAccount:
    """Who builds."""

    name: str
    group: str
    uid: int
    gid: int

    @classmethod
    def of(cls, name: str) -> BuildAccount:
        """Raises KeyError when there is no such account."""
        entry = pwd.getpwnam(name)
        return cls(name, grp.getgrgid(entry.pw_gid).gr_name, entry.pw_uid, entry.pw_gid)


class Workshop:
    """A directory to build one wheel in. The account may write below `work` and nowhere else."""

    def __init__(self, directory: Path, account: Optional[BuildAccount], launcher: str) -> None:
        self.directory = directory
        self.account = account
        self.launcher = launcher
        self.environment = directory / "env"
        self.work = directory / "work"
        for path in (self.work, self.work / "home", self.work / "tmp", self.work / "wheel"):
            path.mkdir(mode=0o700)

    def build(self, owner: str, system: BuildSystem, archive: str, deadline: Deadline) -> list[str]:
        """Build `source`, or the archive that has it, as the account, without a network; returns warnings."""
        task = json.dumps([str(self.work), archive, system.backend, list(system.backend_path)])
        command = [str(self.environment / "bin" / "python"), "-I", "-B", "-c", _FRONT_END, task]
        if self.account:
            command = self._launch(self.account, command)
        variables = {
            "PATH": f"{self.environment}/bin:/usr/local/bin:/usr/bin:/bin",
            "VIRTUAL_ENV": str(self.environment),
            "HOME": str(self.work / "home"),
            "TMPDIR": str(self.work / "tmp"),
            "LC_ALL": "C.UTF-8",
        }
        remarks: list[str] = []
        try:
            run(command, variables, deadline, remarks=remarks)
        except RunError as error:
            raise RunError(f"Failed to build `{owner}`\n{error.output}", error.timed_out) from error
        if any(line.startswith("launcher: no namespaces") for line in remarks):
            return [f"{owner} was built with a network and a writable view of the host: {_NO_NAMESPACES}"]
        return []

    def _launch(self, account: BuildAccount, command: list[str]) -> list[str]:
        os.chown(self.directory, -1, account.gid)
        os.chmod(self.directory, 0o710)
        for folder, _folders, files in os.walk(self.work):
            for path in (folder, *(os.path.join(folder, name) for name in [*_folders, *files])):
                os.chown(path, account.uid, account.gid, follow_symlinks=False)
        config = {
            "name": f"build-{self.directory.name.rpartition('-')[2]}",
            "command": command,
            "user": account.name,
            "group": account.group,
            "umask": "0022",
            "writable": [str(self.work)],
            "network": False,
        }
        write_private(self.directory / "launch.json", json.dumps(config))
        return [sys.executable, "-I", "-S", self.launcher, str(self.directory / "launch.json")]

    def take_wheel(self, owner: str, expected: str, target: Path) -> Path:
        """Copy the one wheel that was built into a directory of our own; `expected` is its package, if known."""
        try:
            return self._take_wheel(expected, target)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(f"Failed to build `{owner}`\nits wheel is refused: {error}") from error

    def _take_wheel(self, expected: str, target: Path) -> Path:
        # Whoever built may have put a link in the place of anything.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        work = os.open(self.work, flags | os.O_DIRECTORY)
        folder = os.open("wheel", flags | os.O_DIRECTORY, dir_fd=work)
        try:
            names = [name for name in os.listdir(folder) if name.endswith(".whl")]
            found = _WHEEL.fullmatch(names[0]) if len(names) == 1 else None
            if not found:
                raise ValueError(f"the back end left {', '.join(sorted(names)) or 'no file'} instead of one wheel")
            with open(os.open(names[0], flags | os.O_NONBLOCK, dir_fd=folder), "rb") as source:
                status = os.fstat(source.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_uid != self._owner():
                    raise ValueError(f"{names[0]} is not a file of the account that built it")
                if status.st_size > _LARGEST_FILE:
                    raise ValueError(f"{names[0]} has {status.st_size} bytes, more than {_LARGEST_FILE}")
                with open(target / names[0], "xb") as copy:
                    shutil.copyfileobj(source, copy)
        finally:
            os.close(folder)
            os.close(work)
        if expected and canonical_name(found["name"]) != expected:
            raise ValueError(f"{names[0]} is not a wheel of {expected}")
        _check_content(target / names[0])
        return target / names[0]

    def _owner(self) -> int:
        return self.account.uid if self.account else os.geteuid()


def package_of(wheel: Path) -> str:
    """The name of the package in a wheel's file name."""
    return wheel.name.partition("-")[0]


def _check_content(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
    if len(entries) > _MOST_FILES or sum(entry.file_size for entry in entries) > _LARGEST_CONTENT:
        raise ValueError(f"it unpacks to more than {_MOST_FILES} files or {_LARGEST_CONTENT} bytes")
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or stat.S_ISLNK(entry.external_attr >> 16):
            raise ValueError(f"{entry.filename!r} in it leads out of the environment")
