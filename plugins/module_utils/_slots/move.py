# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The move that every change of an app is: fill the idle slot, prove it, make it live, drain and stop the old one.

A run goes through the stages in their order: plan, configure, start, promote, finalize; one call may take it through
several of them. abort is for what failed between two calls. Each stage leaves the host so that it may be cut off
and started again there, at any moment:

    plan, configure  the live slot is as it was, nothing of the idle one is loaded
    start            both run and both start at boot, live.sock leads to the old one, now and after a boot
    promote          live.sock leads to the new one; after a boot still to the old one until all confirmed it
    finalize         the old one is drained, no longer started at boot, then stopped
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Optional

from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files import public_paths, shared_paths
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files.file_set import (
    STAGE_TOKEN,
    CandidateCheck,
    FileSetError,
    Item,
    apply,
    check_candidates,
    compare,
    group_id,
    run_check,
    user_id,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files.shared_paths import SharedPathError
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.launcher import FILE_NAME
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.processes import (
    ProcessTable,
    unix_sockets,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import printable, redact
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots import ledger, probe, proof
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.lock import (
    Claim,
    DeployLock,
    Locked,
    Run,
    exclusive,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.slots import (
    LAUNCH_FILE,
    RELEASE_METADATA,
    AppPaths,
    SlotError,
    WantedSlot,
    link_text,
    metadata_of,
    observe,
    reasons_to_clean_up,
    reasons_to_move,
    release_metadata_of,
    supervised,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import process as control
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import rpc, status
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.status import Name, Process
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.builds import EnvironmentPath
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.environment import ensure
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.run import ended_by_signals
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.settings import EnvironmentSettings, VenvError

STAGES = ("plan", "configure", "start", "promote", "finalize", "abort")
ACTIONS = ("deploy", "rollback", "restart")
# What gunicorn_uvicorn leaves for an app without slots.
IN_PLACE_FILES = (
    "environment",
    "gunicorn.conf.py",
    "hooks.py",
    "uvicorn_server.py",
    "check.py",
    "run",
    FILE_NAME,
    LAUNCH_FILE,
)

ASK_SECONDS = 5.0
POLL_SECONDS = 0.25
# nginx may have found the old socket closed a moment ago, and takes it for down until it has tried again.
PROXY_SECONDS = 5.0
# So long may a run wait for the lock with what it has fetched, as it is by far.
LEFT_SECONDS = 3600.0
# 502 and 504 are the proxy's own: it did not reach the app.
UNREACHED = (502, 504)


@dataclass(frozen=True)
class Command:
    name: str
    argv: Sequence[str]
    # The stage that it is a part of.
    stage: str
    timeout: int = 300


@dataclass(frozen=True)
class Options:
    action: str = "deploy"
    # Of a rollback: the release that is asked for, and whether it may be one that the ledger warns of.
    to: str = ""
    force: bool = False
    user: str = "root"
    health_path: str = "/health"
    health_status: int = 200
    health_timeout: float = 30
    health_period: float = 3
    host: str = "localhost"
    proxy_url: str = ""
    drain_timeout: float = 30
    soak_seconds: float = 0
    soak_failures: int = 0
    shared_directories: Sequence[str] = ()
    shared_files: Sequence[str] = ()
    # Directories that the proxy serves by itself, wherever they are, and its group.
    static: Sequence[str] = ()
    proxy_group: str = "root"
    commands: Sequence[Command] = ()
    irreversible: bool = False
    keep: int = 3
    timeout: float = 300
    log_lines: int = 20
    stage_parent: str = "/run"
    redact: Sequence[str] = ()
    connection: rpc.Connection = field(default_factory=rpc.Connection)
    # Of a release that is deployed; who leaves it out has built one.
    environment: Optional[EnvironmentSettings] = None


class Move:
    def __init__(
        self,
        paths: AppPaths,
        wanted: WantedSlot,
        options: Options,
        owner: Run,
        label: Callable[[str], None] = lambda path: None,
    ) -> None:
        self.paths = paths
        self.wanted = wanted
        self.options = options
        self.lock = DeployLock(paths.app / "deploy.lock", owner)
        self.label = label
        # Seconds that passed while the app started, was watched, or finished its requests.
        self.waited = 0.0

    def run(
        self, stage: str, dead_run: str = "", reason: str = "", check_mode: bool = False, begin: bool = False
    ) -> dict[str, Any]:
        """One stage, with those before it that are left. begin compares first and takes the lock, as plan does."""
        if check_mode:
            return self.plan("", check_mode=True) if stage == "plan" else {"changed": True}
        self.paths.app.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            with exclusive(self.paths.app / ".deploy.flock"):
                if stage == "plan":
                    return self.plan(dead_run)
                if stage == "abort":
                    return self.abort(reason)
                planned = self.plan(dead_run) if begin else {"changed": True}
                return self._later_stage(stage) if planned["changed"] else planned
        except Locked as error:
            raise Locked(error.claim or self.lock.read()) from None

    def _later_stage(self, stage: str) -> dict[str, Any]:
        claim = self.lock.resume()
        if claim.release != self.wanted.release:
            raise SlotError(f"release is {self.wanted.release}, but this run began with {claim.release}")
        self._keep_what_it_was_built_from()
        result: dict[str, Any] = {"changed": True, "slot": claim.slot, "release": claim.release}
        for each in _stages_to(claim, stage):
            claim = self.lock.update(stage=each)
            try:
                result.update(getattr(self, f"_{each}")(claim))
            except (SlotError, FileSetError, SharedPathError, VenvError, rpc.SupervisorError, OSError) as error:
                failure = self._failure(error)
                self._give_up(claim, str(failure))
                raise failure from error
        return {**result, "waited": round(self.waited, 2)}

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.waited += time.monotonic() - began

    # plan

    def plan(self, dead_run: str, check_mode: bool = False) -> dict[str, Any]:
        """Compares; when there is something to do, takes the lock and says which slot it will be done in."""
        connection = self.options.connection
        if check_mode:
            # Nobody starts supervisord during a check, so there is nothing to wait for.
            connection = replace(connection, connect_timeout=0)
        seen = observe(self.paths, connection)
        self._choose_release(seen.live)
        moves = reasons_to_move(self.paths, self.wanted, seen)
        if self.options.action == "restart":
            moves.insert(0, "a restart is asked for")
        tidies = reasons_to_clean_up(self.paths, self.wanted, seen, self.options.static)
        slot = _other(seen.live) if moves else seen.live or ""
        result = {
            "changed": bool(moves or tidies),
            "move": bool(moves),
            "differences": moves + tidies,
            "release": self.wanted.release,
            "previous": metadata_of(self.paths, seen.live).get("release", "") if seen.live else "",
            "slot": slot,
        }
        if result["changed"] and not check_mode:
            self.lock.take(dead_run)
            self.lock.update(
                slot=slot,
                old=seen.live if moves and seen.live else "",
                action=self.options.action,
                release=self.wanted.release,
                stage="plan",
                fresh=bool(moves),
            )
        return result

    def _choose_release(self, live: Optional[str]) -> None:
        """A restart keeps the live release, a rollback asks the ledger; both keep what the release was built from."""
        if self.options.action == "deploy":
            return
        held = metadata_of(self.paths, live).get("release", "") if live else ""
        if self.options.action == "restart":
            if not held:
                raise SlotError(f"{self.paths.name} has no live release to restart; deploy it")
            release = held
        else:
            release = ledger.rollback_target(
                ledger.read(self.paths.ledger),
                held,
                [name for name in self.paths.releases_there() if self.paths.environment_of(name)],
                self.options.to,
                self.options.force,
            )
        self.wanted = replace(self.wanted, release=release)
        self._keep_what_it_was_built_from()

    def _keep_what_it_was_built_from(self) -> None:
        if self.options.action != "deploy":
            metadata = release_metadata_of(self.paths, self.wanted.release)
            build = metadata.get("build", self.wanted.build)
            self.wanted = replace(self.wanted, revision=metadata.get("revision", ""), build=build)

    # configure

    def _configure(self, claim: Claim) -> dict[str, Any]:
        slot, paths = claim.slot, self.paths
        self._retire(slot)
        if self.options.environment and claim.action == "deploy":
            with ended_by_signals():
                ensure(self.options.environment, check_mode=False)
        environment = EnvironmentPath(str(paths.release(claim.release) / "venv")).published()
        if environment is None or not environment.is_dir():
            raise SlotError(f"{paths.release(claim.release)} has no environment: it was not built, or was removed")
        self._note_what_is_built(claim)
        self._share(paths.release(claim.release) / "app")
        self._open_static(claim.release)
        items = self.wanted.slot_items(paths, slot)
        items.append(Item(str(paths.slot(slot) / "venv"), "root", "root", 0o777, target=str(environment)))
        if not paths.tmpfiles.exists():
            items.append(self.wanted.tmpfiles_item(paths, None))
        # The check runs as the app's user, to whom these must be open; it makes those that are missing.
        there = [item for item in self.wanted.directories if os.path.isdir(item.path)]
        apply([found for found in map(compare, there) if found], self.label)
        check = CandidateCheck(paths.launch(slot, "--check", under=STAGE_TOKEN))
        output = check_candidates(items, [check], self.options.stage_parent, self.label)
        apply([found for found in map(compare, items) if found], self.label)
        self._run_commands(claim)
        return {"output": output}

    def _note_what_is_built(self, claim: Claim) -> None:
        if claim.action == "deploy":
            metadata = {"revision": self.wanted.revision, "build": self.wanted.build}
            path = self.paths.release(claim.release) / RELEASE_METADATA
            self._write(Item(str(path), "root", "root", 0o640, (json.dumps(metadata) + "\n").encode()))

    def _share(self, source: Path) -> None:
        """Links what all releases share into this one, in the place of what it brings under that name."""
        shared, names = self.paths.shared, [*self.options.shared_directories, *self.options.shared_files]
        for inner, outer in shared_paths.overlaps(names):
            raise SlotError(f"shared has {inner} and {outer}: one lies in the other\nKeep one of them")
        self._write(Item(str(shared), "root", "root", 0o711))
        uid, served = user_id(self.options.user) or 0, self._served_of(names)
        for name in self.options.shared_directories:
            # What the app puts into one that the proxy serves gets the proxy's group.
            group, mode = (self.options.proxy_group, 0o2750) if name in served else (self.wanted.group, 0o750)
            if shared_paths.make_directory(shared, name, uid, group_id(group) or 0, mode):
                self.label(str(shared / name))
        for name in self.options.shared_files:
            if not (shared / name).is_file():
                raise SlotError(f"shared.files: there is no {shared / name} on this host; put it there, then run again")
        for name in names:
            shared_paths.link(source, name, shared)

    def _served_of(self, names: Sequence[str]) -> list[str]:
        """The shared names that the proxy serves, or that hold what it serves."""
        folders = (self.paths.current / "app", self.paths.shared)
        static = [found for folder in folders for found in public_paths.below(folder, self.options.static)]
        return [name for name in names if any(f"{each}/".startswith(f"{name}/") for each in static)]

    def _open_static(self, release: str) -> None:
        names = public_paths.below(self.paths.current / "app", self.options.static)
        public_paths.open_up(self.paths.release(release) / "app", names)

    # start

    def _start(self, claim: Claim) -> dict[str, Any]:
        slot = claim.slot
        self._write(self.wanted.program_item(self.paths, slot))
        with self._waiting():
            self._control(self.paths.program(slot), "restarted")
            self._gate(slot)
        self._run_commands(claim)
        return {"pid": self._process(slot).pid}

    def _gate(self, slot: str) -> None:
        """It answers well, and goes on doing so for a while with the same processes."""
        if not self.options.health_path:
            return
        pid = self._process(slot).pid
        deadline = time.monotonic() + self.options.health_timeout
        began: Optional[float] = None
        workers: set[int] = set()
        while True:
            answer = self._ask(slot, min(ASK_SECONDS, max(0.1, deadline - time.monotonic())))
            self._same_process(slot, pid)
            if answer.status == self.options.health_status:
                now = probe.servers(str(self.paths.socket(slot)), pid)
                lost = workers - now
                if lost:
                    raise SlotError(
                        f"{self.paths.program(slot)}: a worker of it (process {min(lost)}) ended within "
                        f"{self.options.health_period:g} s of its first good answer.{self._log_end(slot)}"
                    )
                if began is None:
                    began, workers = time.monotonic(), now
                if time.monotonic() - began >= self.options.health_period:
                    return
            elif began is not None or time.monotonic() > deadline:
                raise self._unhealthy(slot, answer, began is not None)
            time.sleep(POLL_SECONDS)

    def _unhealthy(self, slot: str, answer: probe.Answer, was_well: bool) -> SlotError:
        when = "any more" if was_well else f"within {self.options.health_timeout:g} s (health_timeout)"
        return SlotError(
            f"{self.paths.program(slot)} runs, but GET {self.options.health_path} on {self.paths.socket(slot)} does "
            f"not answer with status {self.options.health_status} {when}. Last answer: {answer}.{self._log_end(slot)}"
        )

    def _same_process(self, slot: str, pid: int) -> None:
        process = self._process(slot)
        if process.state != "RUNNING" or process.pid != pid:
            again = " and was started again" if process.state == "RUNNING" else ""
            raise SlotError(
                f"{self.paths.program(slot)} ended by itself{again} while it was asked for its health: "
                f"state {process.state}. {process.spawn_error}{self._log_end(slot)}"
            )

    # promote

    def _promote(self, claim: Claim) -> dict[str, Any]:
        slot = claim.slot
        self._point_to(slot)
        self._confirm(slot)
        self._run_commands(claim)
        with self._waiting():
            self._soak(slot)
        self._write(self.wanted.tmpfiles_item(self.paths, slot))
        return {}

    def _point_to(self, slot: Optional[str]) -> None:
        """In one step for whoever connects."""
        if slot is None:
            self.paths.live_link.unlink()
        else:
            self._write(Item(str(self.paths.live_link), "root", "root", 0o777, target=link_text(slot)))

    def _confirm_listener(self, slot: str) -> None:
        """Whoever connects to live.sock gets this slot."""
        link, pid = str(self.paths.live_link), self._process(slot).pid
        found = probe.listener(link)
        if found is None or not pid or found not in ProcessTable().tree(pid):
            raise SlotError(
                f"{link} leads to {self.paths.program(slot)}, but its process {pid} is not the one that listens there "
                f"({found or 'nobody does'}).{self._log_end(slot)}"
            )

    def _confirm(self, slot: str) -> None:
        """Whoever connects to live.sock gets this slot, and a proxy, where there is one, reaches it."""
        self._confirm_listener(slot)
        if not (self.options.proxy_url and self.options.health_path):
            return
        deadline = time.monotonic() + PROXY_SECONDS
        while True:
            problem = self._problem_of_proxy()
            if not problem:
                return
            if time.monotonic() > deadline:
                raise SlotError(problem)
            time.sleep(POLL_SECONDS)

    def _problem_of_proxy(self) -> str:
        """Why it is not sure that the public answer comes from the live slot; empty when it does, or nobody answers."""
        options, link, number = self.options, self.paths.live_link, proof.number()
        answer = probe.ask_proxy(options.proxy_url, options.health_path, options.host, ASK_SECONDS, number)
        if answer is None:
            return ""
        if not answer.status or answer.status in UNREACHED:
            return (
                f"the proxy at {options.proxy_url} does not reach {link} as {options.host}. Last answer: {answer}\n"
                "Its error log says why; may its user connect to the socket?"
            )
        found = proof.problem(answer.proof, number, self.paths.name, str(link))
        return found and (
            f"the answer for {options.host} at {options.proxy_url} is not proven to be that of {link}: {found}\n"
            "Run the playbook site, which configures nginx; where another proxy is there, empty release_proxy_url"
        )

    def _soak(self, slot: str) -> None:
        """Watches the live slot for a while; the old one is still there to turn back to."""
        pid, failures = self._process(slot).pid, 0
        end = time.monotonic() + self.options.soak_seconds
        while time.monotonic() < end:
            time.sleep(min(1.0, max(0.0, end - time.monotonic())))
            answer = self._ask(slot, ASK_SECONDS)
            self._same_process(slot, pid)
            failures += answer.status != self.options.health_status
            if failures > self.options.soak_failures:
                raise SlotError(
                    f"{self.paths.program(slot)} failed {failures} of its health checks after it went live (soak); "
                    f"{self.options.soak_failures} are allowed. Last answer: {answer}.{self._log_end(slot)}"
                )

    # finalize

    def _finalize(self, claim: Claim) -> dict[str, Any]:
        paths = self.paths
        self._record(claim, ledger.GOOD, "")
        with self._waiting():
            dropped = self._retire(_other(claim.slot))
        # What was left of the old slot might have taken the socket's place, as long as it was there.
        self._confirm_listener(claim.slot)
        self._retire_in_place()
        self._point_current(claim.release)
        self._open_static(claim.release)
        removed = self._prune(claim.release)
        self._run_commands(claim)
        self.lock.release()
        return {"dropped": dropped, "removed": removed, "live": str(paths.socket(claim.slot))}

    def _retire(self, slot: str) -> int:
        """Lets a slot finish, then removes it from the boot and stops it. Returns how many connections were cut off."""
        path = str(self.paths.socket(slot))
        deadline = time.monotonic() + self.options.drain_timeout
        while (open_ones := len(unix_sockets(path, listening=False))) and time.monotonic() < deadline:
            self._renew()
            time.sleep(POLL_SECONDS)
        self._unload(self.paths.program_file(slot), self.paths.program(slot))
        if self.paths.slot(slot).exists():
            shutil.rmtree(self.paths.slot(slot))
        return open_ones

    def _renew(self) -> None:
        if self.lock.claim and time.time() - self.lock.claim.renewed > 10:
            self.lock.update()

    def _retire_in_place(self) -> None:
        if self.paths.in_place_file.exists() or Name(self.paths.name, self.paths.name) in self._supervised():
            self._unload(self.paths.in_place_file, self.paths.name)
        for name in IN_PLACE_FILES:
            if (self.paths.etc / name).exists():
                (self.paths.etc / name).unlink()

    def _unload(self, file: Path, program: str) -> None:
        if file.exists():
            file.unlink()
        self._control(program, "absent")

    def _point_current(self, release: str) -> None:
        """For people."""
        item = Item(str(self.paths.current), "root", "root", 0o777, target=f"releases/{release}")
        self._write(item)

    def _prune(self, live: str) -> list[str]:
        """A run fetches its release before it has the lock: what is young and of no run yet may be another one's."""
        entries = ledger.read(self.paths.ledger)
        known = {entry.release for entry in entries}
        there = [name for name in self.paths.releases_there() if name in known or self._is_left(name)]
        gone = ledger.to_remove(entries, there, live, self.options.keep)
        for name in gone:
            shutil.rmtree(self.paths.release(name))
        for entry in os.scandir(self.paths.releases):
            if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False) and self._is_left(entry.name):
                shutil.rmtree(entry.path)
        return gone

    def _is_left(self, name: str) -> bool:
        return time.time() - self.paths.release(name).stat().st_mtime > LEFT_SECONDS

    # Failure

    def abort(self, reason: str) -> dict[str, Any]:
        """Something else of the run failed: back to the old slot, as far as this is still there."""
        if not self.lock.is_mine():
            return {"changed": False}
        claim = self.lock.resume()
        self._give_up(claim, reason)
        return {"changed": True, "slot": claim.slot, "release": claim.release}

    def _give_up(self, claim: Claim, reason: str) -> None:
        """The old version goes on, the new one is cleared away and noted as bad."""
        if claim.fresh and claim.stage != "finalize":
            seen = observe(self.paths, self.options.connection)
            if seen.linked == claim.slot:
                back = claim.old or None
                self._point_to(back)
                self._write(self.wanted.tmpfiles_item(self.paths, back))
            self._record(claim, ledger.BAD, reason)
            self._retire(claim.slot)
        self.lock.release()

    def _failure(self, error: Exception) -> SlotError:
        if isinstance(error, OSError):
            return SlotError(f"{error.filename or self.paths.name}: {error.strerror or error}")
        return error if isinstance(error, SlotError) else SlotError(str(error))

    # What the stages share

    def _run_commands(self, claim: Claim) -> None:
        for command in self.options.commands:
            if command.stage != claim.stage:
                continue
            run_check(
                CandidateCheck(
                    self.paths.launch(claim.slot, "--exec", *command.argv),
                    timeout=command.timeout,
                    what=f"{command.name} ({' '.join(command.argv)})",
                ),
                "",
            )

    def _record(self, claim: Claim, result: str, reason: str) -> None:
        last, fingerprint = ledger.last_good(ledger.read(self.paths.ledger)), self.wanted.fingerprint
        if result == ledger.GOOD and not claim.fresh and last and last.fingerprint == fingerprint:
            return
        reason = printable(redact(_in_short(reason), self.options.redact))
        ledger.append(
            self.paths.ledger,
            ledger.LedgerEntry(
                time=ledger.now(),
                by=f"{claim.owner.by}@{claim.owner.controller}",
                action=claim.action,
                release=claim.release,
                revision=self.wanted.revision,
                fingerprint=fingerprint,
                slot=claim.slot,
                result=result,
                reason=reason[: ledger.LONGEST_REASON],
                irreversible=self.options.irreversible and claim.action == "deploy",
            ),
        )

    def _ask(self, slot: str, timeout: float) -> probe.Answer:
        return probe.ask(str(self.paths.socket(slot)), self.options.health_path, self.options.host, timeout)

    def _control(self, program: str, state: str) -> None:
        request = control.Request([program], state, timeout=self.options.timeout, log_lines=self.options.log_lines)
        control.run(self.options.connection, request, False)

    def _supervised(self) -> dict[Name, Process]:
        return supervised(self.options.connection)

    def _process(self, slot: str) -> Process:
        program = self.paths.program(slot)
        found = self._supervised().get(Name(program, program))
        if found is None:
            raise SlotError(f"supervisord does not have {program} any more: it was restarted or somebody removed it")
        return found

    def _log_end(self, slot: str) -> str:
        supervisor = rpc.connect(self.options.connection)
        try:
            tails = status.log_tails(supervisor, [self._process(slot)], self.options.log_lines)
        finally:
            supervisor.close()
        lines = [line for tail in tails.values() for line in [*tail.stderr, *tail.stdout]]
        return "\n".join(["", "The end of its log:", *(f"    {line}" for line in lines)]) if lines else ""

    def _write(self, item: Item) -> None:
        difference = compare(item)
        if difference:
            apply([difference], self.label)


def _stages_to(claim: Claim, stage: str) -> Sequence[str]:
    """What is left on the way to a stage, with it. A run that fills no slot begins with promote."""
    reached = STAGES.index(claim.stage) if claim.fresh or claim.stage != "plan" else STAGES.index("start")
    return STAGES[reached + 1 : STAGES.index(stage) + 1] or (stage,)


def _in_short(reason: str) -> str:
    """What failed, and the line of the log that names the cause; that Gunicorn's master gives up is none."""
    first, *rest = [line.strip() for line in reason.splitlines() if line.strip()] or [""]
    errors = [line for line in rest if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return " ".join([first, *errors[-1:]])


def _other(slot: Optional[str]) -> str:
    """The slot beside; the first one when none is live."""
    return next(other for other in _layout.SLOTS if other != slot)
