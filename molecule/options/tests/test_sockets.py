"""A moved socket with a login, and more places where supervisord listens: everything finds it, in every run."""

from __future__ import annotations

import json

import pytest
from test_options import identification

MOVED = {"file": "/var/lib/ops/s.sock", "username": "moved", "password": "s3cr3t-of-moved%"}


def running(host) -> bool:
    rows = host.run("supervisorctl status").stdout.splitlines()
    return len(rows) == 3 and all(row.split()[1] == "RUNNING" for row in rows)


def test_everything_that_listens(host) -> None:
    places = [
        ("unix:///run/supervisor/options.sock", "'ops'", "'50%;s3cr3t-of-ops'"),
        ("http://127.0.0.1:9001", "'first'", "'s3cr3t-of-first'"),
        ("http://127.0.0.1:9002", "'second'", "'s3cr3t-of-second'"),
    ]
    for url, username, password in places:
        assert identification(host, url, username, password) == "the-options"
        assert identification(host, url) == ""
    assert identification(host, "unix:///run/supervisor/monitor.sock") == "the-options"
    socket = host.file("/run/supervisor/monitor.sock")
    assert (socket.user, socket.group, socket.mode) == ("root", "adm", 0o770)
    assert running(host)


def test_passwords_lie_where_they_must(host) -> None:
    config = host.file("/etc/supervisord.conf")
    assert config.mode == 0o640
    # Once, for supervisorctl: the servers have hashes.
    assert config.content_string.count("s3cr3t") == 1
    ports = host.file("/etc/supervisord.d/_inet_http_server.ini")
    assert ports.mode == 0o600
    assert "s3cr3t" not in ports.content_string
    assert "s3cr3t" not in host.check_output("ps -eo args")


@pytest.mark.parametrize("playbook", ["status", "restart", "reread", "logs"])
def test_playbooks_find_it(play, playbook) -> None:
    done = play(f"asgiops.fastapi_host.{playbook}", "-e", "app=orders")
    assert done.status == 0, done.output
    assert "s3cr3t" not in done.output


def test_reload_finds_it(host) -> None:
    host.check_output("systemctl reload supervisord")
    assert running(host)


def test_a_move_of_the_socket(play, converge_playbook, hosts) -> None:
    """Checked, made, made again, and back; also where a run was cut off before supervisord's restart."""
    variables = ["--extra-vars", json.dumps({"supervisor_unix_http_server": MOVED})]
    before = [host.check_output("supervisorctl pid") for host in hosts]
    refused = play(converge_playbook, *variables)
    assert refused.status != 0
    assert "there is no directory /var/lib/ops" in refused.output
    for host in hosts:
        host.check_output("mkdir -m 0777 /var/lib/ops")
    refused = play(converge_playbook, *variables)
    assert "others than root may write to /var/lib/ops" in refused.output
    assert [host.check_output("supervisorctl pid") for host in hosts] == before
    for host in hosts:
        host.check_output("chmod 0755 /var/lib/ops")

    checked = play(converge_playbook, "--check", "--diff", *variables)
    assert checked.status == 0, checked.output
    assert "/var/lib/ops/s.sock" in checked.output
    assert [host.check_output("supervisorctl pid") for host in hosts] == before
    moved = play(converge_playbook, "--diff", "-vvv", *variables)
    assert moved.status == 0, moved.output
    for output in (checked.output, moved.output):
        assert "s3cr3t" not in output
    for host, pid in zip(hosts, before, strict=True):
        assert host.check_output("supervisorctl pid") != pid
        assert running(host)
        assert not host.file("/run/supervisor/options.sock").exists
        host.check_output("cp /etc/supervisord.conf /root/moved.conf")

    back = play(converge_playbook)
    assert back.status == 0, back.output
    assert all(running(host) for host in hosts)
    for host in hosts:
        host.check_output("cp /root/moved.conf /etc/supervisord.conf")
        assert host.run("supervisorctl status").rc != 0
    finished = play(converge_playbook, *variables)
    assert finished.status == 0, finished.output
    for host in hosts:
        assert running(host)
    again = play(converge_playbook, *variables)
    assert (again.status, again.changed()) == (0, 0), again.output


def test_a_changed_login_alone(play, converge_playbook, hosts) -> None:
    other = {"file": "/run/supervisor/options.sock", "username": "ops", "password": "another"}
    for variables in (["--extra-vars", json.dumps({"supervisor_unix_http_server": other})], []):
        done = play(converge_playbook, *variables)
        assert done.status == 0, done.output
        assert all(running(host) for host in hosts)
