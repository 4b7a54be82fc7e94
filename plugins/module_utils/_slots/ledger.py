# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each release of an app came to: one line of JSON for each deploy, rollback and restart, good or bad."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

GOOD, BAD = "good", "bad"
LONGEST_REASON = 500


class LedgerError(Exception):
    """A foreseeable failure; its text is for the user."""


@dataclass(frozen=True)
class LedgerEntry:
    time: str
    by: str
    action: str
    release: str
    revision: str
    fingerprint: str
    slot: str
    result: str
    reason: str = ""
    # Its migration can't be undone, so older releases may not fit any more.
    irreversible: bool = False


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def read(path: Path) -> list[LedgerEntry]:
    """All entries, the oldest first; a line that a full disk or a power cut left torn is passed over."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entries.append(LedgerEntry(**json.loads(line)))
        except (TypeError, ValueError):
            continue
    return entries


def append(path: Path, entry: LedgerEntry) -> None:
    line = json.dumps(asdict(entry), sort_keys=False)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        end = os.lseek(handle, 0, os.SEEK_END)
        torn = end > 0 and os.pread(handle, 1, end - 1) != b"\n"
        os.write(handle, (("\n" if torn else "") + line + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def last_good(entries: Sequence[LedgerEntry]) -> Optional[LedgerEntry]:
    return next((entry for entry in reversed(entries) if entry.result == GOOD), None)


def is_good(entries: Iterable[LedgerEntry], release: str) -> bool:
    return any(entry.release == release and entry.result == GOOD for entry in entries)


def rollback_target(entries: Sequence[LedgerEntry], live: str, there: Iterable[str], wanted: str, force: bool) -> str:
    """The release to go back to: the wanted one, or the last that went live before the live one and is still there."""
    names = set(there)
    if wanted:
        matching = sorted(name for name in names if name == wanted or (len(wanted) >= 7 and wanted.startswith(name)))
        if not matching:
            raise LedgerError(
                f"there is no release {wanted} on this host; there are {', '.join(sorted(names)) or 'none'}. "
                "Set the app's source to that version and deploy it"
            )
        target = matching[0]
        if not force and not is_good(entries, target):
            raise LedgerError(f"release {target} never went live, by the ledger; force=true tries it")
    else:
        good = [entry.release for entry in reversed(entries) if entry.result == GOOD and entry.release != live]
        found = next((name for name in good if name in names), None)
        if found is None:
            gone = f"; the last one, {good[0]}, is not on this host any more" if good else ""
            raise LedgerError(f"the ledger knows no good release before {live or 'the first'}{gone}")
        target = found
    if target != live and not force:
        _refuse_irreversible(entries, target)
    return target


def _refuse_irreversible(entries: Sequence[LedgerEntry], target: str) -> None:
    for entry in reversed(entries):
        if entry.result == GOOD and entry.release == target:
            return
        if entry.result == GOOD and entry.irreversible:
            raise LedgerError(
                f"the migration of release {entry.release} ({entry.time}) cannot be rolled back, and {target} is "
                "older: if it works with today's data all the same, say force=true"
            )


def to_remove(entries: Sequence[LedgerEntry], there: Iterable[str], live: str, keep: int) -> list[str]:
    """Releases beyond keep, the failed ones first. The live one and the last good one before it always stay."""
    last = {entry.release: number for number, entry in enumerate(entries) if entry.result == GOOD}
    others = sorted((name for name in there if name != live), key=lambda name: last.get(name, -1), reverse=True)
    good = [name for name in others if name in last]
    kept = others[: max(keep - 1, 1 if good else 0)]
    return [name for name in others if name not in kept]
