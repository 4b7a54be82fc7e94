"""A source from the controller to a release directory, whole or not at all."""

from __future__ import annotations

import functools
import io
import os
import stat
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.archive import SourceTreeError, Tree, unpack
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.tree import (
    EXCLUDE,
    bring,
    group_id,
    is_there,
    prune,
    regroup,
    release_path,
    remove,
)
from ansible_collections.asgiops.fastapi_host.plugins.modules import source_tree
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._source import (
    Directory,
    SourceError,
    file_digest,
    pack_lock,
    package_digest,
    wanted_digest,
)

REVISION = "0123456789abcdef" * 4
CHECKOUT = Path(__file__).resolve().parents[2]


def bring_archive(releases: Path, revision: str, archive: Any, **options: Any) -> Path:
    bring(str(releases), revision, functools.partial(unpack, str(archive)), **options)
    return Path(release_path(str(releases), revision)) / "app"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


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


@pytest.mark.skipif(os.geteuid() != 0, reason="it gives files to another group")
def test_a_source_that_is_there_gets_the_group_that_came_later(tree, tmp_path) -> None:
    Directory(str(tree), EXCLUDE).pack(str(tmp_path / "a.tar.gz"))
    releases = str(tmp_path / "orders" / "releases")
    place = bring_archive(Path(releases), REVISION, tmp_path / "a.tar.gz")
    outside = tmp_path / "outside"
    outside.write_text("x")
    (place / "pkg" / "way").symlink_to(outside)
    assert not regroup(releases, REVISION, -1)
    assert regroup(releases, REVISION, 65534, dry_run=True)
    assert place.stat().st_gid == 0
    assert regroup(releases, REVISION, 65534)
    assert {path.lstat().st_gid for path in (place, *place.rglob("*"))} == {65534}
    assert outside.stat().st_gid == 0
    assert not regroup(releases, REVISION, 65534)


def test_a_tree_arrives_as_it_was(tree, tmp_path) -> None:
    Directory(str(tree), EXCLUDE).pack(str(tmp_path / "a.tar.gz"))
    releases = tmp_path / "orders" / "releases"
    place = bring_archive(releases, REVISION, tmp_path / "a.tar.gz")
    assert is_there(str(releases), REVISION)
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*")) == ["link", "pkg", "pkg/main.py", "run"]
    assert (place / "link").read_text() == "app = 1\n"
    assert Directory(str(place), EXCLUDE).digest() == Directory(str(tree), EXCLUDE).digest()
    assert [oct(mode_of(path)) for path in (releases.parent, releases, place.parent)] == ["0o711"] * 3
    assert (mode_of(place), mode_of(place / "pkg" / "main.py"), mode_of(place / "run")) == (0o750, 0o640, 0o750)


def test_the_digest_is_of_what_arrives(tree) -> None:
    first = Directory(str(tree), EXCLUDE).digest()
    # As it was before: hosts have releases by this name.
    assert first == "76a24feb37f8fc40e2f6961a5b9209686627ddfad58b872170cdfe44e296a1be"
    (tree / "pkg" / "__pycache__" / "main.pyc").write_text("y")
    (tree / ".env").write_text("KEY=x")
    os.utime(tree / "run", (1, 1))
    assert Directory(str(tree), EXCLUDE).digest() == first
    (tree / "run").chmod(0o644)
    second = Directory(str(tree), EXCLUDE).digest()
    (tree / "pkg" / "main.py").write_text("app = 2\n")
    assert len({first, second, Directory(str(tree), EXCLUDE).digest()}) == 3


def test_what_usually_holds_secrets_is_left_out_and_named(tree, tmp_path) -> None:
    for name in (".env", ".env.production", ".env.example", ".netrc", ".streamlit", "pkg/.env", "environment"):
        (tree / name).write_text("x")
    (tree / ".ssh").mkdir()
    (tree / ".ssh" / "id").write_text("x")
    directory = Directory(str(tree), EXCLUDE)
    directory.digest()
    assert sorted(directory.left_out) == [".env", ".env.production", ".netrc", ".ssh", "pkg/.env"]
    directory.pack(str(tmp_path / "a.tar.gz"))
    assert len(directory.left_out) == 5
    place = bring_archive(tmp_path / "orders" / "releases", REVISION, tmp_path / "a.tar.gz")
    assert {path.name for path in place.iterdir()} == {
        ".env.example", ".streamlit", "environment", "link", "pkg", "run",
    }  # fmt: skip
    # A list of one's own does not bring them back.
    assert Directory(str(tree), ["docs", ".git"]).digest() != directory.digest()
    own = Directory(str(tree), ["*"], include=[".env", "pkg"])
    own.pack(str(tmp_path / "b.tar.gz"))
    place = bring_archive(tmp_path / "orders" / "releases", "f" * 40, tmp_path / "b.tar.gz")
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*")) == [".env", "pkg", "pkg/.env"]
    assert mode_of(place / ".env") == 0o640


@pytest.mark.parametrize("target", ["/etc/passwd", "../other", "pkg/../../other", "up/other"])
def test_a_link_out_is_refused_on_the_controller(tree, target) -> None:
    (tree / "pkg" / "up").symlink_to("..")
    (tree / "out").symlink_to(target.replace("up", "pkg/up/.."))
    with pytest.raises(SourceError, match=r"source\.path has the link 'out' to .*, which leads out of it"):
        Directory(str(tree), EXCLUDE).digest()
    Directory(str(tree), [*EXCLUDE, "out"]).digest()


def test_a_file_of_two_names_arrives_twice(tree, tmp_path) -> None:
    os.link(tree / "run", tree / "run-too")
    directory = Directory(str(tree), EXCLUDE)
    directory.pack(str(tmp_path / "a.tar.gz"))
    place = bring_archive(tmp_path / "orders" / "releases", REVISION, tmp_path / "a.tar.gz")
    assert (place / "run").read_text() == (place / "run-too").read_text() == "#!/bin/sh\n"
    assert Directory(str(place), EXCLUDE).digest() == directory.digest()


def test_missing_sources(tmp_path) -> None:
    with pytest.raises(SourceError, match="no such directory"):
        Directory(str(tmp_path / "x"), []).digest()
    with pytest.raises(SourceError, match="no such file"):
        file_digest(str(tmp_path / "x"))


@pytest.mark.parametrize("checksum", ["", "md5:abc", "sha256:abc", "0" * 64, "sha256:" + "g" * 64])
def test_a_checksum_that_is_none(checksum) -> None:
    with pytest.raises(SourceError, match="64 hexadecimal"):
        wanted_digest(checksum)


def tar_of(path: Path, **files: bytes) -> str:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def test_an_archive_that_is_refused_leaves_nothing(tmp_path) -> None:
    releases = tmp_path / "orders" / "releases"
    with pytest.raises(SourceTreeError, match="outside"):
        bring_archive(releases, REVISION, tar_of(tmp_path / "a.tar", good=b"x", **{"..__evil": b"x"}))
    with pytest.raises(SourceTreeError, match="larger than 10 bytes"):
        bring_archive(releases, REVISION, tar_of(tmp_path / "a.tar", good=b"x", bad=b"x" * 10), max_bytes=10)
    assert os.listdir(releases) == []
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_full_disk_leaves_nothing(tmp_path) -> None:
    releases = tmp_path / "orders" / "releases"
    archive = tar_of(tmp_path / "a.tar", small=b"x", large=bytes(1 << 20))
    script = """
import errno, functools, os, sys
sys.path[:0] = sys.argv[3:]
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources import archive as _source_archive
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources import tree as _source_tree
try:
    _source_tree.bring(sys.argv[1], "f" * 40, functools.partial(_source_archive.unpack, sys.argv[2]))
except OSError as error:
    assert error.errno == errno.ENOSPC, error
else:
    sys.exit("it fitted")
assert os.listdir(sys.argv[1]) == []
"""
    releases.mkdir(parents=True)
    run = ["sh", "-c", 'mount -t tmpfs -o size=256k,mode=711 x "$1" || exit 77; shift; exec "$@"', "sh", releases]
    command = ["unshare", "--mount", *run, sys.executable, "-c", script, releases, archive, *sys.path]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode in (1, 77) and "Traceback" not in done.stderr and "fitted" not in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr


def test_what_a_cut_off_run_left_does_not_matter(tmp_path) -> None:
    releases = tmp_path / "orders" / "releases"
    (releases / f".{REVISION[:12]}.new" / "app").mkdir(parents=True)
    (releases / REVISION[:12] / "venv").mkdir(parents=True)
    assert not is_there(str(releases), REVISION)
    bring_archive(releases, REVISION, tar_of(tmp_path / "a.tar", f=b"x"))
    assert os.listdir(releases) == [REVISION[:12]]


def deep(place: Path, levels: int) -> None:
    """Directories that no path can name."""
    here = os.open(place, os.O_RDONLY)
    for _level in range(levels):
        os.mkdir("d", dir_fd=here)
        further = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = further
    os.close(here)


def test_what_is_too_deep_for_python_is_removed(tmp_path) -> None:
    """As an earlier version left it."""
    releases = tmp_path / "orders" / "releases"
    (releases / ".x.new").mkdir(parents=True)
    deep(releases / ".x.new", 2100)
    assert prune(str(releases), "live", 3) == [".x.new"]
    assert os.listdir(releases) == []


def test_what_is_removed_is_no_target_of_a_link(tmp_path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "f").write_text("x")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "link").symlink_to(victim)
    remove(str(tmp_path / "gone"))
    assert (victim / "f").exists()


def test_two_runs_at_once_bring_one_release(tmp_path) -> None:
    releases = tmp_path / "orders" / "releases"
    archive = tar_of(tmp_path / "a.tar", f=b"x")
    filled = []

    def fill(tree: Tree) -> None:
        filled.append(tree)
        time.sleep(0.3)
        unpack(archive, tree)

    with ThreadPoolExecutor() as pool:
        for run in [pool.submit(bring, str(releases), REVISION, fill) for _number in range(2)]:
            run.result()
    assert len(filled) == 1
    assert is_there(str(releases), REVISION)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
@pytest.mark.parametrize("harm", ["owner", "mode"])
def test_a_directory_that_others_can_write_is_refused(tmp_path, harm) -> None:
    releases = tmp_path / "orders" / "releases"
    releases.mkdir(parents=True)
    for place in (releases, releases.parent):
        if harm == "owner":
            os.chown(place, 65534, -1)
        else:
            place.chmod(0o777)
        for call in (
            lambda: bring_archive(releases, REVISION, tar_of(tmp_path / "a.tar", f=b"x")),
            lambda: prune(str(releases), "live", 1),
        ):
            with pytest.raises(SourceTreeError, match=f"{place} can be written by others.*chown root:root {place}"):
                call()
        os.chown(place, 0, -1)
        place.chmod(0o711)
    bring_archive(releases, REVISION, tar_of(tmp_path / "a.tar", f=b"x"))


def test_a_group_that_is_not_there_yet() -> None:
    assert group_id("") == group_id("no-such-group") == -1
    assert group_id("root") == 0


def test_prune_keeps_the_live_one_and_the_newest(tmp_path) -> None:
    tmp_path = tmp_path / "releases"
    tmp_path.mkdir()
    for age, name in enumerate(["new", "middle", "old", "oldest"]):
        (tmp_path / name / "app").mkdir(parents=True)
        os.utime(tmp_path / name, (10_000 - age, 10_000 - age))
    (tmp_path / ".half.new").mkdir()
    assert prune(str(tmp_path), "oldest", 3, dry_run=True) == [".half.new", "old"]
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
    release = bring_archive(tmp_path / "orders" / "releases", digest, archive)
    assert [path.name for path in release.iterdir()] == ["requirements.txt"]
    lock.write_text(lock.read_text() + "more==1 --hash=x\n")
    assert package_digest("orders-app==1.4.2", str(lock)) != digest


def test_a_package_without_a_lock() -> None:
    with pytest.raises(SourceError, match="no such file"):
        package_digest("orders==1", "/no/such/lock")


def test_the_spec_of_the_role_is_that_of_the_module() -> None:
    """Both list the options, and what is left out unless a list says otherwise."""
    specs = yaml.safe_load((CHECKOUT / "roles/release/meta/argument_specs.yml").read_text(encoding="utf-8"))
    documented = yaml.safe_load(source_tree.DOCUMENTATION)["options"]["source"]["suboptions"]
    role = specs["argument_specs"]["main"]["options"]["release_source"]["options"]
    for options in (role, documented):
        assert {name: option.get("default") for name, option in options.items()} == {
            name: option.get("default") for name, option in source_tree.SOURCE_OPTIONS.items()
        }
