# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a source may look like, and a directory of sources on the controller as a digest and as an archive."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.tree import EXCLUDE

TEXTS = ("path", "archive", "checksum", "repo", "version", "key_file", "package", "lock")
HOST = r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])"
USER = r"[A-Za-z0-9_][A-Za-z0-9._+~-]*"
# What git can be given: nothing that it takes for an option, and no helper that runs commands (ext::, fd::).
REPOSITORY = re.compile(
    rf"(?:https?|git)://{HOST}(?::\d+)?/.+|ssh://(?:{USER}@)?{HOST}(?::\d+)?/.+|(?:{USER}@)?{HOST}:(?!//|:|-).+"
    r"|(?:file://)?/.+"
)
REPOSITORIES = "https://HOST/PATH, http://, ssh://USER@HOST/PATH, git://, USER@HOST:PATH, file:///PATH or /PATH"
ADDRESS = re.compile(rf"https?://(?:[^/@]+@)?{HOST}(?::\d+)?/.+")
# What usually holds secrets, and is left out unless source.include names it; and what only looks like it.
PRIVATE = (
    ".env",
    ".env.*",
    ".envrc",
    ".secrets",
    ".netrc",
    ".pypirc",
    ".npmrc",
    ".pgpass",
    ".my.cnf",
    ".htpasswd",
    ".git-credentials",
    ".vault[-_]pass*",
    ".*_history",
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".docker",
    ".kube",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
)
PUBLIC = (".env.example", ".env.sample", ".env.template", ".env.dist")
# git check-ref-format, and what git reads as an expression or an option instead of a name.
NOT_IN_VERSIONS = re.compile(r"^-|^/|/$|//|\.\.|@\{|^@$|\.$|[~^:?*\[\\]|(?:^|/)\.|\.lock(?:/|$)")


class SourceError(ValueError):
    """A source that can't be used; its text is for the user."""


def problems(source: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the shape of a source's values, a sentence each, which begins with source.KEY."""
    for key in TEXTS:
        value = source.get(key)
        if isinstance(value, str) and not value.isprintable():
            yield f"source.{key} is {redacted(value)}: it has a line break or a control character; remove it"
    yield from _repository_problems(source)
    archive, checksum = source.get("archive"), source.get("checksum")
    if isinstance(archive, str) and "://" in archive and not ADDRESS.fullmatch(archive):
        yield f"source.archive is {redacted(archive)}: an address must be https://HOST/PATH or http://HOST/PATH"
    if checksum and isinstance(checksum, str):
        try:
            wanted_digest(checksum)
        except SourceError as error:
            yield str(error)
    for key in ("exclude", "include"):
        patterns = source.get(key)
        for pattern in patterns if isinstance(patterns, (list, tuple)) else ():
            if "/" in str(pattern):
                yield (
                    f"source.{key} has {pattern!r}: patterns are compared with names, not with paths, so it would match"
                    " nothing; remove the directory from it"
                )


def _repository_problems(source: Mapping[str, Any]) -> Iterator[str]:
    repo, version, key_file = source.get("repo"), source.get("version"), source.get("key_file")
    if isinstance(repo, str) and repo:
        if re.match(r"https?://[^/]*@|(?:[a-z+]+://)?[^/@:]*:[^/@]*@", repo):
            yield (
                f"source.repo has a password in it or a user before its host ({redacted(repo)}), which would show in"
                " process lists: leave it out, and use ssh with source.key_file, or a credential helper of root's git"
            )
        elif not REPOSITORY.fullmatch(repo) or re.search(r"\s", repo):
            yield f"source.repo is {redacted(repo)}: it must be {REPOSITORIES}, without blanks"
    if isinstance(version, (bool, float)):
        yield f"source.version is {version!r}, which YAML does not read as a text: write it in quotes"
    elif isinstance(version, str) and version and (NOT_IN_VERSIONS.search(version) or re.search(r"\s", version)):
        yield (
            f"source.version is {version!r}: it must be the name of a tag or branch or a commit, without blanks, .. and"
            " ~ ^ : ? * [ \\, and not begin with -"
        )
    if isinstance(key_file, str) and key_file and not re.match(r"~?/", key_file):
        yield f"source.key_file is {key_file!r}: it must be the full path of a private key on the host"


def redacted(address: str) -> str:
    """An address for people, without the password that may be in it."""
    return repr(re.sub(r"://.*@|^[^/@:]*:[^/@]*@", lambda found: found[0][:3] * (found[0][0] == ":") + "***@", address))


class Directory:
    """A directory of sources, without what is no source and what usually holds secrets."""

    def __init__(self, root: str, exclude: Sequence[str], include: Sequence[str] = ()) -> None:
        self._root, self._exclude, self._include = root, exclude, include
        # What was left out as a secret, for people.
        self.left_out: list[str] = []

    def digest(self) -> str:
        """A digest of names, contents and executable bits: what the release is made of, and nothing else."""
        digest = hashlib.sha256()
        for name, found in self._walk():
            path = os.path.join(self._root, name)
            if stat.S_ISLNK(found.st_mode):
                self._check_link(name, os.readlink(path))
                kind, content = "link", os.fsencode(os.readlink(path))
            else:
                kind = "program" if found.st_mode & stat.S_IXUSR else "file"
                with open(path, "rb") as stream:
                    content = stream.read()
            for part in (os.fsencode(name), kind.encode(), content):
                digest.update(len(part).to_bytes(8, "big"))
                digest.update(part)
        return digest.hexdigest()

    def pack(self, archive: str) -> None:
        with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
            for name, found in self._walk():
                path = os.path.join(self._root, name)
                info = tar.gettarinfo(path, arcname=name)
                if stat.S_ISLNK(found.st_mode):
                    tar.addfile(info)
                    continue
                # A file that has a second name elsewhere is one of its own in the release.
                info.type, info.size, info.linkname = tarfile.REGTYPE, found.st_size, ""
                with open(path, "rb") as stream:
                    tar.addfile(info, stream)

    def _walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """Relative names below the root, sorted; links are not followed."""
        if not os.path.isdir(self._root):
            raise SourceError(f"source.path is {self._root!r}: there is no such directory on the controller")
        self.left_out = []
        for folder, directories, files in os.walk(self._root):
            links = [name for name in directories if os.path.islink(os.path.join(folder, name))]
            directories[:] = sorted(name for name in directories if name not in links and self._takes(folder, name))
            for name in sorted([*files, *links]):
                if self._takes(folder, name):
                    path = os.path.join(folder, name)
                    found = os.lstat(path)
                    if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
                        yield os.path.relpath(path, self._root), found

    def _takes(self, folder: str, name: str) -> bool:
        if _matches(name, self._include):
            return True
        if _matches(name, self._exclude):
            return False
        if _matches(name, PRIVATE) and not _matches(name, PUBLIC):
            self.left_out.append(os.path.relpath(os.path.join(folder, name), self._root))
            return False
        return True

    def _check_link(self, name: str, target: str) -> None:
        root = os.path.realpath(self._root)
        real = os.path.realpath(os.path.join(root, name))
        if os.path.isabs(target) or not f"{real}/".startswith(f"{root.rstrip('/')}/"):
            raise SourceError(
                f"source.path has the link {name!r} to {target!r}, which leads out of it: put a copy in its place, make"
                " it relative, or name it in source.exclude"
            )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def directory_of(source: Mapping[str, Any]) -> Directory:
    """The directory that source.path names."""
    root = os.path.expanduser(str(source["path"]))
    return Directory(root, source.get("exclude") or EXCLUDE, source.get("include") or [])


def revision_of(source: Mapping[str, Any]) -> str:
    """What the controller knows of the revision: a digest, or the version of a repository, which may be a branch."""
    if source.get("path"):
        return directory_of(source).digest()
    if source.get("archive"):
        address, checksum = str(source["archive"]), str(source.get("checksum") or "")
        if "://" in address:
            return wanted_digest(checksum)
        revision = file_digest(os.path.expanduser(address))
        if checksum and wanted_digest(checksum) != revision:
            raise SourceError(
                f"source.archive {os.path.expanduser(address)} has the digest sha256:{revision}, not {checksum}"
            )
        return revision
    if source.get("package"):
        return package_digest(str(source["package"]), os.path.expanduser(str(source.get("lock") or "")))
    return str(source.get("version") or "HEAD")


def file_digest(path: str) -> str:
    if not os.path.isfile(path):
        raise SourceError(f"source.archive is {path!r}: there is no such file on the controller")
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def wanted_digest(checksum: str) -> str:
    """The hexadecimal part of sha256:HEX."""
    kind, _colon, digits = checksum.partition(":")
    if kind != "sha256" or len(digits) != 64 or set(digits.lower()) - set("0123456789abcdef"):
        raise SourceError(f"source.checksum is {checksum!r}: it must be sha256: and 64 hexadecimal digits")
    return digits.lower()


def package_digest(package: str, lock: str) -> str:
    """A digest of a package's name, its version and the lock that it comes from."""
    if not os.path.isfile(lock):
        raise SourceError(f"source.lock is {lock!r}: there is no such file on the controller")
    name, _equals, version = package.partition("==")
    with open(lock, encoding="utf-8") as stream:
        text = stream.read()
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", text, flags=re.M)
    if (_canonical(name), version) not in {(_canonical(pinned), number) for pinned, number in pins}:
        raise SourceError(f"source.lock {lock} does not have {package} in it: lock it again, or correct source.package")
    return hashlib.sha256(f"{package}\0{text}".encode()).hexdigest()


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pack_lock(lock: str, archive: str) -> None:
    """The lock alone, under the name that apps have it by unless they say otherwise."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(lock, arcname="requirements.txt", recursive=False)
