"""What systemd does with supervisord: at boot, after a death, at a stop, at a reload."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

ATTEMPTS = Path(__file__).parent / "attempts.py"


def show(host, name: str) -> str:
    return str(host.check_output(f"systemctl show --property {name} --value supervisord"))


def open_files(host, pid: str) -> int:
    """The hard limit of a process."""
    row = next(row for row in host.check_output(f"cat /proc/{pid}/limits").splitlines() if "open files" in row)
    return int(row.split()[4])


def filters(host, pid: str) -> int:
    rows = host.check_output(f"cat /proc/{pid}/status").splitlines()
    return int(next(row for row in rows if row.startswith("Seccomp_filters")).split()[1])


def pid(host, program: str) -> str:
    return str(host.run(f"supervisorctl pid {program}").stdout.strip())


@pytest.fixture
def sleeper(host, wait_for) -> str:
    wait_for(lambda: pid(host, "sleeper").isdigit(), 10, "the sleeper runs")
    return pid(host, "sleeper")


def test_it_runs_and_starts_at_boot(host) -> None:
    service = host.service("supervisord")
    assert service.is_running
    assert service.is_enabled


def test_it_runs_in_the_foreground(host) -> None:
    assert show(host, "Type") == "exec"
    main = show(host, "MainPID")
    assert host.check_output(f"ps -o ppid= -p {main}").strip() == "1"
    assert host.check_output("supervisorctl pid") == main


def test_limits_reach_the_programs(host, sleeper) -> None:
    assert show(host, "LimitNOFILE") == "65536"
    # A container may be allowed less than the unit asks for.
    allowed = min(65536, open_files(host, "1"))
    assert open_files(host, sleeper) == allowed > 1024


def test_the_sandbox_reaches_the_programs(host, sleeper) -> None:
    status = host.check_output(f"cat /proc/{sleeper}/status")
    assert "NoNewPrivs:\t0" in status, "programs may still use sudo"
    # A container lacks the capabilities that the directives take away, but their system call filters show.
    assert filters(host, sleeper) > filters(host, "1")


@pytest.fixture(scope="module")
def attempts(host, wait_for) -> dict[str, str]:
    """What root may do in a program of supervisord: attempt -> "" or the error's name."""
    script = ATTEMPTS.read_text(encoding="utf-8")
    program = (
        "[program:attempts]\ncommand=/usr/bin/python3 /srv/attempts.py /srv/attempts.json\nstartsecs=0\n"
        "autorestart=false\nredirect_stderr=true\nstdout_logfile=/srv/attempts.log\n"
    )
    host.check_output("rm -f /srv/attempts.json")
    for path, content in (("/srv/attempts.py", script), ("/etc/supervisord.d/attempts.ini", program)):
        host.check_output(f"sh -c {shlex.quote(f'printf %s {shlex.quote(content)} > {path}')}")
    host.check_output("systemctl reload supervisord")
    try:
        wait_for(lambda: "EXITED" in host.run("supervisorctl status attempts").stdout, 20, "the attempts end")
    finally:
        host.check_output("rm /etc/supervisord.d/attempts.ini")
        host.check_output("systemctl reload supervisord")
    assert host.file("/srv/attempts.json").exists, host.file("/srv/attempts.log").content_string
    return dict(json.loads(host.file("/srv/attempts.json").content_string))


def test_what_apps_and_programs_need_works(attempts) -> None:
    needed = ("launch", "cgroup", "executable memory", "processes", "another account")
    assert {name: attempts[name] for name in needed} == dict.fromkeys(needed, "")


def test_what_nobody_needs_is_refused(attempts) -> None:
    refused = {
        "user namespace": "EPERM",
        "host name namespace": "EPERM",
        "packet socket": "EAFNOSUPPORT",
        "setuid file": "EPERM",
        "ptrace": "EPERM",
        "device": "EPERM",
    }
    assert {name: attempts[name] for name in refused} == refused


def test_the_unit_is_tight(host) -> None:
    shown = host.check_output("systemd-analyze security --no-pager supervisord.service")
    assert float(re.search(r"Overall exposure level for \S+: ([\d.]+)", shown)[1]) <= 5.1


def test_one_app_out_of_memory_does_not_end_the_others(host) -> None:
    assert (show(host, "Delegate"), show(host, "OOMPolicy")) == ("yes", "continue")


def test_kill_leaves_no_orphan_and_brings_it_back(host, sleeper, wait_for) -> None:
    main = show(host, "MainPID")
    host.check_output(f"kill -9 {main}")
    wait_for(lambda: pid(host, "sleeper") not in ("", sleeper), 10, "the sleeper runs again")
    assert host.run(f"kill -0 {sleeper}").rc != 0
    assert show(host, "MainPID") != main


def test_reload_leaves_the_others_alone(host, sleeper) -> None:
    main = show(host, "MainPID")
    host.check_output(
        "sh -c 'printf \"[program:second]\\ncommand=/bin/sleep 100000\\n\" > /etc/supervisord.d/second.ini'"
    )
    host.check_output("systemctl reload supervisord")
    first = pid(host, "second")
    assert first.isdigit()
    host.check_output("sed -i s/100000/100001/ /etc/supervisord.d/second.ini")
    host.check_output("systemctl reload supervisord")
    assert pid(host, "second") != first
    host.check_output("rm /etc/supervisord.d/second.ini")
    host.check_output("systemctl reload supervisord")
    assert "second" not in host.check_output("supervisorctl status")
    assert pid(host, "sleeper") == sleeper
    assert show(host, "MainPID") == main


def test_a_stop_is_graceful_and_complete(host, sleeper, wait_for) -> None:
    host.check_output("systemctl stop supervisord")
    assert host.run(f"kill -0 {sleeper}").rc != 0
    log = host.file("/var/log/supervisor/supervisord.log").content_string
    assert "stopped: sleeper (terminated by SIGTERM)" in log
    host.check_output("systemctl start supervisord")
    wait_for(lambda: pid(host, "sleeper").isdigit(), 10, "the sleeper runs again")


def test_a_longer_stop_restarts_nothing(host, sleeper, play, converge_playbook) -> None:
    main = show(host, "MainPID")
    variables = "supervisord_unit_timeout_stop_sec=321"
    done = play(converge_playbook, "--limit", host.backend.name, "--extra-vars", variables)
    assert done.status == 0, done.output
    assert show(host, "TimeoutStopUSec") == "5min 21s"
    assert show(host, "MainPID") == main
    assert pid(host, "sleeper") == sleeper


def test_a_sandbox_of_ones_own_is_put_over_the_roles(play, converge_playbook, hosts) -> None:
    sandbox = {"supervisord_unit_sandbox": {"PrivateTmp": "yes", "RestrictSUIDSGID": ""}}
    done = play(converge_playbook, "--extra-vars", json.dumps(sandbox))
    assert done.status == 0, done.output
    for host in hosts:
        shown = [show(host, name) for name in ("PrivateTmp", "RestrictSUIDSGID", "LockPersonality")]
        assert shown == ["yes", "no", "yes"]
    done = play(converge_playbook)
    assert done.status == 0, done.output
    for host in hosts:
        assert show(host, "RestrictSUIDSGID") == "yes"


def test_a_stop_that_cuts_programs_off_is_refused(host, play, converge_playbook) -> None:
    variables = '{"supervisord_unit_timeout_stop_sec": 60, "fastapi_apps": [{"name": "a"}, {"name": "b"}]}'
    done = play(converge_playbook, "--limit", host.backend.name, "--extra-vars", variables)
    assert done.status != 0
    assert "supervisord_unit_timeout_stop_sec is 60" in " ".join(done.output.split())
