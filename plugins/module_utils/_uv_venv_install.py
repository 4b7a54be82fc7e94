# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""uv at work: from a plan to an environment, and from a uv.lock to requirements."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._uv_venv_builds import Place
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._uv_venv_lock import Lock, Requirement
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._uv_venv_project import copy_project
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._uv_venv_run import (
    Deadline,
    base_environment,
    netrc_text,
    run,
    write_private,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._uv_venv_settings import Settings


@dataclass(frozen=True)
class Plan:
    """What uv is to install."""

    lock: Lock
    additions: tuple[Requirement, ...]
    packages: dict[str, str] | None

    @property
    def text(self) -> str:
        lines = [*self.lock.options, *(item.line for item in (*self.lock.requirements, *self.additions))]
        return "".join(f"{line}\n" for line in lines)


def export_uv_lock(settings: Settings) -> str:
    """The requirements of a uv.lock. Offline, with no cache: it leaves nothing on the host."""
    command = [settings.uv, "export", "--frozen", "--offline", "--no-cache", "--format", "requirements.txt"]
    command += ["--no-header", "--no-annotate", "--no-emit-project", "--no-default-groups"]
    command += ["--python", settings.python, "--directory", str(settings.folder)]
    command += [f"--extra={name}" for name in settings.extras] + [f"--group={name}" for name in settings.groups]
    return run(command, base_environment({}, None), Deadline(settings.timeout))


class Builder:
    """uv at work on one build."""

    def __init__(self, settings: Settings, scratch: Path, build: Path, lock: int) -> None:
        self.settings = settings
        self.scratch = scratch
        self.build = build
        # uv holds the lock as well: if this process is killed, nobody builds here before uv has ended.
        self.lock = lock
        self.deadline = Deadline(settings.timeout)
        self.environment = self._environment()
        self.python = ["--python", str(build / "bin" / "python")]

    def install(self, plan: Plan, place: Place) -> None:
        settings = self.settings
        self._uv("venv", "--no-project", "--python", settings.python, "--prompt", place.name, str(self.build))
        requirements = self.scratch / "requirements.txt"
        write_private(requirements, plan.text)
        # Bytecode is compiled for all that is there, so by the last step only.
        bytecode = ["--compile-bytecode"] if settings.compile_bytecode else []
        last = [] if settings.install_project else bytecode
        sync = ["--require-hashes", "--allow-empty-requirements", *last, *self.python, *self._sources()]
        self._uv("pip", "sync", *sync, str(requirements))
        if settings.install_project:
            # Build backends write into the tree that they build: give them a copy.
            copy = self.scratch / "project"
            copy_project(settings.folder, place, copy)
            self._uv("pip", "install", "--no-deps", *bytecode, *self.python, *self._sources(), str(copy))
        self._uv("pip", "check", *self.python)

    def _environment(self) -> dict[str, str]:
        settings = self.settings
        environment = base_environment(os.environ, settings.ca_bundle)
        for variable, name in (("HOME", "home"), ("TMPDIR", "tmp")):
            (self.scratch / name).mkdir()
            environment[variable] = str(self.scratch / name)
        if settings.credentials and not settings.wheelhouse:
            write_private(self.scratch / "netrc", netrc_text(settings.credentials))
            environment["NETRC"] = str(self.scratch / "netrc")
        # A cache for this build alone still saves uv from asking the interpreter anew in every step.
        environment["UV_CACHE_DIR"] = settings.cache_dir or str(self.scratch / "cache")
        return environment

    def _sources(self) -> list[str]:
        settings = self.settings
        if settings.wheelhouse:
            return ["--offline", "--no-index", "--find-links", settings.wheelhouse]
        words = ["--default-index", settings.index_url] if settings.index_url else []
        return words + [word for url in settings.extra_index_urls for word in ("--index", url)]

    def _uv(self, *words: str) -> None:
        run(
            [self.settings.uv, *words],
            self.environment,
            self.deadline,
            directory=str(self.scratch),
            keep_open=[self.lock],
        )
