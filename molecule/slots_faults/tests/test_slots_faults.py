"""Bad releases are refused unnoticed; a deploy may be cut off anywhere, by anything, and the next one completes it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from _slotted import (  # noqa: F401
    DEPLOY,
    RELEASES,
    ROLLBACK,
    ask,
    is_clean,
    ledger,
    live_slot,
    pids,
    run_fixture,
    served,
    source_fixture,
    start_load,
    stop_load,
)

STORE = "    app.state.store = OrderStore()"
HEALTH = '    return {"status": "ok"}'
# What is changed in the app, and what a failed deploy says of it.
BAD = {
    "import": (("import asyncio", "import sqlalchemy"), "ModuleNotFoundError: No module named 'sqlalchemy'"),
    "start": ((STORE, "    raise RuntimeError('no database')"), "RuntimeError: no database"),
    "dies": (
        (STORE, f"{STORE}\n    asyncio.get_running_loop().call_later(2, os._exit, 1)"),
        "(ended by itself|a worker of it|any more)",
    ),
    "health": ((HEALTH, "    raise HTTPException(500, 'out of order')"), "status 500: .*out of order"),
    "hang": ((HEALTH, "    await asyncio.sleep(600)"), "no answer in"),
    "schema": (
        (HEALTH, "    return {'status': open(os.path.expanduser('~/schema')).read()}"),
        "FileNotFoundError.*schema",
    ),
}
# One that cannot be imported has no log yet: the check says why.
LOG_END = "The end of its (stdout )?log"


@pytest.fixture
def unnoticed(hosts, run):
    """Runs a deploy that must fail, under load, and makes sure that nobody noticed."""

    def call(**variables: object) -> str:
        before = [(pids(host), is_clean(host), ask(host)["version"]) for host in hosts]
        start_load(hosts)
        try:
            said = run(DEPLOY, fails=True, **variables)
        finally:
            results = stop_load(hosts, {})
        for host, was in zip(hosts, before, strict=True):
            assert (pids(host), is_clean(host), ask(host)["version"]) == was
            assert results[host.backend.name]["failed"] == 0, results
            assert results[host.backend.name]["requests"] > 100, results
        return said

    return call


@pytest.fixture
def good(hosts, run, source):
    """A good deploy, without anything cleaned by hand before."""
    count = iter(range(100))

    def call(name: str, **variables: object) -> None:
        version = f"{name}.{next(count)}"
        run(DEPLOY, **source(version), **variables)
        for host in hosts:
            is_clean(host)
            assert ask(host)["version"] == version

    return call


@pytest.mark.parametrize("kind", list(BAD))
def test_a_bad_release_goes_unnoticed(unnoticed, source, kind) -> None:
    change, said = BAD[kind]
    found = unnoticed(**source(f"bad-{kind}", change))
    assert re.search(said, found), found
    assert kind == "import" or re.search(LOG_END, found), found


def test_the_next_good_one_works(good) -> None:
    good("after")


def test_a_migration_brings_what_was_missing(hosts, run, source) -> None:
    """It runs on the first host of the play alone, so the schema is there for that one, and for the other by hand."""
    command = ["/bin/sh", "-c", "echo one > ~/schema"]
    hosts[1].check_output("runuser -u orders -- touch /var/lib/fastapi/orders/schema")
    run(DEPLOY, **source("bad-schema"), app_migrate={"command": command})
    schemas = [host.file("/var/lib/fastapi/orders/schema").content_string for host in hosts]
    assert sorted(schemas) == ["", "one\n"]
    for host in hosts:
        is_clean(host)


def test_a_failed_migration_stops_all_hosts(unnoticed, source, hosts) -> None:
    said = unnoticed(**source("migrated"), app_migrate={"command": ["/bin/sh", "-c", "echo no such table; exit 3"]})
    assert "the migration (/bin/sh -c echo no such table; exit 3) ended with status 3" in said
    assert "has to migrate first and failed, so this host keeps what it has" in said


def test_an_irreversible_migration_blocks_the_rollback(hosts, run, source) -> None:
    run(DEPLOY, **source("irreversible"), app_migrate={"command": ["true"], "irreversible": True})
    said = run(ROLLBACK, fails=True)
    assert "cannot be rolled back" in said
    run(ROLLBACK, force="true")
    for host in hosts:
        is_clean(host)
        assert ask(host)["version"] != "irreversible"


@pytest.mark.parametrize("name", ["after_build", "before_flip", "after_flip"])
def test_a_hook_that_fails(unnoticed, source, name) -> None:
    hooks = {name: ["/bin/sh", "-c", "echo no luck; exit 4"]}
    said = unnoticed(**source("hooked"), app_hooks=hooks)
    assert f"the hook {name} (/bin/sh -c echo no luck; exit 4) ended with status 4" in said


def test_a_tasks_file_that_fails(unnoticed, source, tmp_path) -> None:
    tasks = tmp_path / "tasks.yml"
    tasks.write_text("- name: Refuse\n  ansible.builtin.fail:\n    msg: not on a Friday\n", encoding="utf-8")
    assert "not on a Friday" in unnoticed(**source("hooked"), app_hooks={"after_flip": str(tasks)})


def test_a_hook_that_fails_at_the_very_end(hosts, run, source) -> None:
    """The old version is gone by then, so the new one stays."""
    hooks = {"after_drain": ["/bin/sh", "-c", "echo no luck; exit 4"]}
    said = run(DEPLOY, fails=True, **source("ended"), app_hooks=hooks)
    assert "the hook after_drain (/bin/sh -c echo no luck; exit 4) ended with status 4" in said
    for host in hosts:
        is_clean(host)
        assert ask(host)["version"] == "ended"
        assert ledger(host)[-1]["result"] == "good"


def test_a_wrong_hash(unnoticed, source) -> None:
    variables = source("tampered")
    lock = Path(variables["app_source"]) / "requirements.txt"
    lock.write_text(
        re.sub(
            r"(?<=\nfastapi==)(.*?)sha256:[0-9a-f]{64}", rf"\1sha256:{'0' * 64}", lock.read_text(), count=1, flags=re.S
        )
    )
    lock.write_text(
        re.sub(
            r"(fastapi==.*?--hash=sha256:0{64}) \\\n    --hash=sha256:[0-9a-f]{64}", r"\1", lock.read_text(), flags=re.S
        )
    )
    assert "Wrong hash: the file of fastapi " in unnoticed(**variables)


def test_a_socket_that_is_not_permitted(unnoticed, hosts, source) -> None:
    for host in hosts:
        idle = {"blue": "green", "green": "blue"}[live_slot(host)]
        host.check_output(f"rm -f /run/fastapi/orders/{idle}/app.sock")
        host.check_output(f"mkdir /run/fastapi/orders/{idle}/app.sock")
    try:
        found = unnoticed(**source("taken"))
        assert re.search(r"/(blue|green)/app\.sock, where \w+ wants its Unix socket, is .* no socket", found), found
        assert re.search(LOG_END, found), found
    finally:
        for host in hosts:
            host.check_output("find /run/fastapi/orders -type d -name '*.sock' -delete")


def test_a_full_disk(unnoticed, hosts, source) -> None:
    """The build finds no room; what serves does not need the place."""
    for host in hosts:
        host.check_output("mv /opt/fastapi/apps/orders/releases /opt/fastapi/apps/orders/.kept")
        host.check_output("mkdir /opt/fastapi/apps/orders/releases")
        host.check_output("mount -t tmpfs -o size=4m tmpfs /opt/fastapi/apps/orders/releases")
    try:
        assert "No space left on device" in unnoticed(**source("full"))
    finally:
        for host in hosts:
            host.check_output("umount /opt/fastapi/apps/orders/releases")
            host.check_output("rmdir /opt/fastapi/apps/orders/releases")
            host.check_output("mv /opt/fastapi/apps/orders/.kept /opt/fastapi/apps/orders/releases")


def test_the_next_good_one_works_again(good) -> None:
    good("again")


# Deploys that are cut off

# The source is there, and then what the lock says.
STAGES = ["fetched", "plan", "configure", "start", "promote", "finalize"]
# What makes a stage last, so that it is seen.
HOOKS = {"configure": "after_build", "start": "before_flip", "promote": "after_flip", "finalize": "after_drain"}
PAUSE = ["sleep", "3"]


class Deploy:
    """A deploy on its way, which pauses at a stage."""

    def __init__(self, hosts, variables: dict[str, str], stage: str) -> None:
        self.hosts, self.stage = hosts, stage
        # With what is only on its way, which is hidden.
        self.look = f"ls -A {RELEASES}"
        self.releases = [host.check_output(self.look) for host in hosts]
        hooks = {HOOKS[stage]: PAUSE} if stage in HOOKS else {}
        command = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], DEPLOY]
        self.process = subprocess.Popen(
            [*command, "--extra-vars", json.dumps({**variables, "app_hooks": hooks})],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def until_there(self) -> None:
        """Until it works at the stage on one host at least."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for host, releases in zip(self.hosts, self.releases, strict=True):
                if self.stage == "fetched":
                    is_there = host.check_output(self.look) != releases
                else:
                    is_there = f'"stage": "{self.stage}"' in host.run("cat /opt/fastapi/apps/orders/deploy.lock").stdout
                if is_there:
                    return
            assert self.process.poll() is None, f"the deploy ended before it came to {self.stage}"
        pytest.fail(f"the deploy did not come to {self.stage}")

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def start(hosts):
    """Has a deploy come to a stage; it is over when the test is."""
    started = []

    def call(variables: dict[str, str], stage: str) -> Deploy:
        started.append(Deploy(hosts, variables, stage))
        started[-1].until_there()
        return started[-1]

    yield call
    for deploy in started:
        deploy.kill()


@pytest.mark.parametrize("stage", STAGES)
def test_ansible_killed(hosts, source, start, good, stage) -> None:
    """Users notice neither that nor how the next run completes it."""
    old = [served(host) for host in hosts]
    start_load(hosts)
    try:
        deploy = start(source(f"killed-{stage}"), stage)
        deploy.kill()
        for host, version in zip(hosts, old, strict=True):
            assert served(host) in (version, f"killed-{stage}")
        good(f"after-{stage}")
    finally:
        results = stop_load(hosts, {})
    for result in results.values():
        assert result["failed"] == 0, results
        assert result["requests"] > 100, results


def cut_the_power(names: list[str]) -> None:
    subprocess.run(["podman", "kill", *names], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["podman", "wait", *names], check=True, stdout=subprocess.DEVNULL)


def shut_down(names: list[str]) -> None:
    # Much more than it takes: Podman fails when a host stops by itself at the very moment.
    subprocess.run(["podman", "stop", "--time", "60", *names], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("stage", "end"),
    [*((stage, cut_the_power) for stage in STAGES), ("start", shut_down), ("promote", shut_down)],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_host_restarted(hosts, source, start, good, wait_for, stage, end) -> None:
    old = [served(host) for host in hosts]
    new = f"restarted-{stage}-{end.__name__}"
    deploy = start(source(new), stage)
    names = [host.backend.name for host in hosts]
    end(names)
    deploy.process.wait(180)
    subprocess.run(["podman", "start", *names], check=True, stdout=subprocess.DEVNULL)
    for host, version in zip(hosts, old, strict=True):
        wait_for(lambda host=host: served(host), 60, "it serves again")
        assert served(host) in (version, new)
    good(f"up-after-{stage}-{end.__name__}")


KILLED = {
    "live": "supervisorctl pid orders_$(readlink /run/fastapi/orders/live.sock | cut -d/ -f1)",
    "nginx": "cat /run/nginx.pid",
    "supervisord": "systemctl show --property MainPID --value supervisord",
}


@pytest.mark.parametrize("stage", ["start", "promote"])
@pytest.mark.parametrize("victim", list(KILLED))
def test_killed_on_the_host(hosts, source, start, good, wait_for, victim, stage) -> None:
    old = [served(host) for host in hosts]
    new = f"{victim}-{stage}"
    deploy = start(source(new), stage)
    for host in hosts:
        host.check_output(f"sh -c 'kill -9 $({KILLED[victim]})'")
    deploy.process.wait(240)
    for host, version in zip(hosts, old, strict=True):
        wait_for(lambda host=host: served(host), 60, "it serves again")
        assert served(host) in (version, new)
    good(f"after-{victim}-{stage}")
