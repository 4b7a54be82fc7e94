# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An app's two slots on a host: where everything lies, what is so, and what differs from what is wanted. Only looks.

/run/fastapi/NAME/live.sock -> blue/app.sock     what nginx connects to: root's, in a directory of root's
/run/fastapi/NAME/{blue,green}/app.sock          a slot's own socket, where only the app and the proxy may enter
/etc/tmpfiles.d/fastapi-NAME.conf                makes live.sock at boot: which slot is live then
/etc/supervisord.d/NAME_{blue,green}.ini         there while the slot is in use; starts at boot
/etc/fastapi/NAME/{blue,green}/                  a slot's configuration, and links to its release and environment
/opt/fastapi/apps/NAME/releases/RELEASE/         source and environments
/opt/fastapi/apps/NAME/{ledger.jsonl,deploy.lock}
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files import public_paths
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files.file_set import (
    DIGEST_TOKEN,
    Item,
    compare,
    difference_texts,
    items_of,
    machine_key,
    set_digest,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.launcher import FILE_NAME
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots import ledger
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import rpc, status
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.status import Name, Process
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.builds import (
    EnvironmentPath,
    installed_packages,
    read_stamp,
)

# In the program's section: the name of the slot.
SLOT_TOKEN = "{slot}"
# Of a slot's directory: how the launcher beside it starts the slot.
LAUNCH_FILE = "launch.json"
PYTHON = "/usr/bin/python3"
METADATA = "slot.json"
# supervisord has just been restarted: a slot that stays up for startsecs runs.
STARTING_SECONDS = 5.0
POLL_SECONDS = 0.25
RELEASE_METADATA = "release.json"


class SlotError(Exception):
    """A foreseeable failure; its text is for the user."""


@dataclass(frozen=True)
class AppPaths:
    name: str
    app: Path
    etc: Path
    run: Path
    programs: Path
    tmpfiles: Path

    @classmethod
    def on_host(cls, name: str, base: str) -> AppPaths:
        return cls(
            name=name,
            app=Path(_layout.apps_directory(base), name),
            etc=Path(_layout.ETC, name),
            run=Path(_layout.run_directory(name)),
            programs=Path(_layout.PROGRAMS),
            tmpfiles=Path(_layout.tmpfiles(name)),
        )

    @property
    def live_link(self) -> Path:
        return self.run / _layout.LIVE_SOCKET

    @property
    def ledger(self) -> Path:
        return self.app / "ledger.jsonl"

    @property
    def current(self) -> Path:
        """A link to the live release, for people and for what the proxy serves by itself."""
        return self.app / "current"

    @property
    def shared(self) -> Path:
        return self.app / "shared"

    @property
    def releases(self) -> Path:
        return self.app / "releases"

    def release(self, name: str) -> Path:
        return self.releases / name

    def slot(self, slot: str) -> Path:
        return self.etc / slot

    def socket(self, slot: str) -> Path:
        return self.run / slot / _layout.SOCKET

    def launch(self, slot: str, *arguments: str, under: str = "") -> list[str]:
        """The command that runs something as a slot does; under is where a candidate of the slot's files lies."""
        folder = f"{under}{self.slot(slot)}"
        return [PYTHON, "-IS", f"{folder}/{FILE_NAME}", f"{folder}/{LAUNCH_FILE}", *arguments]

    def program(self, slot: str) -> str:
        return _layout.slot_program(self.name, slot)

    def program_file(self, slot: str) -> Path:
        return self.programs / f"{self.program(slot)}.ini"

    @property
    def in_place_file(self) -> Path:
        """The program of the app before it had slots."""
        return self.programs / f"{self.name}.ini"

    def releases_there(self) -> list[str]:
        if not self.releases.is_dir():
            return []
        return sorted(
            entry.name
            for entry in os.scandir(self.releases)
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        )

    def environment_of(self, release: str) -> Optional[Path]:
        """The finished build that the release's environment is, where there is one."""
        published = EnvironmentPath(str(self.release(release) / "venv")).published()
        return published if published and read_stamp(published) else None


@dataclass(frozen=True)
class WantedSlot:
    """What the live slot shall be. Nothing in it differs between the slots."""

    release: str
    revision: str
    # What the environment is built from.
    build: str
    directories: Sequence[Item]
    # Paths relative to the slot's directory.
    files: Sequence[Item]
    program: str
    tmpfiles: str
    group: str
    key: bytes

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> WantedSlot:
        """From the options of the module release_slot."""
        items = items_of(params, file_mode=0o640)
        return cls(
            directories=[item for item in items if item.is_directory],
            files=[item for item in items if not item.is_directory],
            key=machine_key(),
            **{name: params[name] for name in ("release", "revision", "build", "program", "tmpfiles", "group")},
        )

    @property
    def fingerprint(self) -> str:
        """A digest of all that goes into a slot, under a key of the host's, since secrets are in it."""
        extra = {
            "program": self.program.replace(DIGEST_TOKEN, ""),
            "release": f"{self.release} {self.revision} {self.build}",
        }
        return set_digest(
            [*self.files, *(Item(name, "root", "root", 0, text.encode()) for name, text in extra.items())], self.key
        )

    def slot_items(self, paths: AppPaths, slot: str) -> list[Item]:
        """Everything of a slot but the link to its environment."""
        folder = paths.slot(slot)
        metadata = {"release": self.release, "revision": self.revision, "fingerprint": self.fingerprint}
        return [
            *self.directories,
            Item(str(folder), "root", self.group, 0o750),
            *(replace(item, path=str(folder / item.path)) for item in self.files),
            Item(str(folder / METADATA), "root", "root", 0o644, (json.dumps(metadata, indent=1) + "\n").encode()),
            Item(str(folder / "release"), "root", "root", 0o777, target=str(paths.release(self.release))),
        ]

    def program_item(self, paths: AppPaths, slot: str) -> Item:
        text = self.program.replace(SLOT_TOKEN, slot).replace(DIGEST_TOKEN, self.fingerprint)
        return Item(str(paths.program_file(slot)), "root", "root", 0o600, text.encode())

    def tmpfiles_item(self, paths: AppPaths, live: Optional[str]) -> Item:
        link = f"L {paths.live_link} - - - - {link_text(live)}\n" if live else ""
        return Item(str(paths.tmpfiles), "root", "root", 0o644, (self.tmpfiles + link).encode())


@dataclass(frozen=True)
class Observed:
    """The state of the slots."""

    # What live.sock points to now, and at the next boot.
    linked: Optional[str]
    kept: Optional[str]
    # Slots and programs that supervisord has loaded; none when it does not run.
    processes: dict[str, Process]
    in_place: Optional[Process]
    on_disk: frozenset[str]

    @property
    def live(self) -> Optional[str]:
        """The link that nginx follows decides, and the one of the next boot where there is none."""
        return next((slot for slot in (self.linked, self.kept) if slot in self.on_disk), None)

    def runs(self, slot: Optional[str]) -> bool:
        process = self.processes.get(slot or "")
        return process is not None and process.state == "RUNNING"


def observe(paths: AppPaths, connection: rpc.Connection) -> Observed:
    """As they stand now, or in a few seconds where the live slot is starting."""
    deadline = time.monotonic() + STARTING_SECONDS
    while True:
        seen = _observe(paths, connection)
        process = seen.processes.get(seen.live or "")
        if process is None or process.state != "STARTING" or time.monotonic() > deadline:
            return seen
        time.sleep(POLL_SECONDS)


def _observe(paths: AppPaths, connection: rpc.Connection) -> Observed:
    processes = supervised(connection)

    def of(program: str) -> Optional[Process]:
        return processes.get(Name(program, program))

    return Observed(
        linked=slot_of_link(paths),
        kept=_kept(paths),
        processes={slot: found for slot in _layout.SLOTS if (found := of(paths.program(slot)))},
        in_place=of(paths.name),
        on_disk=frozenset(slot for slot in _layout.SLOTS if paths.program_file(slot).is_file()),
    )


def supervised(connection: rpc.Connection) -> dict[Name, Process]:
    try:
        supervisor = rpc.connect(connection)
    except rpc.NotRunning:
        return {}
    try:
        return status.all_processes(supervisor)
    finally:
        supervisor.close()


def slot_of_link(paths: AppPaths) -> Optional[str]:
    try:
        found = os.readlink(paths.live_link)
    except OSError:
        return None
    return next((slot for slot in _layout.SLOTS if link_text(slot) == found), None)


def link_text(slot: str) -> str:
    """What live.sock says: the slot's socket, relative to the link."""
    return f"{slot}/{_layout.SOCKET}"


def _kept(paths: AppPaths) -> Optional[str]:
    try:
        text = paths.tmpfiles.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    found = re.search(
        rf"^L {re.escape(str(paths.live_link))} .* ({'|'.join(_layout.SLOTS)})/{_layout.SOCKET}$", text, flags=re.M
    )
    return found[1] if found else None


def metadata_of(paths: AppPaths, slot: str) -> dict[str, str]:
    """What a slot holds: release, revision and fingerprint; empty when that is unknown."""
    return _read_json(paths.slot(slot) / METADATA)


def release_metadata_of(paths: AppPaths, release: str) -> dict[str, str]:
    """What a release was made from: revision and build."""
    return _read_json(paths.release(release) / RELEASE_METADATA)


def _read_json(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def reasons_to_move(paths: AppPaths, wanted: WantedSlot, seen: Observed) -> list[str]:
    """Why the live slot is not what it should be."""
    live = seen.live
    if live is None:
        return ["no slot is live yet"]
    reasons = []
    metadata = metadata_of(paths, live)
    if metadata.get("release") != wanted.release:
        reasons.append(f"release {metadata.get('release', '(unknown)')} -> {wanted.release}")
    program = wanted.program_item(paths, live)
    found = difference_texts([*wanted.slot_items(paths, live), program])
    # The metadata differs with anything else.
    metadata_path = f"{paths.slot(live) / METADATA}:"
    reasons += [text for text in found if len(found) == 1 or not text.startswith(metadata_path)]
    reasons += _environment_damage(paths.slot(live) / "venv")
    if not seen.runs(live):
        process = seen.processes.get(live)
        reasons.append(f"{paths.program(live)} is {process.state if process else 'not loaded'}")
    return reasons


def _environment_damage(link: Path) -> list[str]:
    build = Path(os.path.realpath(link))
    stamp = read_stamp(build)
    if stamp is None:
        return [f"{link}: leads to no finished environment"]
    if installed_packages(build) != dict(stamp.packages):
        return [f"{build}: its packages are not those that were installed"]
    return []


def reasons_to_clean_up(paths: AppPaths, wanted: WantedSlot, seen: Observed, static: Sequence[str] = ()) -> list[str]:
    """What an earlier run left undone, or somebody changed, around a live slot that is as it should be."""
    live = seen.live
    if live is None:
        return []
    reasons = []
    if seen.linked != live:
        reasons.append(f"{paths.live_link}: does not lead to {live}")
    if compare(wanted.tmpfiles_item(paths, live)):
        reasons.append(f"{paths.tmpfiles}: content")
    for slot in _layout.SLOTS:
        if slot != live and (slot in seen.processes or slot in seen.on_disk or paths.slot(slot).exists()):
            reasons.append(f"{paths.program(slot)}: left by an earlier run")
    if seen.in_place or paths.in_place_file.exists():
        reasons.append(f"{paths.name}: the program from before the app had slots")
    source = paths.release(metadata_of(paths, live).get("release", "")) / "app"
    for name in public_paths.closed(source, public_paths.below(paths.current / "app", static)):
        reasons.append(f"{source / name}: closed to the proxy, which serves it")
    last = ledger.last_good(ledger.read(paths.ledger))
    if last is None or last.fingerprint != metadata_of(paths, live).get("fingerprint"):
        reasons.append(f"{paths.ledger}: has no entry for the live slot")
    return reasons
