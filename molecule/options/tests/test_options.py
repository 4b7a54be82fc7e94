"""Options arrive in the processes; variables that cannot work are refused, all at once, with no change on a host."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml

PROJECT = Path(__file__).resolve().parents[3]
CORPUS = PROJECT / "tests" / "unit" / "corpus" / "invalid"
GOOD: dict[str, Any] = {"app": "orders.main:app", "source": {"path": "/src"}}


def environment(host, pid: str) -> dict[str, str]:
    text = host.check_output(f"base64 --wrap=0 /proc/{pid}/environ")
    items = base64.b64decode(text).decode().split("\0")
    return dict(item.split("=", 1) for item in items if item)


def pid_of(host, name: str) -> str:
    return str(host.check_output(f"supervisorctl pid {name}"))


def identification(host, url: str, username: str = "None", password: str = "None") -> str:
    """What supervisord calls itself to a client of its own."""
    script = (
        "import xmlrpc.client as x; from supervisor.xmlrpc import SupervisorTransport as T; "
        f'print(x.ServerProxy("http://x", T({username}, {password}, "{url}")).supervisor.getIdentification())'
    ).replace("'", '"')
    return str(host.run(f"python3 -c '{script}'").stdout.strip())


def test_an_environment_with_any_characters(host) -> None:
    found = environment(host, pid_of(host, "hard"))
    expected = {
        "QUOTES": 'it\'s "so"',
        "LINES": "one\ntwo\n",
        "COMMENT": "a ;b #c",
        "PERCENT": "50%",
        "FISH": "grün 🐟",
        "SECRET": "s3cr3t\n'\";",
        "FROM_SUPERVISORD": "a, b",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert "FASTAPI_HOST_ENVIRONMENT" not in found
    assert host.check_output(f"ps -o user= -p {pid_of(host, 'hard')}") == "nobody"


def test_no_secret_lies_open(host) -> None:
    assert host.file("/etc/supervisord.d/_programs.ini").mode == 0o600
    command = host.check_output(f"tr '\\0' ' ' < /proc/{pid_of(host, 'hard')}/cmdline")
    assert command.strip() == "/bin/sleep 100021"


def test_options_of_supervisord(host) -> None:
    assert identification(host, "unix:///run/supervisor/options.sock", "'ops'", "'50%;s3cr3t-of-ops'") == "the-options"
    assert host.file("/run/supervisor/options.sock").mode == 0o750
    assert "Umask:\t0027" in host.check_output(f"cat /proc/{pid_of(host, 'hard')}/status")
    assert "prompt=options" in host.file("/etc/supervisord.conf").content_string


def test_options_of_the_server(host, curl, processes) -> None:
    answer = host.check_output("curl --silent --fail --dump-header - --output /dev/null http://127.0.0.1:8000/health")
    assert "x-served-by: orders" in answer.lower()
    found = processes(host, "orders")
    # All but the master, whose parent is the launcher, root's.
    assert len([pid for pid, row in found.items() if int(row[0]) in found]) == 1
    assert "the hook when_ready says hello" in host.file("/var/log/fastapi/orders/server.log").content_string
    assert "stdout_logfile_backups=2" in host.file("/etc/supervisord.d/orders.ini").content_string


def test_what_runs_is_told_when_it_changes(play, converge_playbook, scenario_apps) -> None:
    app = {**scenario_apps[0], "uvicorn": {"loop": "auto"}}
    done = play(converge_playbook, "--extra-vars", json.dumps({"fastapi_apps": [app]}))
    assert done.status == 0, done.output
    assert "orders uses loop uvloop, http httptools" in done.output
    back = play(converge_playbook)
    assert back.status == 0, back.output
    assert "orders uses loop asyncio, http httptools" in back.output


def groups() -> dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]:
    """For each file of the corpus, variables that have many of its faults at once, and the cases that these are."""
    found = {}
    for file in sorted(CORPUS.glob("*.yml")):
        # Without what JSON, in which the variables are handed over, can't hold.
        cases = [case for case in yaml.safe_load(file.read_text(encoding="utf-8")) if "apps" not in case]
        cases = [case for case in cases if json.loads(json.dumps(case)) == case]
        variables: dict[str, Any] = {"fastapi_apps": []}
        used = []
        for case in cases:
            if "vars" in case and not set(case["vars"]) & set(variables) and "app" not in case:
                variables.update(case["vars"])
                used.append(case)
            elif "vars" not in case:
                number = len(variables["fastapi_apps"])
                own = {"name": f"app{number}", "bind": f"127.0.0.1:{20000 + number}"}
                variables["fastapi_apps"].append({**GOOD, **own, **case["app"]})
                used.append(case)
        if not variables["fastapi_apps"]:
            variables["fastapi_apps"] = [{**GOOD, "name": "orders"}]
        found[file.stem] = (variables, used)
    return found


def state(host: testinfra.host.Host) -> str:
    """What a change would touch: files, accounts and processes."""
    return str(
        host.check_output(
            "find /etc /opt/fastapi /run/fastapi /var/log/fastapi -newer /etc/hostname -printf '%p %T@ %m %u\\n'"
            " 2>/dev/null | sort | sha256sum; sha256sum < /etc/passwd; supervisorctl status | awk '{print $1, $2, $4}'"
        )
    )


@pytest.mark.parametrize("group", sorted(groups()))
def test_refused_with_no_change(group, play, converge_playbook, hosts) -> None:
    variables, cases = groups()[group]
    before = [state(host) for host in hosts]
    done = play(converge_playbook, "--extra-vars", json.dumps(variables), ANSIBLE_STDOUT_CALLBACK="ansible.posix.json")
    assert done.status != 0
    result = json.loads(done.output[done.output.index("{\n") :])
    assert [row["changed"] for row in result["stats"].values()] == [0] * len(hosts)
    failed = [
        row
        for play_ in result["plays"]
        for task in play_["tasks"]
        for row in task["hosts"].values()
        if row.get("failed")
    ]
    assert len(failed) == len(hosts)
    lines = failed[0]["msg"].splitlines()
    missing = [case for case in cases if not any(case["variable"] in line and case["reason"] in line for line in lines)]
    assert missing == []
    assert len(cases) >= 4
    assert [state(host) for host in hosts] == before
    assert "hunter2" not in done.output
