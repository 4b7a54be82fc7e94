# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs in supervisord's own configuration file that the role supervisor did not write, and how they are kept.

The role writes none into that file, so each section of a program in it was made by hand.
"""

from __future__ import annotations

import configparser
import glob
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Callable, NamedTuple, Optional

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files.file_set import Item
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.commands import output_of
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.processes import file_of
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import rpc, status

CONFIG = "/etc/supervisord.conf"
KEPT = "/etc/supervisord.d/_existing.ini"
# The role writes it after the configuration: where it is not, the role has not been here.
WRITTEN_LAST = "/etc/supervisord.d/_programs.ini"
UNIT = "supervisord.service"
KINDS = ("program", "group", "fcgi-program", "eventlistener")
KEPT_HEADER = """\
; Sections that were found in {config}, moved here as they were. This file is yours: nothing rewrites it.

"""
COMMAND_SECONDS = 30

_HEADER = re.compile(r"\[([^\]\n]+)\]")
_PROGRAM = re.compile(rf"^[ \t]*\[({'|'.join(KINDS)}):", re.MULTILINE)
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_UNIT_OF = re.compile(r"/([^/\n]+\.(?:service|scope))\b")


class Block(NamedTuple):
    """A section as it is in the file, with the comment lines right above its header; the beginning has no name."""

    name: str
    text: str

    @property
    def is_program(self) -> bool:
        return self.name.startswith(tuple(f"{kind}:" for kind in KINDS))


@dataclass
class TakeoverPlan:
    """What is kept, and what the role's configuration restarts."""

    sections: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)


def needs_look(config: str = CONFIG, written_last: str = WRITTEN_LAST) -> bool:
    """Whether there is a configuration that the role has not written, or somebody added programs to it; cheap."""
    text = _read(config)
    return text is not None and (not os.path.exists(written_last) or bool(_PROGRAM.search(text)))


def blocks(text: str) -> list[Block]:
    """The sections in their order; put together again they are the text."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in _LINE.findall(text):
        header = _HEADER.match(line)
        if header:
            before = found[-1][1]
            start = len(before)
            while start and before[start - 1].startswith((";", "#")):
                start -= 1
            found.append((header[1], before[start:]))
            del before[start:]
        found[-1][1].append(line)
    return [Block(name, "".join(lines)) for name, lines in found]


def unit_of_process(pid: int) -> str:
    """The unit of systemd's that a process belongs to; empty where the kernel does not show it (cgroups(7))."""
    found = _UNIT_OF.findall(file_of(pid, "cgroup").decode(errors="replace"))
    return found[-1] if found else ""


def make_plan(
    wanted: str,
    names: Iterable[str],
    restart: bool,
    connection: rpc.Connection,
    kept: str = KEPT,
    unit_of: Callable[[int], str] = unit_of_process,
) -> TakeoverPlan:
    """Changes nothing. Raises where something would be lost, or restarted without permission.

    wanted is the role's own text of the configuration, names are the programs and groups that it will write itself.
    """
    config = connection.config
    text = _read(config)
    if text is None:
        return TakeoverPlan()
    try:
        _sections(text)
        for block in blocks(text):
            _sections(block.text)
    except configparser.Error:
        # Its text is not shown: it may hold passwords.
        raise rpc.SupervisorError(
            f"{config} can't be parsed, and supervisord could not start with it.\nCorrect it or move it away"
        ) from None
    first = not os.path.exists(os.path.join(os.path.dirname(kept), os.path.basename(WRITTEN_LAST)))
    found = blocks(text)
    moved = [block for block in found if block.is_program]
    rest = "".join(block.text for block in found if not block.is_program)
    _refuse_what_moves_not(config, text, rest, moved)
    _refuse_two_of_a_name(config, moved, set(names))
    if first:
        _refuse_other_includes(config, text, wanted)
    plan = TakeoverPlan([block.name for block in moved])
    if moved:
        plan.items.append(_kept_item(config, kept, moved))
    same_settings = _sections(rest) == _sections(wanted)
    if moved and same_settings:
        # supervisord reads the same as before, and need not be restarted.
        there = os.stat(config)
        plan.items.append(
            Item(config, str(there.st_uid), str(there.st_gid), there.st_mode & 0o7777, wanted.encode(), secret=True)
        )
    if first or not same_settings:
        plan.restarted = _running(connection, set(names), restart, unit_of)
        if plan.restarted and not restart:
            raise rpc.SupervisorError(_refusal(config, kept, plan))
    return plan


def _refusal(config: str, kept: str, plan: TakeoverPlan) -> str:
    lines = [
        f"{config} is not the role's, and writing the role's settings restarts supervisord with programs that are none "
        f"of the role's: {', '.join(plan.restarted)}.",
        "Nothing was changed. Set supervisor_existing to restart, and they are restarted once.",
    ]
    if plan.sections:
        lines.append(
            f"Sections of {config} that are kept, moved as they are to {kept}: {', '.join(plan.sections)}. Its "
            "settings of supervisord itself become those of the role's variables."
        )
    return "\n".join(lines)


def _refuse_what_moves_not(config: str, text: str, rest: str, moved: Sequence[Block]) -> None:
    """What would mean something else in another file, or after it was taken apart."""
    whole, parts = _sections(text), _sections(rest)
    missed = [name for name in parts if Block(name, "").is_program]
    for block in moved:
        for name, options in _sections(block.text).items():
            parts.setdefault(name, {}).update(options)
    if missed or (moved and (whole != parts or "DEFAULT" in whole)):
        labels = ", ".join(f"[{name}]" for name in [*missed, *(block.name for block in moved)])
        raise rpc.SupervisorError(
            f"{config}: its sections {labels} can't be moved as they are: a header is indented, or there is a section "
            "[DEFAULT].\nMove them by hand to a file in /etc/supervisord.d, then run again"
        )
    for block in moved:
        if any("%(here)s" in value for options in _sections(block.text).values() for value in options.values()):
            raise rpc.SupervisorError(
                f"{config}: [{block.name}] holds %(here)s, which means another directory in a file of "
                f"/etc/supervisord.d.\nWrite {os.path.dirname(config)} in its place, then run again"
            )


def _refuse_two_of_a_name(config: str, moved: Sequence[Block], names: set[str]) -> None:
    for block in moved:
        if block.name.partition(":")[2].strip() in names:
            raise rpc.SupervisorError(
                f"{config} has a section [{block.name}], and fastapi_apps or a list of the role supervisor has the "
                "same name: supervisord would merge the two.\nRemove the section, or give the other one another name"
            )


def _refuse_other_includes(config: str, text: str, wanted: str) -> None:
    """The role's file reads other places only where supervisor_include_files says so."""
    ours = set(_includes(config, wanted))
    lost = [
        pattern
        for pattern in _includes(config, text)
        if pattern not in ours and any(_PROGRAM.search(_read(path) or "") for path in glob.glob(pattern))
    ]
    if lost:
        raise rpc.SupervisorError(
            f"{config} includes programs from {', '.join(lost)}, which the role's configuration would no longer read."
            f"\nSet supervisor_include_files to [{', '.join(lost)}], or remove them from [include]"
        )


def _includes(config: str, text: str) -> list[str]:
    here = os.path.dirname(os.path.abspath(config))
    files = _sections(text).get("include", {}).get("files", "").replace("%(here)s", here)
    return [os.path.join(here, pattern) for pattern in files.split()]


def _kept_item(config: str, kept: str, moved: Sequence[Block]) -> Item:
    """A run that was cut off may have written it already, and left the configuration as it was."""
    text = _read(kept)
    there = _by_name(blocks(text or ""))
    text = KEPT_HEADER.format(config=config) if text is None else text
    for name, section in _by_name(moved).items():
        if name not in there:
            text += ("" if text.endswith("\n") else "\n") + section
        elif there[name].strip() != section.strip():
            raise rpc.SupervisorError(
                f"[{name}] is in {config} and in {kept}, and they differ: supervisord merges the two.\n"
                "Remove one of them"
            )
    text += "" if text.endswith("\n") else "\n"
    return Item(kept, "root", "root", 0o600, text.encode("utf-8", "surrogateescape"), secret=True)


def _by_name(found: Iterable[Block]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for block in found:
        texts[block.name] = texts.get(block.name, "") + block.text
    return texts


def _running(connection: rpc.Connection, names: set[str], restart: bool, unit_of: Callable[[int], str]) -> list[str]:
    """The processes that are not the role's, of a supervisord that systemd restarts."""
    try:
        supervisor = rpc.connect(connection)
    except rpc.SupervisorError as error:
        active = output_of("systemctl", "is-active", UNIT, limit=COMMAND_SECONDS).strip() == "active"
        if restart or (isinstance(error, rpc.NotRunning) and not active):
            return []
        raise rpc.SupervisorError(
            f"writing the role's settings restarts supervisord, and what it runs can't be asked for: {error}\n"
            "Nothing was changed. Set supervisor_existing to restart, and all that it runs is restarted once"
        ) from None
    with closing(supervisor):
        pid = int(supervisor.call("getPID"))
        processes = status.all_processes(supervisor)
    unit = unit_of(pid)
    if unit not in ("", UNIT):
        raise rpc.SupervisorError(
            f"supervisord (process {pid}) was started by {unit}, not by {UNIT}: a second one would start the same "
            f"programs once more.\nStop it and disable {unit}, then run again"
        )
    return [
        str(name)
        for name, process in sorted(processes.items())
        if process.is_up and not {name.group, name.process} & names
    ]


def _sections(text: str) -> dict[str, dict[str, str]]:
    """As supervisor reads them (supervisor.options.UnhosedConfigParser)."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read_string(text)
    defaults = {"DEFAULT": dict(parser.defaults())} if parser.defaults() else {}
    return {**defaults, **{name: dict(parser.items(name)) for name in parser.sections()}}


def _read(path: str) -> Optional[str]:
    """The text with whatever bytes it has; None where there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
