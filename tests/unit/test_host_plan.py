"""What the module host_plan compares on a host, here in a directory of the test's own."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from _supervisor_daemon import Daemon, daemon_fixture, own_daemon_fixture, shared_daemon_fixture  # noqa: F401
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._host import plan
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import rpc

OWN = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}


def wanted(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "directories": [{"path": str(folder), **OWN}],
        "files": [{"path": str(folder / "one"), "content": "1\n", **OWN}],
        "purge": [str(folder / "*.old")],
        **more,
    }


SLOTS = {"group": "x", "build": "", "program": "", "tmpfiles": "", "files": [], "directories": [], "static": []}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    place.mkdir(mode=0o755)
    (place / "one").write_text("1\n")
    (place / "one").chmod(0o644)
    return place


def test_nothing_differs(folder: Path) -> None:
    found = plan.of_role(wanted(folder))
    assert found.texts == []
    assert len(found.digest) == 16


def test_files_differ(folder: Path) -> None:
    (folder / "one").chmod(0o600)
    (folder / "left.old").touch()
    folder.chmod(0o700)
    assert plan.of_role(wanted(folder)).texts == [
        f"{folder}: mode 0700 -> 0755",
        f"{folder}/one: mode 0600 -> 0644",
        f"{folder}/left.old: removed",
    ]


def test_what_cant_be_compared_counts_as_different(folder: Path) -> None:
    (folder / "one").unlink()
    (folder / "one").mkdir()
    (text,) = plan.of_role(wanted(folder)).texts
    assert text == f"{folder}/one is there and is not a file; move it away and run again"


def test_programs_of_a_supervisord_that_does_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = rpc.Connection(server_url=f"unix://{folder}/none.sock", connect_timeout=0)
    monkeypatch.setattr(plan, "CONNECTION", nowhere)
    (text,) = plan.of_role(wanted(folder, programs=["sleeper"])).texts
    assert "none.sock" in text


def in_place(folder: Path, **more: Any) -> dict[str, Any]:
    wanted = {"current": str(folder / "current"), "venv": "", "environment": {}, **more}
    return {**app(folder), "in_place": {"directories": [], "files": [], "links": [], "purge": [], **wanted}}


def test_a_program_that_is_starting_differs(folder: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart of supervisord nobody knows yet whether it will run."""
    monkeypatch.setattr(plan, "CONNECTION", daemon.connection(connect_timeout=0))
    daemon.program("x", startsecs=60)
    daemon.start()
    wanted = in_place(folder)
    del wanted["slots"]
    assert "program x: STARTING" in plan.of_app({**wanted, "release_directories": []}).texts


def test_a_supervisord_that_is_being_restarted_gets_time(
    folder: Path, own_daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "CONNECTION", own_daemon.connection(connect_timeout=0))
    own_daemon.start(wait=False)
    request = {"roles": {"supervisor": wanted(folder, programs=[])}, "apps": {}}
    assert plan.compare(request, connect_timeout=10)["roles"]["supervisor"]["texts"] == []


def app(folder: Path, **source: Any) -> dict[str, Any]:
    place = {"repo": None, "version": "HEAD", "revision": "", "releases": str(folder), "group": "", **source}
    account = {
        "app": "x",
        "user": "no_such_user_x",
        "home": "/x",
        "group": "",
        "shared_user": False,
        "existing_user": False,
    }
    return {"name": "x", "base_dir": str(folder), "account": account, "source": place, "slots": SLOTS}


def test_a_repository_that_cant_be_asked(folder: Path) -> None:
    """The account is named all the same, and the source counts as missing."""
    found = plan.of_app(app(folder, repo=str(folder / "none.git"), version="v1"), scratch=str(folder))
    assert found.account and found.source == "new" and found.revision == ""
    assert found.texts[0].startswith("account no_such_user_x: new")
    assert "none.git" in found.texts[-1]


def test_a_source_that_is_not_there(folder: Path) -> None:
    found = plan.of_app(app(folder, revision="a" * 40))
    assert (found.source, found.revision, found.after) == ("new", "a" * 40, "a" * 12)
    assert f"{folder}/{'a' * 12}: new" in found.texts
