# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a source tree needs to be built: its back end, and the versions and hashes of what that requires."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.lock import LockError, Requirement
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.markers import (
    MarkerError,
    Value,
    applies,
    canonical_name,
)

_NEED = re.compile(r"\s*(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?(?P<rest>[^;]*)")


@dataclass(frozen=True)
class BuildSystem:
    """The table `build-system` of a pyproject.toml; the defaults are those of PEP 517 for a project without one."""

    requires: tuple[str, ...] = ("setuptools>=40.8.0",)
    backend: str = "setuptools.build_meta:__legacy__"
    backend_path: tuple[str, ...] = ()


def build_system(document: Mapping[str, Any]) -> BuildSystem:
    """The build system that a pyproject.toml names."""
    table = document.get("build-system")
    if table is None:
        return BuildSystem()
    given = table if isinstance(table, Mapping) else {}
    requires, path = _strings(given.get("requires")), _strings(given.get("backend-path", []))
    backend = given.get("build-backend", BuildSystem.backend)
    if requires is None or path is None or not isinstance(backend, str):
        raise LockError("its [build-system] needs `requires`, a list of strings, and `build-backend`, a string")
    return BuildSystem(requires, backend, path)


class Pins:
    """Build requirements are pinned by the lock, or for the common back ends by pins of the role's."""

    def __init__(self, locked: Iterable[Requirement], given: Iterable[Requirement]) -> None:
        self._locked = {item.key: item for item in locked if item.version}
        self._given = {item.key: item for item in given}

    def applicable(self, system: BuildSystem, owner: str, markers: Mapping[str, Value]) -> list[str]:
        """The requirements for this interpreter; refuses those that nothing pins."""
        needs = [need for need in system.requires if _applies(need, markers)]
        unpinned = [need for need in needs if not self._is_pinned(need)]
        if unpinned:
            raise LockError(
                f"{owner} can't be built: its build requirement {unpinned[0].strip()!r} is not pinned. The lock does "
                f"not have it, and the pinned back ends are {', '.join(sorted(self._given)) or 'none'}. Add it to the "
                "lock with its hashes, for example in a dependency group that `groups` names"
            )
        return needs

    def choice(self, needs: Sequence[str]) -> dict[str, Requirement]:
        """The pin of each package. What a project names is the lock's; what its back end needs is the back end's."""
        named = {_name(need) for need in needs}
        chosen = {**self._locked, **self._given}
        chosen.update((key, item) for key, item in self._locked.items() if key in named)
        return chosen

    def _is_pinned(self, need: str) -> bool:
        found = _NEED.match(need)
        return found is not None and "@" not in found["rest"] and _name(need) in {**self._locked, **self._given}


def _name(need: str) -> str:
    found = _NEED.match(need)
    return canonical_name(found["name"]) if found else ""


def _applies(need: str, markers: Mapping[str, Value]) -> bool:
    try:
        return applies(need.partition(";")[2], markers)
    except MarkerError:
        return True


def _strings(value: object) -> tuple[str, ...] | None:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return None
