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


# --- what somebody else put there

LEGACY = """\
; Ask Ann before this is stopped.
[program:legacy]
command=/bin/sleep 100000
environment=TOKEN="s3cret-of-ann"
"""
BY_HAND = """\
[unix_http_server]
file=/run/supervisor/supervisor.sock

[supervisord]
logfile=/var/log/supervisor/supervisord.log
pidfile=/run/supervisord.pid

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix:///run/supervisor/supervisor.sock

[include]
files = supervisord.d/*.ini

"""


def write(host, path: str, text: str) -> None:
    host.check_output("sh -c %s", f"cat > {path} <<'END'\n{text}END\n")


def pid_of(host, program: str) -> str:
    until = f"until supervisorctl pid {program} | grep -x [1-9][0-9]*; do sleep 0.1; done"
    return str(host.check_output(f"timeout 20 sh -c '{until}'"))


@pytest.fixture
def by_hand(host):
    """A supervisord that was there before the role, with a program in its own file and one in supervisord.d."""
    host.check_output("systemctl stop supervisord")
    host.check_output("sh -c 'rm -f /etc/supervisord.d/*.ini'")
    write(host, "/etc/supervisord.conf", BY_HAND + LEGACY)
    write(host, "/etc/supervisord.d/other.ini", "[program:other]\ncommand=/bin/sleep 100001\n")
    host.check_output("systemctl start supervisord")
    yield {name: pid_of(host, name) for name in ("legacy", "other")}
    host.check_output("systemctl stop supervisord")
    host.check_output("sh -c 'rm -f /etc/supervisord.d/other.ini /etc/supervisord.d/_existing.ini'")


def test_programs_of_others_are_not_restarted_unasked(host, play, converge_playbook, by_hand) -> None:
    before = host.file("/etc/supervisord.conf").content
    for mode in ([], ["--check", "--diff"]):
        done = play(converge_playbook, "--limit", host.backend.name, *mode)
        said = " ".join(done.output.split())
        assert done.status != 0, done.output
        assert "legacy, other" in said
        assert "supervisor_existing to restart" in said
        assert "s3cret" not in said
    assert host.file("/etc/supervisord.conf").content == before
    assert {name: pid_of(host, name) for name in by_hand} == by_hand


def test_with_permission_they_are_kept(host, play, converge_playbook, by_hand) -> None:
    limit = ("--limit", host.backend.name, "--diff")
    done = play(converge_playbook, *limit, "--extra-vars", "supervisor_existing=restart")
    assert done.status == 0, done.output
    assert "program:legacy" in done.output
    assert "s3cret" not in done.output
    kept = host.file("/etc/supervisord.d/_existing.ini")
    assert (kept.mode, kept.user) == (0o600, "root")
    assert kept.content_string.endswith(LEGACY)
    assert "legacy" not in host.file("/etc/supervisord.conf").content_string
    after = {name: pid_of(host, name) for name in by_hand}
    # Never again: neither they nor the variable are in the way of the next runs.
    done = play(converge_playbook, *limit)
    assert (done.status, done.changed()) == (0, 0), done.output
    assert {name: pid_of(host, name) for name in by_hand} == after


def test_a_program_that_is_added_to_the_file_goes_on(host, play, converge_playbook) -> None:
    host.check_output("systemctl start supervisord")
    assert play(converge_playbook, "--limit", host.backend.name).status == 0
    written = host.file("/etc/supervisord.conf").content
    host.check_output("sh -c %s", f"cat >> /etc/supervisord.conf <<'END'\n\n{LEGACY}END\n")
    host.check_output("supervisorctl update")
    pids = {name: pid_of(host, name) for name in ("", "legacy")}
    done = play(converge_playbook, "--limit", host.backend.name, "--diff")
    assert done.status == 0, done.output
    assert "s3cret" not in done.output
    assert host.file("/etc/supervisord.conf").content == written
    assert host.file("/etc/supervisord.d/_existing.ini").content_string.endswith(LEGACY)
    assert {name: pid_of(host, name) for name in ("", "legacy")} == pids
    lists = '{"supervisor_programs": [{"name": "legacy", "command": "/bin/sleep 100002"}]}'
    done = play(converge_playbook, "--limit", host.backend.name, "--extra-vars", lists)
    assert done.status != 0, done.output
    assert "[program:legacy] is in /etc/supervisord.d/_existing.ini" in " ".join(done.output.split())
    assert pid_of(host, "legacy") == pids["legacy"]
    host.check_output("rm /etc/supervisord.d/_existing.ini")
    host.check_output("supervisorctl update")
