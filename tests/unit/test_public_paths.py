"""What of a release the proxy may read."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files import public_paths


@pytest.fixture(name="source")
def source_fixture(tmp_path: Path) -> Path:
    source = tmp_path / "releases" / "one" / "app"
    for name in ("web/static/css", "web/private"):
        (source / name).mkdir(parents=True)
    for name in ("web/static/css/a.css", "web/private/key", "main.py"):
        (source / name).write_text("x")
        (source / name).chmod(0o640)
    for path in (source, *source.rglob("*")):
        if path.is_dir():
            path.chmod(0o750)
    return source


def others(path: Path) -> str:
    return stat.filemode(path.stat().st_mode)[7:]


def test_names_below_a_folder(tmp_path: Path) -> None:
    paths = [f"{tmp_path}/web/static/", "/srv/static", f"{tmp_path}/../x", f"{tmp_path}/a/../b"]
    assert public_paths.below(tmp_path, paths) == ["web/static", "b"]


def test_only_what_is_served_is_opened(source: Path) -> None:
    assert public_paths.closed(source, ["web/static", "no/such"]) == ["web/static"]
    public_paths.open_up(source, ["web/static", "no/such"])
    assert public_paths.closed(source, ["web/static"]) == []
    assert [others(source / name) for name in ("", "web", "web/static", "web/static/css")] == [
        "--x",
        "--x",
        "r-x",
        "r-x",
    ]
    assert others(source / "web/static/css/a.css") == "r--"
    assert [others(source / name) for name in ("main.py", "web/private", "web/private/key")] == ["---"] * 3


def test_no_link_is_followed(source: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    (outside / "secret").chmod(0o600)
    (source / "media").symlink_to(outside)
    (source / "web" / "static" / "way").symlink_to(outside / "secret")
    public_paths.open_up(source, ["media", "web/static"])
    assert others(outside / "secret") == "---"
