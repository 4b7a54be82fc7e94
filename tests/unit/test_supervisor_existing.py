"""What of a hand-made supervisord.conf is kept, what is refused, and what a run restarts."""

from __future__ import annotations

from pathlib import Path

import pytest
from _roles import Role
from _supervisor_daemon import Daemon, own_daemon_fixture, wait_for  # noqa: F401
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import existing
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.rpc import Connection, SupervisorError
from hypothesis import given, settings
from hypothesis import strategies as st
from supervisor.options import UnhosedConfigParser

pytestmark = pytest.mark.controller

SETTINGS = """\
; Ansible managed

[supervisord]
logfile=/var/log/x.log

[include]
files=/etc/supervisord.d/*.ini
"""
LEGACY = """\
; What the billing needs; ask Ann.
[program:legacy]
command=/bin/sleep 100000 ; a long time
environment=TOKEN="s3cret",
    MORE="x"
;autostart=false
"""
UNASKED = Connection(server_url="unix:///nonexistent/s.sock", connect_timeout=0)


class Host:
    def __init__(self, folder: Path) -> None:
        self.config, self.folder = folder / "supervisord.conf", folder / "supervisord.d"
        self.folder.mkdir()
        self.kept, self.written_last = self.folder / "_existing.ini", self.folder / "_programs.ini"

    def plan(self, wanted: str = SETTINGS, names: tuple[str, ...] = (), restart: bool = False, **options):
        connection = options.pop("connection", UNASKED)
        connection = Connection(**{**vars(connection), "config": str(self.config)})
        return existing.make_plan(wanted, names, restart, connection, str(self.kept), **options)

    def needs_look(self) -> bool:
        return existing.needs_look(str(self.config), str(self.written_last))


@pytest.fixture
def target(tmp_path: Path) -> Host:
    return Host(tmp_path)


def content(plan, path: Path) -> str:
    (found,) = [item for item in plan.items if item.path == str(path)]
    return found.content.decode("utf-8", "surrogateescape")


def test_a_fresh_host_has_nothing(target: Host) -> None:
    assert not target.needs_look()
    assert target.plan() == existing.TakeoverPlan()


def test_the_roles_own_file_costs_no_second_look(target: Host) -> None:
    target.config.write_text(SETTINGS + ";[program:example]\n")
    target.written_last.write_text("")
    assert not target.needs_look()


@pytest.mark.parametrize("section", ["program:x", "group:x", "fcgi-program:x", "eventlistener:x"])
def test_a_section_that_was_added_later_is_seen(target: Host, section: str) -> None:
    target.written_last.write_text("")
    target.config.write_text(f"{SETTINGS}\n[{section}]\n")
    assert target.needs_look()
    assert target.plan().sections == [section]


def test_sections_move_byte_for_byte(target: Host) -> None:
    target.config.write_text(f"{SETTINGS}\n{LEGACY}\n[group:g]\nprograms=legacy\n\n; Ours\n[supervisorctl]\n")
    plan = target.plan()
    assert plan.sections == ["program:legacy", "group:g"]
    assert content(plan, target.kept).endswith(f"\n\n{LEGACY}\n[group:g]\nprograms=legacy\n\n")
    (item,) = plan.items
    assert (item.mode, item.owner, item.secret) == (0o600, "root", True)


def test_strange_bytes_stay(target: Host) -> None:
    target.config.write_bytes(SETTINGS.encode() + b"\n[program:x]\r\ncommand=/bin/x\xe4\r\n")
    (item,) = [each for each in target.plan().items if each.path == str(target.kept)]
    assert item.content.endswith(b"\n[program:x]\r\ncommand=/bin/x\xe4\r\n")


def test_added_to_the_roles_file_it_moves_without_a_restart(target: Host) -> None:
    target.written_last.write_text("")
    target.config.write_text(f"{SETTINGS}\n{LEGACY}")
    plan = target.plan(connection=Connection(server_url="http://127.0.0.1:1", connect_timeout=0))
    assert content(plan, target.config) == SETTINGS
    assert content(plan, target.kept).endswith(LEGACY)
    assert plan.restarted == []


def test_kept_before_the_configuration_is_written(target: Host) -> None:
    """A run that is cut off between the two renames has lost nothing."""
    target.written_last.write_text("")
    target.config.write_text(f"{SETTINGS}\n{LEGACY}")
    assert [item.path for item in target.plan().items] == [str(target.kept), str(target.config)]


def test_a_cut_off_run_is_finished(target: Host) -> None:
    target.config.write_text(f"{SETTINGS}\n{LEGACY}")
    target.kept.write_text(content(target.plan(), target.kept))
    assert content(target.plan(), target.kept) == target.kept.read_text()


def test_more_sections_are_added_to_those_that_are_kept(target: Host) -> None:
    target.kept.write_text("; mine\n[program:a]\ncommand=/bin/a")
    target.config.write_text(f"{SETTINGS}\n{LEGACY}")
    assert content(target.plan(), target.kept) == f"; mine\n[program:a]\ncommand=/bin/a\n{LEGACY}"


@pytest.mark.parametrize(
    ("text", "options", "cause"),
    [
        (f"{SETTINGS}\n{LEGACY}", {"names": ("legacy",)}, "[program:legacy]"),
        (f"{SETTINGS}\n[program:x]\ncommand=%(here)s/x\n", {}, "%(here)s"),
        (f"{SETTINGS}\n{LEGACY}\n[DEFAULT]\nuser=root\n", {}, "[DEFAULT]"),
        (f"{SETTINGS}\n{LEGACY}\n[supervisorctl]\n  [program:y]\ncommand=/y\n", {}, "indented"),
        (f"no section\n{LEGACY}", {}, "can't be parsed"),
    ],
)
def test_what_would_change_its_meaning_is_refused(target: Host, text: str, options, cause: str) -> None:
    target.config.write_text(text)
    with pytest.raises(SupervisorError) as caught:
        target.plan(restart=True, **options)
    assert cause in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_another_section_of_the_same_name_is_refused(target: Host) -> None:
    target.kept.write_text("[program:legacy]\ncommand=/bin/other\n")
    target.config.write_text(f"{SETTINGS}\n{LEGACY}")
    with pytest.raises(SupervisorError, match="differ"):
        target.plan()


def test_an_include_of_another_place_is_refused_once(target: Host, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.conf").write_text("[program:a]\ncommand=/bin/a\n")
    target.config.write_text("[supervisord]\n[include]\nfiles=more/*.conf supervisord.d/*.ini nothing/*.conf\n")
    with pytest.raises(SupervisorError) as caught:
        target.plan(restart=True)
    pattern = f"{tmp_path}/more/*.conf"
    assert f"supervisor_include_files to [{pattern}]," in str(caught.value)
    assert target.plan(SETTINGS.replace("files=", f"files={pattern} ")).sections == []
    # Later it is the role's own, which the variable no longer asks for.
    target.written_last.write_text("")
    assert target.plan().sections == []


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["[program:a]", "[group:b]", "[supervisord]", "[x]", "a=1", " b=2", "; note", "#note", ""]),
        max_size=14,
    )
)
def test_taken_apart_it_is_the_same(lines: list[str]) -> None:
    text = "\n".join(["[first]", *lines])
    found = existing.blocks(text)
    assert "".join(block.text for block in found) == text
    whole, parts = UnhosedConfigParser(), UnhosedConfigParser()
    whole.read_string(text)
    for block in found:
        parts.read_string(block.text)
    assert {name: dict(whole.items(name)) for name in whole.sections()} == {
        name: dict(parts.items(name)) for name in parts.sections()
    }


# --- with a supervisord


def running(daemon: Daemon, target: Host):
    daemon.program("legacy")
    daemon.program("mine")
    daemon.program("down", autostart="false")
    daemon.start()
    wait_for(lambda: sorted(daemon.pids().values())[1] > 0, "both run")
    target.config.write_text(daemon.config.read_text())
    return {"connection": daemon.connection(), "unit_of": lambda pid: "supervisord.service"}


def test_a_restart_is_refused_with_the_names(own_daemon: Daemon, target: Host) -> None:
    asked = running(own_daemon, target)
    before = own_daemon.pids()
    target.config.write_text("[supervisord]\n[program:legacy]\ncommand=/bin/x\n")
    with pytest.raises(SupervisorError) as caught:
        target.plan(names=("mine",), **asked)
    first, second, third = str(caught.value).splitlines()
    assert first.endswith("none of the role's: legacy.")
    assert "supervisor_existing to restart" in second
    assert "program:legacy" in third
    assert own_daemon.pids() == before
    plan = target.plan(names=("mine",), restart=True, **asked)
    assert (plan.restarted, plan.sections) == (["legacy"], ["program:legacy"])


def test_programs_in_files_of_their_own_count_too(own_daemon: Daemon, target: Host) -> None:
    asked = running(own_daemon, target)
    target.config.write_text("[supervisord]\n")
    with pytest.raises(SupervisorError, match="legacy"):
        target.plan(names=("mine",), **asked)


def test_where_only_the_roles_programs_run_nothing_is_refused(own_daemon: Daemon, target: Host) -> None:
    asked = running(own_daemon, target)
    target.config.write_text("[supervisord]\n")
    assert target.plan(names=("mine", "legacy"), **asked).restarted == []


def test_a_supervisord_that_systemd_does_not_restart_is_refused(own_daemon: Daemon, target: Host) -> None:
    asked = running(own_daemon, target)
    target.config.write_text("[supervisord]\n")
    with pytest.raises(SupervisorError, match=r"old\.service"):
        target.plan(restart=True, connection=asked["connection"], unit_of=lambda pid: "old.service")


def test_a_supervisord_that_gives_no_answer_is_not_restarted(target: Host, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho active\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    target.config.write_text("[supervisord]\n")
    with pytest.raises(SupervisorError, match="can't be asked"):
        target.plan()
    assert target.plan(restart=True).restarted == []


# --- the role


def test_the_names_that_are_the_roles() -> None:
    role = Role(
        "supervisor",
        supervisor_programs=[{"name": "mail", "command": "/m"}],
        supervisor_groups=[{"name": "pair", "programs": ["mail"]}],
        fastapi_apps=[{"name": "orders", "server_names": ["o.example.com"]}, {"name": "plain"}],
    )
    names = {"mail", "pair", "fastapi_notify", "fastapi_retry", "orders", "orders_blue", "orders_green", "plain"}
    assert set(role.value("__supervisor_names")) == names


def test_a_host_without_apps_has_names_too() -> None:
    assert Role("supervisor").value("__supervisor_names") == ["fastapi_notify", "fastapi_retry"]
