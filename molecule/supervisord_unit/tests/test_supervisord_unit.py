"""What systemd does with supervisord: at boot, after a death, at a stop, at a reload."""

from __future__ import annotations

import pytest


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


def test_a_stop_that_cuts_programs_off_is_refused(host, play, converge_playbook) -> None:
    variables = '{"supervisord_unit_timeout_stop_sec": 60, "fastapi_apps": [{"name": "a"}, {"name": "b"}]}'
    done = play(converge_playbook, "--limit", host.backend.name, "--extra-vars", variables)
    assert done.status != 0
    assert "supervisord_unit_timeout_stop_sec is 60" in " ".join(done.output.split())
