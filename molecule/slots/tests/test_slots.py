"""Releases of an app with slots: one at a time, and many under load without one failed request.

Each test brings about what it needs itself, so it can run alone and in any order; in this one the least has to be done.
"""

from __future__ import annotations

import functools
import json
import subprocess
import time

import pytest
from _slotted import (  # noqa: F401
    BASE,
    DEPLOY,
    PROJECT,
    RELEASES,
    ROLLBACK,
    ask,
    is_clean,
    ledger,
    live_fixture,
    live_release,
    live_slot,
    pids,
    releases,
    run_fixture,
    served,
    source_fixture,
    start_load,
    stop_load,
)

# It can be imported, and fails when it starts.
BROKEN = ("3.0.0", ("    app.state.store = OrderStore()", "    raise RuntimeError('no such table: orders')"))

# One at a time


def test_nothing_to_do(hosts, play, live) -> None:
    live(BASE)
    before = [(pids(host), ledger(host)) for host in hosts]
    for options in ([], ["--check", "--diff"]):
        done = play(DEPLOY, *options)
        assert done.status == 0 and done.changed() == 0, done.output
        # It ends at the plan.
        assert "TASK [plan |" in done.output and "TASK [Apps |" not in done.output
    assert [(pids(host), ledger(host)) for host in hosts] == before


def test_update_by_hand_harms_nothing(hosts, live) -> None:
    live()
    for host in hosts:
        before = pids(host)
        assert host.check_output("supervisorctl update").strip() == ""
        assert pids(host) == before


def test_only_the_live_slot_starts_at_boot(hosts, live, wait_for) -> None:
    for host, slot in zip(hosts, live(), strict=True):
        version = served(host)
        name = host.backend.name
        subprocess.run(["podman", "restart", "--time", "20", name], check=True, stdout=subprocess.DEVNULL)
        wait_for(lambda host=host: served(host), 40, f"{name} serves again")
        running = f"supervisorctl status orders_{slot}"
        wait_for(lambda host=host, running=running: "RUNNING" in host.run(running).stdout, 10, f"{name} is up")
        assert is_clean(host) == slot
        assert served(host) == version


def test_operations_find_the_live_slot(hosts, run, live) -> None:
    before = live()
    run("asgiops.fastapi_host.stop")
    for host, slot in zip(hosts, before, strict=True):
        assert f"orders_{slot}" in host.run("supervisorctl status | grep STOPPED").stdout
    run("asgiops.fastapi_host.start")
    for host, slot in zip(hosts, before, strict=True):
        assert is_clean(host) == slot
    assert "Application startup complete" in run("asgiops.fastapi_host.logs")
    said = run("asgiops.fastapi_host.status")
    for slot in before:
        assert f"orders_{slot}" in said
    assert said.count("200 in ") == len(hosts), said


def test_drift_on_the_host_is_a_deploy(hosts, run, live) -> None:
    before = live(BASE)
    for host, slot in zip(hosts, before, strict=True):
        host.check_output(f"sh -c 'echo workers = 1 >> /etc/fastapi/orders/{slot}/gunicorn.conf.py'")
    said = run(DEPLOY)
    assert "gunicorn.conf.py: content" in said
    for host, slot in zip(hosts, before, strict=True):
        assert is_clean(host) != slot
        assert ask(host)["version"] == BASE


def test_a_deploy_moves_to_the_other_slot(hosts, run, source, live) -> None:
    before = live(BASE)
    known = [ledger(host) for host in hosts]
    said = run(DEPLOY, **source("2.0.0"))
    assert said.count("orders uses loop ") == len(hosts)
    for host, was, entries in zip(hosts, before, known, strict=True):
        slot = is_clean(host)
        assert slot != was
        assert ask(host)["version"] == "2.0.0"
        assert host.file(f"/etc/fastapi/orders/{slot}/environment").mode == 0o640
        *others, entry = ledger(host)
        assert others == entries
        assert (entry["action"], entry["result"], len(entry["revision"])) == ("deploy", "good", 64)
        assert "@" in entry["by"]


def test_environments_share_their_files(hosts, live) -> None:
    """What releases have in common is there once, and hard links lead to it."""
    live("2.0.0")
    for host in hosts:
        files = f"{RELEASES}/*/venv/lib/python3*/site-packages/fastapi/applications.py"
        found = host.check_output(f"stat -c %i {files}").split()
        # That one, and the one before it at least.
        assert len(found) > 1
        assert len(set(found)) == 1, found


def test_a_broken_one_goes_unnoticed_and_a_rollback_passes_it_over(hosts, run, source, live) -> None:
    slots = live("2.0.0")
    before = [(pids(host), slot) for host, slot in zip(hosts, slots, strict=True)]
    known = [ledger(host) for host in hosts]
    said = run(DEPLOY, fails=True, **source(*BROKEN))
    assert "RuntimeError: no such table: orders" in said
    for host, was, entries in zip(hosts, before, known, strict=True):
        assert (pids(host), is_clean(host)) == was
        assert ask(host)["version"] == "2.0.0"
        *others, entry = ledger(host)
        assert others == entries
        assert entry["result"] == "bad"
        assert f"orders_{'green' if was[1] == 'blue' else 'blue'}" in entry["reason"]
    run(ROLLBACK)
    for host, slot, entries in zip(hosts, slots, known, strict=True):
        assert is_clean(host) != slot
        good = [entry["release"] for entry in entries if entry["result"] == "good"]
        previous = [release for release in good if release != good[-1]][-1]
        entry = ledger(host)[-1]
        assert [entry[key] for key in ("action", "result", "release")] == ["rollback", "good", previous]
        version = host.file(f"{RELEASES}/{previous}/app/orders/__init__.py").content_string
        assert f'"{ask(host)["version"]}"' in version


def test_of_too_many_releases_the_failed_goes_first(hosts, run, source, live) -> None:
    live(BASE)
    run(DEPLOY, fails=True, **source(*BROKEN))
    before = [(live_release(host), ledger(host)[-1]["release"], releases(host)) for host in hosts]
    run(DEPLOY, **source("4.0.0"), release_keep="2")
    for host, (good, bad, there) in zip(hosts, before, strict=True):
        is_clean(host)
        assert ask(host)["version"] == "4.0.0"
        assert bad in there
        assert releases(host) == {good, live_release(host)}


def test_the_same_with_uvicorn_alone_and_a_file_of_tasks_before_the_flip(
    hosts, run, source, live, scenario_apps, tmp_path
) -> None:
    before = live("4.0.0")
    tasks = tmp_path / "tasks.yml"
    tasks.write_text(
        "- name: Ask what is live\n  ansible.builtin.command: readlink /run/fastapi/orders/live.sock\n"
        "  register: asked\n"
        "- name: Tell\n  ansible.builtin.debug:\n    msg: '{{ asked.stdout }} has its last moment'\n",
        encoding="utf-8",
    )
    app = {**scenario_apps[0], "server": "uvicorn", "source": {"path": source("4.0.0")["app_source"]}}
    said = run(DEPLOY, fastapi_apps=[{**app, "hooks": {"before_flip": str(tasks)}}])
    for slot in before:
        assert f"{slot}/app.sock has its last moment" in said
    for host, slot in zip(hosts, before, strict=True):
        assert is_clean(host) != slot
        assert "uvicorn_server.py" in host.check_output("ps -o args= -u orders")
        assert ask(host)["version"] == "4.0.0"


# Under load

CALM, TOTAL = 15, 50_000
# As many releases stay when nothing else is said.
KEPT = 3


@pytest.fixture
def load(hosts, live):
    live()
    start_load(hosts)
    yield functools.partial(stop_load, hosts)
    for host in hosts:
        host.run("systemctl stop load")


def test_no_request_fails(hosts, run, source, load) -> None:
    start = time.time()
    marks: dict[str, list[tuple[float, str]]] = {host.backend.name: [(start, "calm")] for host in hosts}
    time.sleep(CALM)
    for rows in marks.values():
        rows.append((time.time(), "busy"))
    restart = "asgiops.fastapi_host.restart"
    moves = [(DEPLOY, source(f"5.{number}.0")) for number in range(9)]
    moves[3:3] = [(ROLLBACK, {}), (restart, source("5.1.0"))]
    moves[7:7] = [(ROLLBACK, {}), (restart, source("5.2.0")), (DEPLOY, {**source("5.4.0"), "app_greeting": "Good day"})]
    moves += [
        (DEPLOY, {**source("5.8.0"), "app_greeting": "Welcome"}),
        (restart, {**source("5.8.0"), "app_greeting": "Welcome"}),
        (ROLLBACK, {}),
    ]
    for playbook, variables in moves:
        before = [live_slot(host) for host in hosts]
        run(playbook, **variables)
        for host, slot in zip(hosts, before, strict=True):
            assert live_slot(host) != slot, (playbook, variables)
            flipped = float(host.check_output("find /run/fastapi/orders/live.sock -printf %T@"))
            marks[host.backend.name] += [(flipped - 0.5, "flip"), (flipped + 4, "busy")]
    results = load(marks)
    # With the p50 and p99 of each phase, for people: what takes how long is no test.
    (PROJECT / ".cache" / "logs" / "load.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    total = sum(result["requests"] for result in results.values())
    for name, result in results.items():
        assert result["failed"] == 0, (name, result)
        assert set(result["websockets"]["closes"]) <= {"1012", "1001"}, (name, result)
        assert sum(result["websockets"]["closes"].values()) >= len(moves), (name, result)
    assert total >= TOTAL, results
    for host in hosts:
        is_clean(host)
        assert len(releases(host)) == KEPT


# And no slots any more


def test_an_app_whose_names_are_removed_runs_in_place_alone(hosts, run, source, live, scenario_apps) -> None:
    live()
    app = {name: value for name, value in scenario_apps[0].items() if name not in ("server_names", "drain_timeout")}
    app |= {"source": {"path": source("6.0.0")["app_source"]}, "bind": "127.0.0.1:8000"}
    run(DEPLOY, fastapi_apps=[app])
    for host in hosts:
        shown = host.check_output("supervisorctl status").splitlines()
        assert [row.split()[:2] for row in shown] == [["orders", "RUNNING"]]
        assert "6.0.0" in host.check_output("curl --silent --fail --max-time 5 http://127.0.0.1:8000/version")
        assert (
            host.run("ls /etc/fastapi/orders/blue/* /etc/fastapi/orders/green/* /run/fastapi/orders/*/*.sock").stdout
            == ""
        )
