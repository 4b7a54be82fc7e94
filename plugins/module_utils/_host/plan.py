# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run would change on a host: all that is wanted, compared in one call. Looks, and changes nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files.file_set import (
    FileSetError,
    difference_texts,
    items_of,
    leftovers,
    machine_key,
    resolve_digest,
    set_digest,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._host import account
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.ledger import LedgerError
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.slots import (
    AppPaths,
    SlotError,
    WantedSlot,
    metadata_of,
    observe,
    reasons_to_clean_up,
    reasons_to_move,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources import tree
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.archive import SourceTreeError
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.git import Repository
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import process, rpc
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.builds import EnvironmentPath
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.environment import ensure
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.settings import EnvironmentSettings, VenvError

FAILURES = (
    account.AccountError,
    FileSetError,
    LedgerError,
    OSError,
    SlotError,
    SourceTreeError,
    VenvError,
    rpc.SupervisorError,
)
# In the files of an app without slots: the environment that its link leads to.
BUILD_TOKEN = "@build@"
# Nobody starts supervisord meanwhile.
CONNECTION = rpc.Connection(connect_timeout=0)


@dataclass(frozen=True)
class Differences:
    """Why one role or one app is not as it should be."""

    texts: list[str]
    # Of a role: the digest of its files.
    digest: str = ""
    # Of an app: the release that is live, the one that is wanted, its whole revision, and the slot that a move fills.
    before: str = ""
    after: str = ""
    revision: str = ""
    slot: str = ""
    # Whether its account differs, its source is not there, or is not its group's.
    account: bool = False
    source: str = ""


def compare(request: Mapping[str, Any], scratch: str = "", connect_timeout: float = 0) -> dict[str, Any]:
    """The differences of all roles and apps by their names.

    request has C(roles) and C(apps), each a mapping by name; scratch is a directory for a clone where the one of the
    host must not change, as in check mode. A supervisord that was just restarted gets connect_timeout seconds.
    """
    if connect_timeout:
        with contextlib.suppress(rpc.SupervisorError):
            rpc.connect(replace(CONNECTION, connect_timeout=connect_timeout)).close()
    return {
        kind: {name: vars(look(wanted, scratch)) for name, wanted in request[kind].items()}
        for kind, look in (("roles", of_role), ("apps", of_app))
    }


def of_role(wanted: Mapping[str, Any], _scratch: str = "") -> Differences:
    """Files, environments and programs of supervisord that a role wants."""
    texts: list[str] = []
    key = machine_key()
    given = items_of(wanted)
    items = resolve_digest(given, key)
    texts += _sentences(lambda: difference_texts([*items, *leftovers(wanted.get("purge") or [], items)]))
    for environment in wanted.get("environments") or ():
        texts += _sentences(partial(_environment, environment))
    if wanted.get("programs") is not None:
        texts += _sentences(lambda: _programs(wanted["programs"], "present", prune=True))
    return Differences(texts, digest=set_digest(given, key))


def of_app(wanted: Mapping[str, Any], scratch: str = "") -> Differences:
    """The account, the source, and what runs."""
    texts = _sentences(lambda: account.settle(account.from_options([wanted["account"]]), True).differences)
    differs = bool(texts)
    revision = wanted["source"]["revision"]
    try:
        with _repository(wanted["source"], scratch) as repository:
            if repository:
                revision = repository.revision(wanted["source"]["version"])
    except FAILURES as error:
        return Differences([*texts, _text(error)], account=differs, source="new")
    source = _source(wanted["source"], revision)
    texts += [f"{tree.release_path(wanted['source']['releases'], revision)}: {source}"] if source else []
    look = _slots if "slots" in wanted else _in_place
    try:
        found = look(wanted, revision)
    except FAILURES as error:
        found = Differences([_text(error)])
    release = revision[: tree.NAME_LENGTH]
    return replace(found, texts=texts + found.texts, after=release, revision=revision, account=differs, source=source)


def _slots(wanted: Mapping[str, Any], revision: str) -> Differences:
    release = revision[: tree.NAME_LENGTH]
    params = {**wanted["slots"], "release": release, "revision": revision}
    paths, whole = AppPaths.on_host(wanted["name"], wanted["base_dir"]), WantedSlot.of(params)
    seen = observe(paths, CONNECTION)
    moves = reasons_to_move(paths, whole, seen)
    return Differences(
        [*moves, *reasons_to_clean_up(paths, whole, seen, params["static"])],
        before=metadata_of(paths, seen.live).get("release", "") if seen.live else "",
        slot=next(slot for slot in _layout.SLOTS if slot != seen.live) if moves else "",
    )


def _in_place(wanted: Mapping[str, Any], _revision: str) -> Differences:
    given = wanted["in_place"]
    current = Path(given["current"])
    before = os.path.basename(os.readlink(current)) if current.is_symlink() else ""
    texts = _sentences(lambda: _environment(given["environment"])) if given["environment"] else []
    build = str(EnvironmentPath(given["venv"]).published() or given["venv"])
    files = [_with_build(file, build) for file in given["files"]]
    items = resolve_digest(items_of({"directories": given["directories"], "files": files}), machine_key())
    around = items_of({"directories": wanted["release_directories"], "links": given["links"]})
    texts += _sentences(lambda: difference_texts([*items, *around, *leftovers(given["purge"], items)]))
    texts += _sentences(lambda: _programs([wanted["name"]], "started"))
    return Differences(texts, before=before)


def _with_build(file: Mapping[str, Any], build: str) -> dict[str, Any]:
    keys = [key for key in ("content", "secret_content") if file.get(key) is not None]
    return {**file, **{key: file[key].replace(BUILD_TOKEN, build) for key in keys}}


@contextlib.contextmanager
def _repository(source: Mapping[str, Any], scratch: str) -> Iterator[Optional[Repository]]:
    if not source.get("repo"):
        yield None
        return
    git = shutil.which("git")
    if not git:
        raise SourceTreeError("package git-core: not installed")
    with tempfile.TemporaryDirectory(dir=scratch) if scratch else contextlib.nullcontext("") as folder:
        clone = os.path.join(os.path.dirname(source["releases"]), "repository")
        yield Repository(git, source["repo"], source.get("key_file"), clone=clone, scratch=folder)


def _source(source: Mapping[str, Any], revision: str) -> str:
    if not tree.is_there(source["releases"], revision):
        return "new"
    regrouped = tree.regroup(source["releases"], revision, tree.group_id(source["group"]), dry_run=True)
    return f"group -> {source['group']}" if regrouped else ""


def _environment(settings: Mapping[str, Any]) -> list[str]:
    result = ensure(EnvironmentSettings.of(settings), check_mode=True)
    return [f"{result.path}: {reason}" for reason in result.reasons]


def _programs(names: list[str], state: str, prune: bool = False) -> list[str]:
    request = process.Request(names, state, prune=prune, require_running=False)
    result = process.run(CONNECTION, request, check_mode=True)
    if result.get("skipped_reason"):
        return [str(result["skipped_reason"])]
    actions = ("added", "updated", "removed", "started", "restarted", "stopped")
    starting = [each for each in result["processes"] if state == "started" and each["state"] == "STARTING"]
    return [
        *(f"program {name}: to be {action}" for action in actions for name in result[action]),
        # Whether it will run is not known yet: who applies the plan waits for it.
        *(f"program {each['name']}: STARTING" for each in starting),
    ]


def _sentences(look: Callable[[], list[str]]) -> list[str]:
    """What can't be compared counts as different: the step that would change it reports the cause."""
    try:
        return look()
    except FAILURES as error:
        return [_text(error)]


def _text(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error).splitlines()[0]
