# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The public values of a role (ROLE_wanted and the like) as its own tasks would see them, without a task that runs.

A plan needs them before it is known whether the role has to run at all.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _spec

# Values of files are templates for ansible-core 2.19 and newer only where this is set.
_TRUSTED: dict[str, Any] = (
    {"trusted_as_template": True}
    if "trusted_as_template" in inspect.signature(DataLoader.load_from_file).parameters
    else {}
)


class RoleValues:
    """The variables of one role, with a templar of the action plugin that asks for them."""

    def __init__(self, role: str, templar: Any, loader: DataLoader, variables: Mapping[str, Any]) -> None:
        self._templar, self._loader = templar, loader
        folder = _spec.ROLES / role
        self._variables = {
            **self._files(folder / "defaults"),
            **variables,
            **self._files(folder / "vars"),
            "role_path": str(folder),
            "ansible_search_path": [str(folder)],
        }

    def _files(self, folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in self._paths(folder):
            found.update(self._loader.load_from_file(str(path), **_TRUSTED) or {})
        return found

    @staticmethod
    def _paths(folder: Path) -> Iterator[Path]:
        """main.yml, or what is in the directory main, as Ansible reads them."""
        if (folder / "main").is_dir():
            yield from sorted((folder / "main").glob("*.yml"))
        elif (folder / "main.yml").is_file():
            yield folder / "main.yml"

    def value(self, name: str, **inputs: Any) -> Any:
        """A variable of the role, with inputs of an entry point."""
        templar = self._templar.copy_with_new_env(available_variables={**self._variables, **inputs})
        return templar.template(self._variables[name])
