# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must happen in supervisord for named programs to reach a wanted state. Looks and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import rpc, status
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.status import Name, Process

STATES = ("started", "stopped", "restarted", "present", "absent", "signalled")
# States that are reached with what the files say now. The others do not read the files, so broken ones do them no harm.
LOADING_STATES = ("started", "restarted", "present")

# supervisord looks at its programs once a second when nothing else wakes it.
LOOP_SECONDS = 1


@dataclass(frozen=True)
class ProgramSettings:
    """What the configuration files say of a process, as far as it matters here. Its environment is never asked for."""

    name: Name
    autostart: bool
    startsecs: int
    startretries: int
    exitcodes: Sequence[int]
    order: tuple[int, int]

    @classmethod
    def of(cls, info: dict[str, Any]) -> ProgramSettings:
        known = {key: info[key] for key in ("autostart", "startsecs", "startretries", "exitcodes")}
        return cls(Name(info["group"], info["name"]), order=(info["group_prio"], info["process_prio"]), **known)

    @property
    def start_limit(self) -> float:
        """The longest that supervisord tries: it pauses 1, 2, 3 ... seconds between one start and the next."""
        attempts = self.startretries + 1
        pauses = self.startretries * (self.startretries + 1) / 2
        return attempts * (self.startsecs + 2 * LOOP_SECONDS) + pauses


@dataclass
class Snapshot:
    """supervisord's processes beside what its files say."""

    processes: dict[Name, Process]
    settings: dict[Name, ProgramSettings]
    # Groups in the files only, in both with a difference, and loaded only; all empty when the files were not read.
    added: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    # Groups that are loaded and have no process.
    empty: set[str] = field(default_factory=set)

    @property
    def groups(self) -> set[str]:
        return {name.group for name in self.processes} | self.empty

    @property
    def all_groups(self) -> set[str]:
        """Those that are loaded, and those that are in the files as they were read last."""
        return self.groups | {name.group for name in self.settings} | self.added

    def loaded(self, group: str) -> list[Process]:
        return [process for name, process in self.processes.items() if name.group == group]

    def configured(self, group: str) -> list[ProgramSettings]:
        return [settings for name, settings in self.settings.items() if name.group == group]

    def group_order(self, group: str) -> tuple[int, str]:
        return min((settings.order[0] for settings in self.configured(group)), default=999), group

    def order(self, name: Name) -> tuple[tuple[int, int], Name]:
        settings = self.settings.get(name)
        return (settings.order if settings else (999, 999)), name


@dataclass
class Actions:
    """Groups and processes, planned or done."""

    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    started: list[Name] = field(default_factory=list)
    stopped: list[Name] = field(default_factory=list)
    restarted: list[Name] = field(default_factory=list)
    signalled: list[Name] = field(default_factory=list)

    def as_result(self) -> dict[str, Any]:
        lists = {action: sorted(map(str, subjects)) for action, subjects in vars(self).items()}
        return {"changed": any(lists.values()), **lists}


@dataclass
class ProgramPlan:
    state: str
    # Groups that are named as a whole, be it by all of their processes, and the other named processes.
    groups: list[str]
    singles: list[Name]
    actions: Actions = field(default_factory=Actions)
    # Groups that are unloaded because they are in no file any more.
    pruned: list[Name] = field(default_factory=list)
    # Processes that others set in motion and that this run sees through.
    awaited: list[Name] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def named(self) -> list[Name]:
        return [*(Name(group) for group in self.groups), *self.singles]

    @property
    def selected(self) -> list[Name]:
        return [*self.named, *self.pruned]


def take_snapshot(supervisor: rpc.Supervisor, names: Sequence[Name], reread: bool) -> Snapshot:
    found = status.differences(supervisor) if reread else {}
    settings = [ProgramSettings.of(info) for info in supervisor.call("getAllConfigInfo")]
    snapshot = Snapshot(
        processes=status.all_processes(supervisor),
        settings={each.name: each for each in settings},
        **{kind: set(groups) for kind, groups in found.items()},
    )
    unseen = sorted(({name.group for name in names} | snapshot.removed) - snapshot.groups - snapshot.added)
    snapshot.empty = set(_loaded_without_processes(supervisor, unseen))
    return snapshot


def _loaded_without_processes(supervisor: rpc.Supervisor, groups: Sequence[str]) -> Iterable[str]:
    """Groups with numprocs=0 show in no list; a signal to all of their no processes shows whether they are there."""
    answers = supervisor.multicall([rpc.Call("signalProcessGroup", (group, "0")) for group in groups])
    return [group for group, answer in zip(groups, answers) if answer == []]


def make_plan(
    snapshot: Snapshot, state: str, names: Sequence[Name], prune: bool = False, exclude: Sequence[str] = ()
) -> ProgramPlan:
    """With prune, groups that are in no file any more are unloaded as well; all leaves the groups in exclude alone."""
    plan = ProgramPlan(state, *_select(snapshot, names, exclude))
    if prune:
        plan.groups = [group for group in plan.groups if group not in snapshot.removed]
        for group in sorted(snapshot.removed):
            plan.pruned.append(Name(group))
            _plan_absent(snapshot, Name(group), snapshot.loaded(group), plan)
    if state in LOADING_STATES:
        for group in plan.groups:
            _plan_group(snapshot, group, plan)
        for name in plan.singles:
            _plan_single(snapshot, name, plan)
    for name in plan.named:
        processes = status.those_named(snapshot.processes, [name])
        if state == "stopped":
            _plan_stop(snapshot, name, processes, plan)
        elif state == "absent":
            _plan_absent(snapshot, name, processes, plan)
        elif state == "signalled":
            _plan_signals(snapshot, name, processes, plan)
    return plan


def _select(snapshot: Snapshot, names: Sequence[Name], exclude: Sequence[str]) -> tuple[list[str], list[Name]]:
    singles = {name for name in names if name.process is not None}
    groups = {name.group for name in names if name.process is None}
    if status.ALL in names and status.ALL.group not in snapshot.all_groups:
        groups = snapshot.all_groups - set(exclude)
    for group in {name.group for name in singles}:
        members = {process.name for process in snapshot.loaded(group)}
        members.update(settings.name for settings in snapshot.configured(group))
        if members and members <= singles:
            groups.add(group)
    return sorted(groups), sorted(name for name in singles if name.group not in groups)


def _plan_group(snapshot: Snapshot, group: str, plan: ProgramPlan) -> None:
    if group in snapshot.removed:
        plan.errors.append(_no_longer_configured(group))
        return
    if group not in snapshot.added | snapshot.groups:
        plan.errors.append(_unknown(snapshot, Name(group)))
        return
    configured = snapshot.configured(group)
    if not configured:
        plan.warnings.append(
            f"{group}: its configuration gives it no process (numprocs=0, or a group without programs)"
        )
    if group in snapshot.added:
        plan.actions.added.append(group)
        plan.actions.started += [each.name for each in configured if _will_run(each, plan.state)]
    elif group in snapshot.changed:
        _plan_update(snapshot, group, plan)
    else:
        _plan_processes(snapshot.loaded(group), plan)


def _will_run(settings: ProgramSettings, state: str) -> bool:
    return settings.autostart or state != "present"


def _plan_single(snapshot: Snapshot, name: Name, plan: ProgramPlan) -> None:
    if name.group in snapshot.removed:
        plan.errors.append(_no_longer_configured(name.group))
    elif name in snapshot.processes:
        _plan_processes([snapshot.processes[name]], plan)
        if name.group in snapshot.changed:
            plan.warnings.append(
                f"{name}: the configuration of group {name.group} changed and is not loaded, since that would stop "
                f"processes of the group that are not named; name {name.group} to load it"
            )
    elif name in snapshot.settings:
        plan.errors.append(
            f"names: {name} is in the configuration files but not loaded, and supervisord loads whole groups only; "
            f"name {name.group}."
        )
    else:
        plan.errors.append(_unknown(snapshot, name))


def _plan_update(snapshot: Snapshot, group: str, plan: ProgramPlan) -> None:
    """supervisord replaces a group's configuration by unloading it, which it does only when every process is down."""
    loaded = {process.name for process in snapshot.loaded(group)}
    configured = {settings.name for settings in snapshot.configured(group)}
    up = {name for name in loaded if snapshot.processes[name].is_up}
    runs = {settings.name for settings in snapshot.configured(group) if _will_run(settings, plan.state)}
    plan.actions.updated.append(group)
    plan.actions.restarted += up & runs
    plan.actions.started += runs - up
    plan.actions.stopped += up - runs
    if plan.state != "restarted" and len(loaded) > 1 and up & configured:
        plan.warnings.append(
            f"{group}: the configuration of the group changed"
            + _listed(", new in it", configured - loaded)
            + _listed(", no longer in it", loaded - configured)
            + ". supervisord replaces a group only as a whole, so all of its running processes are stopped together, "
            + _listed("also where their own settings stay the same", up & configured)
        )


def _listed(title: str, names: Iterable[Name]) -> str:
    text = ", ".join(sorted(map(str, names)))
    return f"{title}: {text}" if text else ""


def _plan_processes(processes: list[Process], plan: ProgramPlan) -> None:
    for process in processes:
        if plan.state == "restarted":
            (plan.actions.restarted if process.is_up else plan.actions.started).append(process.name)
        elif plan.state == "started" and process.state == "STARTING":
            plan.awaited.append(process.name)
        elif plan.state == "started" and process.state != "RUNNING":
            plan.actions.started.append(process.name)


def _plan_stop(snapshot: Snapshot, name: Name, processes: list[Process], plan: ProgramPlan) -> None:
    in_files = name in snapshot.settings or (name.process is None and snapshot.configured(name.group))
    if not (processes or in_files or name.group in snapshot.empty):
        plan.warnings.append(_unknown(snapshot, name))
    plan.actions.stopped += [process.name for process in processes if process.state in status.STOPPABLE]
    plan.awaited += [process.name for process in processes if process.state == "STOPPING"]
    _refuse_lost(processes, plan)


def _plan_absent(snapshot: Snapshot, name: Name, processes: list[Process], plan: ProgramPlan) -> None:
    if name.group not in snapshot.groups:
        return
    if name.process is not None:
        plan.errors.append(
            f"names: {name}: supervisord unloads groups only as a whole; name {name.group} for state absent."
        )
        return
    plan.actions.removed.append(name.group)
    plan.actions.stopped += [process.name for process in processes if process.state in status.STOPPABLE]
    _refuse_lost(processes, plan)


def _refuse_lost(processes: list[Process], plan: ProgramPlan) -> None:
    lost = [str(process.name) for process in processes if process.state == "UNKNOWN"]
    if lost:
        plan.errors.append(
            f"{', '.join(lost)}: state UNKNOWN, since supervisord could not signal it, and it may still run; "
            "look for the process and end it by hand."
        )


def _plan_signals(snapshot: Snapshot, name: Name, processes: list[Process], plan: ProgramPlan) -> None:
    able = [process.name for process in processes if process.state in status.WITH_PID]
    unable = [f"{process.name} is {process.state}" for process in processes if process.name not in able]
    plan.actions.signalled += able
    if not processes:
        plan.errors.append(_unknown(snapshot, name))
    elif not able:
        plan.errors.append(f"{name}: no process of it runs, so none can get a signal ({', '.join(unable)}).")
    elif unable:
        plan.warnings.append(f"{name}: got no signal, since they do not run: {', '.join(unable)}")


def _no_longer_configured(group: str) -> str:
    return (
        f"{group}: still loaded, but there is no such program in supervisord's configuration files any more. "
        "Put it back, or use state absent to stop and unload it."
    )


def _unknown(snapshot: Snapshot, name: Name) -> str:
    known = {*snapshot.processes, *snapshot.settings}
    alike = {each for each in known if each.process == (name.process or name.group)}
    hint = (
        _listed("Did you mean", alike)
        or _listed(f"The processes of {name.group} are", (each for each in known if each.group == name.group))
        or "Check the spelling, and that the file with its section lies where the [include] section of supervisord's "
        "configuration looks (its ending counts too)"
    )
    return f"names: supervisord knows no such program or group: {name}. {hint}."


def diff(snapshot: Snapshot, plan: ProgramPlan, signal_name: str) -> dict[str, str]:
    names = {process.name for process in status.those_named(snapshot.processes, plan.selected)}
    for group in [*plan.actions.added, *plan.actions.updated]:
        names.update(settings.name for settings in snapshot.configured(group))
    before, after = [], []
    for name in sorted(names, key=snapshot.order):
        process = snapshot.processes.get(name)
        state = process.state if process else "not loaded"
        before.append((name, state))
        after.append((name, _state_after(name, state, snapshot, plan.actions, signal_name)))
    return diff_of(before, after)


def diff_of(before: Iterable[tuple[Name, str]], after: Iterable[tuple[Name, str]]) -> dict[str, str]:
    return {
        "before_header": "supervisord",
        "after_header": "supervisord",
        "before": "".join(f"{name}: {state}\n" for name, state in before),
        "after": "".join(f"{name}: {state}\n" for name, state in after),
    }


def _state_after(name: Name, state: str, snapshot: Snapshot, actions: Actions, signal_name: str) -> str:
    updated = ", configuration changed" if name.group in actions.updated else ""
    if name.group in actions.removed or (updated and name not in snapshot.settings):
        return "not loaded"
    if name in actions.restarted:
        return f"RUNNING (restarted{updated})"
    if name in actions.started:
        return f"RUNNING (started{updated})"
    if name in actions.signalled:
        return f"{state} (sent {signal_name})"
    if name in actions.stopped or updated or name.group in actions.added:
        return f"STOPPED{updated}"
    return state
