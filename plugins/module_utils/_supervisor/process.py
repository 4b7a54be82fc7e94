# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring named programs of supervisord to a wanted state: plan, then act on all of them at the same time."""

from __future__ import annotations

import re
import signal as signals
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import evidence, rpc, status
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import plan as planning
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.causes import in_words
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.plan import (
    Actions,
    ProgramPlan,
    ProgramSettings,
    Snapshot,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.rpc import (
    Call,
    Fault,
    Supervisor,
    SupervisorError,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.status import Name, Process

# With startsecs=0 a program is RUNNING as soon as it is forked: look again before believing it.
SETTLE_SECONDS = 0.4
FAILED_STARTS = {
    "EXITED": "it ended by itself",
    "FATAL": "supervisord gave up starting it",
    "UNKNOWN": "supervisord lost control of it",
}
# Not to be started as they are: BACKOFF is running for supervisord, and its next attempt may be minutes away.
STUCK = ("BACKOFF", "STOPPING")
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 0.3


@dataclass(frozen=True)
class Request:
    names: Sequence[str]
    state: str = "started"
    signal: str | None = None
    timeout: float = 300
    log_lines: int = 20
    load: bool = True
    prune: bool = False
    one_by_one: bool = False
    require_running: bool = True
    exclude: Sequence[str] = ()

    @property
    def reads_files(self) -> bool:
        return self.load and self.state in planning.LOADING_STATES


def run(connection: rpc.Connection, request: Request, check_mode: bool) -> dict[str, Any]:
    """The module's result; a SupervisorError has what was done so far in its details."""
    rpc.require_not_negative(
        timeout=request.timeout, log_lines=request.log_lines, connect_timeout=connection.connect_timeout
    )
    names = status.parse_names(request.names)
    signal_name = _signal_name(request)
    _refuse_contradictions(request)
    if check_mode or not request.require_running:
        # Nobody starts supervisord meanwhile, so there is nothing to wait for.
        connection = replace(connection, connect_timeout=0)
    try:
        supervisor = rpc.connect(connection)
    except (rpc.OtherLogin, rpc.NotRunning) as error:
        if not request.require_running:
            return {**_result(Actions()), "skipped_reason": str(error)}
        if isinstance(error, rpc.OtherLogin) or not check_mode:
            raise
        return _without_supervisord(request.state, names, error)
    with closing(supervisor):
        names = status.choose(names, status.all_processes(supervisor))
        snapshot = planning.take_snapshot(supervisor, names, request.reads_files)
        plan = planning.make_plan(snapshot, request.state, names, request.prune, request.exclude)
        if plan.errors:
            raise SupervisorError("Nothing was changed. " + " ".join(plan.errors))
        done, processes = plan.actions, snapshot.processes
        if not check_mode:
            done = Execution(supervisor, snapshot, plan, request, signal_name).run()
            processes = status.all_processes(supervisor)
    selected = status.those_named(processes, plan.selected)
    return _result(done, selected, plan.warnings, planning.diff(snapshot, plan, signal_name))


def _result(
    done: Actions,
    processes: Sequence[Process] = (),
    warnings: Sequence[str] = (),
    diff: dict[str, str] | None = None,
) -> dict[str, Any]:
    return {
        **done.as_result(),
        "processes": [process.as_result() for process in processes],
        "warnings": [*warnings],
        "diff": diff or planning.diff_of([], []),
    }


def _signal_name(request: Request) -> str:
    if request.state != "signalled":
        return ""
    text = str(request.signal or "").strip().upper()
    if not text:
        raise SupervisorError("state signalled needs the option signal, such as HUP or USR1")
    try:
        if text.isdigit():
            return signals.Signals(int(text)).name
        return signals.Signals[text if text.startswith("SIG") else f"SIG{text}"].name
    except (KeyError, ValueError):
        raise SupervisorError(
            f"signal {request.signal}: no such signal; allowed are names and numbers, such as HUP or 1"
        ) from None


def _refuse_contradictions(request: Request) -> None:
    if request.state == "present" and not request.load:
        raise SupervisorError("state present loads what the files say: load must be true with it")
    if request.prune and not request.reads_files:
        raise SupervisorError(
            f"prune needs the configuration files, which state {request.state} with load {str(request.load).lower()} "
            f"does not read; it goes with load true and the states {', '.join(planning.LOADING_STATES)}"
        )


def _without_supervisord(state: str, names: Sequence[Name], error: rpc.NotRunning) -> dict[str, Any]:
    """What a check can honestly say on a host where supervisord is still to come: nothing is loaded, nothing runs."""
    actions = Actions()
    if state in planning.LOADING_STATES:
        actions.added = sorted({name.group for name in names})
    if state in ("started", "restarted"):
        actions.started = list(names)
    if state == "signalled":
        actions.signalled = list(names)
    after = {"present": "loaded", "started": "RUNNING", "restarted": "RUNNING", "signalled": "signalled"}.get(state)
    diff = planning.diff_of([(name, "not loaded") for name in names], [(name, after or "not loaded") for name in names])
    warning = f"supervisord is not there yet, so this check knows none of its programs: {error}"
    return _result(actions, (), [warning], diff)


class ProgramFailed(Exception):
    """A program that did not get where it should; the others go on."""

    def __init__(self, name: Name, reason: str, died: bool = False, refusal: str = "") -> None:
        super().__init__(reason)
        self.name = name
        self.reason = reason
        # Whether it ended by itself just now, so that what supervisord's log says last of it is of this run.
        self.died = died
        # Why supervisord did not even try to start it.
        self.refusal = refusal


@dataclass(eq=False)
class Job:
    """One step of a program or a group: an action, and looks until supervisord has done it."""

    action: str
    name: Name
    # It begins when these have ended well.
    after: Sequence[Job] = ()
    # Whether supervisord is still to be asked for it; where somebody else asked, the job only looks.
    asks: bool = True
    ended: bool = False
    failed: bool = False
    # When supervisord took the first call of it.
    began: float = 0
    # Of the looks so far.
    pid: int = 0
    exited: bool = False
    died: bool = False


# The call for an action, and the faults that do not matter: those of what is so already, and SPAWN_ERROR, after which
# supervisord goes on trying, so that by now it may have started the program by itself.
CALLS: dict[str, tuple[str, tuple[int, ...]]] = {
    "stop": ("stopProcess", (rpc.NOT_RUNNING,)),
    "start": ("startProcess", (rpc.SPAWN_ERROR, rpc.ALREADY_STARTED)),
    "signal": ("signalProcess", ()),
    "unload": ("removeProcessGroup", (rpc.BAD_NAME,)),
    "load": ("addProcessGroup", ()),
}


class Execution:
    """Does what a plan says, and notes what was done."""

    def __init__(
        self, supervisor: Supervisor, snapshot: Snapshot, plan: ProgramPlan, request: Request, signal_name: str
    ) -> None:
        self.supervisor = supervisor
        self.snapshot = snapshot
        self.plan = plan
        self.request = request
        self.signal_name = signal_name
        self.done = Actions()

    def run(self) -> Actions:
        try:
            failures = self.drive(self._jobs())
            if failures:
                raise self._report(failures)
        except SupervisorError as error:
            error.details = {**error.details, **self.done.as_result(), "warnings": self.plan.warnings}
            raise
        return self.done

    def _jobs(self) -> list[Job]:
        """In the order of the calls at each turn."""
        actions, order = self.plan.actions, self.snapshot.order
        unloaded, loaded = [*actions.updated, *actions.removed], [*actions.added, *actions.updated]
        down = {process.name for group in unloaded for process in self.snapshot.loaded(group)}
        down.update(actions.stopped, actions.restarted)
        stuck = {process.name for process in self.snapshot.processes.values() if process.state in STUCK}
        down |= stuck.intersection(actions.started)
        # As supervisord does: the last to be started is the first to be stopped.
        stops = {name: Job("stop", name) for name in sorted(down, key=order, reverse=True)}
        unloads = {
            group: Job("unload", Name(group), [job for name, job in stops.items() if name.group == group])
            for group in unloaded
        }
        loads = {
            group: Job("load", Name(group), [unloads[group]] if group in unloads else [])
            for group in sorted(loaded, key=self.snapshot.group_order)
        }
        starts = []
        before: list[Job] = []
        # Programs with autostart too: when asked, supervisord says at once that there is no such command.
        for name in sorted([*actions.started, *actions.restarted], key=order):
            after = [job for job in (loads.get(name.group), stops.get(name)) if job]
            starts.append(Job("start", name, after))
            if self.request.one_by_one and name in actions.restarted and name.group not in loads:
                # The first that fails ends the series, so that those after it serve on.
                stops[name].after, before = before, starts[-1:]
        signals = [Job("signal", name) for name in sorted(actions.signalled, key=order)]
        awaited = "stop" if self.plan.state == "stopped" else "start"
        looks = [Job(awaited, name, asks=False) for name in sorted(self.plan.awaited, key=order)]
        return [*stops.values(), *unloads.values(), *loads.values(), *starts, *signals, *looks]

    def drive(self, jobs: Sequence[Job]) -> list[ProgramFailed]:
        """All jobs side by side, with one request for all of them at each turn."""
        failures: list[ProgramFailed] = []
        pause = FIRST_PAUSE
        while True:
            turn = [job for job in jobs if not (job.ended or job.failed) and all(each.ended for each in job.after)]
            if not turn:
                return failures
            if any(job.asks for job in turn):
                pause, turn = FIRST_PAUSE, [job for job in turn if job.asks]
            else:
                time.sleep(pause)
                pause = min(pause * 1.5, LONGEST_PAUSE)
            for job, answer in zip(turn, self.supervisor.multicall([self._call(job) for job in turn])):
                job.began = job.began or time.monotonic()
                try:
                    job.ended = self._asked(job, answer) if job.asks else self._looked(job, answer)
                except ProgramFailed as failure:
                    job.failed = True
                    failures.append(failure)

    def _call(self, job: Job) -> Call:
        if not job.asks:
            return Call("getProcessInfo", (job.name.rpc,))
        # Without a wait for the end of a start or stop, which would stop the others.
        of_program = (job.name.rpc, self.signal_name if job.action == "signal" else False)
        return Call(CALLS[job.action][0], of_program if job.name.process else (job.name.group,))

    def _asked(self, job: Job, answer: Any) -> bool:
        """Takes the answer to an action; says whether the job has ended."""
        group, done = job.name.group, self.done
        if isinstance(answer, Fault) and answer.code not in CALLS[job.action][1]:
            if answer.code == rpc.STILL_RUNNING and not self._is_late(job):
                # supervisord just started one again that had ended by itself.
                for stop in job.after:
                    stop.asks, stop.ended, stop.began = True, False, 0
                return False
            if job.action == "load":
                raise ProgramFailed(job.name, f"supervisord could not load it, so it is not loaded now: {answer.text}")
            attempt = f"send it {self.signal_name}" if job.action == "signal" else f"{job.action} it"
            refusal = answer.text if job.action == "start" else ""
            raise ProgramFailed(job.name, f"supervisord refused to {attempt}: {answer.text}", refusal=refusal)
        if job.action == "signal":
            done.signalled.append(job.name)
        elif job.action == "unload":
            # Until it is loaded again, so that a failure in between reports it as it is.
            done.removed.append(group)
        elif job.action == "load" and group in done.removed:
            done.removed.remove(group)
            done.updated.append(group)
        elif job.action == "load":
            done.added.append(group)
        job.asks = False
        return job.action not in ("stop", "start")

    def _looked(self, job: Job, answer: Any) -> bool:
        """Takes what a process is now; says whether the job has ended."""
        name, planned, done = job.name, self.plan.actions, self.done
        if isinstance(answer, Fault):
            raise ProgramFailed(name, f"it is gone from supervisord in the middle of this task ({answer.text})")
        process = Process.of(answer)
        if not (self._is_down(job, process) if job.action == "stop" else self._is_up(job, process)):
            return False
        if job.action == "stop":
            if name in [*planned.stopped, *planned.restarted] and name not in done.stopped:
                done.stopped.append(name)
        elif name in planned.restarted:
            # Until now it was a running program that this task stopped.
            done.stopped.remove(name)
            done.restarted.append(name)
        elif name in planned.started:
            done.started.append(name)
        return True

    def _is_late(self, job: Job) -> bool:
        return time.monotonic() - job.began > self.request.timeout

    def _is_down(self, job: Job, process: Process) -> bool:
        """supervisord itself keeps to the stopwaitsecs that are loaded, which may not be those in the files."""
        if process.state == "UNKNOWN":
            raise ProgramFailed(job.name, "supervisord could not send it the stop signal")
        # One that ended by itself may come back, and then has to be stopped after all.
        if process.state in status.DOWN_STATES and (process.state != "EXITED" or job.exited):
            return True
        if self._is_late(job):
            raise ProgramFailed(
                job.name,
                f"it did not stop within {self.request.timeout:g} s (option timeout); "
                "its stopwaitsecs may be longer than that, or it cannot be killed",
            )
        job.exited = process.state == "EXITED"
        job.asks = process.state in status.STOPPABLE
        return False

    def _is_up(self, job: Job, process: Process) -> bool:
        settings = self._loaded_settings(job.name)
        limit = min(self.request.timeout, settings.start_limit) if settings else self.request.timeout
        instant = settings is not None and settings.startsecs == 0
        waited = time.monotonic() - job.began
        job.died = job.died or process.died
        reason = FAILED_STARTS.get(process.state)
        if process.state == "RUNNING":
            job.pid = job.pid or process.pid
            if process.pid != job.pid:
                reason, job.died = "it ends at once, and supervisord starts it again and again", True
            elif not instant or waited > SETTLE_SECONDS:
                return True
        elif process.state == "EXITED" and instant and settings and process.exit_status in settings.exitcodes:
            return True
        elif process.state == "STOPPED" and process.start:
            reason = "somebody else stopped it in the middle of this task"
        elif waited > limit and not reason:
            reason = f"it is not RUNNING after {limit:g} s ({self._limits(settings)})"
        if reason:
            raise ProgramFailed(job.name, reason, job.died)
        return False

    def _loaded_settings(self, name: Name) -> ProgramSettings | None:
        """None where the files say something else than what is loaded."""
        stale = name.group in self.snapshot.changed and name.group not in self.plan.actions.updated
        return None if stale else self.snapshot.settings.get(name)

    def _limits(self, settings: ProgramSettings | None) -> str:
        known = f"startsecs={settings.startsecs}, startretries={settings.startretries}, " if settings else ""
        return f"{known}option timeout {self.request.timeout:g}"

    # Failure

    def _report(self, failures: Sequence[ProgramFailed]) -> SupervisorError:
        now = status.all_processes(self.supervisor)
        failures = sorted(failures, key=lambda failure: str(failure.name))
        failed = {failure.name: now[failure.name] for failure in failures if failure.name in now}
        past = evidence.read_histories(self.supervisor, now)
        refusals = {failure.name: failure.refusal for failure in failures if failure.refusal}
        known = evidence.gather(
            self.supervisor, [*failed.values()], past, self.request.log_lines, health={}, refusals=refusals
        )
        reports: list[dict[str, Any]] = []
        for failure in failures:
            name = failure.name
            facts = failed[name].as_result() if name in failed else {}
            endings = past[name].endings if failure.died and name in past else []
            causes, tails = known.get(name, evidence.NOTHING)
            # One that can't be stopped has no cause of an ending.
            ended = failure.refusal or failure.died or facts.get("state") in (*FAILED_STARTS, "BACKOFF")
            report: dict[str, Any] = {
                "name": str(name),
                "reason": failure.reason,
                **{key: facts.get(key) for key in ("state", "spawn_error", "exit_status", "logfiles")},
                "ending": endings[-1] if endings else None,
                "stdout_tail": tails.stdout,
                "stderr_tail": tails.stderr,
                "causes": causes if ended else [],
            }
            if endings:
                exit_status = re.fullmatch(r"exit status (\d+)", endings[-1])
                report["exit_status"] = int(exit_status[1]) if exit_status else None
            reports.append(report)
        selected = status.those_named(now, self.plan.selected)
        error = SupervisorError(
            f"state {self.plan.state} failed for {', '.join(report['name'] for report in reports)}.\n"
            + "\n".join(_in_words(report) for report in reports)
        )
        error.details = {"failures": reports, "processes": [process.as_result() for process in selected]}
        return error


def _in_words(report: dict[str, Any]) -> str:
    facts = [f"state {report['state'] or 'not loaded'}", report["spawn_error"], report["ending"]]
    if report["exit_status"] is not None and not report["ending"]:
        facts.append(f"exit status {report['exit_status']}")
    lines = [f"{report['name']}: {report['reason']}. " + "; ".join(fact for fact in facts if fact)]
    lines += in_words(report["causes"])
    for channel in ("stderr", "stdout"):
        tail = report[f"{channel}_tail"]
        if tail:
            lines += [
                f"  The end of its {channel} log {report['logfiles'][channel]}:",
                *(f"    {line}" for line in tail),
            ]
    return "\n".join(lines)
