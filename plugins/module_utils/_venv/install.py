# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""uv at work: from a plan to an environment, and from a uv.lock to requirements.

No code of a package runs as the user who runs this. uv gets wheels only, and it asks the environment's interpreter
while no package is in there yet, since the interpreter executes what stands in the *.pth files of packages.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.backend import (
    BuildSystem,
    Pins,
    build_system,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.builds import EnvironmentPath, make_readable
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.fetch import fetch_source, pyproject_of
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.lock import Lock, LockError, Requirement
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.markers import Value, canonical_name
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.project import copy_project
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.run import (
    Deadline,
    RunError,
    base_environment,
    netrc_text,
    probe,
    run,
    write_private,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.settings import EnvironmentSettings, VenvError
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.wheels import (
    BuildAccount,
    Workshop,
    package_of,
)

# -I and -S keep everything but the standard library from being imported, whatever lies in the environment.
_COMPILE = """
import compileall, os, sys
sys.exit(not compileall.compile_dir(sys.argv[1], quiet=1, workers=len(os.sched_getaffinity(0))))
"""


@dataclass(frozen=True)
class Plan:
    """What is to be installed."""

    lock: Lock
    additions: tuple[Requirement, ...]
    packages: Optional[dict[str, str]]
    markers: Mapping[str, Value]
    pins: Pins
    # The project's, if that is installed too, and its name for messages.
    system: Optional[BuildSystem] = None
    project: str = ""
    # Those to be built from source.
    sources: tuple[Requirement, ...] = ()

    def text(self, wheels: Mapping[str, Path]) -> str:
        """A requirements file, with these wheels in the place of what they were built from."""
        items = [item for item in (*self.lock.requirements, *self.additions) if item.key not in wheels]
        lines = [item.line for item in items]
        lines += [f"{package_of(path)} @ {path.as_uri()} --hash=sha256:{_digest(path)}" for path in wheels.values()]
        return "".join(f"{line}\n" for line in lines)


def read_build_system(python: str, pyproject: bytes, owner: str) -> BuildSystem:
    """The build system in a pyproject.toml; the interpreter parses it, since the platform Python of EL9 can't."""
    if not pyproject:
        return BuildSystem()
    interpreter = probe(python, pyproject)
    if interpreter.toml is None:
        raise LockError(f"the pyproject.toml of {owner} can't be read: {interpreter.toml_error}")
    try:
        return build_system(interpreter.toml)
    except LockError as error:
        raise LockError(f"the pyproject.toml of {owner} is not usable: {error}") from error


def export_uv_lock(settings: EnvironmentSettings) -> str:
    """The requirements of a uv.lock. Offline, with no cache: it leaves nothing on the host."""
    command = [settings.uv, "export", "--frozen", "--offline", "--no-cache", "--format", "requirements.txt"]
    command += ["--no-header", "--no-annotate", "--no-emit-project", "--no-default-groups"]
    command += ["--python", settings.python, "--directory", str(settings.folder)]
    command += [f"--extra={name}" for name in settings.extras] + [f"--group={name}" for name in settings.groups]
    return run(command, base_environment({}, None), Deadline(settings.timeout))


class Builder:
    """One build of an environment, and of the wheels that it needs."""

    def __init__(self, settings: EnvironmentSettings, scratch: Path, build: Path, lock: int) -> None:
        self.settings = settings
        self.scratch = scratch
        self.build = build
        # uv holds the lock as well: if this process is killed, nobody builds here before uv has ended.
        self.lock = lock
        self.deadline = Deadline(settings.timeout)
        self.environment = self._environment()
        self.warnings: list[str] = []

    def install(self, plan: Plan, place: EnvironmentPath) -> str:
        """Returns the interpreter that the environment's one is a link to."""
        wheels = self._build_wheels(plan, place)
        self._uv("venv", "--no-project", "--python", self.settings.python, "--prompt", place.name, str(self.build))
        before = _interpreter(self.build)
        self._sync(self.build, "requirements.txt", plan.text(wheels))
        if _interpreter(self.build) != before:
            raise VenvError(
                "One of the packages replaces the environment's interpreter or its pyvenv.cfg, which no package needs "
                f"to: find it with `unzip -l` among the wheels of {self.settings.lock}, and take it out."
            )
        python = before[0]
        if self.settings.compile_bytecode:
            self._compile(python)
        self._check()
        return python

    def _compile(self, python: str) -> None:
        command = [python, "-I", "-S", "-B", "-c", _COMPILE, str(self.build / "lib")]
        try:
            run(command, self.environment, self.deadline)
        except RunError as error:
            # Packages have files for other Pythons, and templates of code.
            if error.timed_out or re.search(r"^\W*\w+Error: \[Errno", error.output, re.MULTILINE):
                raise

    def _check(self) -> None:
        """Have uv compare what packages require with what is there: of their metadata, in an empty environment."""
        copy = self.scratch / "check"
        self._uv("venv", "--no-project", "--python", self.settings.python, str(copy))
        for info in self.build.glob("lib/python*/site-packages/*.dist-info"):
            shutil.copytree(info, copy / info.relative_to(self.build), symlinks=True)
        self._uv("pip", "check", "--python", str(copy / "bin" / "python"))

    # -- wheels from source --------------------------------------------------------------------------------------

    def _build_wheels(self, plan: Plan, place: EnvironmentPath) -> dict[str, Path]:
        """The wheels by name of their package."""
        target = self.scratch / "wheels"
        target.mkdir()
        wheels = [self._build_source(item, plan, place, target) for item in plan.sources]
        if plan.system:
            wheels.append(self._build_project(plan.system, plan, place, target))
        return {canonical_name(package_of(wheel)): wheel for wheel in wheels}

    def _build_project(self, system: BuildSystem, plan: Plan, place: EnvironmentPath, target: Path) -> Path:
        with place.scratch() as directory:
            workshop = self._workshop(directory, plan.project)
            # Back ends write into the tree that they build: they get a copy.
            copy_project(self.settings.folder, place, workshop.work / "source")
            self._install_needs(workshop, system, plan, plan.project)
            self.warnings += workshop.build(plan.project, system, "", self.deadline)
            return workshop.take_wheel(plan.project, "", target)

    def _build_source(self, item: Requirement, plan: Plan, place: EnvironmentPath, target: Path) -> Path:
        owner = f"{item.name}=={item.version}" if item.version else item.name
        with place.scratch() as directory:
            workshop = self._workshop(directory, owner)
            archive = fetch_source(item, self.settings, workshop.work, self.deadline)
            system = read_build_system(self.settings.python, pyproject_of(archive), owner)
            self._install_needs(workshop, system, plan, owner)
            self.warnings += workshop.build(owner, system, archive.name, self.deadline)
            return workshop.take_wheel(owner, item.key, target)

    def _workshop(self, directory: Path, owner: str) -> Workshop:
        settings = self.settings
        if os.geteuid() != 0:
            return Workshop(directory, None, "")
        if not settings.launcher:
            raise VenvError(
                f"{owner} has to be built from source, which runs its code, and this runs as root: give `build_user` "
                "and `launcher`, as the role python_venv does"
            )
        try:
            account = BuildAccount.of(settings.build_user)
        except KeyError as error:
            raise VenvError(
                f"build_user={settings.build_user} does not exist: the role python_venv makes it, run its entry point "
                "main before"
            ) from error
        if account.uid == 0:
            raise VenvError(f"build_user={settings.build_user} is root: name an account without rights")
        return Workshop(directory, account, settings.launcher)

    def _install_needs(self, workshop: Workshop, system: BuildSystem, plan: Plan, owner: str) -> None:
        """An environment with the build requirements, all of them wheels with a hash of the lock's or of ours."""
        needs = plan.pins.applicable(system, owner, plan.markers)
        self._uv("venv", "--no-project", "--python", self.settings.python, str(workshop.environment))
        if needs:
            lines = self._resolve(needs, plan.pins.choice(needs), workshop.directory, owner)
            self._sync(workshop.environment, f"{workshop.directory.name}.txt", "".join(f"{line}\n" for line in lines))
        make_readable(workshop.environment)

    def _resolve(self, needs: Sequence[str], pins: Mapping[str, Requirement], folder: Path, owner: str) -> list[str]:
        """The requirements with all that they need in turn, as pinned."""
        wanted, constraints = folder / "needs.txt", folder / "pins.txt"
        write_private(wanted, "".join(f"{need}\n" for need in needs))
        write_private(constraints, "".join(f"{item.name}=={item.version}\n" for item in pins.values()))
        words = ["--quiet", "--no-build", "--no-header", "--no-annotate", "--python", self.settings.python]
        try:
            found = self._uv("pip", "compile", *words, "--constraint", str(constraints), *self._sources(), str(wanted))
        except RunError as error:
            raise RunError(f"Build requirements of `{owner}`\n{error.output}", error.timed_out) from error
        names = [
            canonical_name(re.split(r"[=\s\[;@]", line, maxsplit=1)[0]) for line in found.split("\n") if line.strip()
        ]
        unpinned = [name for name in names if name not in pins]
        if unpinned:
            raise LockError(
                f"{owner} can't be built: its build requirements {', '.join(needs)} need {unpinned[0]}, which is not "
                "pinned. Add it to the lock with its hashes, for example in a dependency group that `groups` names"
            )
        return [pins[name].line for name in names]

    # -- uv ------------------------------------------------------------------------------------------------------

    def _sync(self, environment: Path, name: str, requirements: str) -> None:
        """Install exactly these wheels; the one time that uv works on this environment."""
        file = self.scratch / name
        write_private(file, requirements)
        words = ["--no-build", "--require-hashes", "--allow-empty-requirements", *self._sources()]
        self._uv("pip", "sync", *words, "--python", str(environment / "bin" / "python"), str(file))

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

    def _uv(self, *words: str) -> str:
        return run(
            [self.settings.uv, *words],
            self.environment,
            self.deadline,
            directory=str(self.scratch),
            keep_open=[self.lock],
        )


def _interpreter(environment: Path) -> tuple[str, bytes]:
    """What decides on what the environment's interpreter is."""
    return os.path.realpath(environment / "bin" / "python"), (environment / "pyvenv.cfg").read_bytes()


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        for chunk in iter(lambda: stream.read(1024**2), b""):
            digest.update(chunk)
    return digest.hexdigest()
