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
    APP,
    DEPLOY,
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
    "hang": ((HEALTH, "    await asyncio.sleep(600)"), "no answer within"),
    "schema": (
        (HEALTH, "    return {'status': open(os.path.expanduser('~/schema')).read()}"),
        "FileNotFoundError.*schema",
    ),
}


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
    assert re.search(said, unnoticed(**source(f"bad-{kind}", change)))


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


def test_a_wrong_hash(unnoticed, source) -> None:
    variables = source("wrong-hash")
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
    assert re.search("hash", unnoticed(**variables), flags=re.I)


def test_a_socket_that_is_not_permitted(unnoticed, hosts, source) -> None:
    for host in hosts:
        for slot in ("blue", "green"):
            host.run(f"sh -c '[ -S /run/fastapi/orders/{slot}.sock ] || mkdir /run/fastapi/orders/{slot}.sock'")
    try:
        assert re.search("sock", unnoticed(**source("socket")))
    finally:
        for host in hosts:
            host.check_output("find /run/fastapi/orders -type d -name '*.sock' -delete")


def test_a_full_disk(unnoticed, hosts, source) -> None:
    """The build finds no room; what serves does not need the place."""
    for host in hosts:
        host.check_output("mkdir -p /opt/fastapi/apps/orders/releases")
        host.check_output("mv /opt/fastapi/apps/orders/releases /opt/fastapi/apps/orders/.kept")
        host.check_output("mkdir /opt/fastapi/apps/orders/releases")
        host.check_output("mount -t tmpfs -o size=4m tmpfs /opt/fastapi/apps/orders/releases")
        host.check_output(
            "sh -c 'cp -al /opt/fastapi/apps/orders/.kept/. /opt/fastapi/apps/orders/releases/ 2>/dev/null || true'"
        )
    try:
        assert re.search("No space left|disk", unnoticed(**source("full")))
    finally:
        for host in hosts:
            host.check_output("umount /opt/fastapi/apps/orders/releases")
            host.check_output("rmdir /opt/fastapi/apps/orders/releases")
            host.check_output("mv /opt/fastapi/apps/orders/.kept /opt/fastapi/apps/orders/releases")


def test_the_next_good_one_works_again(good) -> None:
    good("again")


# Deploys that are cut off

STAGES = ["begun", "staged", "prepared", "live", "settled"]


class Deploy:
    """A deploy on its way, of which the stage is known."""

    def __init__(self, hosts, variables: dict[str, str]) -> None:
        self.hosts = hosts
        command = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], DEPLOY]
        self.process = subprocess.Popen(
            [*command, "--extra-vars", json.dumps(variables)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def until(self, stage: str) -> None:
        """Until it works at this stage on one host at least."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for host in self.hosts:
                claim = host.run("cat /opt/fastapi/apps/orders/deploy.lock").stdout
                if f'"stage": "{stage}"' in claim:
                    return
            assert self.process.poll() is None, f"the deploy ended before it came to {stage}"
        pytest.fail(f"the deploy did not come to {stage}")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def serves(host) -> bool:
    probe = f"curl --silent --fail --max-time 2 --output /dev/null --header Host:{APP} http://127.0.0.1/version"
    return host.run(probe).rc == 0


@pytest.mark.parametrize("stage", STAGES)
def test_ansible_killed(hosts, source, good, stage) -> None:
    deploy = Deploy(hosts, source(f"killed-{stage}"))
    deploy.until(stage)
    deploy.kill()
    for host in hosts:
        assert serves(host)
    good(f"after-{stage}")


@pytest.mark.parametrize("stage", STAGES)
def test_host_restarted(hosts, source, good, wait_for, stage) -> None:
    deploy = Deploy(hosts, source(f"restarted-{stage}"))
    deploy.until(stage)
    names = [host.backend.name for host in hosts]
    subprocess.run(["podman", "restart", "--time", "1", *names], check=True, stdout=subprocess.DEVNULL)
    deploy.process.wait(120)
    for host in hosts:
        wait_for(lambda host=host: serves(host), 60, "it serves again")
    good(f"up-after-{stage}")


KILLED = {
    "live": "supervisorctl pid orders_$(readlink /run/fastapi/orders/live.sock | cut -d. -f1)",
    "nginx": "cat /run/nginx.pid",
    "supervisord": "systemctl show --property MainPID --value supervisord",
}


@pytest.mark.parametrize("stage", ["prepared", "live"])
@pytest.mark.parametrize("victim", list(KILLED))
def test_killed_on_the_host(hosts, source, good, wait_for, victim, stage) -> None:
    deploy = Deploy(hosts, source(f"{victim}-{stage}"))
    deploy.until(stage)
    for host in hosts:
        host.run(f"sh -c 'kill -9 $({KILLED[victim]})'")
    deploy.process.wait(180)
    for host in hosts:
        wait_for(lambda host=host: serves(host), 30, "it serves again")
    good(f"after-{victim}-{stage}")
