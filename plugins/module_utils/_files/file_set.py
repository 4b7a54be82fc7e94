# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that belong together, written all or none after their candidates passed a check."""

from __future__ import annotations

import glob
import grp
import hashlib
import hmac
import os
import pwd
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Optional

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.commands import ENVIRONMENT, run

# In file contents: replaced by a digest of all other files of the set.
DIGEST_TOKEN = "{set_digest}"
# In arguments of a check: replaced by the folder under which the candidates lie at their full paths.
STAGE_TOKEN = "{stage}"

MACHINE_ID = "/etc/machine-id"


class FileSetError(Exception):
    """A foreseeable failure; its text is for the user."""


@dataclass(frozen=True)
class Ids:
    uid: int
    gid: int
    name: str = ""


@dataclass(frozen=True)
class Item:
    """One file (content set), link (target set), directory (neither), or what should not be there, as it should be."""

    path: str
    owner: str
    group: str
    mode: int
    content: Optional[bytes] = None
    secret: bool = False
    target: Optional[str] = None
    absent: bool = False
    # How a line begins whose rest is a secret; matches none when empty.
    secret_lines: str = ""

    @property
    def is_directory(self) -> bool:
        return self.content is None and self.target is None and not self.absent


def items_of(given: Mapping[str, Any], file_mode: int = 0o644) -> list[Item]:
    """The directories, files and links of a module's options; what an entry leaves out is none."""
    items = [_item(entry, 0o755) for entry in given.get("directories") or ()]
    for entry in given.get("files") or ():
        secret = entry.get("secret_content") is not None
        content = entry["secret_content"] if secret else entry.get("content") or ""
        lines = entry.get("secret_lines") or ""
        item = _item(entry, file_mode)
        items.append(replace(item, content=content.encode(), secret=secret, secret_lines=lines))
    return items + [
        Item(entry["path"], "root", "root", 0o777, target=entry["target"]) for entry in given.get("links") or ()
    ]


def _item(entry: Mapping[str, Any], default_mode: int) -> Item:
    path, mode = entry["path"], default_mode
    if entry.get("mode"):
        try:
            mode = int(entry["mode"], 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o7777:
            raise FileSetError(f"{path}: mode {entry['mode']!r} is not an octal number such as '0640'")
    return Item(path, entry.get("owner") or "root", entry.get("group") or "root", mode)


def difference_texts(items: Iterable[Item]) -> list[str]:
    """What differs on the host, a sentence for each item."""
    return [f"{found.item.path}: {', '.join(found.reasons)}" for found in map(compare, items) if found]


@dataclass(frozen=True)
class CandidateCheck:
    argv: list[str]
    user: str = ""
    chdir: str = "/"
    timeout: int = 60
    # How a failure calls it.
    what: str = "the check"


@dataclass
class Difference:
    """What one item lacks: reasons are words such as content, mode, owner."""

    item: Item
    reasons: list[str] = field(default_factory=list)
    before: str = ""
    after: str = ""


def machine_key() -> bytes:
    """A key that is the host's own, so that a digest in a log reveals nothing about a weak secret."""
    try:
        return Path(MACHINE_ID).read_bytes().strip() or b"none"
    except OSError:
        return b"none"


def set_digest(items: list[Item], key: bytes) -> str:
    """A digest of every file that does not itself ask for it, over path, content and permissions."""
    digest = hmac.new(key, digestmod=hashlib.sha256)
    for item in sorted(items, key=lambda item: item.path):
        if item.content is None or DIGEST_TOKEN.encode() in item.content:
            continue
        for part in (item.path.encode(), item.content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()[:16]


def resolve_digest(items: list[Item], key: bytes) -> list[Item]:
    digest = set_digest(items, key).encode()
    return [
        item if item.content is None else replace(item, content=item.content.replace(DIGEST_TOKEN.encode(), digest))
        for item in items
    ]


def leftovers(patterns: list[str], items: list[Item]) -> list[Item]:
    """Files and links that match a pattern and are none of the items: what an earlier set has left."""
    wanted = {item.path for item in items}
    found = {path for pattern in patterns for path in glob.glob(pattern)} - wanted
    return [
        Item(path, "root", "root", 0, absent=True)
        for path in sorted(found)
        if os.path.islink(path) or os.path.isfile(path)
    ]


def user_id(name: str) -> Optional[int]:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return int(name) if name.isdigit() else None


def group_id(name: str) -> Optional[int]:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return int(name) if name.isdigit() else None


def owner_of(item: Item) -> Ids:
    uid, gid = user_id(item.owner), group_id(item.group)
    if uid is None:
        raise FileSetError(f"{item.path}: no user {item.owner!r} on this host; create the user first")
    if gid is None:
        raise FileSetError(f"{item.path}: no group {item.group!r} on this host; create the group first")
    return Ids(uid, gid)


def compare(item: Item) -> Optional[Difference]:
    """What differs on the host; None when nothing does."""
    difference = Difference(item, after=_shown(item, item.content))
    try:
        found = os.lstat(item.path)
    except FileNotFoundError:
        if item.absent:
            return None
        difference.reasons.append("new")
        return difference
    if item.absent:
        # Its content is not shown: nobody says any more whether it is a secret.
        difference.reasons.append("removed")
        return difference
    if item.target is not None:
        return _compare_link(difference, found)
    wanted_kind, is_kind = ("directory", stat.S_ISDIR) if item.is_directory else ("file", stat.S_ISREG)
    if not is_kind(found.st_mode):
        raise FileSetError(f"{item.path} is there and is not a {wanted_kind}; move it away and run again")
    if item.content is not None:
        current = Path(item.path).read_bytes()
        difference.before = _shown(item, current)
        if current != item.content:
            difference.reasons.append("content")
            if item.secret:
                difference.before = "(other secret content, not shown)\n"
            elif item.secret_lines:
                difference.before = _redacted(current, item.secret_lines, set(_lines(item.content)))
    if stat.S_IMODE(found.st_mode) != item.mode:
        difference.reasons.append(f"mode {stat.S_IMODE(found.st_mode):04o} -> {item.mode:04o}")
    if found.st_uid != user_id(item.owner):
        difference.reasons.append(f"owner -> {item.owner}")
    if found.st_gid != group_id(item.group):
        difference.reasons.append(f"group -> {item.group}")
    return difference if difference.reasons else None


def _compare_link(difference: Difference, found: os.stat_result) -> Optional[Difference]:
    item = difference.item
    if not stat.S_ISLNK(found.st_mode):
        raise FileSetError(f"{item.path} is there and is not a symbolic link; move it away and run again")
    current = os.readlink(item.path)
    if current == item.target:
        return None
    difference.before = current + "\n"
    difference.reasons.append("target")
    return difference


def _shown(item: Item, content: Optional[bytes]) -> str:
    if item.target is not None:
        return item.target + "\n"
    if content is None:
        return ""
    if item.secret:
        return "(secret content, not shown)\n"
    if item.secret_lines:
        return _redacted(content, item.secret_lines, set(_lines(content)))
    return content.decode("utf-8", "replace")


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", "replace").splitlines(keepends=True)


def _redacted(content: bytes, beginning: str, same: set[str]) -> str:
    """The text without the secrets in it, of which those that are not in the same lines look different."""
    try:
        pattern = re.compile(beginning)
    except re.error as error:
        raise FileSetError(f"secret_lines {beginning!r} is no regular expression: {error}") from None
    shown = []
    for line in _lines(content):
        found = pattern.match(line)
        mark = "(secret, not shown)" if line in same else "(other secret, not shown)"
        shown.append(f"{line[: found.end()]}{mark}\n" if found else line)
    return "".join(shown)


def lay_out(items: list[Item], folder: str) -> None:
    """Lays the candidates out below folder, each at its full path and with its final owner and mode."""
    for item in items:
        if item.content is None and item.target is None:
            continue
        path = folder + item.path
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        if item.target is not None:
            os.symlink(item.target, path)
        else:
            _write_new(path, item, owner_of(item))


def copy_context(directory: str, folder: str, items: list[Item]) -> None:
    """Copies a directory of the host to its path below folder, without what the items write or remove."""

    def left_out(parent: str, names: list[str]) -> list[str]:
        paths = {name: os.path.join(parent, name) for name in names}
        return [name for name, path in paths.items() if path in ours or not _is_ordinary(path)]

    ours = {item.path for item in items if not item.is_directory}
    if os.path.isdir(directory):
        shutil.copytree(directory, folder + directory, symlinks=True, ignore=left_out, copy_function=_copy_owned)


def _is_ordinary(path: str) -> bool:
    return os.path.islink(path) or os.path.isfile(path) or os.path.isdir(path)


def _copy_owned(source: str, target: str) -> None:
    shutil.copy2(source, target)
    found = os.stat(source)
    os.chown(target, found.st_uid, found.st_gid)


def run_check(check: CandidateCheck, folder: str) -> list[str]:
    """Runs one check against the candidates and returns its output; raises with the end of that when it fails.

    The output names the candidates by the paths that they will have.
    """
    argv = [argument.replace(STAGE_TOKEN, folder) for argument in check.argv]
    environment = dict(ENVIRONMENT)
    become: dict[str, Any] = {}
    if check.user:
        try:
            account = pwd.getpwnam(check.user)
        except KeyError:
            raise FileSetError(f"no user {check.user!r} on this host to run the check as") from None
        environment.update(HOME=account.pw_dir, USER=check.user, LOGNAME=check.user)
        if os.geteuid() != account.pw_uid:
            become = {
                "user": account.pw_uid,
                "group": account.pw_gid,
                "extra_groups": os.getgrouplist(check.user, account.pw_gid),
            }
    try:
        ended = run(argv, check.timeout, environment, cwd=check.chdir, **become)
    except OSError as error:
        raise FileSetError(f"{check.what} could not start: {argv[0]}: {error.strerror} ({error.filename})") from error
    if ended.status is None:
        raise FileSetError(_failure(f"{check.what} did not end within {check.timeout} s", ended.output, folder))
    if ended.status != 0:
        raise FileSetError(_failure(f"{check.what} ended with status {ended.status}", ended.output, folder))
    return ended.output.splitlines()


def _failure(what: str, output: str, folder: str) -> str:
    lines = output.replace(folder, "").rstrip().splitlines()
    if not lines:
        return f"{what} and printed nothing"
    return "\n".join([f"{likely_cause(lines)} ({what})", "", *lines[-40:]])


def likely_cause(lines: list[str]) -> str:
    """The line that names the cause: the end of the last traceback, else the last that says error, else the last."""
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith("Traceback (most recent call last)"):
            for line in lines[number + 1 :]:
                if line and not line.startswith((" ", "\t")):
                    return line
    error = re.compile(r"\w*error\b|.*\[emerg\]", re.IGNORECASE)
    return next((line for line in reversed(lines) if error.match(line)), lines[-1].strip())


def apply(differences: list[Difference], label: Callable[[str], None]) -> None:
    """Directories first, then every file beside its path, then the renames in the order given, removals last.

    label is called with each new path, so that the caller can set its security context.
    """
    ready: list[tuple[str, str]] = []
    try:
        for difference in differences:
            item = difference.item
            if item.absent:
                continue
            if item.target is not None:
                ready.append((_new_link(item), item.path))
            elif item.is_directory:
                _make_directory(item, label)
            elif not {"new", "content"} & set(difference.reasons):
                _set_permissions(item)
            else:
                ready.append((_new_file(item, label), item.path))
        for temporary, path in ready:
            os.rename(temporary, path)
        for difference in differences:
            if difference.item.absent:
                os.unlink(difference.item.path)
    finally:
        for temporary, _path in ready:
            if _there(temporary):
                os.unlink(temporary)


def _there(path: str) -> bool:
    return os.path.lexists(path)


def _make_directory(item: Item, label: Callable[[str], None]) -> None:
    # Before anything is made, so that an account that is missing leaves nothing behind.
    owner_of(item)
    if not _there(item.path):
        os.makedirs(os.path.dirname(item.path), mode=0o755, exist_ok=True)
        # Closed until it is its owner's.
        os.mkdir(item.path, 0o700)
        label(item.path)
    _set_permissions(item)


def _set_permissions(item: Item) -> None:
    """Of the very thing at the path, no link's target: the directory above it may be another account's."""
    owner = owner_of(item)
    handle = os.open(item.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fchown(handle, owner.uid, owner.gid)
        os.fchmod(handle, item.mode)
    finally:
        os.close(handle)


def _new_file(item: Item, label: Callable[[str], None]) -> str:
    temporary = _temporary_name(item.path)
    _write_new(temporary, item, owner_of(item))
    label(temporary)
    return temporary


def _new_link(item: Item) -> str:
    temporary = _temporary_name(item.path)
    os.symlink(item.target or "", temporary)
    return temporary


def _temporary_name(path: str) -> str:
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        raise FileSetError(f"{path}: there is no directory {folder}")
    return os.path.join(folder, f".{name}.{next(tempfile._get_candidate_names())}.new")  # type: ignore[attr-defined]


def _write_new(path: str, item: Item, owner: Ids) -> None:
    """Creates path; it is never readable by more people than the finished file, not for an instant."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        os.fchown(handle, owner.uid, owner.gid)
        os.fchmod(handle, item.mode)
        stream.write(item.content or b"")
        stream.flush()
        os.fsync(handle)


def check_candidates(
    items: list[Item],
    checks: list[CandidateCheck],
    parent: str,
    label: Callable[[str], None] = lambda path: None,
    context: Iterable[str] = (),
) -> list[str]:
    """Lays all items out in a folder of its own, runs the checks, removes the folder and returns what they printed.

    Directories that are missing are made first, since a check may need them, and go again when it fails.
    """
    made: list[str] = []
    output: list[str] = []
    folder = tempfile.mkdtemp(prefix="fastapi-host-", dir=parent)
    try:
        for item in items:
            if item.is_directory and not _there(item.path):
                _make_directory(item, label)
                made.append(item.path)
        # While nobody else may enter, since a copy has its final mode only when it is whole.
        for directory in context:
            copy_context(directory, folder, items)
        # Others may pass through, to the files that are theirs, but not look around.
        os.chmod(folder, 0o711)
        lay_out(items, folder)
        for check in checks:
            output += run_check(check, folder)
    except BaseException:
        for path in reversed(made):
            # What the check made in it stays, as a launcher's directory for private files.
            with suppress(OSError):
                os.rmdir(path)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return output
