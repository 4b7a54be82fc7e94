"""The story of some releases, told twice: step by step, and under load without one failed request."""

from __future__ import annotations

import functools
import json
import subprocess
import time

import pytest
from _slotted import (  # noqa: F401
    APP,
    DEPLOY,
    PROJECT,
    ROLLBACK,
    ask,
    hosts_fixture,
    is_clean,
    ledger,
    live_slot,
    pids,
    run_fixture,
    source_fixture,
    start_load,
    stop_load,
)

# Step by step


def test_first(hosts, run, source) -> None:
    run(DEPLOY, **source("1.1.0"))
    for host in hosts:
        is_clean(host)
        assert ask(host)["version"] == "1.1.0"
        assert host.file(f"/etc/fastapi/orders/{live_slot(host)}/environment").mode == 0o640


def test_nothing_to_do(hosts, play, source) -> None:
    before = [pids(host) for host in hosts]
    for options in ([], ["--check", "--diff"]):
        done = play(DEPLOY, *options, "--extra-vars", json.dumps(source("1.1.0")))
        assert done.status == 0 and done.changed() == 0, done.output
    assert [pids(host) for host in hosts] == before


def test_second(hosts, run, source) -> None:
    before = [is_clean(host) for host in hosts]
    said = run(DEPLOY, **source("2.0.0"))
    assert said.count("orders uses loop ") == len(hosts)
    for host, slot in zip(hosts, before, strict=True):
        assert is_clean(host) != slot
        assert ask(host)["version"] == "2.0.0"
        assert [entry["result"] for entry in ledger(host)][-2:] == ["good", "good"]
        entry = ledger(host)[-1]
        assert (entry["action"], len(entry["revision"])) == ("deploy", 64)
        assert "@" in entry["by"]


def test_broken_third(hosts, run, source) -> None:
    before = [(pids(host), is_clean(host)) for host in hosts]
    said = run(
        DEPLOY,
        fails=True,
        **source("3.0.0", ("    app.state.store = OrderStore()", "    raise RuntimeError('no such table: orders')")),
    )
    assert "RuntimeError: no such table: orders" in said
    for host, was in zip(hosts, before, strict=True):
        assert (pids(host), is_clean(host)) == was
        assert ask(host)["version"] == "2.0.0"
        assert ledger(host)[-1]["result"] == "bad"
        assert f"orders_{'green' if was[1] == 'blue' else 'blue'}" in ledger(host)[-1]["reason"]


def test_rollback(hosts, run, source) -> None:
    run(ROLLBACK)
    for host in hosts:
        is_clean(host)
        assert ask(host)["version"] == "1.1.0"
        assert [ledger(host)[-1][key] for key in ("action", "result")] == ["rollback", "good"]


def test_fourth(hosts, run, source) -> None:
    run(DEPLOY, **source("4.0.0"))
    for host in hosts:
        is_clean(host)
        assert ask(host)["version"] == "4.0.0"
        releases = host.check_output("ls /opt/fastapi/apps/orders/releases").split()
        # The failed one went first: the live one and two good ones stay.
        assert len(releases) == 3
        bad = next(entry["release"] for entry in ledger(host) if entry["result"] == "bad")
        assert bad not in releases


def test_environments_share_their_files(hosts) -> None:
    """What two releases have in common is there once, and hard links lead to it."""
    for host in hosts:
        links = host.check_output(
            "stat -c %h /opt/fastapi/apps/orders/current/venv/lib/python3*/site-packages/fastapi/applications.py"
        )
        assert int(links) >= 3


def test_update_by_hand_harms_nothing(hosts) -> None:
    for host in hosts:
        before = pids(host)
        assert host.check_output("supervisorctl update").strip() == ""
        assert pids(host) == before


def test_only_the_live_slot_starts_at_boot(hosts, wait_for) -> None:
    for host in hosts:
        slot = is_clean(host)
        name = host.backend.name
        subprocess.run(["podman", "restart", "--time", "20", name], check=True, stdout=subprocess.DEVNULL)
        probe = f"curl --silent --fail --output /dev/null --header Host:{APP} http://127.0.0.1/version"
        wait_for(lambda host=host, probe=probe: host.run(probe).rc == 0, 40, f"{name} serves again")
        running = f"supervisorctl status orders_{slot}"
        wait_for(lambda host=host, running=running: "RUNNING" in host.run(running).stdout, 10, f"{name} is up")
        assert is_clean(host) == slot
        assert ask(host)["version"] == "4.0.0"


def test_operations_find_the_live_slot(hosts, run) -> None:
    before = [is_clean(host) for host in hosts]
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


def test_drift_on_the_host_is_a_deploy(hosts, run, source) -> None:
    for host in hosts:
        slot = is_clean(host)
        host.check_output(f"sh -c 'echo workers = 1 >> /etc/fastapi/orders/{slot}/gunicorn.conf.py'")
    said = run(DEPLOY, **source("4.0.0"))
    assert "gunicorn.conf.py: content" in said
    for host in hosts:
        is_clean(host)


def test_the_same_with_uvicorn_alone_and_a_file_of_tasks_before_the_flip(
    hosts, run, source, scenario_apps, tmp_path
) -> None:
    tasks = tmp_path / "tasks.yml"
    tasks.write_text(
        "- name: Ask what is live\n  ansible.builtin.command: readlink /run/fastapi/orders/live.sock\n"
        "  register: asked\n"
        "- name: Tell\n  ansible.builtin.debug:\n    msg: '{{ asked.stdout }} has its last moment'\n",
        encoding="utf-8",
    )
    app = {**scenario_apps[0], "server": "uvicorn", "source": {"path": source("4.0.0")["app_source"]}}
    before = [is_clean(host) for host in hosts]
    said = run(DEPLOY, fastapi_apps=[{**app, "hooks": {"before_flip": str(tasks)}}])
    for slot in before:
        assert f"{slot}/app.sock has its last moment" in said
    for host, slot in zip(hosts, before, strict=True):
        assert is_clean(host) != slot
        assert "uvicorn_server.py" in host.check_output("ps -o args= -u orders")
        assert ask(host)["version"] == "4.0.0"


# Under load

CALM, TOTAL = 15, 50_000


@pytest.fixture
def load(hosts):
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
    moves = [(DEPLOY, source(f"5.{number}.0")) for number in range(10)]
    moves[3:3] = [(ROLLBACK, {}), (restart, source("5.1.0"))]
    moves[7:7] = [(ROLLBACK, {}), (restart, source("5.2.0")), (DEPLOY, {**source("5.4.0"), "app_greeting": "Good day"})]
    moves += [
        (DEPLOY, {**source("5.9.0"), "app_greeting": "Welcome"}),
        (restart, {**source("5.9.0"), "app_greeting": "Welcome"}),
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


# Last, since the app has no slots afterwards


def test_an_app_whose_names_are_removed_runs_in_place_alone(hosts, run, source, scenario_apps) -> None:
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
