# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetches a source distribution that the lock names and verifies it, without a line of its code.

uv and pip ask a source distribution's back end for its metadata before they hand out the file.
"""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import IO, Optional
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.lock import Requirement
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.markers import canonical_name
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.run import Credential, Deadline
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.settings import EnvironmentSettings, VenvError

_SUFFIXES = (".tar.gz", ".zip")
_PYPI = "https://pypi.org/simple"
_LARGEST_FILE, _LARGEST_PYPROJECT, _CHUNK = 1024**3, 1024**2, 1024**2


def fetch_source(requirement: Requirement, settings: EnvironmentSettings, folder: Path, deadline: Deadline) -> Path:
    """The source distribution of a requirement, with one of its hashes, in a folder."""
    candidates = _in_wheelhouse if settings.wheelhouse else _in_indexes
    opener = _opener(settings)
    try:
        for name, url in candidates(requirement, settings, opener, deadline):
            target = folder / f"source{next(suffix for suffix in _SUFFIXES if name.endswith(suffix))}"
            with opener.open(url, timeout=deadline.left) as stream:
                digests = _copy(stream, target, {value.partition(":")[0] for value in requirement.hashes})
            if digests & set(requirement.hashes):
                return target
            target.unlink()
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise VenvError(
            f"The source distribution of {requirement.name} {requirement.version} can't be fetched from "
            f"{settings.source}: {reason}. Check index_url, ca_bundle and `credentials`."
        ) from error
    raise VenvError(
        f"{settings.source[0].upper()}{settings.source[1:]} has no source distribution of {requirement.name} "
        f"{requirement.version} with a hash of the lock. Put it there, or take {requirement.name} out of "
        "`source_distributions`."
    )


def pyproject_of(archive: Path) -> bytes:
    """The pyproject.toml of a source distribution; empty when it has none."""
    opened: Iterable[tuple[str, int, bytes]] = _in_zip(archive) if archive.suffix == ".zip" else _in_tar(archive)
    try:
        return next((content for _name, _size, content in opened), b"")
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise VenvError(f"The source distribution {archive.name} can't be read: {error}.") from error


def _in_tar(archive: Path) -> Iterator[tuple[str, int, bytes]]:
    with tarfile.open(archive) as opened:
        for member in opened:
            if _is_pyproject(member.name) and member.isreg() and member.size <= _LARGEST_PYPROJECT:
                content = opened.extractfile(member)
                yield member.name, member.size, content.read() if content else b""


def _in_zip(archive: Path) -> Iterator[tuple[str, int, bytes]]:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            if _is_pyproject(entry.filename) and entry.file_size <= _LARGEST_PYPROJECT:
                yield entry.filename, entry.file_size, opened.read(entry)


def _is_pyproject(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return len(parts) == 2 and parts[1] == "pyproject.toml"


def _in_wheelhouse(
    requirement: Requirement, settings: EnvironmentSettings, _opener: urllib.request.OpenerDirector, _deadline: Deadline
) -> Iterator[tuple[str, str]]:
    for name in sorted(os.listdir(settings.wheelhouse)):
        if _is_source_of(requirement, name):
            yield name, Path(settings.wheelhouse, name).as_uri()


def _in_indexes(
    requirement: Requirement, settings: EnvironmentSettings, opener: urllib.request.OpenerDirector, deadline: Deadline
) -> Iterator[tuple[str, str]]:
    """From the first index that has the package, as uv does."""
    if requirement.url:
        yield _name_in(requirement.url), requirement.url
        return
    for index in (*settings.extra_index_urls, settings.index_url or _PYPI):
        page = f"{index.rstrip('/')}/{requirement.key}/{'index.html' if index.startswith('file:') else ''}"
        links = _Links()
        try:
            request = urllib.request.Request(page, headers={"Accept": "application/vnd.pypi.simple.v1+html, text/html"})
            with opener.open(request, timeout=deadline.left) as stream:
                links.feed(stream.read(_LARGEST_FILE).decode(errors="replace"))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                continue
            raise
        for link in links.found:
            url, fragment = urldefrag(urljoin(page, link))
            name = _name_in(url)
            if _is_source_of(requirement, name) and (
                fragment.replace("=", ":", 1) in requirement.hashes
                if fragment.startswith("sha")
                else f"-{requirement.version}." in name
            ):
                yield name, url
        return


def _name_in(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]


def _is_source_of(requirement: Requirement, name: str) -> bool:
    stem: Optional[str] = next((name[: -len(suffix)] for suffix in _SUFFIXES if name.endswith(suffix)), None)
    return stem is not None and canonical_name(stem.rpartition("-")[0]) == requirement.key


def _copy(source: IO[bytes], target: Path, algorithms: set[str]) -> set[str]:
    digests = {name: hashlib.new(name) for name in algorithms}
    size = 0
    with open(target, "xb") as copy:
        for chunk in iter(lambda: source.read(_CHUNK), b""):
            size += len(chunk)
            if size > _LARGEST_FILE:
                raise ValueError(f"it has more than {_LARGEST_FILE} bytes")
            for digest in digests.values():
                digest.update(chunk)
            copy.write(chunk)
    return {f"{name}:{digest.hexdigest()}" for name, digest in digests.items()}


def _opener(settings: EnvironmentSettings) -> urllib.request.OpenerDirector:
    context = ssl.create_default_context(cafile=settings.ca_bundle or None)
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _Login(settings.credentials))


class _Login(urllib.request.BaseHandler):
    """Adds the login of a host to requests to it, also after a redirection, and never to another host's."""

    def __init__(self, credentials: Iterable[Credential]) -> None:
        self._logins = {item.host: f"{item.username}:{item.password}" for item in credentials}

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        login = self._logins.get(urlsplit(request.full_url).hostname or "")
        if login:
            encoded = base64.b64encode(login.encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {encoded}")
        return request

    https_request = http_request


class _Links(HTMLParser):
    """The addresses on a page of an index."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]
