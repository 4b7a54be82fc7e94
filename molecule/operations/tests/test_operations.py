"""The playbooks of day-to-day operations: each does what it says, and leaves alone what it does not name."""

from __future__ import annotations

import re

import pytest

SECRETS = ("s3cr3t-key-of-orders", "s3cr3t-of-bystander", "s3cr3t-of-ops", "s3cr3t-of-hook")


def pids(host) -> dict[str, str]:
    """The processes that run, as supervisorctl reports."""
    rows = host.run("supervisorctl status").stdout.splitlines()
    found = (re.match(r"(\S+)\s+RUNNING\s+pid (\d+),", row) for row in rows)
    return {row[1]: row[2] for row in found if row}


def without(found: dict[str, str], *prefixes: str) -> dict[str, str]:
    return {name: pid for name, pid in found.items() if not name.startswith(prefixes)}


def log_lines(host, pattern: str) -> list[str]:
    log = host.file("/var/log/supervisor/supervisord.log").content_string
    return re.findall(pattern, log)


@pytest.fixture
def operate(host, play):
    """Runs one of the playbooks for this host and returns its output."""

    def run(name: str, *arguments: str):
        done = play(f"asgiops.fastapi_host.{name}", "--limit", host.backend.name, "--diff", *arguments)
        assert not any(secret in done.output for secret in SECRETS)
        return done

    return run


@pytest.fixture(autouse=True)
def all_run(host, wait_for) -> None:
    """Each test finds everything running."""
    host.run("supervisorctl start all")
    wait_for(lambda: len(pids(host)) == 23, 30, f"23 processes run: {pids(host)}")


def test_a_pool_of_sixteen(host) -> None:
    pool = {name for name in pids(host) if name.startswith("pool:")}
    assert pool == {f"pool:pool_{number:02d}" for number in range(16)}
    for number in range(16):
        assert host.run(f"curl --silent --fail --output /dev/null http://127.0.0.1:81{number:02d}/").rc == 0
    assert {host.check_output(f"ps -o user= -p {pid}") for name, pid in pids(host).items() if name in pool} == {
        "nobody"
    }


def test_a_group_is_one(host, operate) -> None:
    before = pids(host)
    done = operate("stop", "-e", "app=trio")
    assert (done.status, done.changed()) == (0, 1), done.output
    assert pids(host) == without(before, "trio:")
    # The last to start is the first to be stopped; each has its own signal in the log.
    assert log_lines(host, r"killing (first|second|third) \(pid")[-3:] == ["third", "second", "first"]
    assert operate("stop", "-e", "app=trio").changed() == 0
    done = operate("start", "-e", "app=trio")
    assert (done.status, done.changed()) == (0, 1), done.output
    after = pids(host)
    assert without(after, "trio:") == without(before, "trio:")
    assert log_lines(host, r"spawned: '(first|second|third)'")[-3:] == ["first", "second", "third"]
    assert operate("start", "-e", "app=trio").changed() == 0
    assert pids(host) == after


def test_check_mode_changes_nothing(host, operate) -> None:
    before = pids(host)
    for name, app in (("stop", "trio"), ("restart", "orders"), ("restart", "all"), ("clear_logs", "all")):
        done = operate(name, "-e", f"app={app}", "--check")
        assert (done.status, done.changed()) == (0, 1), done.output
    assert pids(host) == before


def test_a_restart_goes_one_by_one(host, operate) -> None:
    before = pids(host)
    seen = len(log_lines(host, r"(stopped|spawned): "))
    done = operate("restart", "-e", "app=pool")
    assert (done.status, done.changed()) == (0, 1), done.output
    after = pids(host)
    assert without(after, "pool:") == without(before, "pool:")
    assert not set(after.values()) & {pid for name, pid in before.items() if name.startswith("pool:")}
    turns = log_lines(host, r"(stopped|spawned): '?(\w+)'?")[seen:]
    assert turns == [turn for n in range(16) for turn in (("stopped", f"pool_{n:02d}"), ("spawned", f"pool_{n:02d}"))]


def test_one_process_of_a_pool(host, operate) -> None:
    before = pids(host)
    assert operate("restart", "-e", "app=pool:pool_07").status == 0
    after = pids(host)
    assert without(after, "pool:pool_07") == without(before, "pool:pool_07")
    assert after["pool:pool_07"] != before["pool:pool_07"]


def test_an_app(host, operate, wait_for) -> None:
    before = pids(host)
    assert operate("restart", "-e", "app=orders").status == 0
    after = pids(host)
    assert without(after, "orders") == without(before, "orders")
    assert after["orders"] != before["orders"]
    health = "curl --silent --fail --output /dev/null http://127.0.0.1:8000/health"
    wait_for(lambda: host.run(health).rc == 0, 10, "orders answers")


def test_a_restart_loads_nothing(host, operate) -> None:
    """What the files say since is for a run of site, or for supervisorctl update."""
    host.check_output("sed -i s/100004/100005/ /etc/supervisord.d/_programs.ini")
    found = operate("reread")
    again = operate("reread")
    restarted = operate("restart", "-e", "app=bystander")
    command = host.check_output(f"ps -o args= -p {pids(host)['bystander']}")
    host.check_output("sed -i s/100005/100004/ /etc/supervisord.d/_programs.ini")
    back = operate("reread")
    assert "bystander" in found.output and "bystander" in again.output
    assert found.changed() == again.changed() == 0
    assert restarted.changed() == 1
    assert "sleep 100004" in command
    assert "bystander" not in back.output


def test_logs(host, operate) -> None:
    before = pids(host)
    done = operate("logs", "-e", "app=orders,bystander", "-e", "lines=5")
    assert "/var/log/fastapi/orders/server.log" in done.output
    assert "Application startup complete" in done.output or "started: version" in done.output
    assert "speaks of " in done.output
    log = host.file("/var/log/supervisor/bystander.log")
    assert log.size > 0
    assert operate("clear_logs", "-e", "app=bystander").changed() == 1
    assert host.file("/var/log/supervisor/bystander.log").size == 0
    assert operate("clear_logs", "-e", "app=bystander").changed() == 0
    assert host.file("/var/log/fastapi/orders/server.log").size > 0
    assert pids(host) == before


@pytest.mark.parametrize("name", ["start", "stop", "restart", "logs", "clear_logs"])
def test_nothing_is_guessed(host, operate, name) -> None:
    before = pids(host)
    done = operate(name)
    assert done.status != 0
    assert "Say what: -e app=NAME" in done.output
    assert pids(host) == before


def test_an_unknown_name(operate) -> None:
    done = operate("stop", "-e", "app=nowhere")
    assert "nowhere" in done.output
    done = operate("restart", "-e", "app=nowhere")
    assert done.status != 0
    assert "supervisord knows no such program or group: nowhere" in " ".join(done.output.split())


def test_reload_leaves_all_alone(host) -> None:
    before = pids(host)
    host.check_output("systemctl reload supervisord")
    assert pids(host) == before


def test_every_state(host, play) -> None:
    before = pids(host)
    done = play("../shared/states.yml", "--limit", host.backend.name)
    assert done.status == 0, done.output
    assert pids(host) == before
