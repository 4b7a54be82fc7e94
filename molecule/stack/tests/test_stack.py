"""Two apps from nothing: what answers, as whom, and what shows of their secrets."""

from __future__ import annotations

import copy
import json

import pytest

SECRETS = ["s3cr3t-key-of-orders", "s3cr3t-key-of-shop"]
GREETING = 'Good "morning", it\'s 100% $HOME; #1 — ü'
ORDERS = "http://127.0.0.1:8000"
SHOP = ("--unix-socket", "/run/fastapi/shop/shop.sock")


def test_orders_answers(host, curl) -> None:
    assert curl(host, f"{ORDERS}/health").endswith("\n200")


def test_shop_answers_on_its_socket(host, curl) -> None:
    assert curl(host, "http://localhost/health", *SHOP).endswith("\n200")


def test_environment_reaches_the_app_exactly(host, curl) -> None:
    body, status = curl(host, f"{ORDERS}/version").rsplit("\n", 1)
    assert status == "200"
    assert json.loads(body)["greeting"] == GREETING


def test_secret_reaches_the_app(host, curl) -> None:
    assert curl(host, f"{ORDERS}/orders", "--header", f"X-Api-Key: {SECRETS[0]}").endswith("\n200")
    assert curl(host, f"{ORDERS}/orders", "--header", "X-Api-Key: another").endswith("\n401")


def test_websocket_echoes(host) -> None:
    script = (
        "import asyncio, websockets\n"
        "async def main():\n"
        "    async with websockets.connect('ws://127.0.0.1:8000/ws') as ws:\n"
        "        await ws.send('hello'); print(await ws.recv())\n"
        "asyncio.run(main())\n"
    )
    python = host.check_output("readlink -f /opt/fastapi/apps/orders/current/venv") + "/bin/python"
    assert host.check_output(f'{python} -c "{script}"') == "hello"


def test_systemd_keeps_supervisord(host) -> None:
    service = host.service("supervisord")
    assert service.is_running
    assert service.is_enabled


def test_supervisord_runs_both_apps(host) -> None:
    rows = host.check_output("supervisorctl status").splitlines()
    assert sorted(row.split()[:2] for row in rows) == [["orders", "RUNNING"], ["shop", "RUNNING"]]


@pytest.mark.parametrize("app", ["orders", "shop"])
def test_server_runs_as_its_own_account(host, processes, app) -> None:
    cpus = int(host.check_output("nproc"))
    found = processes(host, app)
    # One for each CPU, asynchronous as they are; two as asked for the shop, which has a resource tracker beside.
    workers = {"orders": cpus, "shop": 3}[app]
    assert len(found) == 1 + workers, found
    limits = host.check_output(f"cat /proc/{min(found)}/status")
    assert "CapEff:\t0000000000000000" in limits


def test_only_the_app_listens_on_the_network(host) -> None:
    listening = host.check_output("ss -Hltn").splitlines()
    ports = {row.split()[3].rsplit(":", 1)[1] for row in listening}
    assert ports == {"8000"}, listening


def test_no_secret_in_a_command_line(host) -> None:
    shown = host.check_output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "gunicorn" in shown
    assert not [secret for secret in SECRETS if secret in shown]


def test_no_secret_in_a_file_that_others_read(host) -> None:
    places = "/etc /run /opt/fastapi /var/log /var/lib/fastapi /tmp /var/tmp /root"
    for secret in SECRETS:
        found = host.run(f"grep -rlsF {secret} --exclude-dir=udev {places}").stdout.split()
        assert len(found) == 1 and found[0].endswith("/environment"), found
        file = host.file(found[0])
        assert (file.mode, file.user) == (0o640, "root")
        assert file.group == found[0].split("/")[-2]


def test_no_secret_in_supervisors_answers(host) -> None:
    script = (
        "import xmlrpc.client; from supervisor.xmlrpc import SupervisorTransport as T; "
        "t = T(None, None, 'unix:///run/supervisor/supervisor.sock'); "
        "print(xmlrpc.client.ServerProxy('http://localhost', t).supervisor.getAllProcessInfo())"
    )
    shown = host.check_output(f'/usr/bin/python3 -c "{script}"')
    assert "orders" in shown
    assert not [secret for secret in SECRETS if secret in shown]


def test_control_socket_is_roots(host) -> None:
    socket = host.file("/run/supervisor/supervisor.sock")
    assert socket.is_socket
    assert (socket.user, socket.mode) == ("root", 0o700)


def test_environment_is_roots_and_not_writable(host) -> None:
    venv = host.check_output("readlink -f /opt/fastapi/apps/orders/current/venv")
    assert host.run(f"find {venv} ! -user root -o -perm /022 ! -type l | head -n 3").stdout == ""
    assert host.run(f"runuser -u orders -- {venv}/bin/python -c 'import fastapi, gunicorn, uvicorn_worker'").rc == 0
    assert host.run(f"runuser -u orders -- touch {venv}/x").rc != 0


def test_a_changed_secret_restarts_its_app_alone_and_does_not_show(
    play, converge_playbook, hosts, scenario_apps
) -> None:
    before = [_pids(host) for host in hosts]
    apps = copy.deepcopy(scenario_apps)
    apps[0]["secrets"]["ORDERS_API_KEY"] = "another-s3cr3t"
    # At the highest verbosity a person would use, and with a diff, of which the environment is a part.
    done = play(converge_playbook, "--diff", "-vvv", "--extra-vars", json.dumps({"fastapi_apps": apps}))
    assert done.status == 0, done.output
    assert "(other secret content, not shown)" in done.output
    assert not [secret for secret in [*SECRETS, "another-s3cr3t"] if secret in done.output]
    for host, was in zip(hosts, before, strict=True):
        after = _pids(host)
        assert after["shop"] == was["shop"]
        assert after["orders"] != was["orders"]


def _pids(host) -> dict[str, str]:
    return {name: host.check_output(f"supervisorctl pid {name}") for name in ("orders", "shop")}
