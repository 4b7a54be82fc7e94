# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The project beside a lock: what its files are, a copy to build, and its name."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.builds import EnvironmentPath
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.markers import canonical_name

_VERSION_CONTROL = frozenset({".git", ".hg", ".svn"})


def project_digest(folder: Path, environment: EnvironmentPath) -> str:
    """One number for all that a build of the project may read."""
    total = hashlib.sha256()
    for path in _files(folder, environment, without=_VERSION_CONTROL):
        total.update(os.fsencode(path.relative_to(folder)) + b"\0")
        if path.is_symlink():
            total.update(b"link " + os.fsencode(os.readlink(path)) + b"\0")
        else:
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def copy_project(folder: Path, environment: EnvironmentPath, target: Path) -> None:
    """Copy with the version control's files, since build backends ask them for the version."""
    for path in _files(folder, environment):
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy, follow_symlinks=False)


def project_pin(pyproject: str) -> dict[str, str]:
    """The name and version that a pyproject.toml gives its project, for a diff; empty when it names none.

    Good enough without a TOML parser, which the platform Python may not have.
    """
    table = re.search(r"^\[project\][^\n]*\n(.*?)(?=^\[|\Z)", pyproject, re.MULTILINE | re.DOTALL)
    found = re.findall(r"""^(name|version)\s*=\s*["']([^"'\n]+)["']""", table.group(1) if table else "", re.MULTILINE)
    values = dict(found)
    return {canonical_name(values["name"]): values.get("version", "(dynamic)")} if "name" in values else {}


def _files(folder: Path, environment: EnvironmentPath, without: Collection[str] = ()) -> Iterator[Path]:
    """Files and links of a project, in order, without environments and compiled code."""
    for top, folders, files in os.walk(folder):
        at = Path(top)
        folders[:] = sorted(
            name
            for name in folders
            if name not in without
            and name != "__pycache__"
            and not (at / name / "pyvenv.cfg").exists()
            and not environment.owns(at / name)
        )
        links = [name for name in folders if (at / name).is_symlink()]
        for path in (at / name for name in sorted(files + links)):
            if path.suffix != ".pyc" and not environment.owns(path) and (path.is_symlink() or path.is_file()):
                yield path
