"""A changed list of programs changes these programs and no others; secrets stay where they belong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from test_operations import SECRETS, pids, without


@pytest.fixture(scope="session")
def variables() -> dict:
    inventory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
    return yaml.safe_load((inventory / "group_vars" / "fastapi").read_text(encoding="utf-8"))


@pytest.fixture
def converge(host, play, converge_playbook):
    def run(*arguments: str, **changed):
        words = ["--limit", host.backend.name, "--diff", "--extra-vars", json.dumps(changed), *arguments]
        done = play(converge_playbook, *words)
        assert not any(secret in done.output for secret in SECRETS)
        return done

    return run


def test_only_what_changed_changes(host, converge, variables, wait_for) -> None:
    wait_for(lambda: len(pids(host)) == 23, 30, "all run")
    before = pids(host)
    programs = [program for program in variables["supervisor_programs"] if program["name"] != "bystander"]
    programs.append({"name": "added", "command": "/bin/sleep 100006"})
    checked = converge("--check", supervisor_programs=programs)
    assert checked.status == 0, checked.output
    assert pids(host) == before
    done = converge(supervisor_programs=programs)
    assert done.status == 0, done.output
    after = pids(host)
    assert "added" in after
    assert "bystander" not in after
    assert without(after, "added") == without(before, "bystander")
    assert converge(supervisor_programs=programs).changed() == 0
    back = converge()
    assert back.status == 0, back.output
    assert set(pids(host)) == set(before)
    assert without(pids(host), "bystander") == without(before, "bystander")


def test_a_load_that_was_cut_off_is_made_up_for(host, converge) -> None:
    """As when Ansible ends between the file and supervisord."""
    host.check_output("supervisorctl stop bystander")
    host.check_output("supervisorctl remove bystander")
    done = converge()
    assert done.status == 0, done.output
    assert "bystander" in pids(host)


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"supervisor_programs": [{"name": "a b", "command": "/bin/true"}]}, "'a b': it must be letters"),
        ({"supervisor_programs": [{"name": "orders", "command": "/bin/true"}]}, "is that of an app"),
        ({"supervisor_programs": [{"name": "a", "comand": "/bin/true"}]}, "comand"),
        ({"supervisor_programs": [{"name": "a", "command": "/bin/true", "numprocs": "many"}]}, "numprocs"),
        ({"supervisor_programs": [{"name": "a", "command": "/bin/true", "user": "nobdy"}]}, "nobdy"),
        ({"supervisor_event_listeners": [{"name": "e", "command": "/bin/true", "events": ["TIC"]}]}, "TIC"),
        ({"supervisor_inet_http_server": {"port": "0.0.0.0:9001", "username": "a", "password": "b"}}, "public"),
        ({"supervisor_inet_http_server": {"port": "127.0.0.1:9001"}}, "password is missing"),
    ],
)
def test_what_cannot_work_changes_nothing(host, converge, changed, cause) -> None:
    before = pids(host), host.file("/etc/supervisord.d/_programs.ini").content
    done = converge(supervisor_groups=[], **changed)
    assert done.status != 0, done.output
    assert cause in " ".join(done.output.split())
    assert (pids(host), host.file("/etc/supervisord.d/_programs.ini").content) == before


def test_secrets_are_roots(host) -> None:
    for name in ("_programs.ini", "_inet_http_server.ini"):
        file = host.file(f"/etc/supervisord.d/{name}")
        assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
    listed = host.check_output("ps -eo args")
    assert not any(secret in listed for secret in SECRETS)
    pid = pids(host)["bystander"]
    assert "TOKEN=s3cr3t-of-bystander" in host.check_output(f"cat /proc/{pid}/environ").split("\0")
    assert "s3cr3t-of-ops" not in host.file("/etc/supervisord.d/_inet_http_server.ini").content_string
