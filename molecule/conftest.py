"""What the scenarios' tests share: the hosts, and runs of Ansible against them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml

PROJECT = Path(__file__).resolve().parents[1]
INVENTORY = os.environ.get("MOLECULE_INVENTORY_FILE", "")


def _host_names() -> list[str]:
    groups = yaml.safe_load(Path(INVENTORY).read_text(encoding="utf-8"))
    return sorted(groups["fastapi"]["hosts"])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that takes a host runs on each host of the scenario."""
    if "host" in metafunc.fixturenames:
        metafunc.parametrize("host", _host_names(), indirect=True, scope="module")


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest) -> testinfra.host.Host:
    return testinfra.get_host(f"podman://{request.param}")


@pytest.fixture(scope="session")
def host_names() -> list[str]:
    return _host_names()


@pytest.fixture(scope="session")
def hosts(host_names) -> list[testinfra.host.Host]:
    """All of them at once, for what one run does to them together."""
    return [testinfra.get_host(f"podman://{name}") for name in host_names]


class Play:
    """The outcome of one ansible-playbook run."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.output = done.stdout

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """The counters of each host, such as {"stack-el9": {"ok": 3, "changed": 0}}."""
        rows = re.findall(r"^(\S+)\s+: (ok=.*)$", self.output, flags=re.M)
        return {name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", row)} for name, row in rows}

    def changed(self) -> int:
        return sum(row["changed"] for row in self.recap.values())


@pytest.fixture(scope="session")
def play() -> Callable[..., Play]:
    """Runs a playbook against the scenario's inventory."""

    def run(playbook: str, *arguments: str, **environment: str) -> Play:
        command = ["ansible-playbook", "-i", INVENTORY, *arguments, playbook]
        return Play(
            subprocess.run(
                command,
                cwd=os.environ["MOLECULE_SCENARIO_DIRECTORY"],
                env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=600,
                check=False,
            )
        )

    return run


@pytest.fixture(scope="session")
def scenario_apps() -> list[dict[str, Any]]:
    """The apps of the scenario, to change and hand to a run."""
    groups = yaml.safe_load((Path(INVENTORY).parent / "group_vars" / "fastapi").read_text(encoding="utf-8"))
    return list(groups["fastapi_apps"])


@pytest.fixture(scope="session")
def example_app() -> Callable[[Path], Path]:
    """Copies the example app to a place that is not there yet, to be changed."""

    def copy(place: Path) -> Path:
        ignored = shutil.ignore_patterns("__pycache__")
        return Path(shutil.copytree(PROJECT / "examples" / "app", place, ignore=ignored))

    return copy


@pytest.fixture(scope="session")
def converge_playbook() -> str:
    scenario = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text(encoding="utf-8"))
    return str(Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / scenario["ansible"]["playbooks"]["converge"])


@pytest.fixture(scope="session")
def wait_for() -> Callable[[Callable[[], Any], float, str], float]:
    """Waits until a condition is true, at most so many seconds; returns how long it took."""

    def wait(condition: Callable[[], Any], seconds: float, what: str) -> float:
        start = time.monotonic()
        while True:
            found = condition()
            elapsed = time.monotonic() - start
            if found:
                return elapsed
            assert elapsed < seconds, f"not within {seconds} s: {what}"
            time.sleep(0.05)

    return wait


@pytest.fixture(scope="session")
def curl() -> Callable[..., str]:
    """Asks an app from inside its host; the answer's text with its status in the last line."""

    def ask(host: testinfra.host.Host, url: str, *options: str) -> str:
        command = ["curl", "--silent", "--max-time", "10", "--write-out", "\n%{http_code}", *options, url]
        return str(host.check_output(" ".join(shlex.quote(word) for word in command)))

    return ask


@pytest.fixture(scope="session")
def processes() -> Callable[..., dict[int, list[str]]]:
    """The processes of an account: pid -> [parent's pid, command line]."""

    def find(host: testinfra.host.Host, user: str) -> dict[int, list[str]]:
        rows = host.run(f"ps -o pid=,ppid=,args= -u {user}").stdout.splitlines()
        return {int(pid): [parent, command] for pid, parent, command in (row.split(None, 2) for row in rows)}

    return find
