"""An archive that somebody hostile made: nothing in it leads out of its directory."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources import archive as _source_archive
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.archive import SourceTreeError, Tree, unpack

Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"x", mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.mode, info.size = mode, len(content)
    return info, content


def of_type(name: str, kind: bytes, target: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def link(name: str, target: str) -> Member:
    return of_type(name, tarfile.SYMTYPE, target)


def tar_of(path: Path, *members: Member, mode: str = "w") -> str:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def zip_of(path: Path, *members: tuple[str, int, bytes]) -> str:
    with zipfile.ZipFile(path, "w") as bundle:
        for name, mode, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            bundle.writestr(info, content)
    return str(path)


def unpacked(archive: str, place: Path, **options: Any) -> Path:
    tree = Tree(str(place), **options)
    try:
        unpack(archive, tree)
    finally:
        tree.close()
    return place


@pytest.fixture
def refused(tmp_path):
    def run(archive: str, **options: Any) -> str:
        with pytest.raises(SourceTreeError) as caught:
            unpacked(archive, tmp_path / "refused", **options)
        shutil.rmtree(tmp_path / "refused")
        assert str(caught.value).isprintable()
        return str(caught.value)

    return run


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([link("a", "/etc/passwd")], ["link 'a' points outside", "'/etc/passwd'"]),
        ([link("a", "../x")], ["link 'a' points outside", "'../x'"]),
        ([link("d/a", "../../x")], ["link 'd/a' points outside"]),
        # Each of the two is within, and both together are not.
        ([file("deep/er/f"), link("up", "deep/er"), link("out", "up/../../../etc")], ["link 'out'", "other links"]),
        ([link("a/b", ".."), link("c", "a/b/../../x"), file("f")], ["link 'c' points outside"]),
        # Out and back in, by a name that the directory has for now.
        ([file("f"), link("a", "../app/f")], ["link 'a' points outside"]),
        # Through what is not there.
        ([link("a", "no/../../x")], ["link 'a' points outside"]),
        ([link("a", "b"), link("b", "a")], ["link 'a' to 'b' leads in a circle"]),
        ([link("a", "b" * 5000)], ["link 'a' points outside"]),
        ([link("d", "real"), file("d/f")], ["'d/f' below 'd', which is a link"]),
        ([file("d"), file("d/f")], ["'d/f' below 'd', which is a file"]),
        ([file("../evil")], ["'../evil'", "outside"]),
        ([file("a/../../evil")], ["'a/../../evil'", "outside"]),
        ([file("/evil")], ["'/evil'", "outside"]),
        ([file("f"), file("./f")], ["'f' twice"]),
        ([file("f"), link("f", "g")], ["'f' twice"]),
        ([link("f", "g"), file("f")], ["'f' twice"]),
        ([file("d/f"), file("d")], ["'d' twice"]),
        ([file("f"), of_type("h", tarfile.LNKTYPE, "f")], ["'h', a hard link to 'f'", "--hard-dereference"]),
        ([of_type("h", tarfile.LNKTYPE, "/etc/shadow")], ["'h', a hard link to '/etc/shadow'"]),
        ([of_type("null", tarfile.CHRTYPE)], ["'null', a device"]),
        ([of_type("disk", tarfile.BLKTYPE)], ["'disk', a device"]),
        ([of_type("pipe", tarfile.FIFOTYPE)], ["'pipe', a named pipe"]),
        ([of_type("odd", b"Z")], ["'odd', of the unknown type"]),
        ([file("/".join("d" * 2100))], ["too deep: 2100 levels", "100 levels"]),
        ([file("n" * 256)], ["too long", "255 bytes"]),
        ([file("/".join(["n" * 250] * 20))], ["too deep: 20 levels and 5000 bytes"]),
        ([file("\x1b[2J/../x")], ["'\\x1b[2J/../x'"]),
        ([], ["no file in it"]),
        ([of_type("d", tarfile.DIRTYPE)], ["no file in it"]),
    ],
)
def test_a_tar_file_that_is_refused(tmp_path, refused, members, words) -> None:
    message = refused(tar_of(tmp_path / "a.tar", *members))
    for word in words:
        assert word in message
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("a", stat.S_IFLNK | 0o777, b"/etc/passwd")], ["link 'a' points outside"]),
        ([("d/f", 0, b"x"), ("up", stat.S_IFLNK | 0o777, b"d"), ("o", stat.S_IFLNK, b"up/../../x")], ["link 'o'"]),
        ([("d", stat.S_IFLNK, b"real"), ("d/f", 0, b"x")], ["'d/f' below 'd', which is a link"]),
        ([("../evil", 0, b"x")], ["outside"]),
        ([("/evil", 0, b"x")], ["outside"]),
        ([("f", stat.S_IFCHR, b"")], ["'f', which is a device or a pipe"]),
        ([("/".join("d" * 2100), 0, b"x")], ["too deep"]),
    ],
)
def test_a_zip_file_that_is_refused(tmp_path, refused, members, words) -> None:
    message = refused(zip_of(tmp_path / "a.zip", *members))
    for word in words:
        assert word in message
    assert not list(tmp_path.rglob("evil"))


def test_a_zip_file_with_a_name_twice(tmp_path, refused) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        archive = zip_of(tmp_path / "a.zip", ("f", 0, b"1"), ("f", 0, b"2"))
    assert "'f' twice" in refused(archive)


def test_nul_in_a_name(tmp_path, refused) -> None:
    info, content = file("x")
    info.pax_headers = {"path": "a\0b"}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(content))
    assert "'a\\x00b', which has a NUL" in refused(str(tmp_path / "a.tar"))
    zipped = Path(zip_of(tmp_path / "a.zip", ("a#b", 0, b"x")))
    zipped.write_bytes(zipped.read_bytes().replace(b"a#b", b"a\0b"))
    assert "'a\\x00b', which has a NUL" in refused(str(zipped))


def test_an_encrypted_zip_file(tmp_path, refused) -> None:
    archive = Path(zip_of(tmp_path / "a.zip", ("f", 0, b"x")))
    data = bytearray(archive.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + offset] |= 1
    archive.write_bytes(data)
    assert "'f' is encrypted" in refused(str(archive))


def test_a_sparse_file_is_refused_whatever_its_format(tmp_path, refused) -> None:
    with open(tmp_path / "hole", "wb") as hole:
        hole.truncate(1 << 30)
    for form in ("gnu", "posix"):
        archive = tmp_path / f"{form}.tar.gz"
        command = ["tar", "--create", "--gzip", "--sparse", f"--format={form}", f"--file={archive}", "hole"]
        subprocess.run(command, cwd=tmp_path, check=True)
        assert archive.stat().st_size < 10_240
        assert "'hole', a sparse file" in refused(str(archive))


def test_a_small_archive_with_a_large_file(tmp_path, refused) -> None:
    with gzip.open(tmp_path / "a.tar.gz", "wb") as stream:
        info = tarfile.TarInfo("large")
        info.size = 64 << 20
        stream.write(info.tobuf())
        stream.write(bytes(info.size + 1024))
    message = refused(str(tmp_path / "a.tar.gz"), max_bytes=1 << 20)
    assert "larger than 1048576 bytes" in message
    assert "'large'" in message
    assert "source.max_bytes" in message


def test_a_zip_file_that_lies_about_its_size(tmp_path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("f", bytes(1 << 20))
    data = bytearray(archive.read_bytes())
    start = data.index(b"PK\x01\x02") + 24
    data[start : start + 4] = (100).to_bytes(4, "little")
    archive.write_bytes(data)
    with pytest.raises(SourceTreeError, match="can't be read"):
        unpacked(str(archive), tmp_path / "app")
    assert (tmp_path / "app" / "f").stat().st_size <= 100


@pytest.mark.parametrize("members", [[file(f"f{n}") for n in range(11)], [file("/".join("abcdefghijk"))]])
def test_too_many(tmp_path, refused, members) -> None:
    assert "more than 10 files and directories" in refused(tar_of(tmp_path / "a.tar", *members), max_members=10)


def test_a_header_that_claims_gigabytes(tmp_path, refused) -> None:
    """Its content would be read into memory at once."""
    with gzip.open(tmp_path / "a.tar.gz", "wb") as stream:
        info = tarfile.TarInfo("pax")
        info.type, info.size = tarfile.XHDTYPE, 64 << 20
        stream.write(info.tobuf())
        stream.write(bytes(64 << 20))
    assert "a header of 67108864 bytes" in refused(str(tmp_path / "a.tar.gz"))


def test_headers_that_announce_each_other_without_end(tmp_path, refused) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2
    (tmp_path / "a.tar").write_bytes((info.tobuf() + b"x".ljust(512, b"\0")) * 5000)
    assert "can't be read" in refused(str(tmp_path / "a.tar"))


def test_an_archive_that_is_cut_off_or_damaged(tmp_path, refused) -> None:
    whole = Path(tar_of(tmp_path / "a.tar", file("one", b"1" * 2000), file("two"))).read_bytes()
    for number, data in enumerate([whole[:600], whole[:2560], whole[:3000], whole[:2560] + b"!" * 8000]):
        part = tmp_path / f"{number}.tar"
        part.write_bytes(data)
        assert "can't be read" in refused(str(part))
    packed = gzip.compress(whole)
    for number, data in enumerate(
        [packed[:40], packed[:-12], packed[:-8] + b"12345678", packed[:20] + b"??" + packed[22:]]
    ):
        part = tmp_path / f"{number}.tar.gz"
        part.write_bytes(data)
        assert "can't be read" in refused(str(part))


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8bno gzip", b"BZh no bzip2", b"PK\x03\x04 no zip"])
def test_no_archive_at_all(tmp_path, refused, content) -> None:
    (tmp_path / "a").write_bytes(content)
    assert "it must be a whole tar file" in refused(str(tmp_path / "a"))


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_what_is_right_arrives(tmp_path, compression) -> None:
    members = [
        of_type("./", tarfile.DIRTYPE),
        of_type("./pkg", tarfile.DIRTYPE),
        file("./pkg/main.py", b"app = 1\n", 0o666),
        file("./run", b"#!/bin/sh\n", 0o6777),
        link("./latest", "pkg/../pkg"),
        link("./pkg/up", ".."),
        link("./through", "pkg/up/run"),
        link("./dangling", "pkg/no"),
        file("./back\\slash"),
        file("./\u00e4\n"),
    ]
    archive = tar_of(tmp_path / "a", *members, mode=f"w:{compression}")
    place = unpacked(archive, tmp_path / "app")
    assert (place / "through").read_text() == "#!/bin/sh\n"
    assert {path.name for path in place.iterdir()} == {
        "pkg", "run", "latest", "through", "dangling", "back\\slash", "\u00e4\n",
    }  # fmt: skip
    modes = {
        path.name: stat.S_IMODE(path.lstat().st_mode) for path in [place, *place.rglob("*")] if not path.is_symlink()
    }
    assert modes == {
        "app": 0o750,
        "pkg": 0o750,
        "main.py": 0o640,
        "run": 0o750,
        "back\\slash": 0o640,
        "\u00e4\n": 0o640,
    }


def test_a_zip_file_arrives(tmp_path) -> None:
    link_mode = stat.S_IFLNK | 0o777
    members = [
        ("top/pkg/", 0o40755, b""),
        ("top/pkg/f", 0o100755, b"1"),
        ("top/l", link_mode, b"pkg/f"),
        ("top/g", 0, b""),
    ]
    place = unpacked(zip_of(tmp_path / "a.zip", *members), tmp_path / "app", strip=1)
    assert os.readlink(place / "l") == "pkg/f"
    assert os.access(place / "pkg" / "f", os.X_OK)
    assert sorted(path.name for path in place.iterdir()) == ["g", "l", "pkg"]


def test_a_tar_file_with_a_zip_file_at_its_end_is_a_tar_file(tmp_path) -> None:
    inner = Path(zip_of(tmp_path / "a.whl", ("evil", 0, b"x"))).read_bytes()
    place = unpacked(tar_of(tmp_path / "a.tar", file("f"), file("a.whl", inner)), tmp_path / "app")
    assert sorted(path.name for path in place.iterdir()) == ["a.whl", "f"]


def test_what_strip_components_makes_the_same(tmp_path, refused) -> None:
    archive = tar_of(tmp_path / "a.tar", file("a/f"), file("b/f"))
    assert "'f' twice after strip_components 1" in refused(archive, strip=1)


def test_a_group_may_read(tmp_path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files to a group")
    archive = tar_of(tmp_path / "a.tar", file("d/f"), link("l", "d/f"))
    place = unpacked(archive, tmp_path / "app", gid=4242)
    assert {path.lstat().st_gid for path in [place, *place.rglob("*")]} == {4242}
    assert {path.lstat().st_uid for path in [place, *place.rglob("*")]} == {0}


def test_the_umask_does_not_matter(tmp_path) -> None:
    before = os.umask(0o077)
    try:
        place = unpacked(tar_of(tmp_path / "a.tar", file("d/f")), tmp_path / "app")
    finally:
        os.umask(before)
    assert stat.S_IMODE((place / "d").stat().st_mode) == 0o750
    assert stat.S_IMODE((place / "d" / "f").stat().st_mode) == 0o640


def test_a_full_disk_is_no_damaged_archive(tmp_path, monkeypatch) -> None:
    def full(*_arguments: Any, **_options: Optional[int]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_source_archive.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        unpacked(tar_of(tmp_path / "a.tar", file("f")), tmp_path / "app")
