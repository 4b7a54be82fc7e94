"""supervisord with the role's configuration, started by the package's own unit."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def running(host):
    host.check_output("systemctl start supervisord")
    host.check_output("sh -c 'until [ -S /run/supervisor/supervisor.sock ]; do sleep 0.1; done'")
    yield host
    host.check_output("systemctl stop supervisord")


def test_repositories(host) -> None:
    enabled = [row.split()[0] for row in host.check_output("dnf --quiet repolist --enabled").splitlines()[1:]]
    assert {"crb", "epel"} <= set(enabled)


def test_it_comes_from_epel(host) -> None:
    assert host.check_output("rpm -qf /usr/bin/supervisord").startswith("supervisor-")
    assert "epel" in host.check_output("dnf --quiet --cacheonly repoquery --installed --qf '%{from_repo}' supervisor")


def test_only_root_may_control_it(running) -> None:
    socket = running.file("/run/supervisor/supervisor.sock")
    assert (socket.user, socket.group, socket.mode) == ("root", "root", 0o700)
    assert running.run("supervisorctl pid").rc == 0
    assert running.run("runuser -u nobody -- supervisorctl pid").rc != 0


def test_it_listens_on_no_port(running) -> None:
    assert running.check_output("ss -Hltnup") == ""


def test_it_writes_its_log(running) -> None:
    assert "supervisord started with pid" in running.file("/var/log/supervisor/supervisord.log").content_string


def test_logrotate_keeps_out(host) -> None:
    rule = host.file("/etc/logrotate.d/supervisor").content_string.splitlines()
    assert [line for line in rule if line.strip() and not line.startswith("#")] == []


@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ("supervisor_logfile_maxbytes=lots", "supervisor_logfile_maxbytes is 'lots'"),
        ("supervisor_socket_group=nobodys", "'nobodys'"),
        ("supervisor_minfds=100000000000", "supervisor_minfds is 100000000000"),
    ],
)
def test_a_broken_configuration_replaces_nothing(host, play, converge_playbook, variables, cause) -> None:
    before = host.file("/etc/supervisord.conf").content
    done = play(converge_playbook, "--limit", host.backend.name, "--extra-vars", variables)
    assert done.status != 0, done.output
    assert cause in " ".join(done.output.split())
    assert host.file("/etc/supervisord.conf").content == before


def test_what_supervisor_itself_refuses_replaces_nothing(host, play, converge_playbook) -> None:
    """A program file made by hand that would keep supervisord from starting."""
    before = host.file("/etc/supervisord.conf").content
    host.check_output("sh -c 'echo [program:broken] > /etc/supervisord.d/broken.ini'")
    done = play(converge_playbook, "--limit", host.backend.name, "--extra-vars", "supervisor_loglevel=debug")
    host.check_output("rm /etc/supervisord.d/broken.ini")
    assert done.status != 0, done.output
    assert "program:broken" in done.output
    assert host.file("/etc/supervisord.conf").content == before


def test_a_group_may_control_it(host, play, converge_playbook) -> None:
    host.check_output("groupadd --force operators")
    host.check_output("sh -c 'id op >/dev/null 2>&1 || useradd --gid operators op'")
    host.check_output("systemctl start supervisord")
    done = play(converge_playbook, "--limit", host.backend.name, "--extra-vars", "supervisor_socket_group=operators")
    assert done.status == 0, done.output
    host.check_output("sh -c 'until supervisorctl pid >/dev/null 2>&1; do sleep 0.1; done'")
    assert host.run("runuser -u op -- supervisorctl pid").rc == 0
    assert host.run("runuser -u nobody -- supervisorctl pid").rc != 0
