"""The move between two slots, with a real supervisord, real servers and real sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from _slot_app import Host, go, links
from _supervisor_daemon import Daemon, daemon_fixture, shared_daemon_fixture, wait_for  # noqa: F401
from ansible_collections.asgiops.fastapi_host.plugins.action import release_slot
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files.file_set import Item
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.processes import unix_sockets
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots import ledger, probe
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots import lock as locks
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.ledger import LedgerError
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.lock import Locked, LostLock
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.move import Command
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.slots import SlotError
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.settings import EnvironmentSettings

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="files of the slots are root's")


@pytest.fixture
def host(daemon: Daemon) -> Host:
    return Host(daemon)


@pytest.fixture
def served(host: Host) -> Host:
    """Release one is live, in blue."""
    host.release("one")
    host.deploy("one", text="first")
    return host


def answer(host: Host) -> dict:
    found = probe.ask(str(host.paths.live_link), "/", "x", 5)
    assert found.status == 200, found
    return json.loads(found.text)


def entries(host: Host) -> list[tuple[str, str, str]]:
    return [(each.action, each.release, each.result) for each in ledger.read(host.paths.ledger)]


def is_clean(host: Host, slot: str) -> None:
    """Only this slot is there, by every account."""
    assert links(host.paths) == slot
    assert host.daemon.states() == {f"shop_{slot}": "RUNNING"}
    assert [path.name for path in host.paths.programs.iterdir()] == [f"shop_{slot}.ini"]
    assert sorted(path.name for path in host.paths.etc.iterdir()) == [slot]
    assert f"{slot}/app.sock" in host.paths.tmpfiles.read_text()
    assert not (host.paths.app / "deploy.lock").exists()
    # What is loaded is what is in the files: an update by hand finds nothing to do.
    assert host.daemon.call("reloadConfig") == [[[], [], []]]


def test_the_first_deploy_fills_blue(served: Host) -> None:
    assert answer(served)["text"] == "first"
    is_clean(served, "blue")
    assert entries(served) == [("deploy", "one", "good")]
    assert os.readlink(served.paths.app / "current") == "releases/one"


def test_nothing_to_do_changes_nothing_and_takes_no_lock(served: Host) -> None:
    pids = served.daemon.pids()
    plan = served.deploy("one", text="first")
    assert plan["changed"] is False and plan["differences"] == []
    assert served.daemon.pids() == pids
    assert entries(served) == [("deploy", "one", "good")]
    assert not (served.paths.app / "deploy.lock").exists()


def test_a_check_reports_and_changes_nothing(served: Host) -> None:
    served.release("two")
    before = sorted(str(path) for path in served.root.rglob("*"))
    plan = served.move(served.wanted("two", text="second")).run("plan", check_mode=True)
    assert plan["changed"] and "release one -> two" in plan["differences"]
    assert sorted(str(path) for path in served.root.rglob("*")) == before


def test_releases_alternate_between_the_slots(served: Host) -> None:
    served.release("two")
    served.deploy("two", text="second")
    assert answer(served)["text"] == "second"
    is_clean(served, "green")
    served.deploy("two", text="third")
    assert answer(served)["text"] == "third"
    is_clean(served, "blue")
    assert [each[2] for each in entries(served)] == ["good"] * 3


@pytest.mark.parametrize("drift", ["settings", "program", "stopped", "killed", "environment"])
def test_drift_of_the_live_slot_is_a_deploy(served: Host, drift: str) -> None:
    paths = served.paths
    if drift == "settings":
        (paths.etc / "blue" / "settings.json").write_text("{}")
    elif drift == "program":
        paths.program_file("blue").write_text("[program:shop_blue]\ncommand=/bin/true\n")
    elif drift == "stopped":
        served.daemon.call("stopProcess", "shop_blue:shop_blue")
    elif drift == "killed":
        served.daemon.call("stopProcess", "shop_blue:shop_blue")
        served.daemon.call("removeProcessGroup", "shop_blue")
    else:
        (paths.release("one") / ".venv-0123456789ab" / ".asgiops-complete.json").unlink()
        served.release("two")
    plan = served.deploy("two" if drift == "environment" else "one", text="first")
    assert plan["move"], plan
    assert answer(served)["text"] == "first"
    is_clean(served, "green")


def test_a_lost_link_is_put_back_without_a_move(served: Host) -> None:
    pids = served.daemon.pids()
    served.paths.live_link.unlink()
    plan = served.deploy("one", text="first")
    assert plan["changed"] and not plan["move"]
    assert served.daemon.pids() == pids
    is_clean(served, "blue")


BAD = {
    "check": ({"bad_check": True}, "bad settings"),
    "start": ({"crash": "no database"}, "cannot start: no database"),
    "death": ({"dies_after": 1.4}, "(ended by itself|a worker of it .* ended within|any more)"),
    "status": ({"status": 500, "why": "no table"}, "status 500"),
    "hang": ({"hang": True}, "no answer in"),
    "worker": ({"worker_dies_after": 1.4}, "(a worker of it .* ended within|any more)"),
    "later": ({"bad_after": 1.3}, "any more"),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_a_bad_release_never_goes_live(served: Host, kind: str) -> None:
    settings, message = BAD[kind]
    pid = answer(served)["pid"]
    served.release("two")
    with pytest.raises(SlotError, match=message):
        served.deploy("two", text="second", health_period=2, **settings)
    assert answer(served)["pid"] == pid
    is_clean(served, "blue")
    assert entries(served) == [("deploy", "one", "good"), ("deploy", "two", "bad")]
    # And the next good one needs no help.
    served.release("three")
    served.deploy("three", text="third")
    assert answer(served)["text"] == "third"
    is_clean(served, "green")


def test_a_bad_first_release_leaves_nothing(host: Host) -> None:
    host.release("one")
    with pytest.raises(SlotError):
        host.deploy("one", status=500)
    assert host.daemon.states() == {}
    assert not host.paths.live_link.is_symlink()
    assert list(host.paths.programs.iterdir()) == []


def test_the_reason_in_the_ledger_has_no_secret(served: Host) -> None:
    served.release("two")
    with pytest.raises(SlotError):
        served.deploy("two", crash="password hunter2 is wrong", redact=["hunter2"])
    assert "hunter2" not in served.paths.ledger.read_text()


def test_a_soak_turns_back(served: Host) -> None:
    pid = answer(served)["pid"]
    served.release("two")
    with pytest.raises(SlotError, match="after it went live"):
        served.deploy("two", bad_after=3, soak_seconds=5)
    assert answer(served)["pid"] == pid
    is_clean(served, "blue")
    assert entries(served)[-1] == ("deploy", "two", "bad")


def test_a_soak_tolerates_what_it_may(served: Host) -> None:
    served.release("two")
    served.deploy("two", bad_after=3, soak_seconds=2.5, soak_failures=9)
    is_clean(served, "green")


def test_a_proxy_that_does_not_reach_the_app_turns_back(served: Host) -> None:
    pid = answer(served)["pid"]
    served.release("two")
    with _proxy(502) as url, pytest.raises(SlotError, match="does not reach"):
        served.deploy("two", text="second", proxy_url=url)
    assert answer(served)["pid"] == pid
    with _proxy(404, f"fastapi_probe-shop unix:{served.paths.live_link}") as url:
        served.deploy("two", text="second", proxy_url=url)
    is_clean(served, "green")


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ("", "another server than the app's answered"),
        ("fastapi_probe-other unix:/x", r"the server of another app answered \(other\)"),
        ("fastapi_probe-shop unix:/run/old.sock", "nginx asked unix:/run/old.sock"),
    ],
)
def test_an_answer_of_somebody_elses_server_is_no_proof(served: Host, claim: str, reason: str) -> None:
    served.release("two")
    with _proxy(200, claim) as url, pytest.raises(SlotError, match=reason) as refused:
        served.deploy("two", text="second", proxy_url=url)
    assert "release_proxy_url" in str(refused.value)
    assert answer(served)["text"] == "first"
    is_clean(served, "blue")


class _proxy:
    """Something that answers every request with one status, and says whom it asked."""

    def __init__(self, status: int, reached: str = "") -> None:
        self.status, self.reached = status, reached

    def __enter__(self) -> str:
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        return f"http://127.0.0.1:{self.server.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                client, _address = self.server.accept()
            except OSError:
                return
            with client:
                number = re.search(r"X-Fastapi-Probe: (\w+)", client.recv(4096).decode())
                proof = f"X-Fastapi-Probe: {number[1]} {self.reached}\r\n" if number and self.reached else ""
                head = f"HTTP/1.1 {self.status} x\r\nContent-Length: 0\r\nConnection: close\r\n"
                client.sendall(f"{head}{proof}\r\n".encode())

    def __exit__(self, *_error: object) -> None:
        self.server.close()


def test_the_old_slot_waits_for_its_last_connection(served: Host) -> None:
    served.release("two")
    old = _connected(served)
    closer = threading.Timer(1.0, old.close)
    move = served.move(served.wanted("two", text="second"), drain_timeout=20)
    go(move, "promote")
    assert served.daemon.states() == {"shop_blue": "RUNNING", "shop_green": "RUNNING"}
    closer.start()
    began = time.monotonic()
    finalize = move.run("finalize")
    assert finalize["dropped"] == 0
    assert 0.8 < time.monotonic() - began < 8
    is_clean(served, "green")


def test_the_drain_has_a_limit(served: Host) -> None:
    served.release("two")
    with _connected(served):
        move = served.move(served.wanted("two", text="second"), drain_timeout=1)
        go(move, "promote")
        assert move.run("finalize")["dropped"] == 1
    is_clean(served, "green")


def _connected(host: Host) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(host.paths.live_link))
    return client


# Runs that are cut off


@pytest.mark.parametrize("stage", ["configure", "start", "promote"])
@pytest.mark.parametrize("boot", [False, True], ids=["", "boot"])
def test_a_run_that_was_cut_off_is_completed_by_the_next(served: Host, stage: str, boot: bool) -> None:
    served.release("two")
    served.deploy("two", "killed", upto=stage, text="second")
    assert answer(served)["text"] == ("second" if stage == "promote" else "first")
    if boot:
        _reboot(served)
        assert answer(served)["text"] == ("second" if stage == "promote" else "first")
    with pytest.raises(Locked, match=r"me .* on here.*deploy of release two"):
        served.deploy("two", "other", text="second")
    move = served.move(served.wanted("two", text="second"), "other")
    plan = move.run("plan", dead_run="killed")
    assert plan["move"] is (stage != "promote")
    for each in ["configure", "start", "promote", "finalize"] if plan["move"] else ["promote", "finalize"]:
        move.run(each)
    assert answer(served)["text"] == "second"
    is_clean(served, links(served.paths))
    assert entries(served) == [("deploy", "one", "good"), ("deploy", "two", "good")]


def _reboot(host: Host) -> None:
    """supervisord restarts, what is in /run is gone, and tmpfiles.d makes the link again."""
    host.daemon.kill()
    for path in [*host.paths.run.rglob("*.sock")]:
        path.unlink()
    for line in host.paths.tmpfiles.read_text().splitlines():
        if line.startswith("L "):
            _kind, path, *_dashes, target = line.split()
            Path(path).symlink_to(target)
    host.daemon.start()
    slot = links(host.paths)
    wait_for(lambda: host.daemon.states().get(f"shop_{slot}") == "RUNNING", "the live slot is back")
    wait_for(lambda: probe.ask(str(host.paths.live_link), "/", "x", 1).status == 200, "an answer")


def test_a_run_cut_off_between_the_flip_and_its_confirmation_boots_into_the_old(served: Host) -> None:
    served.release("two")
    move = served.move(served.wanted("two", text="second"), "killed")
    go(move, "start")
    move._point_to("green")
    assert answer(served)["text"] == "second"
    _reboot(served)
    assert answer(served)["text"] == "first"
    other = served.move(served.wanted("two", text="second"), "other")
    assert other.run("plan", dead_run="killed")["move"]
    for stage in ["configure", "start", "promote", "finalize"]:
        other.run(stage)
    is_clean(served, "green")


def test_another_version_can_follow_a_run_that_was_cut_off(served: Host) -> None:
    served.release("two")
    served.deploy("two", "killed", upto="promote", text="second")
    served.release("three")
    move = served.move(served.wanted("three", text="third"), "other")
    move.run("plan", dead_run="killed")
    for stage in ["configure", "start", "promote", "finalize"]:
        move.run(stage)
    assert answer(served)["text"] == "third"
    is_clean(served, "blue")


def test_supervisord_killed_between_the_stages(served: Host) -> None:
    served.release("two")
    move = served.move(served.wanted("two", text="second"))
    go(move, "start")
    served.daemon.kill()
    served.daemon.start()
    wait_for(lambda: set(served.daemon.states().values()) == {"RUNNING"}, "both slots run again")
    wait_for(lambda: probe.ask(str(served.paths.socket("green")), "/", "x", 1).status == 200, "an answer")
    move.run("promote")
    move.run("finalize")
    assert answer(served)["text"] == "second"
    is_clean(served, "green")


SURVIVOR = """import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            open(sys.argv[1], "w").close()
            time.sleep(0.02)
    os._exit(0)
os.execv("/bin/sh", ["/bin/sh", *sys.argv[2:]])
"""


def test_what_a_slot_started_in_a_session_of_its_own_ends_with_the_slot(host: Host) -> None:
    host.release("one")
    wanted, trace = host.wanted("one", text="first"), host.root / "alive"
    launch = json.loads(next(item.content for item in wanted.files if item.path == "launch.json") or b"")
    launch["command"] = [sys.executable, "-c", SURVIVOR, str(trace), *launch["command"][1:]]
    files = [item for item in wanted.files if item.path != "launch.json"]
    files.append(Item("launch.json", "root", "root", 0o644, json.dumps(launch).encode()))
    check = replace(wanted, files=files)
    go(host.move(check))
    wait_for(trace.exists, "the process that wants to survive")
    host.release("two")
    host.deploy("two", text="second")
    trace.unlink()
    time.sleep(0.3)
    assert not trace.exists()


def test_whoever_took_the_new_slots_socket_is_found_out(served: Host) -> None:
    served.release("two")
    move = served.move(served.wanted("two", text="second"))
    go(move, "promote")
    path = served.paths.socket("green")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as thief:
        thief.bind(str(path))
        thief.listen()
        with pytest.raises(SlotError, match="is not the one that listens there"):
            move.run("finalize")


def test_the_live_slot_killed_during_a_deploy(served: Host) -> None:
    served.release("two")
    move = served.move(served.wanted("two", text="second"))
    go(move, "start")
    os.kill(served.daemon.pids()["shop_blue"], signal.SIGKILL)
    move.run("promote")
    move.run("finalize")
    is_clean(served, "green")


def test_an_abandoned_run_goes_back(served: Host) -> None:
    pid = answer(served)["pid"]
    served.release("two")
    for stage in ("configure", "start", "promote"):
        move = served.move(served.wanted("two", text="second"))
        go(move, stage)
        assert move.run("abort", reason="a tasks file failed")["changed"]
        assert answer(served)["pid"] == pid
        is_clean(served, "blue")
        assert entries(served)[-1] == ("deploy", "two", "bad")
        assert move.run("abort")["changed"] is False


# Commands and what is shared


def test_commands_run_in_the_slot_and_their_failure_stops_the_deploy(served: Host) -> None:
    served.release("two")
    mark = served.root / "mark"
    wanted = served.wanted("two", text="second")
    command = Command("migrate", ["/bin/sh", "-c", f'echo "$RELEASE" > {mark}'], "configure")
    go(served.move(wanted, commands=[command]), "configure")
    assert mark.read_text().strip() == str(served.paths.release("two"))
    served.move(wanted).run("abort")
    for stage in ("configure", "start", "promote"):
        move = served.move(wanted)
        go(
            move, {"configure": "plan", "start": "configure", "promote": "start"}[stage]
        ) if stage != "configure" else move.run("plan")
        move.options = replace(
            move.options, commands=[Command("hook", ["/bin/sh", "-c", "echo no luck; exit 4"], stage)]
        )
        with pytest.raises(SlotError, match=r"hook .* ended with status 4[\s\S]*no luck"):
            move.run(stage)
        assert answer(served)["text"] == "first"
        is_clean(served, "blue")


def test_one_call_goes_through_all_stages_and_runs_the_commands_of_each(served: Host) -> None:
    served.release("two")
    mark = served.root / "mark"
    stages = ["configure", "start", "promote", "finalize"]
    commands = [Command(f"hook {stage}", ["/bin/sh", "-c", f"echo {stage} >> {mark}"], stage) for stage in stages]
    move = served.move(served.wanted("two", text="second"), commands=commands)
    move.run("plan")
    result = move.run("finalize")
    assert mark.read_text().split() == stages
    assert (result["slot"], result["dropped"], result["output"]) == ("green", 0, ["uses loop none"])
    # The gate, at least.
    assert 0.5 <= result["waited"] < 30
    assert answer(served)["text"] == "second"
    is_clean(served, "green")


def test_what_the_proxy_serves_by_itself_is_open_to_it_and_stays_so(served: Host) -> None:
    source = served.paths.release("one") / "app"
    (source / "static").mkdir()
    for path in (source, source / "static"):
        path.chmod(0o750)
    static = [f"{served.paths.current}/app/static", f"{served.paths.current}/app/media", "/srv/other"]
    shared = {"shared_directories": ["media"], "proxy_group": "nogroup"}
    before = served.daemon.pids()
    plan = served.deploy("one", text="first", static=static, **shared)
    assert not plan["move"] and plan["differences"] == [f"{source}/static: closed to the proxy, which serves it"]
    assert (source / "static").stat().st_mode & 0o005 == 0o005
    assert served.daemon.pids() == before
    assert not served.deploy("one", text="first", static=static, **shared)["changed"]
    served.release("two")
    served.deploy("two", text="second", static=static, **shared)
    media = served.paths.shared / "media"
    assert (media.group(), media.stat().st_mode & 0o7777) == ("nogroup", 0o2750)


def test_a_whole_move_is_one_call(served: Host) -> None:
    served.release("two")
    wanted = served.wanted("two", text="second")
    result = served.move(wanted).run("finalize", begin=True)
    assert (result["slot"], result["dropped"]) == ("green", 0)
    is_clean(served, "green")
    again = served.move(wanted).run("finalize", begin=True)
    assert again["changed"] is False and again["differences"] == []
    is_clean(served, "green")


def test_a_call_that_begins_a_move_waits_for_who_holds_the_lock(served: Host) -> None:
    served.release("two")
    served.release("three")
    served.deploy("two", run="another", upto="configure", text="second")
    with pytest.raises(Locked, match="deploy of release two, stage configure"):
        served.move(served.wanted("three", text="third")).run("finalize", begin=True)


def test_an_environment_that_cant_be_built_makes_a_bad_release(served: Host) -> None:
    release = served.paths.release("two")
    (release / "app").mkdir(parents=True)
    lock = str(release / "app" / "requirements.txt")
    environment = EnvironmentSettings(path=str(release / "venv"), python=sys.executable, uv="/nowhere/uv", lock=lock)
    move = served.move(served.wanted("two", text="second"), environment=environment)
    with pytest.raises(SlotError, match=r"lock=.*/requirements\.txt does not exist"):
        move.run("finalize", begin=True)
    assert answer(served)["text"] == "first"
    is_clean(served, "blue")
    assert entries(served)[-1] == ("deploy", "two", "bad")


@pytest.mark.parametrize("stage", ["configure", "start", "promote"])
def test_one_call_that_fails_at_a_stage_leaves_the_old_slot(served: Host, stage: str) -> None:
    served.release("two")
    command = Command("hook", ["/bin/sh", "-c", "exit 4"], stage)
    move = served.move(served.wanted("two", text="second"), commands=[command])
    move.run("plan")
    with pytest.raises(SlotError, match="ended with status 4"):
        move.run("finalize")
    assert answer(served)["text"] == "first"
    is_clean(served, "blue")
    assert entries(served)[-1] == ("deploy", "two", "bad")


def test_one_call_goes_on_where_an_earlier_one_stopped(served: Host) -> None:
    served.release("two")
    wanted = served.wanted("two", text="second")
    go(served.move(wanted), "start")
    assert "pid" not in served.move(wanted).run("finalize")
    is_clean(served, "green")


def test_a_release_that_another_run_waits_with_stays(served: Host) -> None:
    for name in ("two", "waiting", ".fetching", "left", ".left"):
        served.release(name)
    past = time.time() - 7200
    for name in ("left", ".left"):
        os.utime(served.paths.release(name), (past, past))
    served.deploy("two", text="second", keep=1)
    # The first one is what a rollback would bring back.
    assert {entry.name for entry in served.paths.releases.iterdir()} == {"one", "two", "waiting", ".fetching"}


def test_shared_directories_and_files(served: Host) -> None:
    name = served.release("two")
    source = served.paths.release(name) / "app"
    (source / "uploads").mkdir()
    shared = served.paths.app / "shared"
    options = {"shared_directories": ["uploads", "var/cache"], "shared_files": ["local.ini"]}
    with pytest.raises(SlotError, match=r"there is no .*/shared/local.ini"):
        served.deploy("two", text="second", **options)
    (shared / "local.ini").write_text("x")
    served.deploy("two", text="second", **options)
    for each in ("uploads", "var/cache", "local.ini"):
        assert os.readlink(source / each) == str(shared / each)


# Rollback and restart


def test_rollback_and_restart(served: Host) -> None:
    for number, name in enumerate(["two", "three"]):
        served.release(name)
        served.deploy(name, text=name, build=f"build {number}")
    with pytest.raises(SlotError):
        served.deploy(served.release("bad"), crash="x")
    nothing = served.wanted("", text="now", build="newest")
    assert go(served.move(nothing, action="rollback"))["release"] == "two"
    assert answer(served)["text"] == "now"
    last = ledger.read(served.paths.ledger)[-1]
    assert (last.action, last.release, last.revision, last.result) == ("rollback", "two", "two" * 3, "good")
    pid = answer(served)["pid"]
    assert go(served.move(nothing, action="restart"))["release"] == "two"
    assert answer(served)["pid"] != pid
    assert entries(served)[-1] == ("restart", "two", "good")
    # A deploy of the same thing finds it as it left it.
    assert served.deploy("two", text="now", build="build 0")["changed"] is False
    # The last one before two that is still there is three.
    assert go(served.move(nothing, action="rollback"))["release"] == "three"
    assert go(served.move(nothing, action="rollback", to="one", force=True))["release"] == "one"


def test_rollback_to_what_is_not_there(served: Host) -> None:
    with pytest.raises(LedgerError, match="there is no release nine"):
        go(served.move(served.wanted(""), action="rollback", to="nine"))
    with pytest.raises(LedgerError, match="no good release before one"):
        go(served.move(served.wanted(""), action="rollback"))


def test_restart_of_nothing(host: Host) -> None:
    with pytest.raises(SlotError, match="no live release"):
        go(host.move(host.wanted(""), action="restart"))


# From an app without slots


def test_the_program_without_slots_goes(host: Host) -> None:
    (host.paths.programs / "shop.ini").write_text("[program:shop]\ncommand=/bin/sleep 1000\nstartsecs=0\n")
    host.daemon.call("reloadConfig")
    host.daemon.call("addProcessGroup", "shop")
    host.paths.etc.mkdir()
    (host.paths.etc / "run").write_text("x")
    host.release("one")
    host.deploy("one", text="first")
    is_clean(host, "blue")


# Locks


def test_a_lock_is_the_runs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (locks.DeployLock(tmp_path / "lock", locks.Run(run, run)) for run in ("a", "b"))
    with pytest.raises(LostLock):
        first.resume()
    first.take()
    first.take()
    assert first.resume().owner.run == "a"
    with pytest.raises(Locked):
        second.take()
    with pytest.raises(Locked):
        second.resume()
    second.take(dead_run="a")
    assert second.is_mine() and not first.is_mine()
    # Nobody renewed it for long, or the host was restarted.
    monkeypatch.setattr(locks, "STALE_SECONDS", -1)
    first.take()
    monkeypatch.setattr(locks, "STALE_SECONDS", 100)
    with pytest.raises(Locked):
        second.take()
    monkeypatch.setattr(locks, "boot_id", lambda: "another")
    second.take()


def test_a_killed_run_has_ended_though_nobody_waited_for_it() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        holder = {"run": f"{release_slot._machine()}:{process.pid}:{release_slot._start_of(process.pid)}"}
        try:
            assert not release_slot.has_ended(holder)
        finally:
            process.kill()
        state = Path(f"/proc/{process.pid}/stat")
        wait_for(lambda: state.read_text().rpartition(")")[2].split()[0] == "Z", "a process that nobody waited for")
        assert release_slot.has_ended(holder)
    assert release_slot.has_ended(holder)


def test_a_run_of_another_controller_may_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = release_slot.this_run()
    assert not release_slot.has_ended(mine)
    ended = {**mine, "run": f"{release_slot._machine()}:{mine['pid']}:1"}
    assert release_slot.has_ended(ended)
    # Many controllers are called localhost.
    monkeypatch.setattr(os, "readlink", lambda _path: "pid:[1]")
    assert not release_slot.has_ended(ended)
    assert not release_slot.has_ended({})


def test_one_call_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locks.exclusive(lock), pytest.raises(Locked, match="still at work"), locks.exclusive(lock):
        pass
    with locks.exclusive(tmp_path / "lock"):
        pass


# The ledger


def entry(release: str, result: str = "good", irreversible: bool = False) -> ledger.LedgerEntry:
    return ledger.LedgerEntry("t", "me", "deploy", release, release, release, "blue", result, irreversible=irreversible)


def test_a_torn_line_of_the_ledger_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger.append(path, entry("a"))
    with path.open("a") as stream:
        stream.write('{"time": "t", "rel')
    ledger.append(path, entry("b"))
    assert [each.release for each in ledger.read(path)] == ["a", "b"]


def test_an_irreversible_migration_blocks_a_rollback_past_it() -> None:
    past = [entry("a"), entry("b", irreversible=True), entry("c")]
    there = ["a", "b", "c"]
    assert ledger.rollback_target(past, "c", there, "", False) == "b"
    with pytest.raises(LedgerError, match="migration of release b"):
        ledger.rollback_target(past, "b", there, "a", False)
    assert ledger.rollback_target(past, "b", there, "a", True) == "a"


def test_a_failed_release_is_no_target() -> None:
    past = [entry("a"), entry("b", "bad"), entry("c")]
    assert ledger.rollback_target(past, "c", ["a", "b", "c"], "", False) == "a"
    with pytest.raises(LedgerError, match="never went live"):
        ledger.rollback_target(past, "c", ["a", "b", "c"], "b", False)
    # A whole revision names its release.
    assert ledger.rollback_target([entry("0123456789ab"), entry("c")], "c", ["0123456789ab"], "0123456789abcdef", False)


@pytest.mark.parametrize(
    ("keep", "gone"),
    [(5, []), (4, ["bad"]), (3, ["bad", "a"]), (2, ["bad", "a", "b"]), (1, ["bad", "a", "b"])],
)
def test_failed_releases_go_first(keep: int, gone: list[str]) -> None:
    past = [entry("a"), entry("b"), entry("c"), entry("bad", "bad"), entry("d")]
    assert sorted(ledger.to_remove(past, ["a", "b", "bad", "c", "d"], "d", keep)) == sorted(gone)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        yield path, server


def test_connections_are_counted_before_they_are_accepted(listening) -> None:
    path, server = listening
    assert len(unix_sockets(path, listening=False)) == 0
    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for client in clients:
        client.connect(path)
    accepted = server.accept()[0]
    assert len(unix_sockets(path, listening=False)) == 3
    accepted.close()
    assert len(unix_sockets(path, listening=False)) == 2
    assert probe.listener(path) == os.getpid()
    assert probe.servers(path, os.getpid()) == {os.getpid()}
