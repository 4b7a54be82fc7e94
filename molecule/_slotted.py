"""What the scenarios of apps with slots share: versions of the example app, runs, and a look at a host's slots."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import testinfra

PROJECT = Path(__file__).resolve().parents[1]
DEPLOY, ROLLBACK = "asgiops.fastapi_host.deploy", "asgiops.fastapi_host.rollback"
APP = "orders.example.com"
SECRET = "s3cr3t-never-shown"
# The example app as it is, which converge brings.
BASE = "1.0.0"
RELEASES = "/opt/fastapi/apps/orders/releases"


@pytest.fixture(name="source", scope="module")
def source_fixture(tmp_path_factory, example_app) -> Callable[..., dict[str, str]]:
    """A version of the example app, as variables of a run; change replaces text of its main.py."""
    root = tmp_path_factory.mktemp("versions")

    def make(version: str, change: tuple[str, str] = ("", "")) -> dict[str, str]:
        place = root / version
        if not place.exists():
            example_app(place)
            (place / "orders" / "__init__.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")
            main = place / "orders" / "main.py"
            text = main.read_text(encoding="utf-8")
            assert change[0] in text
            main.write_text(text.replace(*change, 1) if change[0] else text, encoding="utf-8")
        return {"app_source": str(place)}

    return make


@pytest.fixture(name="run", scope="module")
def run_fixture(play):
    """Runs a playbook; it must succeed, unless it shall fail."""

    def call(playbook: str, fails: bool = False, **variables: str) -> str:
        done = play(playbook, "--extra-vars", json.dumps({"app": "orders", **variables}))
        assert (done.status != 0) is fails, done.output
        if fails:
            assert all(row["failed"] == 1 for row in done.recap.values()), done.output
        assert SECRET not in done.output
        return " ".join(done.output.split())

    return call


@pytest.fixture(name="live", scope="module")
def live_fixture(hosts, run, source):
    """Has a version live on each host, whatever was before; without one, any in a slot will do. Tells the slots.

    With nothing to do, the run ends at its plan.
    """

    def is_settled(host) -> bool:
        try:
            return bool(is_clean(host))
        except AssertionError:
            return False

    def bring(version: str = "") -> list[str]:
        if version or not all(is_settled(host) for host in hosts):
            run(DEPLOY, **({} if version in ("", BASE) else source(version)))
            assert {served(host) for host in hosts} == {version or BASE}
        return [is_clean(host) for host in hosts]

    return bring


def ask(host, name: str = APP) -> dict:
    """What the app says of its version, through nginx."""
    return json.loads(
        host.check_output(f"curl --silent --fail --max-time 5 --header Host:{name} http://127.0.0.1/version")
    )


def served(host) -> str:
    """The version that is served; empty when none is."""
    done = host.run(f"curl --silent --fail --max-time 2 --header Host:{APP} http://127.0.0.1/version")
    return json.loads(done.stdout)["version"] if done.rc == 0 else ""


def ledger(host, app: str = "orders") -> list[dict]:
    text = host.file(f"/opt/fastapi/apps/{app}/ledger.jsonl").content_string
    return [json.loads(line) for line in text.splitlines()]


def releases(host) -> set[str]:
    """Those on the host that the ledger knows, for one of an app in place stays until it is old."""
    return {entry["release"] for entry in ledger(host)} & set(host.check_output(f"ls {RELEASES}").split())


def live_release(host) -> str:
    return host.check_output("basename $(readlink /opt/fastapi/apps/orders/current)")


def live_slot(host, app: str = "orders") -> str:
    return host.check_output(f"readlink /run/fastapi/{app}/live.sock").removesuffix("/app.sock")


def is_clean(host) -> str:
    """Exactly one slot is there by all accounts; tells which."""
    slot = live_slot(host)
    shown = host.check_output("supervisorctl status").splitlines()
    assert [row.split()[:2] for row in shown] == [[f"orders_{slot}", "RUNNING"]]
    files = host.check_output("ls /etc/supervisord.d").split()
    # Those that begin with _ are the host's own.
    assert [name for name in files if not name.startswith("_")] == [f"orders_{slot}.ini"]
    assert host.check_output("ls /etc/fastapi/orders").split() == [slot]
    assert (
        f"/run/fastapi/orders/live.sock - - - - {slot}/app.sock"
        in host.file("/etc/tmpfiles.d/fastapi-orders.conf").content_string
    )
    assert not host.file("/opt/fastapi/apps/orders/deploy.lock").exists
    current = live_release(host)
    assert current == ledger(host)[-1]["release"] or ledger(host)[-1]["result"] == "bad"
    assert host.check_output(f"readlink /etc/fastapi/orders/{slot}/release").endswith(current)
    return slot


def pids(host) -> str:
    return host.check_output("ps -o pid= -u orders")


def start_load(hosts: list[testinfra.host.Host]) -> None:
    """Runs the client on each host."""
    for host in hosts:
        client = str(PROJECT / "tests" / "load" / "client.py")
        subprocess.run(["podman", "cp", client, f"{host.backend.name}:/root/"], check=True)
        host.run("systemctl stop load")
        host.check_output("rm -f /root/stop /root/marks /root/result.json")
        host.check_output(
            "systemd-run --unit=load --collect sh -c 'exec /usr/bin/python3 /root/client.py --host "
            f"{APP} --seconds 1500 --stop /root/stop --marks /root/marks > /root/result.json'"
        )


def stop_load(hosts: list[testinfra.host.Host], marks: dict[str, list[tuple[float, str]]]) -> dict[str, dict]:
    """Ends the clients; their results by host."""
    for host in hosts:
        lines = "".join(f"{at} {name}\\n" for at, name in marks.get(host.backend.name, []))
        host.check_output(f"printf '{lines}' > /root/marks")
        host.check_output("touch /root/stop")
    for host in hosts:
        host.check_output("sh -c 'while systemctl is-active --quiet load; do sleep 0.2; done'")
    return {host.backend.name: json.loads(host.file("/root/result.json").content_string) for host in hosts}
