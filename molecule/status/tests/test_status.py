"""The table on real hosts: of what is well, and of what is broken on purpose, with its cause and no secret."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Iterator

import pytest
import testinfra

SECRETS = ("s3cr3t-key-of-orders", "s3cr3t-key-of-shop")
PLAYBOOK = "asgiops.fastapi_host.status"

# Programs that fail, by their names: the section, and what must be reported of it.
BROKEN = {
    "daemon": (
        "command=/bin/sh -c 'sleep 1000 & exit 0'",
        r"daemon puts itself into the background .*process \d+ lives on",
    ),
    "interpreter": (
        "command=/no/venv/bin/python -m gunicorn orders.main:app\nautostart=true",
        r"no command /no/venv/bin/python",
    ),
    "shebang": ("command=/opt/broken/shebang", r"/opt/broken/shebang is there, and the interpreter"),
    "module": ("command=/usr/bin/python3 -c 'import nosuchmodule'", r"Python module nosuchmodule is missing"),
    "port": (
        "command=PYTHON -m uvicorn orders.main:app --port 8000\ndirectory=APP",
        # Without CAP_SYS_PTRACE, as in a container, root sees the user and not the process.
        r"Port 8000 of 127.0.0.1 is in use by (?:process \d+ \(\S+\)|a process) of user orders",
    ),
    "log": (
        'command=/usr/bin/python3 -c \'open("/var/log/fastapi/orders/x.log", "w")\'\nuser=shop',
        r"user shop may not read or write /var/log/fastapi/orders/x.log",
    ),
    "socket": (
        "command=PYTHON -m gunicorn --no-control-socket --bind unix:/run/fastapi/orders/x.sock orders.main:app"
        "\nuser=reader\ndirectory=APP\nstartsecs=10",
        r"user reader may not create the Unix socket /run/fastapi/orders/x.sock",
    ),
    "user": ("command=/bin/sleep 1000\nuser=leaver", r"no user with the id \d+ any more"),
    "secret": (
        "command=/bin/sh -c 'echo Bad key s3cr3t-key-of-orders; exit 3'",
        r"It ended \(exit status 3\)",
    ),
}


@pytest.fixture(name="status")
def status_fixture(play):
    """What the playbook shows: its lines, and all of its output. It never changes or fails, and shows no secret."""

    def run(*arguments: str) -> list[str]:
        done = play(PLAYBOOK, *arguments)
        assert done.status == 0, done.output
        assert done.changed() == 0
        assert not [secret for secret in SECRETS if secret in done.output], done.output
        # The lines of a block in YAML.
        return [line[8:] for line in done.output.partition("msg: |-\n")[2].partition("\nPLAY")[0].splitlines()]

    return run


def row_of(lines: list[str], host: str, process: str) -> list[str]:
    (row,) = [line for line in lines if re.match(rf"{host} +\S+ +{process} ", line)]
    return re.split(r" {2,}", row.strip())


def test_what_is_well(status, hosts) -> None:
    lines = status()
    assert re.split(r" {2,}", lines[0]) == [
        "host",
        "app",
        "process",
        "state",
        "since (UTC)",
        "pid",
        "memory",
        "restarts",
        "health",
    ]
    assert len(lines) == 1 + 2 * len(hosts), lines
    for host in hosts:
        name = host.backend.name
        for app in ("orders", "shop"):
            _host, group, _process, state, since, pid, memory, restarts, health = row_of(lines, name, app)
            assert (group, state, restarts) == (app, "RUNNING", "0")
            assert pid == host.check_output(f"supervisorctl pid {app}")
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", since)
            assert 20 < int(memory.removesuffix(" MiB")) < 1000
            assert re.fullmatch(r"200 in \d+ ms", health)


def test_one_app(status, host_names) -> None:
    lines = status("-e", "app=shop")
    assert len(lines) == 1 + len(host_names)
    assert "NOT LOADED" in status("-e", "app=nosuchapp")[1]


def test_a_restart_counts(status, host_names, hosts, wait_for) -> None:
    for host in hosts:
        host.check_output("kill -9 $(supervisorctl pid shop)")
        wait_for(lambda host=host: "RUNNING" in host.run("supervisorctl status shop").stdout, 15, "shop runs")
    lines = status("-e", "app=shop")
    assert [row_of(lines, name, "shop")[7] for name in host_names] == ["1"] * len(hosts)


def test_an_app_that_hangs(status, host_names, hosts) -> None:
    stop, go = ("pkill --signal STOP -u orders", "pkill --signal CONT -u orders")
    for host in hosts:
        host.check_output(stop)
    try:
        lines = status("-e", "app=orders")
    finally:
        for host in hosts:
            host.check_output(go)
    for name in host_names:
        assert row_of(lines, name, "orders")[8] == "no answer in 2 s: timed out"
    assert len([line for line in lines if "all of its workers are busy or blocked" in line]) == len(hosts)


@contextlib.contextmanager
def broken(host: testinfra.host.Host) -> Iterator[None]:
    """The programs that fail, loaded and failed."""
    current = host.check_output("readlink -f /opt/fastapi/apps/orders/current/app")
    python = host.check_output("readlink -f /opt/fastapi/apps/orders/current/venv") + "/bin/python"
    sections = []
    for name, (section, _cause) in BROKEN.items():
        defaults = {"autostart": "false", "startretries": 0, "startsecs": 2}
        lines = [f"{option}={value}" for option, value in defaults.items() if f"{option}=" not in section]
        sections.append("\n".join([f"[program:{name}]", *lines, section, ""]))
    text = "\n".join(sections).replace("PYTHON", python).replace("APP", current)
    host.check_output("mkdir -p /opt/broken && printf '#!/no/such/python\\n' > /opt/broken/shebang")
    host.check_output("chmod 0755 /opt/broken/shebang && useradd --no-create-home leaver")
    # May read what is the app's, and not write where its sockets are.
    host.check_output("useradd --no-create-home --gid orders reader")
    host.check_output(f"printf %s '{json_free(text)}' > /etc/supervisord.d/broken.ini")
    try:
        host.check_output("supervisorctl update")
        host.check_output("userdel leaver")
        host.run(f"supervisorctl start {' '.join(BROKEN)}")
        yield
    finally:
        host.run("rm -rf /opt/broken /etc/supervisord.d/broken.ini; pkill -f 'sleep 1000'; supervisorctl update")
        host.run("userdel leaver; userdel reader")


def json_free(text: str) -> str:
    """For single quotes of a shell."""
    return text.replace("'", "'\\''")


def test_what_is_broken(status, host_names, hosts) -> None:
    with contextlib.ExitStack() as stack:
        for host in hosts:
            stack.enter_context(broken(host))
        lines = status()
    assert "Bad key ********" in " ".join(lines)
    for name in host_names:
        for program, (_section, cause) in BROKEN.items():
            start = next(number for number, line in enumerate(lines) if line.startswith(f"{name}: {program}: "))
            assert re.search(cause, lines[start + 1]), lines[start : start + 8]
            assert lines[start + 2].lstrip().startswith("Fix: ")
        # The apps beside them are well.
        assert row_of(lines, name, "orders")[8].startswith("200 in ")


def test_a_broken_deploy_tells_the_same(play, status, converge_playbook, scenario_apps, example_app, tmp_path) -> None:
    source = example_app(tmp_path / "app")
    main = source / "orders" / "main.py"
    crash = "    open('/root/x')\n    app.state.settings"
    main.write_text(main.read_text(encoding="utf-8").replace("    app.state.settings", crash, 1), encoding="utf-8")
    apps = [{**copy.deepcopy(scenario_apps[0]), "source": {"path": str(source)}}]
    done = play(converge_playbook, "--extra-vars", json.dumps({"fastapi_apps": apps}))
    assert done.status != 0
    cause = "The user orders may not read or write /root/x."
    assert f"Likely cause: {cause}" in " ".join(done.output.split()), done.output
    assert f"Likely cause: {cause}" in " ".join(status("-e", "app=orders"))
    good = play(converge_playbook)
    assert good.status == 0, good.output


def test_without_supervisord(status, host_names, hosts) -> None:
    for host in hosts:
        host.check_output("systemctl stop supervisord")
    try:
        lines = status()
    finally:
        for host in hosts:
            host.check_output("systemctl start supervisord")
    for name in host_names:
        assert row_of(lines, name, "-")[3] == "NOT RUNNING"
    assert "  Likely cause: The unit supervisord is stopped." in lines


def test_supervisord_that_its_configuration_stops(status, hosts) -> None:
    section = "[program:x]\\ncommand=/bin/true\\nuser=nosuchuser\\n"
    for host in hosts:
        host.check_output(f"printf '{section}' > /etc/supervisord.d/x.ini && systemctl restart supervisord --no-block")
        host.check_output(
            "sh -c 'until systemctl show supervisord -p SubState | grep -q auto-restart; do sleep 0.1; done'"
        )
    try:
        lines = status()
    finally:
        for host in hosts:
            host.check_output("rm /etc/supervisord.d/x.ini && systemctl restart supervisord")
    found = [line for line in lines if "There is no user nosuchuser" in line and "Likely cause" in line]
    assert len(found) == len(hosts), lines


UNITS = ("/etc/systemd/system/supervisord.service", "/usr/lib/systemd/system/supervisord.service")


def test_a_host_without_anything(status, hosts) -> None:
    """supervisord's units are hidden, as on a host on which nothing is installed."""
    for host in hosts:
        host.check_output("systemctl stop supervisord")
        for unit in UNITS:
            host.check_output(f"mv {unit} {unit}.hidden")
        host.check_output("systemctl daemon-reload")
    try:
        lines = status()
    finally:
        for host in hosts:
            for unit in UNITS:
                host.check_output(f"mv {unit}.hidden {unit}")
            host.check_output("systemctl daemon-reload && systemctl start supervisord")
    assert len([line for line in lines if "supervisord is not installed" in line]) == len(hosts), lines
