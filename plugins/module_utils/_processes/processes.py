# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What /proc and the kernel's log show of the host's processes (proc(5)). What may not be read counts as not there."""

from __future__ import annotations

import os
import pwd
import re
import time
from typing import NamedTuple

PAGE = os.sysconf("SC_PAGE_SIZE")
KERNEL_LOG = "/dev/kmsg"
LONGEST_RECORD = 8192
LISTENING = "0A"
# The flag of a Unix socket that listens (SO_ACCEPTCON of the kernel, printed in hexadecimal).
UNIX_LISTENING = 0x10000

# supervisord's mark in the environment of what it starts.
_MARK = re.compile(rb"(?:^|\0)SUPERVISOR_(?P<key>PROCESS_NAME|GROUP_NAME|SERVER_URL)=(?P<value>[^\0]*)")


class Usage(NamedTuple):
    parent: int
    rss: int


class ProcessTable:
    """All processes of the host that have not ended, read once."""

    def __init__(self) -> None:
        self.entries = {}
        for pid in pids():
            fields = stat_of(pid)
            if fields and fields[0] != b"Z":
                self.entries[pid] = Usage(parent=int(fields[1]), rss=int(fields[21]) * PAGE)
        self._children: dict[int, list[int]] = {}
        for pid, entry in self.entries.items():
            self._children.setdefault(entry.parent, []).append(pid)

    def children(self, pid: int) -> list[int]:
        return self._children.get(pid, [])

    def tree(self, pid: int) -> list[int]:
        """A process and all that descend from it."""
        found = [pid] if pid in self.entries else []
        for each in found:
            found += self.children(each)
        return found

    def memory(self, pid: int) -> int:
        """Bytes of a tree. Pages that processes share count once (PSS), or in each where the kernel reports no PSS."""
        return sum(_pss(each) or self.entries[each].rss for each in self.tree(pid))

    def strays(self, supervisord: int, server_url: str) -> dict[tuple[str, str], list[int]]:
        """The processes that have supervisord's mark and are none of its descendants, by group and name."""
        own = set(self.tree(supervisord))
        found: dict[tuple[str, str], list[int]] = {}
        marked = {pid: mark for pid in self.entries if pid not in own for mark in [_mark(pid)] if mark}
        for pid, mark in marked.items():
            if self.entries[pid].parent not in marked and _same_server(mark.get("SERVER_URL", ""), server_url):
                found.setdefault((mark.get("GROUP_NAME", ""), mark.get("PROCESS_NAME", "")), []).append(pid)
        return found


def pids() -> list[int]:
    return _numbers("/proc")


def file_of(pid: int, name: str) -> bytes:
    """The content of a file below a process's directory."""
    return _read(f"/proc/{pid}/{name}")


def link_of(pid: int, name: str) -> str:
    """The target of a link below a process's directory."""
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""


def stat_of(pid: int) -> list[bytes]:
    """The fields of a process's stat from its state on; the name before them may hold anything."""
    return file_of(pid, "stat").rpartition(b")")[2].split()


def start_of(pid: int) -> float | None:
    """When a process started, in seconds since the epoch."""
    try:
        ticks = int(stat_of(pid)[19])
        uptime = float(_read("/proc/uptime").split()[0])
    except IndexError:
        return None
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def open_files(pid: int) -> set[str]:
    return {link_of(pid, f"fd/{descriptor}") for descriptor in _numbers(f"/proc/{pid}/fd")}


def unix_sockets(path: str, listening: bool) -> list[str]:
    """The sockets that were bound as path, as open files are named: those that listen, or its open connections,
    those included that wait to be accepted."""
    rows = [row.split(None, 7) for row in _read("/proc/net/unix").decode(errors="replace").splitlines()]
    return [
        f"socket:[{row[6]}]"
        for row in rows
        if len(row) == 8 and row[7] == path and bool(int(row[3], 16) & UNIX_LISTENING) == listening
    ]


def _numbers(folder: str) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdigit())
    except OSError:
        return []


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _pss(pid: int) -> int:
    found = re.search(rb"^Pss:\s+(\d+) kB", file_of(pid, "smaps_rollup"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _mark(pid: int) -> dict[str, str]:
    environment = file_of(pid, "environ")
    if b"SUPERVISOR_PROCESS_NAME=" not in environment:
        return {}
    return {each["key"].decode(): each["value"].decode(errors="replace") for each in _MARK.finditer(environment)}


def _same_server(one: str, other: str) -> bool:
    """Whether two addresses may be of one supervisord; only two Unix sockets can be distinguished for sure."""
    if not (one.startswith("unix://") and other.startswith("unix://")):
        return True
    return os.path.realpath(one[len("unix://") :]) == os.path.realpath(other[len("unix://") :])


def holder(port: int) -> str:
    """Who listens on a TCP port of this host, as the end of a sentence; empty when nobody is seen."""
    inodes = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in _read(table).decode().splitlines()[1:]:
            fields = row.split()
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes[f"socket:[{fields[9]}]"] = int(fields[7])
    if not inodes:
        return ""
    for pid in pids():
        for target in inodes.keys() & open_files(pid):
            name = file_of(pid, "comm").decode(errors="replace").strip()
            return f" by process {pid} ({name}) of user {user_name(inodes[target])}"
    return f" by a process of user {user_name(min(inodes.values()))}"


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class Kill(NamedTuple):
    """The kernel's line about a process that it killed for want of memory, and when, as time.time() counts."""

    line: str
    time: float
    uid: int = -1


def kernel_kills() -> dict[int, Kill]:
    """By the pids. A pid may have been another process's before, so the time matters."""
    kills = {}
    booted = time.time() - time.monotonic()
    for record in _kernel_log():
        found = re.search(r"[Oo]ut of memory: Killed process (\d+)", record)
        if found:
            head, _semicolon, text = record.partition(";")
            # Priority, number, microseconds since the boot.
            uid = re.search(r"\bUID:(\d+)", text)
            moment = booted + int(head.split(",")[2]) / 1e6
            kills[int(found[1])] = Kill(text.splitlines()[0], moment, int(uid[1]) if uid else -1)
    return kills


def _kernel_log() -> list[str]:
    records: list[str] = []
    try:
        log = os.open(KERNEL_LOG, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return records
    try:
        while True:
            try:
                records.append(os.read(log, LONGEST_RECORD).decode(errors="replace"))
            except BrokenPipeError:
                # It was overwritten before it could be read; the next one follows.
                continue
    except OSError:
        # EAGAIN: that was all.
        return records
    finally:
        os.close(log)
