"""supervisor_process against a real supervisord."""

from __future__ import annotations

import json
import re
import threading
import time
from typing import Any

import pytest
from _supervisor_daemon import (  # noqa: F401
    FAIL,
    IGNORE_TERM,
    SERVE,
    STOP_SLOWLY,
    Daemon,
    changes,
    daemon_fixture,
    own_daemon_fixture,
    shared_daemon_fixture,
    wait_for,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import plan as planning
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import process as acting
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import rpc, status
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.process import Execution, Job, Request
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.rpc import SupervisorError
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.status import Name


def failure(daemon: Daemon, *names: str, check: bool = False, **options: Any) -> SupervisorError:
    with pytest.raises(SupervisorError) as caught:
        daemon.run(*names, check=check, **options)
    return caught.value


# --- states


def test_started_loads_and_starts_what_is_new_and_nothing_else(daemon: Daemon) -> None:
    daemon.program("bystander")
    daemon.program("other")
    daemon.start()
    daemon.program("web", autostart="false")
    daemon.program("also_new")
    daemon.program("other", environment='CHANGED="yes"')
    before = daemon.pids()
    result = daemon.twice("web")
    assert changes(result) == {"added": ["web"], "started": ["web"]}
    assert result["diff"]["before"] == "web: not loaded\n"
    assert result["diff"]["after"] == "web: RUNNING (started)\n"
    after = daemon.pids()
    assert result["processes"][0]["pid"] == after.pop("web")
    assert after == before


def test_started_starts_what_is_down(daemon: Daemon) -> None:
    daemon.program("stopped", autostart="false")
    daemon.program("fatal", 'test -e "$0/ok" || exit 1;' + SERVE, startsecs=1, startretries=0)
    daemon.program("backoff", 'test -e "$0/ok" || exit 1;' + SERVE, startsecs=1, startretries=50)
    daemon.program("bystander")
    daemon.start()
    daemon.until("fatal", "FATAL")
    wait_for(lambda: daemon.processes()["backoff"].spawn_error != "", "failed start of backoff")
    for name in ("fatal", "backoff"):
        (daemon.home(name) / "ok").touch()
    bystander = daemon.pids()["bystander"]
    result = daemon.twice("stopped", "fatal", "backoff")
    assert changes(result) == {"started": ["backoff", "fatal", "stopped"]}
    assert {each["state"] for each in result["processes"]} == {"RUNNING"}
    assert daemon.pids()["bystander"] == bystander


def test_started_sees_a_starting_program_through_and_counts_no_change(daemon: Daemon) -> None:
    daemon.program("web", startsecs=1, autostart="false")
    daemon.start()
    daemon.call("startProcess", "web", False)
    assert not daemon.run("web", check=True)["changed"]
    result = daemon.run("web")
    assert not result["changed"]
    assert result["processes"][0]["state"] == "RUNNING"
    assert daemon.starts("web", 1) == 1


def test_started_restarts_a_changed_program_once(daemon: Daemon) -> None:
    daemon.program("bystander")
    daemon.program("web")
    daemon.program("down", autostart="false")
    daemon.start()
    daemon.starts("web", 1)
    daemon.program("web", environment='TOKEN="s3cr3t"')
    daemon.program("down", autostart="false", environment='TOKEN="s3cr3t"')
    before = daemon.pids()
    result = daemon.twice("web", "down")
    assert changes(result) == {"updated": ["down", "web"], "restarted": ["web"], "started": ["down"]}
    assert result["diff"]["after"] == (
        "down: RUNNING (started, configuration changed)\nweb: RUNNING (restarted, configuration changed)\n"
    )
    assert "s3cr3t" not in json.dumps(result)
    after = daemon.pids()
    assert after["bystander"] == before["bystander"]
    assert after["web"] != before["web"]
    assert daemon.starts("web", 2) == 2
    assert daemon.starts("down", 1) == 1


def test_stopped(daemon: Daemon) -> None:
    daemon.program("bystander")
    daemon.program("web")
    daemon.program("stubborn", IGNORE_TERM, stopwaitsecs=1)
    daemon.program("backoff", FAIL, startsecs=1, startretries=50)
    daemon.start()
    daemon.until("backoff", "BACKOFF")
    daemon.until_ready("stubborn")
    before = daemon.pids()
    began = time.monotonic()
    result = daemon.twice("web", "stubborn", "backoff", state="stopped")
    assert time.monotonic() - began > 1
    assert changes(result) == {"stopped": ["backoff", "stubborn", "web"]}
    assert {each["state"] for each in result["processes"]} == {"STOPPED"}
    assert daemon.pids() == {**before, "web": 0, "stubborn": 0, "backoff": 0}


def test_stopped_waits_for_a_stop_that_somebody_else_began(daemon: Daemon) -> None:
    daemon.program("slow", STOP_SLOWLY)
    daemon.start()
    daemon.until_ready("slow")
    daemon.call("stopProcess", "slow", False)
    result = daemon.run("slow", state="stopped")
    assert not result["changed"]
    assert result["processes"][0]["state"] == "STOPPED"


def test_started_after_a_stop_that_is_still_going_on(daemon: Daemon) -> None:
    daemon.program("slow", STOP_SLOWLY)
    daemon.start()
    daemon.until_ready("slow")
    before = daemon.pids()
    daemon.call("stopProcess", "slow", False)
    assert changes(daemon.run("slow")) == {"started": ["slow"]}
    assert daemon.pids()["slow"] not in (0, before["slow"])


def test_started_goes_by_priority(daemon: Daemon) -> None:
    daemon.start()
    for name, priority in (("a_third", 30), ("b_first", 10), ("c_second", 20)):
        daemon.program(name, priority=priority, autostart="false")
    in_order = ["b_first", "c_second", "a_third"]

    def last_starts() -> list[str]:
        return re.findall(r"spawned: '(\w+)'", (daemon.folder / "s.log").read_text())[-3:]

    names = sorted(in_order)
    daemon.run(*names)
    assert last_starts() == in_order
    daemon.run(*names, state="stopped")
    daemon.run(*names)
    assert last_starts() == in_order
    daemon.run(*names, state="absent")
    daemon.extra = "[group:all]\nprograms=" + ",".join(names)
    daemon.write()
    daemon.run("all")
    assert last_starts() == in_order


def test_stopped_leaves_a_changed_configuration_for_later(daemon: Daemon) -> None:
    daemon.program("web")
    daemon.start()
    daemon.program("web", environment='CHANGED="yes"')
    assert changes(daemon.twice("web", state="stopped")) == {"stopped": ["web"]}
    assert changes(daemon.run("web")) == {"updated": ["web"], "started": ["web"]}


def test_restarted(daemon: Daemon) -> None:
    daemon.program("bystander")
    daemon.program("web")
    daemon.program("changed")
    daemon.program("down", autostart="false")
    daemon.start()
    for name in ("web", "changed"):
        daemon.starts(name, 1)
    daemon.program("changed", environment='CHANGED="yes"')
    before = daemon.pids()
    result = daemon.run("web", "changed", "down", state="restarted", check=True)
    assert daemon.pids() == before
    assert changes(result) == {"updated": ["changed"], "restarted": ["changed", "web"], "started": ["down"]}
    assert changes(daemon.run("web", "changed", "down", state="restarted")) == changes(result)
    after = daemon.pids()
    assert after.pop("bystander") == before.pop("bystander")
    assert all(after[name] and after[name] != pid for name, pid in before.items())
    for name, times in (("web", 2), ("changed", 2), ("down", 1)):
        assert daemon.starts(name, times) == times
    again = daemon.twice("web", "changed", "down", state="restarted", again=True)
    assert changes(again) == {"restarted": ["changed", "down", "web"]}


def test_present_goes_by_autostart(daemon: Daemon) -> None:
    daemon.program("bystander")
    daemon.program("idle", autostart="false")
    daemon.program("stops")
    daemon.start()
    daemon.program("new")
    daemon.program("new_idle", autostart="false")
    daemon.program("stops", autostart="false")
    before = daemon.pids()
    result = daemon.twice("idle", "stops", "new", "new_idle", state="present")
    assert changes(result) == {
        "added": ["new", "new_idle"],
        "updated": ["stops"],
        "started": ["new"],
        "stopped": ["stops"],
    }
    after = daemon.states()
    assert after == {
        "bystander": "RUNNING",
        "idle": "STOPPED",
        "new": "RUNNING",
        "new_idle": "STOPPED",
        "stops": "STOPPED",
    }
    assert daemon.pids()["bystander"] == before["bystander"]


def test_absent_stops_and_unloads(daemon: Daemon) -> None:
    daemon.program("bystander")
    daemon.program("gone")
    daemon.program("kept_in_files")
    daemon.start()
    daemon.remove("gone")
    before = daemon.pids()
    result = daemon.twice("gone", "kept_in_files", "never_was", state="absent")
    assert changes(result) == {"removed": ["gone", "kept_in_files"], "stopped": ["gone", "kept_in_files"]}
    assert result["diff"]["after"] == "gone: not loaded\nkept_in_files: not loaded\n"
    assert daemon.pids() == {"bystander": before["bystander"]}


FLAPPING = {"autorestart": "true", "numprocs": 5, "process_name": "f%(process_num)d"}


def test_programs_that_always_come_back_can_be_stopped_all_the_same(daemon: Daemon) -> None:
    daemon.program("flaps", "sleep 0.1", **FLAPPING)
    daemon.start()
    daemon.run("flaps", state="stopped")
    assert set(daemon.states().values()) == {"STOPPED"}
    assert "exit status 0" in str(failure(daemon, "flaps"))
    assert daemon.run("flaps", state="absent")["removed"] == ["flaps"]
    assert daemon.states() == {}


def test_a_program_that_comes_back_is_not_taken_for_exited(daemon: Daemon) -> None:
    daemon.program("flaps", "sleep 0.5", **{**FLAPPING, "numprocs": 20})
    daemon.start()
    supervisor = rpc.connect(daemon.connection())
    states = set()
    began = time.monotonic()
    while time.monotonic() < began + 1:
        states.update(process.state for process in status.all_processes(supervisor).values())
    assert "EXITED" not in states


def execution(daemon: Daemon, request: Request) -> Execution:
    supervisor = rpc.connect(daemon.connection())
    names = status.parse_names(request.names)
    snapshot = planning.take_snapshot(supervisor, names, reread=False)
    return Execution(supervisor, snapshot, planning.make_plan(snapshot, request.state, names), request, "")


def test_a_program_that_came_back_after_its_stop_is_stopped_again(daemon: Daemon) -> None:
    daemon.program("web")
    daemon.start()
    stopping = execution(daemon, Request(["web"], "stopped", timeout=2))
    assert stopping.drive([Job("stop", Name("web", "web"), asks=False)]) == []
    assert daemon.states() == {"web": "STOPPED"}


def test_a_group_with_a_program_that_came_back_is_unloaded_once_it_is_down(daemon: Daemon) -> None:
    daemon.program("web")
    daemon.start()
    unloading = execution(daemon, Request(["web"], "absent"))
    unloading.snapshot.processes.clear()
    stopper = threading.Timer(0.3, daemon.call, ["stopProcess", "web", False])
    stopper.start()
    assert unloading.drive([Job("unload", Name("web"))]) == []
    stopper.join()
    assert daemon.states() == {}


def test_a_program_that_came_back_before_its_group_was_unloaded_is_stopped_again(daemon: Daemon) -> None:
    daemon.program("web")
    daemon.start()
    down = Job("stop", Name("web", "web"), asks=False, ended=True)
    assert execution(daemon, Request(["web"], "absent")).drive([down, Job("unload", Name("web"), [down])]) == []
    assert daemon.states() == {}


def test_a_group_stays_loaded_when_one_of_it_does_not_stop(daemon: Daemon) -> None:
    daemon.program("stubborn", IGNORE_TERM, stopwaitsecs=60)
    daemon.program("web")
    daemon.extra = "[group:both]\nprograms=stubborn,web"
    daemon.start()
    daemon.until_ready("stubborn")
    error = failure(daemon, "both", state="absent", timeout=2)
    assert [report["name"] for report in error.details["failures"]] == ["both:stubborn"]
    assert (error.details["removed"], error.details["stopped"]) == ([], ["both:web"])
    assert daemon.states() == {"both:stubborn": "STOPPING", "both:web": "STOPPED"}


def test_signalled(daemon: Daemon) -> None:
    traps = 'trap "echo hup >> $0/got" HUP; trap "echo usr2 >> $0/got" USR2; touch $0/got; '
    for name in ("web", "bystander"):
        daemon.program(name, traps + "while :; do sleep 0.05; done")
    daemon.start()
    got = {name: daemon.home(name) / "got" for name in ("web", "bystander")}
    wait_for(lambda: all(file.exists() for file in got.values()), "traps")
    before = daemon.pids()
    result = daemon.run("web", state="signalled", signal="HUP", check=True)
    assert result["changed"]
    assert result["diff"]["after"] == "web: RUNNING (sent SIGHUP)\n"
    assert changes(daemon.run("web", state="signalled", signal="12")) == {"signalled": ["web"]}
    # Had the check sent its signal, it would have come first.
    wait_for(lambda: got["web"].read_text() != "", "signal")
    assert daemon.run("web", state="signalled", signal="sighup")["changed"]
    wait_for(lambda: got["web"].read_text() == "usr2\nhup\n", "both signals")
    assert got["bystander"].read_text() == ""
    assert daemon.pids() == before


def test_signalled_needs_a_process_and_a_signal(daemon: Daemon) -> None:
    daemon.program("down", autostart="false")
    daemon.start()
    assert "down is STOPPED" in str(failure(daemon, "down", state="signalled", signal="HUP"))
    assert "NOSUCH" in str(failure(daemon, "down", state="signalled", signal="NOSUCH"))
    assert "999" in str(failure(daemon, "down", state="signalled", signal="999", check=True))
    assert "option signal" in str(failure(daemon, "down", state="signalled"))


# --- groups


GROUP = {"numprocs": 2, "process_name": "%(program_name)s_%(process_num)02d"}


def test_one_process_of_a_group(daemon: Daemon) -> None:
    daemon.program("web", **GROUP)
    daemon.start()
    before = daemon.pids()
    assert changes(daemon.run("web:web_01", state="restarted")) == {"restarted": ["web:web_01"]}
    after = daemon.pids()
    assert after["web:web_00"] == before["web:web_00"]
    assert after["web:web_01"] != before["web:web_01"]
    assert changes(daemon.twice("web:web_00", state="stopped")) == {"stopped": ["web:web_00"]}
    assert daemon.pids()["web:web_01"] == after["web:web_01"]
    assert changes(daemon.twice("web:web_00")) == {"started": ["web:web_00"]}
    assert daemon.pids()["web:web_01"] == after["web:web_01"]


def test_a_changed_group_is_left_alone_when_one_process_is_named(daemon: Daemon) -> None:
    daemon.program("web", **GROUP)
    daemon.start()
    daemon.program("web", **{**GROUP, "numprocs": 3})
    before = daemon.pids()
    result = daemon.run("web:web_00")
    assert not result["changed"]
    assert "group web changed and is not loaded" in result["warnings"][0]
    assert daemon.pids() == before
    assert "name web" in str(failure(daemon, "web:web_02"))
    assert "name web for state absent" in str(failure(daemon, "web:web_00", state="absent"))


def test_a_grown_group_says_that_all_of_it_restarts(daemon: Daemon) -> None:
    daemon.program("web", **GROUP)
    daemon.start()
    daemon.program("web", **{**GROUP, "numprocs": 3})
    before = daemon.pids()
    result = daemon.twice("web")
    assert changes(result) == {
        "updated": ["web"],
        "restarted": ["web:web_00", "web:web_01"],
        "started": ["web:web_02"],
    }
    (warning,) = result["warnings"]
    assert "new in it: web:web_02" in warning
    assert "web:web_00, web:web_01" in warning
    assert not set(daemon.pids().values()) & set(before.values())


def test_all_processes_named_one_by_one_are_the_group(daemon: Daemon) -> None:
    daemon.program("web", **GROUP)
    daemon.start()
    daemon.program("web", **GROUP, environment='CHANGED="yes"')
    assert daemon.run("web:web_00", "web:web_01")["updated"] == ["web"]
    assert changes(daemon.twice("web:*", state="absent"))["removed"] == ["web"]


def test_a_shrunk_group_and_one_of_several_programs(daemon: Daemon) -> None:
    daemon.program("one")
    daemon.program("two")
    daemon.extra = "[group:both]\nprograms=one,two"
    daemon.start()
    daemon.program("three")
    daemon.extra = "[group:both]\nprograms=two,three"
    daemon.write()
    assert "Did you mean: both:two" in str(failure(daemon, "two"))
    result = daemon.twice("both")
    assert changes(result) == {
        "updated": ["both"],
        "restarted": ["both:two"],
        "started": ["both:three"],
        "stopped": ["both:one"],
    }
    assert "both:one: not loaded\n" in result["diff"]["after"]
    assert "no longer in it: both:one" in result["warnings"][0]
    # "one" is a program of its own now, and not named.
    assert set(daemon.pids()) == {"both:two", "both:three"}


def test_a_group_without_processes(daemon: Daemon) -> None:
    daemon.start()
    daemon.program("none", numprocs=0)
    result = daemon.twice("none")
    assert changes(result) == {"added": ["none"]}
    assert "no process" in result["warnings"][0]
    assert changes(daemon.twice("none", state="absent")) == {"removed": ["none"]}


# --- names and configuration


def test_names_that_are_nowhere(daemon: Daemon) -> None:
    daemon.program("web", **GROUP)
    daemon.start()
    before = daemon.pids()
    for check in (True, False):
        for state in ("started", "restarted", "present"):
            assert "supervisord knows no such program or group: wbe" in str(
                failure(daemon, "web", "wbe", state=state, check=check)
            )
    assert "Did you mean: web:web_01" in str(failure(daemon, "web_01"))
    assert "web:web_00, web:web_01" in str(failure(daemon, "web:web_07"))
    assert "wbe" in str(failure(daemon, "wbe", state="signalled", signal="HUP"))
    stopped = daemon.run("wbe", state="stopped")
    assert not stopped["changed"]
    assert "wbe" in stopped["warnings"][0]
    for bad in ("", ":web", "we\x00b", "web\n"):
        assert "is no name" in str(failure(daemon, bad))
    assert daemon.pids() == before


def test_a_program_that_left_the_files_is_not_started(daemon: Daemon) -> None:
    daemon.program("web")
    daemon.program("gone")
    daemon.start()
    daemon.remove("gone")
    daemon.program("web", environment='CHANGED="yes"')
    before = daemon.pids()
    for state in ("started", "restarted", "present"):
        error = str(failure(daemon, "web", "gone", state=state))
        assert "gone: still loaded, but there is no such program" in error
        assert "absent" in error
    assert daemon.pids() == before


ODD_NAMES = ["ünï-cøde", "a&b<c>", "quo'te\"s", "do$llar+p.us@", "back\\slash", "per%%cent", "semi;colon#", "日本"]


def test_odd_names(daemon: Daemon) -> None:
    daemon.start()
    for name in ODD_NAMES:
        daemon.program(name)
    result = daemon.twice(*ODD_NAMES)
    assert result["started"] == sorted(ODD_NAMES)
    assert daemon.twice(*ODD_NAMES, state="absent")["removed"] == sorted(ODD_NAMES)


SECRET_LINES = [
    ('environment=KEY="hunter2%oops"', "'environment'"),
    ('environment=KEY="%(ENV_NO_SUCH)s hunter2"', "ENV_NO_SUCH"),
    ('environment=KEY="hunter2","b"', "key/value pairs"),
    ('environment=KEY="one",\nOTHER hunter2', "[line"),
    ("user=no_such_user", "Invalid user name no_such_user"),
    ("stdout_logfile=/no/such/folder/log", "/no/such/folder/log"),
]


def test_broken_configuration(daemon: Daemon) -> None:
    daemon.program("web")
    daemon.start()
    before = daemon.pids()
    for line, reason in SECRET_LINES:
        daemon.program("web", environment='CHANGED="yes"')
        daemon.extra = f"[program:broken]\ncommand=/bin/true\n{line}"
        daemon.write()
        for check in (True, False):
            error = str(failure(daemon, "web", check=check))
            assert "CANT_REREAD" in error
            assert reason in error
            assert "hunter2" not in error
    assert daemon.pids() == before
    # Neither of these needs the files.
    assert daemon.twice("web", state="stopped")["stopped"] == ["web"]
    assert daemon.twice("web", state="absent")["removed"] == ["web"]


def test_a_group_that_cannot_be_loaded_again(daemon: Daemon) -> None:
    daemon.program("fcgi", section="fcgi-program", socket=f"unix://{daemon.folder}/fcgi.sock")
    daemon.start()
    daemon.program("fcgi", section="fcgi-program", socket=f"unix://{daemon.folder}/no/such/fcgi.sock")
    error = failure(daemon, "fcgi")
    assert "could not load it, so it is not loaded now" in str(error)
    assert "Could not create FastCGI socket" in str(error)
    assert error.details["removed"] == error.details["stopped"] == ["fcgi"]
    assert error.details["updated"] == error.details["restarted"] == []


# --- failing programs


def test_exit_at_once(daemon: Daemon) -> None:
    daemon.program("good")
    daemon.start()
    daemon.program("bad", FAIL, startsecs=1, startretries=1)
    error = failure(daemon, "good", "bad", log_lines=1)
    text = str(error)
    assert "bad: supervisord gave up starting it. state FATAL; Exited too quickly" in text
    assert "exit status 3" in text
    assert "about to fail" in text
    assert str(daemon.processes()["bad"].stderr_log) in text
    (report,) = error.details["failures"]
    assert (report["name"], report["state"], report["exit_status"]) == ("bad", "FATAL", 3)
    assert report["stderr_tail"] == ["about to fail"]
    assert error.details["added"] == ["bad"]
    assert error.details["changed"]
    assert daemon.starts("bad", 2) == 2


def test_programs_that_end_in_other_ways(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine a program may need longer to come to its end than it is watched.
    monkeypatch.setattr(acting, "SETTLE_SECONDS", 2)
    daemon.program("killed", "kill -KILL $$", startsecs=1, startretries=0, autostart="false")
    daemon.program("instant", "sleep 0.3;" + FAIL, autorestart="false", autostart="false")
    daemon.program("loops", "exit 5", autorestart="true", autostart="false")
    daemon.program("oneshot", "true", autorestart="false", autostart="false")
    daemon.program("no_command", command="/no/such/command", autostart="false")
    daemon.program("not_executable", command="/etc/passwd", autostart="false")
    daemon.program("no_folder", directory="/no/such/folder", startsecs=1, startretries=0, autostart="false")
    daemon.start()
    names = [section.partition(":")[2] for section in daemon.programs]
    error = failure(daemon, *names)
    reports = {report["name"]: report for report in error.details["failures"]}
    assert set(reports) == set(names) - {"oneshot"}
    assert error.details["started"] == ["oneshot"]
    assert reports["killed"]["ending"] == "terminated by SIGKILL"
    assert reports["instant"]["state"] == "EXITED"
    assert reports["instant"]["exit_status"] == 3
    assert "again and again" in reports["loops"]["reason"] or "it ended by itself" in reports["loops"]["reason"]
    assert reports["loops"]["exit_status"] == 5
    assert "can't find command '/no/such/command'" in reports["no_command"]["reason"]
    assert "not executable" in reports["not_executable"]["reason"]
    assert any("couldn't chdir to /no/such/folder" in line for line in reports["no_folder"]["stderr_tail"])
    for fact in ("terminated by SIGKILL", "exit status 3", "/no/such/command", "couldn't chdir", "about to fail"):
        assert fact in str(error)


def test_starting_is_not_started(daemon: Daemon) -> None:
    daemon.program("slow", startsecs=60, autostart="false")
    daemon.program("retries", FAIL, startsecs=1, startretries=500, autostart="false")
    daemon.start()
    began = time.monotonic()
    error = failure(daemon, "slow", "retries", timeout=0.5)
    assert time.monotonic() - began < 4
    states = {report["name"]: report["state"] for report in error.details["failures"]}
    assert states["slow"] == "STARTING"
    assert states["retries"] in ("BACKOFF", "STARTING")
    assert "startsecs=60" in str(error)
    assert "option timeout 0.5" in str(error)
    assert error.details["started"] == []


def test_a_stop_that_takes_too_long(daemon: Daemon) -> None:
    daemon.program("stubborn", IGNORE_TERM, stopwaitsecs=60)
    daemon.start()
    daemon.until_ready("stubborn")
    error = failure(daemon, "stubborn", state="stopped", timeout=0.5)
    assert "did not stop within 0.5 s" in str(error)
    assert "state STOPPING" in str(error)


def test_an_old_ending_is_not_reported_as_the_reason(daemon: Daemon) -> None:
    daemon.program("web", FAIL, startsecs=1, startretries=0)
    daemon.start()
    daemon.until("web", "FATAL")
    daemon.program("web", startsecs=60)
    (report,) = failure(daemon, "web", timeout=0.5).details["failures"]
    assert report["state"] == "STARTING"
    assert report["exit_status"] is None
    assert report["ending"] is None


def test_an_ending_that_may_be_another_groups_is_not_reported(daemon: Daemon) -> None:
    for name in ("one", "two"):
        daemon.program(name, FAIL, process_name="same", startsecs=1, startretries=0, autostart="false")
    daemon.start()
    reports = failure(daemon, "one", "two").details["failures"]
    assert [report["name"] for report in reports] == ["one:same", "two:same"]
    assert [report["ending"] for report in reports] == [None, None]


def test_a_restart_that_fails_says_that_the_program_is_down(daemon: Daemon) -> None:
    daemon.program("web", 'test -e "$0/broken" && exit 3;' + SERVE, startsecs=1, startretries=0)
    daemon.program("good")
    daemon.start()
    daemon.until("web", "RUNNING")
    (daemon.home("web") / "broken").touch()
    error = failure(daemon, "web", "good", state="restarted")
    assert error.details["changed"]
    assert error.details["stopped"] == ["web"]
    assert error.details["restarted"] == ["good"]


def test_supervisord_dies_in_mid_call(own_daemon: Daemon) -> None:
    own_daemon.program("slow", startsecs=30, autostart="false")
    own_daemon.program("quick", autostart="false")
    own_daemon.start()
    killer = threading.Timer(0.8, own_daemon.kill)
    killer.start()
    error = failure(own_daemon, "slow", "quick")
    killer.join()
    assert isinstance(error, rpc.ConnectionLost)
    assert "closed the connection in the middle of getProcessInfo" in str(error)
    assert error.details["started"] == ["quick"]


# --- many at once


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was sent, except the looks at how far the programs are, whose number is a matter of time."""
    sent: list[str] = []
    post = rpc.Supervisor._post

    def counting(self: rpc.Supervisor, body: bytes, method: str) -> bytes:
        if method != "getProcessInfo":
            sent.append(method)
        return post(self, body, method)

    monkeypatch.setattr(rpc.Supervisor, "_post", counting)
    return sent


def test_fifty_programs_cost_little_more_than_one(daemon: Daemon, requests: list[str]) -> None:
    for number in range(50):
        daemon.program(f"p{number}", "exec sleep 1000", autostart="false")
    daemon.program("single", "exec sleep 1000", autostart="false")
    daemon.start()
    requests.clear()
    began = time.monotonic()
    daemon.run("single")
    one, one_took = len(requests), time.monotonic() - began
    requests.clear()
    began = time.monotonic()
    result = daemon.run(*(f"p{number}" for number in range(50)))
    assert len(result["started"]) == 50
    assert len(requests) <= one + 1
    # One after the other they would take twenty seconds.
    assert time.monotonic() - began < one_took + 10


def test_two_hundred_programs(daemon: Daemon, requests: list[str]) -> None:
    names = [f"p{number}" for number in range(200)]
    daemon.start()
    for name in names:
        daemon.programs[f"program:{name}"] = {"command": "/bin/sleep 1000", "startsecs": 0, "autostart": "false"}
    daemon.write()
    requests.clear()
    assert len(daemon.run(*names)["started"]) == 200
    assert len(daemon.run(*names, state="absent")["removed"]) == 200
    assert len(requests) < 20


# --- load, prune, one_by_one, require_running, all


def test_without_loading_the_files_stay_unread(daemon: Daemon) -> None:
    daemon.program("web")
    daemon.program("down", autostart="false")
    daemon.start()
    daemon.program("web", environment='CHANGED="yes"')
    daemon.program("new")
    before = daemon.pids()
    assert changes(daemon.twice("web", "down", load=False)) == {"started": ["down"]}
    assert daemon.pids()["web"] == before["web"]
    result = daemon.twice("web", again=True, state="restarted", load=False)
    assert changes(result) == {"restarted": ["web"]}
    assert "supervisord knows no such program or group: new" in str(failure(daemon, "new", load=False))
    # The change is still there to be loaded.
    assert changes(daemon.run("web")) == {"updated": ["web"], "restarted": ["web"]}


def test_present_loads_by_its_meaning(daemon: Daemon) -> None:
    daemon.start()
    assert "load must be true" in str(failure(daemon, "web", state="present", load=False))


def test_prune_unloads_what_is_in_no_file(daemon: Daemon) -> None:
    daemon.program("web")
    daemon.program("old")
    daemon.program("idle", autostart="false")
    daemon.program("none", numprocs=0, process_name="%(process_num)s")
    daemon.start()
    before = daemon.pids()
    for name in ("old", "idle", "none"):
        daemon.remove(name)
    result = daemon.twice("web", state="present", prune=True)
    assert changes(result) == {"removed": ["idle", "none", "old"], "stopped": ["old"]}
    assert "old: not loaded\n" in result["diff"]["after"]
    assert daemon.pids() == {"web": before["web"]}


def test_prune_needs_no_name(daemon: Daemon) -> None:
    daemon.program("old")
    daemon.start()
    daemon.remove("old")
    assert changes(daemon.twice(state="present", prune=True)) == {"removed": ["old"], "stopped": ["old"]}


def test_prune_needs_the_files(daemon: Daemon) -> None:
    daemon.start()
    assert "prune needs the configuration files" in str(failure(daemon, state="stopped", prune=True))


def test_one_by_one(daemon: Daemon) -> None:
    """Never are two down at once: each writes when it starts and when it stops."""
    log = daemon.folder / "programs" / "turns"
    script = f"trap 'echo down >> {log}; exit' TERM; sleep 0.2; echo up >> {log}; while :; do sleep 0.05; done"
    daemon.program("pool", script, numprocs=3, process_name="p%(process_num)s", startsecs=1)
    daemon.start()
    wait_for(lambda: log.exists() and log.read_text().split() == ["up"] * 3, "all are up")
    before = daemon.pids()
    log.write_text("")
    result = daemon.run("pool", state="restarted", one_by_one=True)
    assert changes(result) == {"restarted": ["pool:p0", "pool:p1", "pool:p2"]}
    assert not set(before.values()) & set(daemon.pids().values())
    assert log.read_text().split() == ["down", "up"] * 3


def test_one_by_one_ends_at_the_first_that_fails(daemon: Daemon) -> None:
    flag = daemon.folder / "programs" / "broken"
    script = f"[ -e {flag} ] && exit 7; exec sleep 1000"
    daemon.program("pool", script, numprocs=3, process_name="p%(process_num)s", startsecs=1, startretries=0)
    daemon.start()
    wait_for(lambda: set(daemon.states().values()) == {"RUNNING"}, "all run")
    before = daemon.pids()
    flag.touch()
    error = failure(daemon, "pool", state="restarted", one_by_one=True)
    assert [each["name"] for each in error.details["failures"]] == ["pool:p0"]
    after = daemon.pids()
    assert {name: after[name] for name in ("pool:p1", "pool:p2")} == {
        name: before[name] for name in ("pool:p1", "pool:p2")
    }


def test_all_means_all(daemon: Daemon) -> None:
    daemon.program("a")
    daemon.program("b", numprocs=2, process_name="b%(process_num)s")
    daemon.program("c", autostart="false")
    daemon.start()
    daemon.program("new")
    assert changes(daemon.twice("all")) == {"added": ["new"], "started": ["c", "new"]}
    result = daemon.twice("all", again=True, state="signalled", signal="USR1")
    assert result["signalled"] == ["a", "b:b0", "b:b1", "c", "new"]
    daemon.twice("all", state="stopped")
    assert set(daemon.states().values()) == {"STOPPED"}
    assert daemon.twice("all", state="absent")["removed"] == ["a", "b", "c", "new"]


def test_where_supervisord_need_not_run(own_daemon: Daemon) -> None:
    own_daemon.program("web")
    for check in (True, False):
        result = own_daemon.run("web", check=check, require_running=False)
        assert not result["changed"]
        assert "supervisord is not running" in result["skipped_reason"]


def test_one_or_the_other(daemon: Daemon) -> None:
    daemon.program("a_blue", autostart="false")
    daemon.program("b_blue")
    daemon.program("b_green")
    daemon.start()
    assert changes(daemon.twice("a_blue|a_green", load=False)) == {"started": ["a_blue"]}
    assert changes(daemon.run("b_blue|b_green", state="stopped")) == {"stopped": ["b_blue", "b_green"]}
    assert "no such program or group: c_blue" in str(failure(daemon, "c_blue|c_green"))


def test_all_but_some(daemon: Daemon) -> None:
    for name in ("a", "b", "c"):
        daemon.program(name)
    daemon.start()
    before = daemon.pids()
    assert daemon.run("all", state="restarted", exclude=["b", "nowhere"])["restarted"] == ["a", "c"]
    assert daemon.pids()["b"] == before["b"]
