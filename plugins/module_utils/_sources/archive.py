# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacks an archive that nobody vouches for: nothing in it leads a write or, later, a read out of its directory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from typing import IO, Any, Optional

# Far more than a source has, and far less than a disk.
MAX_BYTES = 2 << 30
MAX_MEMBERS = 200_000
# What every tool that later walks the tree can handle, below the kernel's 4096 bytes for a path.
MAX_DEPTH = 100
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 3000
# The kernel's own limit.
MAX_LINKS = 40
# The largest part of an archive that is read at once, which its headers have a say in.
MAX_HEADER = 1 << 20
BLOCK = 1 << 16
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    NotImplementedError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    # Names and numbers that are none, and headers that announce each other without end.
    ValueError,
    RecursionError,
)

Parts = tuple[str, ...]


class SourceTreeError(Exception):
    """A foreseeable failure; its text is for the user."""


class Tree:
    """A new directory of root's, and what an archive puts into it.

    All that is in it went through here, so that names and links can be followed without asking the disk. Only root
    can read it, and a group if there is one.
    """

    def __init__(
        self, root: str, strip: int = 0, max_bytes: int = MAX_BYTES, max_members: int = MAX_MEMBERS, gid: int = -1
    ) -> None:
        self.strip, self.gid, self.max_bytes, self.max_members = strip, gid, max_bytes, max_members
        self.files = 0
        self._bytes = self._members = 0
        self._directories: set[Parts] = {()}
        self._others: dict[Parts, Optional[str]] = {}
        os.mkdir(root, 0o750)
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        os.fchmod(self._root, 0o750)
        os.fchown(self._root, -1, gid)

    def close(self) -> None:
        os.close(self._root)

    def admit(self, name: str, size: int) -> Optional[Parts]:
        """The path of a member, without the leading directories; None when nothing is left of its name."""
        self._bytes += size
        if size < 0 or self._bytes > self.max_bytes:
            raise SourceTreeError(
                f"the archive's files are larger than {self.max_bytes} bytes together, up to {name!r}: leave out what"
                " is no source, or raise source.max_bytes"
            )
        self._count()
        if "\0" in name:
            raise SourceTreeError(f"the archive names {name!r}, which has a NUL character in it; pack it again")
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if name.startswith("/") or ".." in parts:
            raise SourceTreeError(
                f"the archive names {name!r}, which lies outside of it; pack it again from within its directory"
            )
        try:
            lengths = [len(os.fsencode(part)) for part in parts]
        except UnicodeEncodeError as error:
            raise SourceTreeError(f"the archive names {name!r}, which is no name of a file; pack it again") from error
        if len(parts) > MAX_DEPTH or sum(lengths) + len(lengths) > MAX_PATH_BYTES:
            raise SourceTreeError(
                f"the archive names {_short(name)}, which is too deep: {len(parts)} levels and {sum(lengths)} bytes,"
                f" where {MAX_DEPTH} levels and {MAX_PATH_BYTES} bytes are allowed"
            )
        if max(lengths, default=0) > MAX_NAME_BYTES:
            raise SourceTreeError(
                f"the archive names {_short(name)}, which is too long: a name has {MAX_NAME_BYTES} bytes at most"
            )
        return parts[self.strip :] or None

    def write(self, parts: Parts, stream: IO[bytes], program: bool) -> None:
        self._take(parts, None)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        mode = 0o750 if program else 0o640
        handle = os.open("/".join(parts), flags, mode, dir_fd=self._root)
        with os.fdopen(handle, "wb") as output:
            os.fchmod(handle, mode)
            os.fchown(handle, -1, self.gid)
            shutil.copyfileobj(stream, output, BLOCK)
        self.files += 1

    def link(self, parts: Parts, target: str) -> None:
        """Where it leads is checked when all is there."""
        if not target or "\0" in target or target.startswith("/") or len(target) > MAX_PATH_BYTES:
            raise SourceTreeError(f"the archive's link {_named(parts)} points outside, to {_short(target)}; remove it")
        self._take(parts, target)
        os.symlink(target, "/".join(parts), dir_fd=self._root)
        os.chown("/".join(parts), -1, self.gid, dir_fd=self._root, follow_symlinks=False)
        self.files += 1

    def check_links(self) -> None:
        for parts, target in self._others.items():
            if target is not None:
                self._follow(parts, target)

    def _follow(self, link: Parts, target: str) -> None:
        """Goes where the kernel would, step by step, and never above the tree, not even to come back."""
        place, steps, links = list(link[:-1]), _steps(target), 1
        while steps:
            step = steps.pop()
            if step == ".." and not place:
                raise SourceTreeError(
                    f"the archive's link {_named(link)} points outside, to {_short(target)}"
                    + (", by way of other links" if links > 1 else "")
                    + "; remove it"
                )
            if step == "..":
                place.pop()
                continue
            place.append(step)
            further = self._others.get(tuple(place))
            if further is not None:
                links += 1
                if links > MAX_LINKS:
                    raise SourceTreeError(
                        f"the archive's link {_named(link)} to {_short(target)} leads in a circle; remove it"
                    )
                place.pop()
                steps.extend(_steps(further))

    def _take(self, parts: Parts, target: Optional[str]) -> None:
        for end in range(1, len(parts)):
            self._make_directory(parts[:end], parts)
        if parts in self._directories or parts in self._others:
            hint = f" after strip_components {self.strip}" if self.strip else ""
            raise SourceTreeError(f"the archive has {_named(parts)} twice{hint}; pack it again")
        self._others[parts] = target

    def _make_directory(self, directory: Parts, wanted: Parts) -> None:
        if directory in self._directories:
            return
        if directory in self._others:
            kind = "file" if self._others[directory] is None else "link"
            raise SourceTreeError(
                f"the archive has {_named(wanted)} below {_named(directory)}, which is a {kind}; pack it again"
            )
        self._count()
        os.mkdir("/".join(directory), 0o750, dir_fd=self._root)
        os.chmod("/".join(directory), 0o750, dir_fd=self._root)
        os.chown("/".join(directory), -1, self.gid, dir_fd=self._root)
        self._directories.add(directory)

    def _count(self) -> None:
        self._members += 1
        if self._members > self.max_members:
            raise SourceTreeError(
                f"the archive has more than {self.max_members} files and directories: leave out what is no source"
            )


def _steps(target: str) -> list[str]:
    return [step for step in reversed(target.split("/")) if step not in ("", ".")]


def _named(parts: Parts) -> str:
    return _short("/".join(parts))


def _short(name: str) -> str:
    return repr(name) if len(name) <= 200 else f"{name[:200]!r}..."


def unpack(archive: str, tree: Tree) -> None:
    """A tar file, compressed or not, or a zip file."""
    with open(archive, "rb") as stream:
        start = stream.read(6)
        stream.seek(0)
        # By its beginning: a tar file that ends with a zip file would pass for one.
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            _complete(tree, _unpack_zip, stream)
            return
        opener: Any = next((opener for magic, opener in COMPRESSED.items() if start.startswith(magic)), None)
        if opener is None:
            unpack_tar(stream, tree)
            return
        with opener(stream) as plain:
            unpack_tar(plain, tree)


def unpack_tar(stream: IO[bytes], tree: Tree) -> None:
    """An uncompressed tar file, which need not be one on a disk."""
    _complete(tree, _unpack_tar, stream)


def _complete(tree: Tree, fill: Any, stream: IO[bytes]) -> None:
    try:
        fill(stream, tree)
    except UNREADABLE as error:
        raise _unreadable(error) from error
    except OSError as error:
        # Those of gzip and bz2, which are not the system's.
        if error.errno is None:
            raise _unreadable(error) from error
        raise
    if not tree.files:
        raise SourceTreeError(
            f"the archive has no file in it with strip_components {tree.strip}; lower strip_components"
        )
    tree.check_links()


def _unreadable(error: Exception) -> SourceTreeError:
    reason = str(error) or type(error).__name__
    return SourceTreeError(
        f"the archive can't be read, it must be a whole tar file (plain, gzip, bzip2 or xz) or zip file: {reason!r}"
    )


def _unpack_tar(stream: IO[bytes], tree: Tree) -> None:
    forward = _Forward(stream)
    with tarfile.TarFile(fileobj=forward, mode="r") as tar:  # type: ignore[arg-type]
        for member in tar:
            # All headers would be kept otherwise.
            tar.members = []  # type: ignore[attr-defined]
            parts = tree.admit(member.name, member.size)
            if member.isdir():
                continue
            kind = _refused_kind(member)
            if kind:
                raise SourceTreeError(f"the archive has {member.name!r}, {kind}; only files and links are unpacked")
            if parts and member.issym():
                tree.link(parts, member.linkname)
            elif parts:
                content = tar.extractfile(member)
                # None is for what is no file, and was refused above.
                with content or io.BytesIO() as stream:
                    tree.write(parts, stream, bool(member.mode & 0o100))
    # Python takes a damaged header in the middle for the end.
    if not forward.last or any(forward.last):
        raise tarfile.ReadError("it is damaged, or a part of it is missing")
    # What compressed it has a checksum behind the end.
    forward.drain()


def _refused_kind(member: tarfile.TarInfo) -> str:
    if member.islnk():
        return f"a hard link to {member.linkname!r}: pack it with --hard-dereference"
    if member.issparse():
        return "a sparse file: pack it without --sparse"
    if member.ischr() or member.isblk():
        return "a device"
    if member.isfifo():
        return "a named pipe"
    return "" if member.isreg() or member.issym() else f"of the unknown type {member.type!r}"


class _Forward:
    """A stream that is read once, and never much at once: a header says how long it is, and may claim gigabytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._position = 0
        self.last = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        chunks = []
        while size > 0:
            chunk = self._stream.read(size)
            if not chunk:
                break
            chunks.append(chunk)
            size -= len(chunk)
        found = b"".join(chunks)
        self._position += len(found)
        self.last = found
        return found

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError("a header that leads back")
        while position > self._position:
            if not self.read(min(position - self._position, BLOCK)):
                raise tarfile.ReadError("unexpected end of data")

    def drain(self) -> None:
        """Nobody pads an archive with more than that."""
        for _block in range(MAX_HEADER // BLOCK):
            if not self.read(BLOCK):
                break


def _unpack_zip(stream: IO[bytes], tree: Tree) -> None:
    with zipfile.ZipFile(stream) as bundle:
        for info in bundle.infolist():
            # What zipfile calls the name ends at a NUL.
            parts = tree.admit(info.orig_filename if "\0" in info.orig_filename else info.filename, info.file_size)
            if info.is_dir():
                continue
            mode = info.external_attr >> 16
            kind = stat.S_IFMT(mode)
            if kind not in (0, stat.S_IFREG, stat.S_IFLNK):
                raise SourceTreeError(
                    f"the archive has {info.filename!r}, which is a device or a pipe; only files and links are unpacked"
                )
            if info.flag_bits & 1:
                raise SourceTreeError(f"the archive's {info.filename!r} is encrypted; pack it without a password")
            if parts is None:
                continue
            with bundle.open(info) as content:
                if kind == stat.S_IFLNK:
                    tree.link(parts, os.fsdecode(content.read(MAX_PATH_BYTES + 1)))
                else:
                    tree.write(parts, content, bool(mode & 0o100))
