# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One virtual environment from a lock file, with uv: whole or not at all.

First the comparison, which reads and never writes: what is wanted (a fingerprint over its inputs) against what the
published build's stamp says, and against the build itself. Then, only if there is a reason, the build: at its
final path, stamped when complete, and published by renaming a link.
"""

from __future__ import annotations

import glob
import grp
import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.backend import Pins
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.builds import (
    Access,
    BuildsError,
    EnvironmentPath,
    Stamp,
    in_use,
    installed_packages,
    make_readable,
    read_stamp,
    whole_or_not_there,
    write_stamp,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.copies import can_copy, contents, copy_build
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.errors import Circumstances, explain
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.install import (
    Builder,
    Plan,
    export_uv_lock,
    read_build_system,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.lock import (
    Lock,
    LockError,
    Requirement,
    check_python,
    parse_additions,
    parse_pylock,
    parse_requirements,
    requires_python_of_uv_lock,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.markers import Value, canonical_name
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.project import project_digest, project_pin
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.run import (
    Interpreter,
    RunError,
    probe,
    scrub,
    tail,
    version_of,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.settings import (
    EnvironmentSettings,
    VenvError,
    validate,
)

# Counts up when a newer version of this code would build another environment from the same inputs.
SCHEMA = 2

_CHANGES = {
    "lock": "the lock file changed",
    "lock_format": "the lock's format changed from {before} to {after}",
    "pyproject": "pyproject.toml changed",
    "project": "the project's files changed",
    "python": "the interpreter changed from {before} to {after}",
    "python_version": "the interpreter's version changed from {before} to {after}",
    "additions": "the additions changed",
    "extras": "the extras changed from {before} to {after}",
    "groups": "the groups changed from {before} to {after}",
    "install_project": "install_project changed from {before} to {after}",
    "compile_bytecode": "compile_bytecode changed from {before} to {after}",
    "source_distributions": "the source distributions changed from {before} to {after}",
}


@dataclass(frozen=True)
class WantedEnvironment:
    """What the environment has to be."""

    interpreter: Interpreter
    lock_bytes: bytes
    inputs: Mapping[str, Any]
    fingerprint: str

    @property
    def markers(self) -> Mapping[str, Value]:
        return {**self.interpreter.environment, "extra": ""}


@dataclass
class Result:
    """What the module returns, and the package lists of its diff where they are known."""

    changed: bool
    path: str
    build: str = ""
    fingerprint: str = ""
    reasons: list[str] = field(default_factory=list)
    python_version: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] | None = None


def ensure(settings: EnvironmentSettings, check_mode: bool) -> Result:
    """Make sure of the environment; in check mode only report what would change."""
    try:
        return _Run(settings, check_mode).ensure()
    except (BuildsError, LockError) as error:
        raise VenvError(str(error)) from error
    except OSError as error:
        raise VenvError(
            f"{error.strerror or error} ({error.filename}): check its owner and mode, that the user who runs this can "
            f"write to the folder of path={settings.path}, and that the disk is not full"
        ) from error


class _Run:
    """One run of the module."""

    def __init__(self, settings: EnvironmentSettings, check_mode: bool) -> None:
        self.settings = settings
        self.check_mode = check_mode
        self.additions = validate(settings)
        self.path = EnvironmentPath(settings.path)
        self.secrets = [item.password for item in settings.credentials]

    def ensure(self) -> Result:
        self.path.refuse_if_taken()
        missing = self._missing({"python": "file", "lock": "file"}) + self._missing_folder()
        if missing:
            return self._result(None, missing)
        wanted = self._wanted()
        reasons = self._reasons(wanted)
        if not reasons:
            return self._open_to_group(wanted)
        build, stamp = self._home_for(wanted)
        missing = [] if stamp or self._twin(build, wanted) else self._missing_for_a_build()
        if self.check_mode:
            return self._predict(wanted, reasons + missing)
        with self.path.locked(self.settings.timeout) as lock:
            # Another run may have built it while this one waited.
            reasons = self._reasons(wanted)
            return self._change(wanted, reasons, lock) if reasons else self._open_to_group(wanted)

    # -- the comparison ------------------------------------------------------------------------------------------

    def _missing(self, kinds: Mapping[str, str]) -> list[str]:
        """What is not there yet: sentences in check mode, a failure otherwise."""
        sentences = []
        for option, kind in kinds.items():
            value = getattr(self.settings, option)
            if value and not os.path.exists(value):
                sentences.append(f"{option}={value} does not exist")
            elif value and os.path.isdir(value) != (kind == "directory"):
                raise VenvError(f"{option}={value} is not a {kind}: correct the option")
        return self._absent(sentences, "install or copy it before this task, or correct the option")

    def _missing_folder(self) -> list[str]:
        if self.path.parent.is_dir():
            return []
        sentence = f"the folder {self.path.parent} of path={self.settings.path} does not exist"
        return self._absent([sentence], "create it before this task, owned by the user who runs it")

    def _absent(self, sentences: list[str], advice: str) -> list[str]:
        if sentences and not self.check_mode:
            raise VenvError(f"{sentences[0]}: {advice}")
        # On a fresh host an earlier task of the same run brings it, and check mode has not run that one.
        return [f"{sentence} yet" for sentence in sentences]

    def _missing_for_a_build(self) -> list[str]:
        self._check_cache()
        kinds = {"uv": "file", "wheelhouse": "directory", "ca_bundle": "file"}
        if self.settings.install_project or self.settings.source_distributions:
            kinds["launcher"] = "file"
        return self._missing(kinds)

    def _access(self) -> Access | None:
        """Who may enter the environment; None in check mode while there is no such group."""
        group = self.settings.group
        if not group:
            return Access(0o755, os.getegid())
        try:
            return Access(0o750, grp.getgrnam(group).gr_gid)
        except KeyError:
            self._absent([f"group={group} does not exist"], "create it before this task, or correct the option")
            return None

    def _open_to_group(self, wanted: WantedEnvironment) -> Result:
        """The environment is as it has to be; see to its directory's group and mode, which need no build."""
        build, access = self.path.published(), self._access()
        if build is None or (access and access.holds(build)):
            return self._result(wanted, [])
        if access and not self.check_mode:
            access.give(build)
        who = f"group {self.settings.group}" if self.settings.group else "everybody"
        return self._result(wanted, [f"the environment's directory was not open to {who}, and to nobody else"])

    def _check_cache(self) -> None:
        """Files of the cache become files of the environment: it must be as trustworthy."""
        cache = self.settings.cache_dir
        if not cache or not os.path.exists(cache):
            return
        status = os.stat(cache)
        if not stat.S_ISDIR(status.st_mode):
            raise VenvError(f"cache_dir={cache} is not a directory: correct the option")
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise VenvError(
                f"cache_dir={cache} can be written by others (owner {status.st_uid}, mode "
                f"{stat.S_IMODE(status.st_mode):04o}), who could change the environment through its hard links: use a "
                f"directory of user {os.geteuid()} with mode 0755 or 0700"
            )

    def _wanted(self) -> WantedEnvironment:
        settings = self.settings
        lock_bytes = Path(settings.lock).read_bytes()
        try:
            interpreter = probe(settings.python, lock_bytes if settings.format == "pylock" else None)
        except RunError as error:
            raise VenvError(
                f"python={settings.python} does not run as a Python interpreter: correct the option, or install it "
                f"again\n{tail(error.output)}"
            ) from error
        uses_project = settings.format == "uv" or settings.install_project
        pyproject = settings.folder / "pyproject.toml"
        if uses_project and not pyproject.is_file():
            cause = "install_project" if settings.install_project else "a uv.lock"
            raise VenvError(f"lock={settings.lock}: {cause} needs a pyproject.toml beside it: copy it there too")
        inputs = {
            "schema": SCHEMA,
            "lock": _digest(lock_bytes),
            "lock_format": settings.format,
            "pyproject": _digest(pyproject.read_bytes()) if uses_project else None,
            "project": project_digest(settings.folder, self.path) if settings.install_project else None,
            "python": interpreter.executable,
            "python_version": interpreter.version,
            "additions": sorted(item.line for item in self.additions),
            "extras": sorted({canonical_name(name) for name in settings.extras}),
            "groups": sorted({canonical_name(name) for name in settings.groups}),
            "install_project": settings.install_project,
            "compile_bytecode": settings.compile_bytecode,
            "source_distributions": sorted({canonical_name(name) for name in settings.source_distributions}),
        }
        return WantedEnvironment(interpreter, lock_bytes, inputs, _digest(json.dumps(inputs, sort_keys=True).encode()))

    def _reasons(self, wanted: WantedEnvironment) -> list[str]:
        """Why the published environment does not do; empty when it does."""
        link, build = self.path.link, self.path.published()
        if build is None:
            return [f"there is no environment at {link} yet"]
        if not build.exists():
            return [f"{link} points to {build}, which does not exist"]
        if not self.path.is_build(build):
            return [f"{link} points to {build}, which this module did not build"]
        stamp = read_stamp(build)
        if stamp is None:
            return [f"the build {build} is not complete"]
        if stamp.inputs.get("schema") != SCHEMA:
            return ["another version of this module built it"]
        return _input_changes(stamp.inputs, wanted.inputs) + self._damage(build, stamp, wanted)

    def _damage(self, build: Path, stamp: Stamp, wanted: WantedEnvironment) -> list[str]:
        """What happened to a build since it was completed."""
        if stamp.build != str(build):
            return [f"the environment was moved here from {stamp.build}, and its scripts still name that"]
        # Only the interpreter that the environment was made from is started: the environment's files are packages'.
        python = os.path.realpath(build / "bin" / "python")
        if python != stamp.interpreter:
            return [f"the environment's interpreter is now {python}; it was built with {stamp.interpreter}"]
        try:
            version = wanted.interpreter.version if python == wanted.interpreter.executable else version_of(python)
        except RunError as error:
            return [f"the environment's interpreter no longer runs: {tail(error.output)}"]
        if version not in (stamp.python_version, wanted.interpreter.version):
            return [f"the environment's interpreter is now Python {version}; it was built for {stamp.python_version}"]
        return _package_changes(stamp.packages, installed_packages(build))

    # -- results -------------------------------------------------------------------------------------------------

    def _result(self, wanted: WantedEnvironment | None, reasons: list[str]) -> Result:
        """The result as the host is now."""
        build = self.path.published()
        stamp = read_stamp(build) if build else None
        packages = installed_packages(build) if build else {}
        return Result(
            changed=bool(reasons),
            path=str(self.path.link),
            build=str(build or ""),
            fingerprint=wanted.fingerprint if wanted else "",
            reasons=reasons,
            python_version=wanted.interpreter.version if wanted else "",
            packages=packages,
            added=list(stamp.added) if stamp else [],
            before=dict(packages),
            after=None if reasons else dict(packages),
        )

    def _predict(self, wanted: WantedEnvironment, reasons: list[str]) -> Result:
        """Check mode, with a change to come."""
        result = self._result(wanted, reasons)
        build, stamp = self._home_for(wanted)
        result.build = str(build)
        if stamp:
            result.added, result.after = list(stamp.added), dict(stamp.packages)
            return result
        if self.settings.format != "uv" or os.path.exists(self.settings.uv):
            plan = self._plan(wanted)
            result.added = [item.name for item in plan.additions]
            result.after = plan.packages
            result.warnings = list(plan.lock.warnings)
        return result

    # -- the change ----------------------------------------------------------------------------------------------

    def _change(self, wanted: WantedEnvironment, reasons: list[str], lock: int) -> Result:
        before = installed_packages(self.path.link)
        self.path.sweep()
        build, stamp = self._home_for(wanted)
        warnings: list[str] = []
        if stamp is None and not self._copy(build, wanted):
            plan = self._plan(wanted)
            warnings = [*plan.lock.warnings, *self._build(build, wanted, plan, lock)]
        access = self._access()
        if access:
            access.give(build)
        self.path.publish(build)
        result = self._result(wanted, reasons)
        result.before, result.after = before, dict(result.packages)
        result.warnings = [*warnings, *self._prune()]
        return result

    def _prune(self) -> list[str]:
        try:
            self.path.prune(self.settings.keep)
        except OSError as error:
            # The new environment is published all the same.
            return [f"an old build could not be removed: {error}"]
        return []

    def _home_for(self, wanted: WantedEnvironment) -> tuple[Path, Stamp | None]:
        """Where to build; with a stamp, a build that is whole already, from an earlier deployment."""
        builds = set(self.path.builds())
        for build in self.path.names_for(wanted.fingerprint):
            if build not in builds:
                return build, None
            stamp = read_stamp(build)
            if stamp and stamp.fingerprint == wanted.fingerprint and not self._damage(build, stamp, wanted):
                return build, stamp
            if not stamp and build != self.path.published() and not in_use((), {build: None}):
                return build, None
        raise VenvError(f"there are too many damaged builds beside {self.path.link}: remove some of them by hand")

    def _twin(self, build: Path, wanted: WantedEnvironment) -> tuple[Path, Stamp] | None:
        """A build of the same fingerprint beside another link, exactly as it was when it was completed."""
        # What a project's build reads is not all in the fingerprint: its version may be version control's.
        if not self.settings.siblings or self.settings.install_project:
            return None
        for path in sorted(glob.glob(self.settings.siblings)):
            source = EnvironmentPath(path).published()
            stamp = read_stamp(source) if source and can_copy(source, build) else None
            if source is None or stamp is None or stamp.fingerprint != wanted.fingerprint:
                continue
            if not self._damage(source, stamp, wanted) and stamp.contents and contents(source) == stamp.contents:
                return source, stamp
        return None

    def _copy(self, build: Path, wanted: WantedEnvironment) -> bool:
        """Copy a twin, where there is one and links can be made to its files."""
        twin = self._twin(build, wanted)
        if twin is None:
            return False
        source, stamp = twin
        with whole_or_not_there(build):
            try:
                copy_build(source, build, stamp.contents)
            except OSError:
                return False
            write_stamp(build, replace(stamp, build=str(build), contents=contents(build)))
        return True

    def _plan(self, wanted: WantedEnvironment) -> Plan:
        settings = self.settings
        try:
            lock = self._read_lock(wanted)
        except LockError as error:
            raise LockError(f"lock={settings.lock}: {error}") from error
        locked = {item.key: item.version or item.url for item in lock.applicable(wanted.markers)}
        additions = tuple(item for item in self.additions if item.key not in locked)
        packages = {**locked, **{item.key: item.version for item in additions}}
        pins = Pins(lock.applicable(wanted.markers), parse_additions(settings.build_requirements, "build requirement"))
        plan = Plan(lock, additions, packages, wanted.markers, pins, sources=self._sources(wanted, lock, additions))
        if not settings.install_project:
            return plan
        content = (settings.folder / "pyproject.toml").read_bytes()
        pinned = project_pin(content.decode(errors="replace"))
        project = next(iter(pinned), "the project")
        system = read_build_system(settings.python, content, project)
        pins.applicable(system, project, wanted.markers)
        return replace(plan, packages={**packages, **pinned} if pinned else None, system=system, project=project)

    def _sources(
        self, wanted: WantedEnvironment, lock: Lock, additions: Sequence[Requirement]
    ) -> tuple[Requirement, ...]:
        """What is to be built from its source distribution."""
        names = {canonical_name(name) for name in self.settings.source_distributions}
        unknown = sorted(names - {item.key for item in (*lock.requirements, *additions)})
        if unknown:
            raise LockError(
                f"source_distributions names {unknown[0]!r}, which is not in lock={self.settings.lock}: correct the "
                "name, or leave it out"
            )
        return tuple(item for item in (*lock.applicable(wanted.markers), *additions) if item.key in names)

    def _read_lock(self, wanted: WantedEnvironment) -> Lock:
        settings, interpreter = self.settings, wanted.interpreter
        if settings.format == "pylock":
            if interpreter.toml is None:
                raise LockError(
                    f"it can't be read with `python`, which is {interpreter.version}: {interpreter.toml_error}"
                )
            try:
                return parse_pylock(interpreter.toml, wanted.markers, settings.extras, settings.groups)
            except (AttributeError, TypeError) as error:
                raise LockError(f"its tables are not those of a pylock file ({error}): lock again") from error
        try:
            text = wanted.lock_bytes.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise LockError(f"it is not a text file in UTF-8 ({error})") from error
        if settings.format == "uv":
            check_python(requires_python_of_uv_lock(text), wanted.markers)
            try:
                text = export_uv_lock(settings)
            except RunError as error:
                raise self._failure(error, wanted) from error
        return parse_requirements(text)

    def _build(self, build: Path, wanted: WantedEnvironment, plan: Plan, lock: int) -> list[str]:
        """Returns warnings."""
        with whole_or_not_there(build), self.path.scratch() as scratch:
            try:
                builder = Builder(self.settings, scratch, build, lock)
                python = builder.install(plan, self.path)
                make_readable(build)
                write_stamp(build, self._stamp(build, wanted, plan, python))
                return builder.warnings
            except RunError as error:
                raise self._failure(error, wanted) from error

    def _stamp(self, build: Path, wanted: WantedEnvironment, plan: Plan, python: str) -> Stamp:
        return Stamp(
            build=str(build),
            fingerprint=wanted.fingerprint,
            inputs=wanted.inputs,
            python_version=wanted.interpreter.version,
            packages=installed_packages(build),
            added=[item.name for item in plan.additions],
            interpreter=python,
            contents=contents(build),
        )

    def _failure(self, error: RunError, wanted: WantedEnvironment) -> VenvError:
        settings = self.settings
        output = scrub(error.output, self.secrets)
        if error.timed_out:
            sentence = (
                f"The build was stopped after timeout={settings.timeout} seconds: see below what it waited for, or "
                "raise the timeout."
            )
        else:
            environment = wanted.interpreter.environment
            python = f"{settings.python}, {wanted.interpreter.version} on {environment['platform_machine']}"
            sentence = explain(output, Circumstances(settings.source, python, settings.lock))
        return VenvError(f"{sentence} Nothing was changed at {self.path.link}.\n{tail(output)}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return str(value)


def _input_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    changed = [name for name in now if before.get(name) != now[name]]
    # That the project plays a part at all is shown by what brought it in, install_project or the lock's format.
    changed = [name for name in changed if name not in ("project", "pyproject") or (before.get(name) and now[name])]
    return [_CHANGES[name].format(before=_in_words(before.get(name)), after=_in_words(now[name])) for name in changed]


def _package_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    changes = [f"{name} {before[name]} was removed" for name in before if name not in now]
    changes += [f"{name} {now[name]} was installed" for name in now if name not in before]
    both = [name for name in before if name in now]
    changes += [f"{name} is {now[name]}, not {before[name]}" for name in both if now[name] != before[name]]
    return [f"the environment was changed by hand: {', '.join(sorted(changes))}"] if changes else []
