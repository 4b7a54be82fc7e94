"""kill -9 at every level: the app answers again in time, and no process of the old tree is left."""

from __future__ import annotations

import subprocess

import pytest

APPS = {"orders": "http://127.0.0.1:8000/health", "shop": "http://127.0.0.1:8001/health"}
# Seconds until the app must answer again.
WORKER, MASTER, SUPERVISORD, HOST = 2, 5, 10, 30

pytestmark = pytest.mark.parametrize("app", list(APPS))


def answers(host, app: str) -> bool:
    return host.run(f"curl --silent --max-time 1 --output /dev/null --fail {APPS[app]}").rc == 0


def tree(processes, host, app: str) -> tuple[int, list[int]]:
    """The server's first process and its children."""
    found = processes(host, app)
    masters = [pid for pid, (parent, _command) in found.items() if int(parent) not in found]
    assert len(masters) == 1, found
    return masters[0], [pid for pid in found if pid != masters[0]]


def launcher_of(host, master: int) -> str:
    """The parent of its parent, the first process of the app's namespace."""
    init = host.check_output(f"ps -o ppid= -p {master}").strip()
    return str(host.check_output(f"ps -o ppid= -p {init}").strip())


def none_left(host, pids: list[int]) -> bool:
    return host.run(f"ps -o pid= -p {','.join(map(str, pids))}").stdout.strip() == ""


def test_worker_killed(host, app, processes, wait_for) -> None:
    master, children = tree(processes, host, app)
    commands = processes(host, app)
    worker = next(pid for pid in children if "resource_tracker" not in commands[pid][1])
    host.check_output(f"kill -9 {worker}")
    wait_for(lambda: answers(host, app), WORKER, f"{app} answers")
    wait_for(lambda: none_left(host, [worker]), WORKER, "the killed worker is gone")
    wait_for(lambda: len(tree(processes, host, app)[1]) == len(children), 15, "a new worker took its place")
    assert tree(processes, host, app)[0] == master


def test_master_killed(host, app, processes, wait_for) -> None:
    master, children = tree(processes, host, app)
    host.check_output(f"kill -9 {master}")
    wait_for(lambda: none_left(host, [master, *children]), MASTER, "no process of the old tree is left")
    wait_for(lambda: answers(host, app), MASTER, f"{app} answers")
    assert launcher_of(host, tree(processes, host, app)[0]) == host.check_output(f"supervisorctl pid {app}")


def test_launcher_killed(host, app, processes, wait_for) -> None:
    """The process that supervisord knows: what it started must not live on."""
    master, children = tree(processes, host, app)
    host.check_output(f"kill -9 $(supervisorctl pid {app})")
    wait_for(lambda: none_left(host, [master, *children]), MASTER, "no process of the old tree is left")
    wait_for(lambda: answers(host, app), MASTER, f"{app} answers")


def test_supervisord_killed(host, app, processes, wait_for) -> None:
    supervisord = int(host.check_output("systemctl show --property MainPID --value supervisord"))
    master, children = tree(processes, host, app)
    host.check_output(f"kill -9 {supervisord}")
    wait_for(
        lambda: none_left(host, [supervisord, master, *children]), SUPERVISORD, "no process of the old tree is left"
    )
    wait_for(lambda: answers(host, app), SUPERVISORD, f"{app} answers")
    assert host.service("supervisord").is_running


def test_host_restarted(host, app, wait_for) -> None:
    name = host.backend.name
    booted = host.check_output("systemctl show --property UserspaceTimestampMonotonic --value")
    subprocess.run(["podman", "restart", "--time", "20", name], check=True, stdout=subprocess.DEVNULL)
    wait_for(lambda: answers(host, app), HOST, f"{app} answers")
    assert host.check_output("systemctl show --property UserspaceTimestampMonotonic --value") != booted
