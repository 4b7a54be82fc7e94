"""What paths, accounts, masks and directives may look like, whatever is tried."""

from __future__ import annotations

import posixpath
import re

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _app_shapes, _shapes, _unit_directives
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.controller

PARTS = st.sampled_from(
    ["etc", "opt", "tmp", "..", ".", "", "fastapi", "var", "lib", "a b", "x\n", "run", "usr", "local"]
)
PATHS = st.lists(PARTS, max_size=6).map(lambda parts: "/".join(["", *parts]))
RULES = [_shapes.tree, _shapes.served, _shapes.written_by_root, _shapes.trusted, _shapes.socket_path, _shapes.absolute]


@pytest.mark.parametrize("rule", RULES)
@given(path=PATHS)
def test_what_is_accepted_says_where_it_leads(rule, path: str) -> None:
    if not rule(path):
        assert posixpath.normpath(path) == (path.rstrip("/") or "/")
        assert not re.search(r"\s", path)


@given(PATHS)
def test_a_tree_lies_in_no_directory_of_the_system(path: str) -> None:
    if not _shapes.tree(path):
        assert not path.startswith(("/etc/", "/tmp/", "/run/", "/usr/lib", "/var/lib/fastapi"))
        assert len(path.strip("/").split("/")) >= 2


@given(PATHS)
def test_nothing_of_the_system_is_served(path: str) -> None:
    if not _shapes.served(path):
        for secret in ("/etc/shadow", "/root/.ssh/id", "/var/log/messages", "/run/x", "/proc/1/environ"):
            assert not secret.startswith(f"{path.rstrip('/')}/")


@given(st.text(max_size=40))
def test_an_account_is_a_word(name: str) -> None:
    if not _shapes.account(name):
        assert name.isascii()
        assert not re.search(r"[^a-z0-9_$-]", name)


@given(st.integers(0, 0o777))
def test_no_mask_leaves_files_open_to_all(mask: int) -> None:
    assert bool(_shapes.umask(f"0{mask:o}")) == (0o666 & ~mask & 0o002 == 0o002)


@given(st.lists(st.sampled_from(["a", "ab", "a/b", "a/b/c", "b", "a-b", "b/a"]), max_size=4, unique=True))
def test_no_shared_name_lies_below_another(names: list[str]) -> None:
    found = list(_app_shapes.problems({"name": "a", "shared": {"directories": names}}))
    nested = [(one, other) for one in names for other in names if one != other and one.startswith(f"{other}/")]
    assert len(found) == len(nested)


def test_directives_that_the_role_has_are_known() -> None:
    own = ("LockPersonality", "ProtectClock", "ProtectHostname", "RestrictRealtime", "NoNewPrivileges", "MemoryMax")
    assert set(own) <= _unit_directives.KNOWN
    assert not {"ExecStart", "ExecStartPre", "ExecStopPost", "User", "Type"} & _unit_directives.KNOWN
