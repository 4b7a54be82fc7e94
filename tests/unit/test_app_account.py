"""Accounts of apps, by the real useradd: created where they are missing, used as they are, or refused."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from _scratch_host import ScratchHost

CHECKOUT = Path(__file__).resolve().parents[2]
# As on a host: without Ansible.
RUNNER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._host import account as _app_account
given = json.load(sys.stdin)
_app_account.LOCK_SECONDS = given["lock_seconds"]
try:
    outcome = _app_account.settle(_app_account.from_options(given["accounts"]), given["check_mode"])
except _app_account.AccountError as error:
    print(json.dumps({"msg": str(error)}))
else:
    accounts = [vars(account) for account in outcome.accounts]
    print(json.dumps({
        "msg": "", "differences": outcome.differences, "accounts": accounts, "warnings": outcome.warnings,
        "diff": outcome.diff(),
    }))
"""
PYTHONS = [sys.executable, *map(str, Path("~/.pyenv/versions").expanduser().glob("3.9.*/bin/python3.9"))]


class Host(ScratchHost):
    @property
    def record(self) -> Any:
        path = self.etc / "fastapi" / "accounts.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def settle(self, *accounts: dict[str, Any], python: str = sys.executable, **options: Any) -> dict[str, Any]:
        return json.loads(self.run(*self.command(python), given=self.request(*accounts, **options)))

    def command(self, python: str = sys.executable) -> list[str]:
        return [python, "-B", "-c", RUNNER, str(CHECKOUT / ".cache" / "collections")]

    def request(self, *accounts: dict[str, Any], check_mode: bool = False, lock_seconds: float = 30) -> str:
        return json.dumps({"accounts": accounts, "check_mode": check_mode, "lock_seconds": lock_seconds})

    def refused(self, *accounts: dict[str, Any], **options: Any) -> str:
        """The message about accounts that are refused, in check mode as well; nothing on the host has changed."""
        before, is_fresh = self.accounts(), not (self.etc / "fastapi").exists()
        expected = self.settle(*accounts, check_mode=True, **options)["msg"]
        found = self.settle(*accounts, **options)["msg"]
        assert found
        assert found == expected
        assert self.accounts() == before
        assert (not (self.etc / "fastapi").exists()) is is_fresh
        return found

    def accounts(self) -> dict[str, bytes]:
        return {name: content for name, content in self.files().items() if name != "fastapi/accounts.lock"}

    def add(self, user: str, *options: str) -> None:
        self.run("/usr/sbin/useradd", "--no-create-home", *options, user)


def app(name: str, **changes: Any) -> dict[str, Any]:
    own = {"app": name, "user": name, "group": "", "home": f"/var/lib/fastapi/{name}"}
    return {**own, "shared_user": False, "existing_user": False, **changes}


def redis(host: Host) -> None:
    """An account as a package creates it."""
    host.add("redis", "--system", "--home-dir", "/var/lib/redis", "--shell", "/sbin/nologin")


@pytest.fixture
def host(tmp_path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("python", PYTHONS)
def test_a_missing_account_is_created(host, python) -> None:
    predicted = host.settle(app("orders"), check_mode=True, python=python)
    assert host.entry("orders") == []
    assert not (host.etc / "fastapi").exists()
    done = host.settle(app("orders"), python=python)
    _name, _password, uid, gid, _comment, home, shell = host.entry("orders")
    assert (home, shell) == ("/var/lib/fastapi/orders", "/sbin/nologin")
    assert 201 <= int(uid) <= 999
    assert host.run("id", "-nG", "orders") == "orders\n"
    created = "account orders: new, group orders, home /var/lib/fastapi/orders, shell /sbin/nologin"
    assert done["differences"] == predicted["differences"] == [created, "/etc/fastapi/accounts.json: content"]
    (account,) = done["accounts"]
    assert (account["uid"], account["gid"], account["made"], account["apps"]) == (int(uid), int(gid), True, ["orders"])
    assert predicted["accounts"][0]["uid"] is None
    assert host.record == {"orders": {"made": True, "uid": int(uid), "apps": ["orders"]}}
    path = host.etc / "fastapi" / "accounts.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert sorted(os.listdir(path.parent)) == ["accounts.json", "accounts.lock"]
    # Whoever could open it could hold the lock, and with it every deploy.
    assert stat.S_IMODE((path.parent / "accounts.lock").stat().st_mode) == 0o600
    before = host.files()
    again = host.settle(app("orders"), python=python)
    assert (again["differences"], again["diff"]) == ([], [])
    assert again["accounts"] == done["accounts"]
    assert host.files() == before


def test_a_group_that_is_asked_for_is_created_or_used(host) -> None:
    host.run("/usr/sbin/groupadd", "web")
    host.settle(app("orders", group="web"), app("shop", group="shops"))
    assert host.run("id", "-nG", "orders") == "web\n"
    assert host.run("id", "-nG", "shop") == "shops\n"
    assert int(host.entry("shop")[3]) < 1000
    assert host.settle(app("orders", group="web"), app("shop", group="shops"))["differences"] == []


@pytest.mark.parametrize("shell", ["/bin/bash", "/sbin/nologin"])
def test_a_login_account_is_used_as_it_is(host, shell) -> None:
    host.add("deploy", "--shell", shell, "--password", "$6$secret", "--comment", "An admin", "--home-dir", "/home/d")
    before = host.accounts()
    done = host.settle(app("orders", user="deploy"))
    after = host.accounts()
    record = json.loads(after.pop("fastapi/accounts.json"))
    assert after == before
    assert record == {"deploy": {"made": False, "uid": 1000, "apps": ["orders"]}}
    assert done["differences"] == ["/etc/fastapi/accounts.json: content"]
    assert done["accounts"][0]["home"] == "/home/d"
    assert host.settle(app("orders", user="deploy"))["differences"] == []


def test_the_account_of_a_service_is_refused(host) -> None:
    redis(host)
    text = host.refused(app("redis"), app("orders"))
    first, second = text.splitlines()
    uid = host.entry("redis")[2]
    assert first.startswith("app redis: user is redis, a system account that was not created for an app (uid " + uid)
    assert "home /var/lib/redis, shell /sbin/nologin" in first
    assert second == (
        "Set user to another name, such as user: redis_app; or, if the app is meant to run as redis,"
        " existing_user: true."
    )
    assert host.entry("orders") == []
    host.settle(app("redis", user="redis_app"))
    assert host.entry("redis_app")[5] == "/var/lib/fastapi/redis"


def test_the_account_of_a_service_is_used_where_that_is_meant(host) -> None:
    redis(host)
    before = host.entry("redis")
    done = host.settle(app("redis", existing_user=True))
    assert host.entry("redis") == before
    assert done["accounts"][0]["made"] is False
    # What was meant once is not meant for ever.
    assert "existing_user: true" in host.refused(app("redis"))


@pytest.mark.parametrize("options", [{}, {"existing_user": True}, {"shared_user": True, "existing_user": True}])
def test_root_is_refused_by_any_name(host, options) -> None:
    host.add("toor", "--non-unique", "--uid", "0", "--gid", "0")
    assert "user is root, which is root (uid 0)" in host.refused(app("orders", user="root", **options))
    assert "user is toor, which is root (uid 0)" in host.refused(app("toor", **options))
    host.run("/usr/sbin/groupadd", "--non-unique", "--gid", "0", "wheels")
    assert "group is root, which is root's (gid 0)" in host.refused(app("orders", group="root", **options))
    assert "group is wheels, which is root's (gid 0)" in host.refused(app("orders", group="wheels", **options))
    host.add("operator", "--gid", "0")
    assert "which is in the group of root (gid 0)" in host.refused(app("orders", user="operator", **options))
    host.add("deploy")
    assert "group is root" in host.refused(app("orders", user="deploy", group="root", **options))
    host.run("/usr/sbin/usermod", "--append", "--groups", "root", "deploy")
    assert "which is in the group of root (gid 0)" in host.refused(app("orders", user="deploy", **options))


def test_nobody_is_a_system_account(host) -> None:
    assert "a system account that was not created for an app (uid 65534" in host.refused(app("orders", user="nobody"))


@pytest.mark.parametrize(
    ("limits", "refused"),
    [("SYS_UID_MAX 999", False), ("SYS_UID_MAX 4999", True), ("UID_MIN 5000", True), ("#SYS_UID_MAX 4999", False)],
)
def test_where_system_accounts_end_is_the_hosts(host, limits, refused) -> None:
    host.add("deploy", "--uid", "1500")
    (host.etc / "login.defs").write_text(f"# UID_MIN 9\n{limits}\n", encoding="ascii")
    assert ("a system account" in host.settle(app("orders", user="deploy"))["msg"]) is refused


@pytest.mark.parametrize("user", ["webapps", "aa"])
def test_the_account_of_another_app_is_refused(host, user) -> None:
    if user == "webapps":
        host.add("webapps")
    first, second = app("aa", user=user), app("bb", user=user)
    host.settle(first)
    text = host.refused(second)
    assert f"app bb: user is {user} (uid {host.entry(user)[2]}), which is the account of aa on this host" in text
    assert "user: bb" in text.splitlines()[1]
    assert "shared_user: true for bb and aa" in text.splitlines()[1]
    before = host.entry(user)
    host.settle({**second, "shared_user": True})
    # Now it is the first that must say so.
    assert "which is the account of bb" in host.refused(first)
    done = host.settle({**first, "shared_user": True}, {**second, "shared_user": True})
    assert done["differences"] == []
    assert host.entry(user) == before
    assert host.record[user]["apps"] == ["aa", "bb"]


def test_two_apps_with_one_account_in_one_call(host) -> None:
    first, second = app("aa", user="web"), app("bb", user="web")
    assert "app bb: user is web, which is the account of aa" in host.refused(first, second)
    both = [{**account, "shared_user": True} for account in (first, second)]
    done = host.settle(*both)
    assert len(done["differences"]) == 2
    assert host.record["web"]["apps"] == ["aa", "bb"]
    assert "group is x, and app aa has the same user new" in host.refused(
        app("aa", user="new", shared_user=True), app("bb", user="new", group="x", shared_user=True)
    )


def test_an_app_that_moves_on_leaves_its_account(host) -> None:
    host.settle(app("aa"))
    assert "which is the account of aa" in host.refused(app("bb", user="aa"))
    host.settle(app("aa", user="other"))
    uid = int(host.entry("aa")[2])
    assert host.record["aa"] == {"made": True, "uid": uid, "apps": []}
    host.settle(app("bb", user="aa"))
    assert host.record["aa"]["apps"] == ["bb"]
    # Both change places in one call.
    host.settle(app("aa"), app("bb", user="other"))
    assert {user: owned["apps"] for user, owned in host.record.items()} == {"aa": ["aa"], "other": ["bb"]}


def test_accounts_of_earlier_versions_are_recognized(host) -> None:
    for name, shell in (("orders", "/sbin/nologin"), ("shop", "/sbin/nologin"), ("ops", "/bin/bash")):
        host.add(name, "--system", "--user-group", "--home-dir", f"/var/lib/fastapi/{name}", "--shell", shell)
    before = host.accounts()
    done = host.settle(app("orders"), check_mode=True)
    assert done["accounts"][0]["made"] is True
    assert "which is the account of shop" in host.refused(app("blog", user="shop"))
    assert "was not created for an app" in host.refused(app("ops"))
    # An app that has another account now is not in the way.
    host.settle(app("blog", user="shop"), app("shop", user="web"))
    host.settle(app("orders"))
    after = host.accounts()
    assert host.entry("orders") == next(
        line.split(":") for line in before["passwd"].decode().splitlines() if line.startswith("orders:")
    )
    assert json.loads(after["fastapi/accounts.json"])["orders"]["apps"] == ["orders"]


def test_a_torn_record_is_written_again(host) -> None:
    host.settle(app("orders"))
    path = host.etc / "fastapi" / "accounts.json"
    whole = path.read_bytes()
    for torn in (b"", whole[: len(whole) // 2], b"\xff\x00", b"[]", b'{"orders": {"made": true}}', b"null"):
        path.write_bytes(torn)
        done = host.settle(app("orders"))
        assert done["msg"] == ""
        assert "/etc/fastapi/accounts.json is not readable" in done["warnings"][0]
        assert path.read_bytes() == whole
    path.unlink()
    assert host.settle(app("orders"))["warnings"] == []
    assert path.read_bytes() == whole


@pytest.mark.parametrize("place", ["fastapi", "fastapi/accounts.json"])
def test_a_record_that_others_may_write_is_not_believed(host, place) -> None:
    host.settle(app("orders"))
    (host.etc / place).chmod(0o777)
    text = host.refused(app("orders"))
    assert f"/etc/{place} is not root's alone to write (owner 0, mode 0777)" in text
    assert f"chmod go-w /etc/{place}" in text


def test_a_record_that_is_a_link_is_not_believed(host) -> None:
    host.settle(app("orders"))
    path = host.etc / "fastapi" / "accounts.json"
    path.rename(host.etc / "elsewhere.json")
    path.symlink_to("/etc/elsewhere.json")
    assert "is not root's alone to write" in host.refused(app("orders"))


def test_another_account_of_a_recorded_name(host) -> None:
    """Ours was removed, and a package has created its own since."""
    host.settle(app("redis"))
    uid = int(host.entry("redis")[2])
    host.run("/usr/sbin/userdel", "redis")
    host.add("redis", "--system", "--uid", str(uid - 1), "--home-dir", "/var/lib/redis", "--shell", "/sbin/nologin")
    assert "was not created for an app" in host.refused(app("redis"))
    # Another app's run does not make it ours.
    host.settle(app("orders"))
    assert "was not created for an app" in host.refused(app("redis"))


def test_a_removed_account_is_created_again(host) -> None:
    host.settle(app("orders"))
    host.run("/usr/sbin/userdel", "orders")
    assert host.settle(app("orders"))["differences"][0].startswith("account orders: new")
    assert host.entry("orders")[5] == "/var/lib/fastapi/orders"


def test_a_group_of_the_system_is_no_apps_by_accident(host) -> None:
    """An app called docker would be root by its group."""
    host.run("/usr/sbin/groupadd", "--system", "docker")
    text = host.refused(app("docker"))
    assert "there is no account docker, but a group docker (gid" in text
    assert "user: docker_app" in text.splitlines()[1]
    assert "group: docker" in text.splitlines()[1]
    host.settle(app("docker", group="docker"))
    assert host.run("id", "-nG", "docker") == "docker\n"


def test_an_account_that_exists_gets_no_group(host) -> None:
    host.run("/usr/sbin/groupadd", "--gid", "1100", "staff")
    host.add("deploy", "--gid", "staff", "--no-user-group")
    text = host.refused(app("orders", user="deploy"))
    assert "the account deploy (uid 1000" in text
    assert "is not in the group deploy" in text
    assert text.splitlines()[1] == "Set group: staff, which is its own group."
    assert host.settle(app("orders", user="deploy", group="staff"))["accounts"][0]["gid"] == 1100
    host.run("/usr/sbin/groupadd", "web")
    assert "or run `usermod --append --groups web deploy`" in host.refused(app("orders", user="deploy", group="web"))
    host.run("/usr/sbin/usermod", "--append", "--groups", "web", "deploy")
    assert host.settle(app("orders", user="deploy", group="web"))["msg"] == ""


@pytest.mark.parametrize("name", ["--uid=0", "a b", "a\nb", "1000", "", "a:b", "a" * 33])
def test_a_name_is_a_name(host, name) -> None:
    assert f"user is {name!r}: it must be letters" in host.refused(app("orders", user=name))
    if name:
        assert f"group is {name!r}: it must be letters" in host.refused(app("orders", group=name))


def test_runs_at_the_same_time(host) -> None:
    """useradd itself gives up where another one holds the lock of passwd."""
    names = [f"app{number}" for number in range(6)]
    processes = {name: host.start(*host.command()) for name in names}
    for name, process in processes.items():
        process.stdin.write(host.request(app(name)))
        process.stdin.close()
        process.stdin = None
    answers = [process.communicate(timeout=60) for process in processes.values()]
    assert [json.loads(output)["msg"] for output, _errors in answers] == [""] * len(names), answers
    assert sorted(host.record) == names
    assert len({host.entry(name)[2] for name in names}) == len(names)


def test_a_lock_that_is_held_is_named(host) -> None:
    host.settle(app("orders"))
    with open(host.etc / "fastapi" / "accounts.lock", "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert "another run has held /etc/fastapi/accounts.lock" in host.settle(app("shop"), lock_seconds=0.2)["msg"]
    assert host.entry("shop") == []


def test_what_useradd_prints_is_shown(host) -> None:
    (host.etc / "passwd.lock").write_text(str(os.getpid()), encoding="ascii")
    text = host.settle(app("orders"))["msg"]
    assert text.startswith("app orders: the account orders could not be created: useradd: status 1: ")
    assert "cannot lock /etc/passwd" in text
    assert "Run `/usr/sbin/useradd --system --user-group" in text
    assert host.record == {}
    (host.etc / "passwd.lock").unlink()
    assert host.settle(app("orders"))["msg"] == ""


MODULE = """
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.asgiops.fastapi_host.plugins.modules.app_account import main
with patch_module_args(json.load(sys.stdin)):
    main()
"""


def test_the_module(host) -> None:
    pytest.importorskip("ansible.module_utils.testing")
    paths = os.pathsep.join(filter(None, sys.path))

    def run(user: str, **arguments: bool) -> dict[str, Any]:
        accounts = [{"app": "orders", "user": user, "home": "/var/lib/fastapi/orders"}]
        given = json.dumps({"accounts": accounts, **arguments})
        process = host.start("env", f"PYTHONPATH={paths}", sys.executable, "-B", "-c", MODULE)
        output, errors = process.communicate(given, timeout=60)
        assert output, errors
        return json.loads(output)

    predicted = run("orders", _ansible_check_mode=True)
    assert predicted["changed"] is True
    assert host.entry("orders") == []
    done = run("orders")
    assert done["differences"] == predicted["differences"]
    accounts, record = done["diff"]
    assert accounts["after"].startswith("account orders: new")
    assert json.loads(record["after"])["orders"]["apps"] == ["orders"]
    assert done["accounts"][0]["uid"] == int(host.entry("orders")[2])
    assert run("orders")["changed"] is False
    (host.etc / "fastapi" / "accounts.json").write_text("{")
    assert "is not readable" in str(run("orders")["warnings"])
    refused = run("root")
    assert refused["failed"] is True
    assert "user is root, which is root (uid 0)" in refused["msg"]
