"""Apps from each kind of source, and what a new version of one leaves."""

from __future__ import annotations

import json

import pytest

PORTS = {"folder": 8001, "archive": 8002, "address": 8003, "repository": 8004}
APPS = "/opt/fastapi/apps"


def version(host, app: str) -> str:
    return str(json.loads(host.check_output(f"curl --silent --fail http://127.0.0.1:{PORTS[app]}/version"))["version"])


@pytest.mark.parametrize("app", list(PORTS))
def test_it_answers(host, app) -> None:
    assert version(host, app) == "1.0.0"


@pytest.mark.parametrize("app", list(PORTS))
def test_what_runs_is_the_current_release(host, app) -> None:
    release = host.check_output(f"readlink -f {APPS}/{app}/current")
    commands = host.check_output(f"ps -o args= -u {app}").splitlines()
    assert all(command.startswith(f"{release}/.") for command in commands), commands


@pytest.mark.parametrize("app", list(PORTS))
def test_the_source_is_whole_and_roots(host, app) -> None:
    source = f"{APPS}/{app}/current/app"
    assert host.file(f"{source}/orders/main.py").is_file
    assert not host.file(f"{source}/.git").exists
    assert host.run(f"find {source}/ '(' ! -user root -o -perm /022 ')' ! -type l").stdout == ""


@pytest.mark.parametrize("app", list(PORTS))
def test_nobody_else_reads_the_source(host, app) -> None:
    assert host.run(f"find {APPS}/{app}/releases/*/app/ ! -type l -perm /007").stdout == ""
    assert host.run(f"runuser -u nobody -- cat {APPS}/{app}/current/app/orders/main.py").rc != 0
    assert host.run(f"runuser -u nobody -- ls {APPS}/{app}/releases").rc != 0


def test_the_clone_is_roots_alone(host) -> None:
    clone = host.file(f"{APPS}/repository/repository")
    assert (clone.user, clone.mode) == ("root", 0o700)


def test_a_new_version_restarts_its_app_alone_and_old_releases_go(play, converge_playbook, hosts) -> None:
    before = [host.check_output("supervisorctl pid folder") for host in hosts]
    old = [host.check_output(f"readlink {APPS}/repository/current") for host in hosts]
    variables = ("--extra-vars", "app_version=v2", "--extra-vars", "release_keep=1")
    done = play(converge_playbook, *variables)
    assert done.status == 0, done.output
    for number, host in enumerate(hosts):
        assert version(host, "repository") == "2.0.0"
        assert host.check_output("supervisorctl pid folder") == before[number]
        assert host.check_output(f"ls -A {APPS}/repository/releases") != old[number].rpartition("/")[2]
        assert len(host.check_output(f"ls -A {APPS}/repository/releases").split()) == 1
    assert play(converge_playbook, *variables).changed() == 0


def test_a_wrong_checksum_is_refused(play, converge_playbook, scenario_apps) -> None:
    app = {**scenario_apps[1], "source": {**scenario_apps[1]["source"], "checksum": "sha256:" + "0" * 64}}
    done = play(converge_playbook, "--extra-vars", json.dumps({"fastapi_apps": [app]}))
    assert done.status != 0
    assert "has the digest sha256:" in " ".join(done.output.split())


def test_an_unknown_version_is_refused(play, converge_playbook, hosts) -> None:
    done = play(converge_playbook, "--extra-vars", "app_version=v99")
    assert done.status != 0
    assert "source.version is 'v99': /srv/orders.git has no such tag, branch or commit" in " ".join(done.output.split())
    for host in hosts:
        assert version(host, "repository") == "2.0.0"
