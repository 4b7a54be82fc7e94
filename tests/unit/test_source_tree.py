"""A source from the controller to a release directory, whole or not at all."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._source_tree import (
    SourceTreeError,
    archive_commit,
    is_there,
    prune,
    release_path,
    unpack_release,
)
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._source import (
    SourceError,
    file_digest,
    pack,
    pack_lock,
    package_digest,
    tree_digest,
    wanted_digest,
)

EXCLUDE = [".git", "*.pyc", "__pycache__"]
REVISION = "0123456789abcdef" * 4


@pytest.fixture
def tree(tmp_path) -> Path:
    root = tmp_path / "source"
    (root / "pkg" / "__pycache__").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "HEAD").write_text("x")
    (root / "pkg" / "main.py").write_text("app = 1\n")
    (root / "pkg" / "__pycache__" / "main.pyc").write_text("x")
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o755)
    (root / "link").symlink_to("pkg/main.py")
    return root


def test_a_tree_arrives_as_it_was(tree, tmp_path) -> None:
    archive = tmp_path / "a.tar.gz"
    pack(str(tree), EXCLUDE, str(archive))
    releases = tmp_path / "releases"
    unpack_release(str(releases), REVISION, str(archive), 0)
    place = releases / REVISION[:12] / "app"
    assert is_there(str(releases), REVISION)
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*")) == ["link", "pkg", "pkg/main.py", "run"]
    assert (place / "link").read_text() == "app = 1\n"
    assert os.access(place / "run", os.X_OK)
    assert stat.S_IMODE((place / "pkg" / "main.py").stat().st_mode) == 0o644
    assert tree_digest(str(place), EXCLUDE) == tree_digest(str(tree), EXCLUDE)


def test_the_digest_is_of_what_arrives(tree) -> None:
    first = tree_digest(str(tree), EXCLUDE)
    (tree / "pkg" / "__pycache__" / "main.pyc").write_text("y")
    os.utime(tree / "run", (1, 1))
    assert tree_digest(str(tree), EXCLUDE) == first
    (tree / "run").chmod(0o644)
    second = tree_digest(str(tree), EXCLUDE)
    (tree / "pkg" / "main.py").write_text("app = 2\n")
    assert len({first, second, tree_digest(str(tree), EXCLUDE)}) == 3


def test_missing_sources(tmp_path) -> None:
    with pytest.raises(SourceError, match="no such directory"):
        tree_digest(str(tmp_path / "x"), [])
    with pytest.raises(SourceError, match="no such file"):
        file_digest(str(tmp_path / "x"))


@pytest.mark.parametrize("checksum", ["", "md5:abc", "sha256:abc", "0" * 64, "sha256:" + "g" * 64])
def test_a_checksum_that_is_none(checksum) -> None:
    with pytest.raises(SourceError, match="64 hexadecimal"):
        wanted_digest(checksum)


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> str:
    with tarfile.open(path, "w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ([(tarfile.TarInfo("../evil"), b"x")], "outside"),
        ([(tarfile.TarInfo("/evil"), b"x")], "outside"),
        ([(link("out", "/etc/passwd"), b"")], "points outside"),
        ([(link("out", "../../x"), b"")], "points outside"),
        ([], "no file in it"),
    ],
)
def test_an_archive_that_is_refused_leaves_nothing(tmp_path, members, word) -> None:
    archive = tar_of(tmp_path / "a.tar", *members)
    releases = tmp_path / "releases"
    with pytest.raises(SourceTreeError, match=word):
        unpack_release(str(releases), REVISION, archive, 0)
    assert os.listdir(releases) == []
    assert not (tmp_path / "evil").exists()


def test_no_archive_at_all(tmp_path) -> None:
    (tmp_path / "a").write_text("no archive")
    with pytest.raises(SourceTreeError, match="must be a tar or zip"):
        unpack_release(str(tmp_path / "releases"), REVISION, str(tmp_path / "a"), 0)


def test_zip_and_strip(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr("repo-1.0/pkg/main.py", "app = 1\n")
    unpack_release(str(tmp_path / "releases"), REVISION, str(tmp_path / "a.zip"), 1)
    assert (tmp_path / "releases" / REVISION[:12] / "app" / "pkg" / "main.py").read_text() == "app = 1\n"


def test_what_a_cut_off_run_left_does_not_matter(tree, tmp_path) -> None:
    archive = tmp_path / "a.tar.gz"
    pack(str(tree), EXCLUDE, str(archive))
    releases = tmp_path / "releases"
    (releases / f".{REVISION[:12]}.new" / "app").mkdir(parents=True)
    (releases / REVISION[:12] / "venv").mkdir(parents=True)
    assert not is_there(str(releases), REVISION)
    unpack_release(str(releases), REVISION, str(archive), 0)
    assert os.listdir(releases) == [REVISION[:12]]


def test_a_commit(tmp_path) -> None:
    repository = tmp_path / "repository"
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    (repository / "main.py").write_text("1")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    (repository / "main.py").write_text("not committed")
    archive_commit("git", str(repository), "HEAD", str(tmp_path / "a.tar"))
    unpack_release(str(tmp_path / "releases"), REVISION, str(tmp_path / "a.tar"), 0)
    assert (Path(release_path(str(tmp_path / "releases"), REVISION)) / "app" / "main.py").read_text() == "1"
    with pytest.raises(SourceTreeError, match="git archive of nowhere failed"):
        archive_commit("git", str(repository), "nowhere", str(tmp_path / "b.tar"))


def test_prune_keeps_the_live_one_and_the_newest(tmp_path) -> None:
    for age, name in enumerate(["new", "middle", "old", "oldest"]):
        (tmp_path / name / "app").mkdir(parents=True)
        os.utime(tmp_path / name, (10_000 - age, 10_000 - age))
    (tmp_path / ".half.new").mkdir()
    assert prune(str(tmp_path), "oldest", 3, only_tell=True) == [".half.new", "old"]
    assert len(os.listdir(tmp_path)) == 5
    assert prune(str(tmp_path), "oldest", 3) == [".half.new", "old"]
    assert sorted(os.listdir(tmp_path)) == ["middle", "new", "oldest"]
    assert prune(str(tmp_path), "oldest", 1) == ["middle", "new"]
    assert prune(str(tmp_path / "missing"), "x", 1) == []


def test_a_package_is_its_lock(tmp_path) -> None:
    lock = tmp_path / "orders.txt"
    lock.write_text("fastapi==1.0 --hash=x\nOrders_App[all]==1.4.2 \\\n    --hash=sha256:0\n")
    digest = package_digest("orders-app==1.4.2", str(lock))
    for package in ("orders-app==1.4", "other==1.4.2", "orders-app"):
        with pytest.raises(SourceError, match="does not have"):
            package_digest(package, str(lock))
    archive = tmp_path / "archive"
    pack_lock(str(lock), str(archive))
    unpack_release(str(tmp_path / "releases"), digest, str(archive), 0)
    release = tmp_path / "releases" / digest[:12] / "app"
    assert [path.name for path in release.iterdir()] == ["requirements.txt"]
    lock.write_text(lock.read_text() + "more==1 --hash=x\n")
    assert package_digest("orders-app==1.4.2", str(lock)) != digest


def test_a_package_without_a_lock() -> None:
    with pytest.raises(SourceError, match="no such file"):
        package_digest("orders==1", "/no/such/lock")
