"""One app on a Unix socket, and what the role does with its settings."""

from __future__ import annotations

import json

import pytest

SOCKET = ("--unix-socket", "/run/fastapi/orders/orders.sock")


def settle(host, play, converge_playbook, **settings) -> str:
    variables = json.dumps({"gunicorn_uvicorn_settings": settings})
    done = play(converge_playbook, "--limit", host.backend.name, "--extra-vars", variables)
    assert done.status == 0, done.output
    return " ".join(done.output.split())


def gunicorn_settings(host) -> dict[str, str]:
    """What Gunicorn itself prints of its configuration."""
    shown = host.check_output(
        "cd /opt/orders && set -a && . /etc/fastapi/orders/environment && "
        '"$VIRTUAL_ENV/bin/python" -m gunicorn --config /etc/fastapi/orders/gunicorn.conf.py '
        "--print-config orders.main:app"
    )
    return {key.strip(): value.strip() for key, _equals, value in (row.partition("=") for row in shown.splitlines())}


def test_it_answers(host, curl) -> None:
    assert curl(host, "http://localhost/health", *SOCKET).endswith("\n200")


def test_the_role_added_what_the_lock_lacks(host) -> None:
    assert "gunicorn" not in host.file("/opt/orders/requirements.txt").content_string.replace("# gunicorn", "")
    python = host.check_output("readlink -f /opt/fastapi/venvs/orders") + "/bin/python"
    script = "import importlib.metadata as m; print(*(m.version(n) for n in ('gunicorn', 'uvicorn', 'uvicorn-worker')))"
    assert host.check_output(f'{python} -c "{script}"').startswith("27.0.1 ")


def test_gunicorn_takes_its_settings(host) -> None:
    settings = gunicorn_settings(host)
    assert settings["max_requests"] == "10000"
    assert settings["graceful_timeout"] == "30"
    assert settings["control_socket_disable"] == "True"
    assert settings["bind"] == "['unix:/run/fastapi/orders/orders.sock']"


def test_the_timeouts_are_one_chain(host) -> None:
    python = host.check_output("readlink -f /opt/fastapi/venvs/orders") + "/bin/python"
    script = (
        "import runpy; conf = runpy.run_path('/etc/fastapi/orders/gunicorn.conf.py'); "
        "print(conf['worker_class'].CONFIG_KWARGS['timeout_graceful_shutdown'], conf['graceful_timeout'])"
    )
    uvicorn, gunicorn = map(int, host.check_output(f'{python} -c "{script}"').split())
    program = host.file("/etc/supervisord.d/orders.ini").content_string
    supervisor = int(next(row for row in program.splitlines() if row.startswith("stopwaitsecs=")).partition("=")[2])
    systemd = host.check_output("systemctl show --property TimeoutStopUSec --value supervisord")
    assert uvicorn < gunicorn < supervisor < 90
    assert systemd == "1min 30s"


@pytest.mark.parametrize(
    ("workers", "worker_class", "number", "reason"),
    [
        ("auto", "uvicorn_worker.UvicornWorker", lambda cpus: cpus, "one for each of"),
        ("classic", "uvicorn_worker.UvicornWorker", lambda cpus: 2 * cpus + 1, "by the classical rule"),
        ("3", "asgi", lambda cpus: 3, "as asked"),
    ],
)
def test_the_number_of_workers(
    host, play, converge_playbook, processes, curl, workers, worker_class, number, reason
) -> None:
    said = settle(host, play, converge_playbook, workers=workers, worker_class=worker_class)
    cpus = int(host.check_output("nproc"))
    assert f"orders runs {number(cpus)}" in said
    assert reason in said
    assert len(processes(host, "orders")) == 1 + number(cpus)
    assert curl(host, "http://localhost/health", *SOCKET).endswith("\n200")


def test_a_slow_request_survives_a_restart(host, play, converge_playbook) -> None:
    """In flight when the server gets the signal to stop: it is answered, since the stop is graceful."""
    host.check_output(
        "systemd-run --unit=slow --property=StandardOutput=file:/tmp/slow curl --silent --fail "
        "--unix-socket /run/fastapi/orders/orders.sock http://localhost/slow?seconds=5"
    )
    host.check_output("sleep 1")
    settle(host, play, converge_playbook, environment={"ORDERS_GREETING": "again"})
    assert (
        host.check_output("sh -c 'while systemctl is-active -q slow; do sleep 0.1; done; cat /tmp/slow'")
        == '{"slept":5.0}'
    )


def state(host) -> str:
    """A digest of all that is configured on the host, accounts included."""
    return host.check_output("sh -c 'find /etc -type f -exec sha256sum {} + | sort | sha256sum'")


def accounts(host) -> str:
    return host.check_output("getent passwd") + host.check_output("getent shadow") + host.check_output("getent group")


def test_its_account_has_no_shell(host) -> None:
    user = host.user("orders")
    assert (user.home, user.shell, user.group) == ("/var/lib/fastapi/orders", "/sbin/nologin", "orders")
    assert user.uid < 1000
    record = host.file("/etc/fastapi/accounts.json")
    assert (record.user, record.mode) == ("root", 0o644)
    assert json.loads(record.content_string) == {"orders": {"made": True, "uid": user.uid, "apps": ["orders"]}}


def test_check_mode_reports_an_account_and_creates_none(host, play, converge_playbook) -> None:
    before = state(host)
    variables = json.dumps({"gunicorn_uvicorn_settings": {"user": "newcomer"}})
    limit = ("--limit", host.backend.name, "--extra-vars", variables)
    done = play(converge_playbook, "--check", "--diff", *limit)
    assert done.status == 0, done.output
    assert "account newcomer: new, group newcomer, home /var/lib/fastapi/orders" in done.output
    assert state(host) == before


def test_a_login_account_stays_as_it_is(host, play, converge_playbook, processes, curl) -> None:
    host.check_output("useradd --create-home --shell /bin/bash --password '$6$x' webapps")
    before = accounts(host)
    shop = {"name": "shop", "user": "webapps", "bind": "unix:/run/fastapi/shop/shop.sock"}
    settle(host, play, converge_playbook, **shop)
    assert accounts(host) == before
    assert host.check_output("stat --format '%U %a' /home/webapps") == "webapps 700"
    assert curl(host, "http://localhost/health", "--unix-socket", "/run/fastapi/shop/shop.sock").endswith("\n200")
    pid = next(iter(processes(host, "webapps")))
    assert "HOME=/var/lib/fastapi/shop" in host.check_output(f"cat /proc/{pid}/environ").split("\0")
    host.check_output("rm /etc/supervisord.d/shop.ini && supervisorctl update shop")


@pytest.mark.parametrize(
    ("settings", "cause", "line"),
    [
        # Known before the host is asked, and known to the host alone.
        ({"name": "redis"}, "name is 'redis', an account of the system", "user: redis_app, or existing_user: true"),
        (
            {"user": "metrics"},
            "user is metrics, a system account that was not created for an app",
            "existing_user: true",
        ),
    ],
)
def test_the_account_of_a_service_is_refused(host, play, converge_playbook, settings, cause, line) -> None:
    user = next(iter(settings.values()))
    host.check_output(f"useradd -r -d /var/lib/{user} -s /sbin/nologin {user}")
    before = state(host)
    variables = json.dumps({"gunicorn_uvicorn_settings": settings})
    done = play(converge_playbook, "--limit", host.backend.name, "--extra-vars", variables)
    said = " ".join(done.output.split())
    assert done.status != 0
    assert cause in said
    assert line in said
    assert state(host) == before


def test_an_app_that_is_not_well_says_why(host, play, converge_playbook) -> None:
    variables = json.dumps({"gunicorn_uvicorn_settings": {"health_path": "/nowhere", "health_timeout": 2}})
    done = play(converge_playbook, "--limit", host.backend.name, "--extra-vars", variables)
    said = " ".join(done.output.split())
    assert done.status != 0
    assert "orders runs, but GET http://localhost/nowhere" in said
    assert "404" in said
    assert "Likely cause: The app runs and knows no such path for its health (404). Fix: Set the app's" in said
    assert "GET /nowhere" in said.split("The end of its log", 1)[1]
