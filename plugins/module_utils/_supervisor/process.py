# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring named programs of supervisord to a wanted state: plan, then act on all of them at the same time."""

from __future__ import annotations

import signal as signals
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import evidence, rpc, status
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import plan as planning
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.causes import explain, in_words
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
START_REFUSED = "supervisord refused to start it: "
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
    except rpc.OtherLogin as error:
        if request.require_running:
            raise
        return _nothing_to_do(error)
    except rpc.NotRunning as error:
        if not request.require_running:
            return _nothing_to_do(error)
        if not check_mode:
            raise
        return _without_supervisord(request.state, names, error)
    try:
        reread = request.load and request.state in planning.LOADING_STATES
        names = status.choose(names, status.all_processes(supervisor))
        snapshot = planning.take_snapshot(supervisor, names, reread)
        plan = planning.make_plan(snapshot, request.state, names, request.prune, request.exclude)
        if plan.errors:
            raise SupervisorError("Nothing was changed. " + " ".join(plan.errors))
        done, processes = plan.actions, snapshot.processes
        if not check_mode:
            done = Execution(supervisor, snapshot, plan, request, signal_name).run()
            processes = status.all_processes(supervisor)
    finally:
        supervisor.close()
    return {
        **done.as_result(),
        "processes": [process.as_result() for process in status.those_named(processes, plan.selected)],
        "warnings": plan.warnings,
        "diff": planning.diff(snapshot, plan, signal_name),
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
    loads = request.load and request.state in planning.LOADING_STATES
    if request.state == "present" and not request.load:
        raise SupervisorError("state present loads what the files say: load must be true with it")
    if request.prune and not loads:
        raise SupervisorError(
            f"prune needs the configuration files, which state {request.state} with load {str(request.load).lower()} "
            f"does not read; it goes with load true and the states {', '.join(planning.LOADING_STATES)}"
        )


def _nothing_to_do(error: rpc.SupervisorError) -> dict[str, Any]:
    return {
        **Actions().as_result(),
        "processes": [],
        "warnings": [],
        "diff": planning.diff_of([], []),
        "skipped_reason": str(error),
    }


def _without_supervisord(state: str, names: Sequence[Name], error: rpc.NotRunning) -> dict[str, Any]:
    """What a check can honestly say on a host where supervisord is still to come: nothing is loaded, nothing runs."""
    actions = Actions()
    if state in planning.LOADING_STATES:
        actions.added = sorted({name.group for name in names})
    if state in ("started", "restarted"):
        actions.started = list(names)
    if state == "signalled":
        actions.signalled = list(names)
    result = actions.as_result()
    after = {"present": "loaded", "started": "RUNNING", "restarted": "RUNNING", "signalled": "signalled"}
    return {
        **result,
        "processes": [],
        "warnings": [f"supervisord is not there yet, so this check knows none of its programs: {error}"],
        "diff": planning.diff_of(
            [(name, "not loaded") for name in names], [(name, after.get(state, "not loaded")) for name in names]
        ),
    }


class ProgramFailed(Exception):
    """A program that did not get where it should; the others go on."""

    def __init__(self, name: Name, reason: str, died: bool = False) -> None:
        super().__init__(reason)
        self.name = name
        self.reason = reason
        # Whether it ended by itself just now, so that what supervisord's log says last of it is of this run.
        self.died = died

    @property
    def refusal(self) -> str:
        """Why supervisord did not even try to start it."""
        return self.reason.partition(START_REFUSED)[2]


@dataclass(frozen=True)
class Batch:
    """Calls that one task wants answered next; a poll can wait a little, so that all tasks' polls travel together."""

    calls: list[Call]
    poll: bool = False


# A task yields batches, is sent their answers, and returns the tasks that follow it.
Task = Generator[Batch, "list[Any]", "list[Any]"]
Step = Generator[Batch, "list[Any]", None]


def drive(supervisor: Supervisor, tasks: Sequence[Task]) -> list[ProgramFailed]:
    """Run tasks side by side, with one request for all of them at each turn."""
    failures: list[ProgramFailed] = []
    waiting: list[tuple[Task, Batch]] = []

    def advance(task: Task, answers: list[Any] | None) -> None:
        try:
            waiting.append((task, next(task) if answers is None else task.send(answers)))
        except StopIteration as end:
            for follower in end.value:
                advance(follower, None)
        except ProgramFailed as failure:
            failures.append(failure)

    for task in tasks:
        advance(task, None)
    pause = FIRST_PAUSE
    while waiting:
        turn = [(task, batch) for task, batch in waiting if not batch.poll]
        if turn:
            pause = FIRST_PAUSE
            waiting[:] = [(task, batch) for task, batch in waiting if batch.poll]
        else:
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)
            turn, waiting[:] = list(waiting), []
        answers = iter(supervisor.multicall([call for _task, batch in turn for call in batch.calls]))
        for task, batch in turn:
            advance(task, [next(answers) for _call in batch.calls])
    return failures


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
            failures = drive(self.supervisor, self._tasks())
            if failures:
                raise self._report(failures)
        except SupervisorError as error:
            error.details = {**error.details, **self.done.as_result(), "warnings": self.plan.warnings}
            raise
        return self.done

    def _tasks(self) -> list[Task]:
        actions, order = self.plan.actions, self.snapshot.order
        whole = {*actions.added, *actions.updated, *actions.removed}

        def own(names: Iterable[Name], reverse: bool = False) -> list[Name]:
            return sorted((name for name in names if name.group not in whole), key=order, reverse=reverse)

        return [
            *(self._update_group(group) for group in sorted(actions.updated, key=self.snapshot.group_order)),
            *(self._add_group(group) for group in sorted(actions.added, key=self.snapshot.group_order)),
            *(self._remove_group(group) for group in actions.removed),
            # As supervisord does: the last to be started is the first to be stopped.
            *(self._stop(name) for name in own(actions.stopped, reverse=True)),
            *self._restarts(own(actions.restarted, reverse=True)),
            *(self._start_from_any_state(name) for name in own(actions.started)),
            *(self._signal(name) for name in own(actions.signalled)),
            *(self._await(name) for name in own(self.plan.awaited)),
        ]

    # Groups

    def _update_group(self, group: str) -> Task:
        yield from self._unload(group)
        # Until it is loaded again, so that a failure in between tells the truth.
        self.done.removed.append(group)
        yield from self._load(group)
        self.done.removed.remove(group)
        self.done.updated.append(group)
        return self._starts_in(group)

    def _add_group(self, group: str) -> Task:
        yield from self._load(group)
        self.done.added.append(group)
        return self._starts_in(group)

    def _remove_group(self, group: str) -> Task:
        yield from self._unload(group)
        self.done.removed.append(group)
        return []

    def _starts_in(self, group: str) -> list[Task]:
        """Programs with autostart too: when asked, supervisord says at once that there is no such command."""
        names = [name for name in [*self.plan.actions.started, *self.plan.actions.restarted] if name.group == group]
        return [self._start(name) for name in sorted(names, key=self.snapshot.order)]

    def _load(self, group: str) -> Step:
        (answer,) = yield Batch([Call("addProcessGroup", (group,))])
        if isinstance(answer, Fault):
            raise ProgramFailed(Name(group), f"supervisord could not load it, so it is not loaded now: {answer.text}")

    def _unload(self, group: str) -> Step:
        names = sorted((process.name for process in self.snapshot.loaded(group)), key=self.snapshot.order, reverse=True)
        deadline = time.monotonic() + self.request.timeout
        while True:
            yield from self._bring_down(*names)
            (answer,) = yield Batch([Call("removeProcessGroup", (group,))])
            # STILL_RUNNING: supervisord just started one again that had ended by itself.
            if not _is_fault(answer, rpc.STILL_RUNNING) or time.monotonic() > deadline:
                break
        _check(Name(group), answer, "unload it", rpc.BAD_NAME)
        was_up = [*self.plan.actions.stopped, *self.plan.actions.restarted]
        self.done.stopped += [name for name in was_up if name.group == group]

    # Processes

    def _stop(self, name: Name) -> Task:
        yield from self._bring_down(name)
        self.done.stopped.append(name)
        return []

    def _restarts(self, names: list[Name]) -> list[Task]:
        if self.request.one_by_one and names:
            return [self._one_by_one(names[::-1])]
        return [self._restart(name) for name in names]

    def _one_by_one(self, names: list[Name]) -> Task:
        """In the order of a start; the first that fails ends the series, so that those after it serve on."""
        for name in names:
            for start in (yield from self._restart(name)):
                yield from start
        return []

    def _restart(self, name: Name) -> Task:
        yield from self._bring_down(name)
        if name in self.plan.actions.restarted:
            self.done.stopped.append(name)
        return [self._start(name)]

    def _bring_down(self, *names: Name) -> Step:
        answers = yield Batch([_stop_call(name) for name in names])
        for name, answer in zip(names, answers):
            _check(name, answer, "stop it", rpc.NOT_RUNNING)
        for name in names:
            yield from self._down(name)

    def _start_from_any_state(self, name: Name) -> Task:
        """BACKOFF counts as running for supervisord, and its next attempt may be minutes away."""
        if self.snapshot.processes[name].state in ("BACKOFF", "STOPPING"):
            return self._restart(name)
        return self._start(name)

    def _start(self, name: Name) -> Task:
        (answer,) = yield Batch([Call("startProcess", (name.rpc, False))])
        # After a SPAWN_ERROR supervisord goes on trying, and by now it may have started the program by itself.
        _check(name, answer, "start it", rpc.SPAWN_ERROR, rpc.ALREADY_STARTED)
        yield from self._running(name)
        if name in self.plan.actions.restarted:
            # Until now it was a running program that this task stopped.
            self.done.stopped.remove(name)
            self.done.restarted.append(name)
        else:
            self.done.started.append(name)
        return []

    def _signal(self, name: Name) -> Task:
        (answer,) = yield Batch([Call("signalProcess", (name.rpc, self.signal_name))])
        _check(name, answer, f"send it {self.signal_name}")
        self.done.signalled.append(name)
        return []

    def _await(self, name: Name) -> Task:
        yield from self._down(name) if self.plan.state == "stopped" else self._running(name)
        return []

    # Waiting

    def _look(self, name: Name) -> Generator[Batch, list[Any], Process]:
        (answer,) = yield Batch([Call("getProcessInfo", (name.rpc,))], poll=True)
        if isinstance(answer, Fault):
            raise ProgramFailed(name, f"it is gone from supervisord in the middle of this task ({answer.text})")
        return Process.of(answer)

    def _down(self, name: Name) -> Step:
        """supervisord itself keeps to the stopwaitsecs that are loaded, which may not be those in the files."""
        deadline = time.monotonic() + self.request.timeout
        exited = False
        while True:
            process = yield from self._look(name)
            if process.state == "UNKNOWN":
                raise ProgramFailed(name, "supervisord could not send it the stop signal")
            # One that ended by itself may come back, and then has to be stopped after all.
            if process.state in status.DOWN_STATES and (process.state != "EXITED" or exited):
                return
            exited = process.state == "EXITED"
            if process.state in status.STOPPABLE:
                (answer,) = yield Batch([_stop_call(name)])
                _check(name, answer, "stop it", rpc.NOT_RUNNING)
            if time.monotonic() > deadline:
                raise ProgramFailed(
                    name,
                    f"it did not stop within {self.request.timeout:g} s (option timeout); "
                    "its stopwaitsecs may be longer than that, or it cannot be killed",
                )

    def _running(self, name: Name) -> Step:
        settings = self._loaded_settings(name)
        limit = min(self.request.timeout, settings.start_limit) if settings else self.request.timeout
        instant = settings is not None and settings.startsecs == 0
        began = time.monotonic()
        first_pid = 0
        died = False
        while True:
            process = yield from self._look(name)
            waited = time.monotonic() - began
            died = died or process.died
            reason = FAILED_STARTS.get(process.state)
            if process.state == "RUNNING":
                first_pid = first_pid or process.pid
                if process.pid != first_pid:
                    reason, died = "it ends at once, and supervisord starts it again and again", True
                elif not instant or waited > SETTLE_SECONDS:
                    return
            elif process.state == "EXITED" and instant and settings and process.exit_status in settings.exitcodes:
                return
            elif process.state == "STOPPED" and process.start:
                reason = "somebody else stopped it in the middle of this task"
            elif waited > limit and not reason:
                reason = f"it is not RUNNING after {limit:g} s ({self._limits(settings)})"
            if reason:
                raise ProgramFailed(name, reason, died)

    def _loaded_settings(self, name: Name) -> ProgramSettings | None:
        """None where the files say something else than what is loaded."""
        stale = name.group in self.snapshot.changed and name.group not in self.plan.actions.updated
        return None if stale else self.snapshot.settings.get(name)

    def _limits(self, settings: ProgramSettings | None) -> str:
        known = f"startsecs={settings.startsecs}, startretries={settings.startretries}, " if settings else ""
        return f"{known}option timeout {self.request.timeout:g}"

    # Failure

    def _report(self, failures: Sequence[ProgramFailed]) -> SupervisorError:
        failures = sorted(failures, key=lambda failure: str(failure.name))
        now = status.all_processes(self.supervisor)
        endings = status.last_endings(self.supervisor, now)
        failed = [now[failure.name] for failure in failures if failure.name in now]
        lines = self.request.log_lines
        tails = status.log_tails(self.supervisor, failed, max(lines, evidence.LINES_TO_READ) if lines else 0)
        past = evidence.read_histories(self.supervisor, now)
        refusals = {failure.name: failure.refusal for failure in failures if failure.refusal}
        ended = [now[failure.name] for failure in failures if failure.name in now and _ended(failure, now)]
        known = evidence.gather(self.supervisor, ended, tails, past, health={}, refusals=refusals)
        reports = [
            _failure(
                failure,
                now.get(failure.name),
                endings.get(failure.name) if failure.died else None,
                tails[failure.name].last(lines) if failure.name in tails else None,
                explain(known[failure.name]) if failure.name in known else [],
            )
            for failure in failures
        ]
        selected = status.those_named(now, self.plan.selected)
        error = SupervisorError(
            f"state {self.plan.state} failed for {', '.join(report['name'] for report in reports)}.\n"
            + "\n".join(_in_words(report) for report in reports)
        )
        error.details = {"failures": reports, "processes": [process.as_result() for process in selected]}
        return error


def _stop_call(name: Name) -> Call:
    return Call("stopProcess", (name.rpc, False))


def _is_fault(answer: Any, code: int) -> bool:
    return isinstance(answer, Fault) and answer.code == code


def _check(name: Name, answer: Any, attempt: str, *harmless: int) -> None:
    if isinstance(answer, Fault) and answer.code not in harmless:
        raise ProgramFailed(name, f"supervisord refused to {attempt}: {answer.text}")


def _ended(failure: ProgramFailed, now: dict[Name, Process]) -> bool:
    """Whether it failed to run; one that can't be stopped has no such cause."""
    return bool(failure.refusal) or failure.died or now[failure.name].state in (*FAILED_STARTS, "BACKOFF")


def _failure(
    failure: ProgramFailed,
    process: Process | None,
    ending: status.Ending | None,
    tails: status.Tails | None,
    causes: list[dict[str, str]],
) -> dict[str, Any]:
    known = process.as_result() if process else {}
    return {
        "name": str(failure.name),
        "state": known.get("state"),
        "reason": failure.reason,
        "spawn_error": known.get("spawn_error"),
        "exit_status": ending.status if ending else known.get("exit_status"),
        "ending": ending.how if ending else None,
        "logfiles": known.get("logfiles"),
        "stdout_tail": tails.stdout if tails else [],
        "stderr_tail": tails.stderr if tails else [],
        "causes": causes,
    }


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
