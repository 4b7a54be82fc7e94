# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One deploy of an app at a time on a host.

Two locks: the kernel's, which a single call of the module holds and is released in any case, and a file that
names the run which the calls belong to, since no lock of the kernel outlives a call.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Optional

# Each stage renews the lock; the longest time between two is that of a build.
STALE_SECONDS = 3600
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class Run:
    """A run of Ansible: who started it, on which controller, and a name that no other run has."""

    run: str
    by: str
    controller: str = ""
    pid: int = 0


@dataclass(frozen=True)
class Claim:
    """What the lock file says: whose it is, and how far that run has come."""

    owner: Run
    boot: str
    taken: float
    renewed: float
    # Where the run works: the slot it fills and the one it replaces.
    slot: str = ""
    old: str = ""
    action: str = "deploy"
    release: str = ""
    stage: str = ""
    fresh: bool = False

    @property
    def age(self) -> int:
        return max(0, int(time.time() - self.taken))

    @property
    def is_dead(self) -> bool:
        """Whether it is sure that nobody works under it any more."""
        return self.boot != boot_id() or time.time() - self.renewed > STALE_SECONDS


class Locked(Exception):
    """Another run holds the lock; claim is None while only a call of a run that is gone is still at work."""

    def __init__(self, claim: Optional[Claim]) -> None:
        self.claim = claim
        if claim is None:
            super().__init__("a call of an earlier run is still at work on it")
        else:
            owner = claim.owner
            super().__init__(
                f"{owner.by} (process {owner.pid} on {owner.controller}) has been working on it for {claim.age} s, "
                f"{claim.action} of release {claim.release or '(not known yet)'}, stage {claim.stage}"
            )


def boot_id() -> str:
    return Path(_BOOT_ID).read_text(encoding="ascii").strip()


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """The kernel's lock for the length of one call."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(None) from None
        yield
    finally:
        os.close(handle)


@dataclass
class DeployLock:
    path: Path
    owner: Run
    claim: Optional[Claim] = field(default=None)

    def read(self) -> Optional[Claim]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return Claim(**{**found, "owner": Run(**found["owner"])})
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError):
            # Torn by a power cut: whoever wrote it is gone.
            return None

    def take(self, dead_run: str = "") -> None:
        """Claim the lock. dead_run is a run that the controller knows to have ended."""
        found = self.read()
        if found and found.owner.run not in (self.owner.run, dead_run) and not found.is_dead:
            raise Locked(found)
        moment = time.time()
        self._write(Claim(self.owner, boot_id(), moment, moment))

    def resume(self) -> Claim:
        """The claim of this run, which an earlier call of it made."""
        found = self.read()
        if found is None or found.owner.run != self.owner.run:
            raise Locked(found) if found else LostLock()
        self.claim = found
        return found

    def is_mine(self) -> bool:
        found = self.read()
        return found is not None and found.owner.run == self.owner.run

    def update(self, **changes: object) -> Claim:
        if self.claim is None:
            raise LostLock()
        self._write(replace(self.claim, renewed=time.time(), **changes))  # type: ignore[arg-type]
        return self.claim

    def release(self) -> None:
        try:
            self.path.unlink()
        except FileNotFoundError:
            pass
        self.claim = None

    def _write(self, claim: Claim) -> None:
        fresh = self.path.with_name(self.path.name + ".new")
        with open(fresh, "w", encoding="utf-8") as stream:
            json.dump(asdict(claim), stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(fresh, self.path)
        self.claim = claim


class LostLock(Exception):
    def __init__(self) -> None:
        super().__init__("the lock of this run is gone, or was never taken: the stages begin with state=plan")
