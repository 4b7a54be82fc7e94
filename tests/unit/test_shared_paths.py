"""What releases share, and an account that puts links where root will work."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files import shared_paths
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files.shared_paths import SharedPathError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="it gives directories to other accounts")
APP = 65534


@pytest.fixture(name="shared")
def shared_fixture(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


@pytest.fixture(name="source")
def source_fixture(tmp_path: Path) -> Path:
    folder = tmp_path / "release" / "app"
    folder.mkdir(parents=True)
    return folder


def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "other" / "victim"
    folder.mkdir(parents=True)
    (folder / "precious").write_text("data")
    return folder


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["data", "data/uploads"], [("data/uploads", "data")]),
        (["data/.env", "data"], [("data/.env", "data")]),
        (["data", "data"], [("data", "data")]),
        (["data", "data2", "x/data", "d"], []),
    ],
)
def test_names_that_overlap(names: list[str], pairs: list[tuple[str, str]]) -> None:
    assert list(shared_paths.overlaps(names)) == pairs


def test_a_directory_is_the_accounts_and_what_leads_to_it_is_roots(shared: Path) -> None:
    assert shared_paths.make_directory(shared, "var/cache", APP, APP)
    assert not shared_paths.make_directory(shared, "var/cache", APP, APP)
    found = (shared / "var" / "cache").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (APP, APP, 0o750)
    above = (shared / "var").stat()
    assert (above.st_uid, stat.S_IMODE(above.st_mode)) == (0, 0o711)


def test_a_link_that_the_account_made_is_not_followed(shared: Path, tmp_path: Path) -> None:
    place = victim(tmp_path)
    (shared / "data").symlink_to(place.parent)
    before = place.stat()
    with pytest.raises(SharedPathError, match=re.escape(f"{shared}/data is a link")):
        shared_paths.make_directory(shared, "data/victim", APP, APP)
    with pytest.raises(SharedPathError, match="is there and is no directory"):
        shared_paths.make_directory(shared, "data", APP, APP)
    assert place.stat() == before


def test_nothing_is_made_below_what_the_account_may_write(shared: Path) -> None:
    shared_paths.make_directory(shared, "data", APP, APP)
    with pytest.raises(SharedPathError, match=r"shared/data can be written by others than root") as refused:
        shared_paths.make_directory(shared, "data/x", APP, APP)
    assert "Share that directory itself" in str(refused.value)
    assert list((shared / "data").iterdir()) == []


def test_the_link_takes_the_place_of_what_the_source_brings(shared: Path, source: Path) -> None:
    (source / "data" / "samples").mkdir(parents=True)
    (source / "data" / "samples" / "one").write_text("x")
    (source / "local.ini").write_text("x")
    for name in ("data", "local.ini", "var/cache"):
        shared_paths.link(source, name, shared)
        shared_paths.link(source, name, shared)
        assert os.readlink(source / name) == str(shared / name)
    assert [path.name for path in source.parent.iterdir()] == ["app"]


def test_a_link_of_an_earlier_setting_leads_to_no_removal(shared: Path, source: Path, tmp_path: Path) -> None:
    """data was shared before, and the account has put a link to a neighbour's directory into it."""
    place = victim(tmp_path)
    shared_paths.make_directory(shared, "data", APP, APP)
    (shared / "data" / "x").symlink_to(place.parent)
    shared_paths.link(source, "data", shared)
    with pytest.raises(SharedPathError, match="follows no link"):
        shared_paths.link(source, "data/x/victim", shared)
    assert (place / "precious").read_text() == "data"


def test_what_is_removed_is_no_links_target(shared: Path, source: Path, tmp_path: Path) -> None:
    place = victim(tmp_path)
    (source / "data").symlink_to(place)
    shared_paths.link(source, "data", shared)
    (source / "more").mkdir()
    (source / "more" / "way").symlink_to(place)
    shared_paths.link(source, "more", shared)
    assert (place / "precious").read_text() == "data"
