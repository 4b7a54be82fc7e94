"""The whole way without a package index, with supervisor from a wheel and Gunicorn's own ASGI worker."""

from __future__ import annotations

import json


def test_no_index_can_be_reached(host) -> None:
    for index in ("https://pypi.org/simple/", "https://files.pythonhosted.org/"):
        assert host.run(f"curl --silent --max-time 5 {index}").rc != 0


def test_app_answers(host, curl) -> None:
    assert curl(host, "http://127.0.0.1:8000/health").endswith("\n200")


def test_supervisord_is_the_wheels(host) -> None:
    main = host.check_output("systemctl show --property MainPID --value supervisord")
    command = host.check_output(f"cat /proc/{main}/cmdline | tr '\\0' ' '")
    assert "/opt/fastapi/supervisor/bin/supervisord" in command
    assert host.run("rpm -q supervisor").rc != 0
    assert host.check_output("/opt/fastapi/supervisor/bin/supervisorctl version") == "4.3.0"


def test_the_worker_is_gunicorns_own(host) -> None:
    assert host.file("/var/log/fastapi/orders/server.log").contains("Using worker: asgi")


def test_every_state(host, play) -> None:
    done = play("../shared/states.yml", "--limit", host.backend.name)
    assert done.status == 0, done.output


def test_a_program_of_the_hosts_own(host, play, converge_playbook) -> None:
    """Its files are read and checked by the supervisor of the wheel, and its listener runs on the wheel's Python."""
    variables = {
        "supervisor_programs": [{"name": "sleeper", "command": "/bin/sleep 100001"}],
        "supervisor_retry_fatal": True,
    }
    done = play(converge_playbook, "--limit", host.backend.name, "--extra-vars", json.dumps(variables))
    assert done.status == 0, done.output
    status = host.run("/opt/fastapi/supervisor/bin/supervisorctl status").stdout
    assert "sleeper " in status
    assert status.count("RUNNING") == 3, status
    assert play(converge_playbook, "--limit", host.backend.name, "--extra-vars", json.dumps(variables)).changed() == 0
