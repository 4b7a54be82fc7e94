"""What an app that was taken over reaches, and that the release which mends it is rid of it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from _slotted import (  # noqa: F401
    APP,
    DEPLOY,
    ask,
    ledger,
    live_slot,
    run_fixture,
    served,
    source_fixture,
)

NEIGHBOUR = "payments.example.com"
# Runs what it is sent, as whoever has found a hole in an app can.
HOLE = (
    '@app.get("/health")',
    """@app.post("/hole")
async def hole(request: Request) -> Response:
    import subprocess

    command = ["/usr/bin/python3", "-c", (await request.body()).decode()]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
    return Response(done.stdout + done.stderr)


@app.get("/health")""",
)
# Each line: what the account may not do, and how it would.
TRY = """
import os, socket
def refused(what, function):
    try:
        print(what, "DONE", function())
    except OSError as error:
        print(what, type(error).__name__)
"""
# Away from its parent and its session, as long as it lives.
DETACH = """
import os, sys, time
if os.fork(): sys.exit(print("detached"))
os.setsid()
if os.fork(): os._exit(0)
for number in (0, 1, 2): os.dup2(os.open(os.devnull, os.O_RDWR), number)
"""


@pytest.fixture(name="inside", scope="module")
def inside_fixture(hosts, run, source):
    """Runs Python on a host as the compromised app orders; its output."""
    run(DEPLOY, **source("6.6.6", HOLE))

    def call(host, code: str) -> str:
        return host.check_output(
            f"curl --silent --max-time 30 --header Host:{APP} --data-binary {shlex.quote(code)} http://127.0.0.1/hole"
        )

    return call


# All that a deploy could change of a host, with its time.
STATE = (
    "find /etc /opt/fastapi /run/fastapi /var/lib/fastapi -xdev -not -name 'deploy*' -not -path '*/.private*'"
    " -printf '%p %T@ %m %u %g\\n' | sort | sha256sum"
)


def lines(output: str) -> dict[str, str]:
    return dict(row.split(" ", 1) for row in output.splitlines())


def test_what_it_is(hosts, inside) -> None:
    code = (
        "import os,pwd,resource\n"
        "print(pwd.getpwuid(os.getuid()).pw_name, oct(os.umask(0)), resource.getrlimit(resource.RLIMIT_CORE))\n"
        "print([row.split()[1] for row in open('/proc/self/status') if row.startswith(('NoNewPrivs', 'CapBnd'))])\n"
        "print(sorted(int(name) for name in os.listdir('/proc') if name.isdigit())[0], os.listdir('/tmp'))"
    )
    for host in hosts:
        first, second, third = inside(host, code).splitlines()
        assert first == "orders 0o27 (0, 0)"
        assert second.endswith("'1']")
        assert third.startswith("1 ["), third
        assert (
            "limits.memory_max 1G is not applied"
            in host.file(f"/var/log/fastapi/orders/{live_slot(host)}.log").content_string
            or "memory" in host.file("/sys/fs/cgroup/cgroup.controllers").content_string
        )


def test_what_it_can_write(hosts, inside) -> None:
    places = {
        "home": "/var/lib/fastapi/orders/x",
        "shared": "/opt/fastapi/apps/orders/shared/data/x",
        "tmp": "/tmp/x",
        "var_tmp": "/var/tmp/x",
        "shm": "/dev/shm/x",
    }
    others = {
        "etc": "/etc/x",
        "cron": "/var/spool/cron/orders",
        "source": "/opt/fastapi/apps/orders/current/app/orders/main.py",
        "venv": "/opt/fastapi/apps/orders/current/venv/bin/x",
        "log": "/var/log/fastapi/orders/x",
        "run": "/run/fastapi/orders/x",
        "temporary": "/run/fastapi/orders/.live.sock.new",
        "neighbour_home": "/var/lib/fastapi/payments/x",
        "neighbour_shared": "/opt/fastapi/apps/payments/shared/data/x",
        "neighbour_run": "/run/fastapi/payments/blue/x",
        "world_writable": "/var/lib/everybody/x",
    }
    code = TRY + "".join(
        f"refused({name!r}, lambda: open({path!r}, 'w').write('x'))\n" for name, path in {**places, **others}.items()
    )
    for host in hosts:
        host.check_output("install -d -m 1777 /var/lib/everybody")
        found = lines(inside(host, code))
        assert {found[name] for name in places} == {"DONE 1"}, found
        assert not {name for name in others if found[name].startswith("DONE")}, found
        assert not host.file("/tmp/x").exists


def test_what_it_can_read(hosts, inside) -> None:
    others = {
        "environment": "/etc/fastapi/payments/{slot}/environment",
        "source": "/opt/fastapi/apps/payments/current/app/orders/main.py",
        "venv": "/opt/fastapi/apps/payments/current/venv/pyvenv.cfg",
        "ledger": "/opt/fastapi/apps/payments/ledger.jsonl",
        "log": "/var/log/fastapi/payments/{slot}.log",
        "access_log": "/var/log/nginx/payments.access.log",
        "own_access_log": "/var/log/nginx/orders.access.log",
        "shadow": "/etc/shadow",
        "programs": "/etc/supervisord.d/payments_{slot}.ini",
        "supervisord": "/etc/supervisord.conf",
    }
    for host in hosts:
        slot = live_slot(host, "payments")
        code = TRY + "".join(
            f"refused({name!r}, lambda: open({path.format(slot=slot)!r}).read(9))\n" for name, path in others.items()
        )
        for path in others.values():
            assert host.file(path.format(slot=slot)).exists, path
        found = lines(inside(host, code))
        assert set(found.values()) == {"PermissionError"}, found
        assert found.keys() == others.keys()


def test_whom_it_can_reach(hosts, inside) -> None:
    """nginx alone connects to an app: its addresses are what the app trusts."""
    code = TRY + (
        "def connect(path):\n"
        "    with socket.socket(socket.AF_UNIX) as unix: unix.connect(path)\n"
        "refused('neighbour', lambda: connect('/run/fastapi/payments/live.sock'))\n"
        "refused('supervisord', lambda: connect('/run/supervisor/supervisor.sock'))\n"
        "refused('kill', lambda: os.kill({pid}, 0))\n"
        "print('own', connect('/run/fastapi/orders/live.sock'))"
    )
    for host in hosts:
        before = host.check_output("supervisorctl pid payments_blue")
        found = lines(inside(host, code.format(pid=before)))
        assert found["neighbour"] == found["supervisord"] == "PermissionError"
        assert found["kill"] == "ProcessLookupError"
        assert found["own"] == "None"
        assert host.check_output("supervisorctl pid payments_blue") == before
        socket = f"/run/fastapi/payments/{host.check_output('readlink /run/fastapi/payments/live.sock')}"
        stranger = f"runuser -u nobody -- curl --silent --max-time 2 --unix-socket {socket} http://x/health"
        assert host.run(stranger).rc == 7
        assert host.run(f"runuser -u nginx -- curl --silent --unix-socket {socket} http://x/health").rc == 0


def test_a_link_in_a_shared_directory_leads_root_nowhere(hosts, inside, run) -> None:
    """The app has put a link where the operator later wants a directory of its own."""
    kept = "stat -c '%U %a %Y' /opt/other/victim /opt/other/victim/precious"
    before = []
    for host in hosts:
        host.check_output("install -D -m 0644 /dev/null /opt/other/victim/precious")
        inside(host, "import os; os.symlink('/opt/other', '/opt/fastapi/apps/orders/shared/data/way')")
        before.append(host.check_output(kept))
    said = run(DEPLOY, fails=True, slip={"shared": {"directories": ["data/way/victim"]}})
    assert "shared/data can be written by others than root" in said
    assert "Share that directory itself" in said
    assert [host.check_output(kept) for host in hosts] == before


def test_nested_shared_names_are_refused(hosts, inside, run) -> None:
    for host in hosts:
        inside(host, "import os; os.makedirs('/opt/fastapi/apps/orders/shared/data/uploads', exist_ok=True)")
        inside(host, "open('/opt/fastapi/apps/orders/shared/data/uploads/kept', 'w').write('x')")
    said = run(DEPLOY, fails=True, slip={"shared": {"directories": ["data", "data/uploads"]}})
    assert "data/uploads" in said and "shared" in said
    for host in hosts:
        assert host.file("/opt/fastapi/apps/orders/shared/data/uploads/kept").content_string == "x"


def test_the_fix_evicts_it(hosts, inside, run, source) -> None:
    """It does all that it can to go on answering: the next release goes live, alone."""
    slots = "/run/fastapi/orders"
    siege = DETACH + (
        "import socket, http.server, threading\n"
        "def steal(path):\n"
        "    fresh = path + '.stolen'\n"
        "    try:\n"
        "        unix = socket.socket(socket.AF_UNIX); unix.bind(fresh); unix.listen(); os.rename(fresh, path)\n"
        "    except OSError: pass\n"
        "while True:\n"
        f"    for path in ('{slots}/live.sock', '{slots}/blue/app.sock', '{slots}/green/app.sock'):\n"
        f"        if path != os.path.realpath('{slots}/live.sock'): steal(path)\n"
        f"    for path in ('{slots}/.live.sock.new', '/var/lib/fastapi/orders/alive'):\n"
        "        try: open(path, 'w').close()\n"
        "        except OSError: pass\n"
        "    try: os.kill(-1, 10)\n"
        "    except OSError: pass\n"
        "    time.sleep(0.1)\n"
    )
    for host in hosts:
        assert inside(host, siege) == "detached"
        host.check_output("sh -c 'until test -e /var/lib/fastapi/orders/alive; do sleep 0.1; done'")
    run(DEPLOY, **source("7.0.0"))
    for host in hosts:
        assert {ask(host)["version"] for _ in range(20)} == {"7.0.0"}
        host.check_output("rm /var/lib/fastapi/orders/alive")
        host.run("sleep 1")
        assert not host.file("/var/lib/fastapi/orders/alive").exists
        commands = host.check_output("ps -o args= -u orders").splitlines()
        assert all("gunicorn" in command for command in commands), commands
        assert host.check_output(f"stat -c %U {slots} {slots}/live.sock").split() == ["root", "root"]


def test_a_killed_supervisord_leaves_nothing(hosts, run, source, inside, wait_for) -> None:
    run(DEPLOY, **source("6.6.6", HOLE))
    for host in hosts:
        stay = DETACH + "while True: open('/var/lib/fastapi/orders/alive', 'w').close(); time.sleep(0.1)\n"
        assert inside(host, stay) == "detached"
        host.check_output("sh -c 'until test -e /var/lib/fastapi/orders/alive; do sleep 0.1; done'")
        before = host.check_output("pgrep -u orders").split()
        host.check_output("systemctl kill --kill-whom=main --signal=KILL supervisord.service")
        wait_for(lambda host=host: served(host), 30, "it serves again")
        assert not set(before) & set(host.check_output("pgrep -u orders").split())
        host.check_output("rm /var/lib/fastapi/orders/alive")
        host.run("sleep 1")
        assert not host.file("/var/lib/fastapi/orders/alive").exists


# What the operator writes, and what the one message says: the cause, and the fix.
SLIPS = {
    "account_of_the_neighbour": ({"user": "payments"}, "user payments", "shared_user: true"),
    "account_of_a_service": ({"user": "postgres"}, "user is 'postgres'", "existing_user"),
    "account_root": ({"user": "root"}, "user is 'root'", "no app runs as root"),
    "account_with_blanks": ({"user": "a b;c"}, "user is 'a b;c'", "lower-case letters"),
    "lock": ({"lock": "/etc/shadow"}, "lock is", "not from /"),
    "app_dir": ({"app_dir": "../../../payments/current/app"}, "app_dir is", "not from /"),
    "git_option": (
        {"source": {"repo": "--upload-pack=touch /root/taken;", "version": "main"}},
        "source.repo is '--upload-pack",
        "https://HOST/PATH",
    ),
    "git_transport": (
        {"source": {"repo": "ext::sh -c touch% /root/taken"}},
        "source.repo is 'ext::",
        "https://HOST/PATH",
    ),
    "static": ({"nginx": {"static": {"/s": "/opt/fastapi/apps/payments/current/app"}}}, "nginx.static", "another app"),
    "log": (
        {"supervisor": {"stdout_logfile": "/etc/cron.d/x"}},
        "stdout_logfile is '/etc/cron.d/x'",
        "/var/log/fastapi",
    ),
    "writable": ({"sandbox": {"writable": ["/etc"]}}, "sandbox.writable has '/etc'", "/srv/uploads"),
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_refused_before_anything_changes(hosts, play, name: str) -> None:
    slip, cause, fix = SLIPS[name]
    before = [host.check_output(STATE) for host in hosts]
    done = play(DEPLOY, "--extra-vars", json.dumps({"slip": slip}))
    said = " ".join(done.output.split())
    assert done.status != 0 and cause in said and fix in said, done.output
    assert done.changed() == 0
    assert [host.check_output(STATE) for host in hosts] == before
    assert not any(host.file("/root/taken").exists for host in hosts)


def test_an_account_that_was_there_before_is_not_changed(hosts, run) -> None:
    """A service's is refused by the host alone, which knows it."""
    for host in hosts:
        host.check_output("useradd --system --home-dir /var/lib/old --shell /sbin/nologin oldservice")
    before = [host.check_output("getent passwd oldservice") for host in hosts]
    said = run(DEPLOY, fails=True, slip={"user": "oldservice"})
    assert "oldservice" in said and "existing_user: true" in said
    assert [host.check_output("getent passwd oldservice") for host in hosts] == before


def test_what_the_app_prints_steers_no_terminal(run, source) -> None:
    title = ('log = logging.getLogger("orders")', 'raise RuntimeError("\\x1b]0;taken\\x07 \\x1b[2J")')
    said = run(DEPLOY, fails=True, **source("6.6.7", title))
    assert "RuntimeError: \\x1b]0;taken\\x07" in said.replace("\\\\", "\\")
    assert "\x1b" not in said and "\x07" not in said


def test_a_secret_of_one_letter_and_a_forgotten_file(hosts, run, source, tmp_path_factory) -> None:
    """The letter is in each release's name; the file holds what nobody wants on a host."""
    version = source("6.7.0")
    (Path(version["app_source"]) / ".env").write_text("TOKEN=s3cr3t-never-shown\n", encoding="utf-8")
    said = run(DEPLOY, slip={"secrets": {"ORDERS_API_KEY": "a"}}, **version)
    assert "secrets.ORDERS_API_KEY has 1 characters, too few to be redacted" in said
    assert ".env" in said
    for host in hosts:
        assert ask(host)["version"] == "6.7.0"
        assert host.run("find /opt/fastapi/apps/orders -name .env").stdout == ""


def test_the_neighbour_noticed_nothing(hosts) -> None:
    for host in hosts:
        assert ask(host, NEIGHBOUR)["version"] == "1.0.0"
        assert [entry["result"] for entry in ledger(host, "payments")] == ["good"]
