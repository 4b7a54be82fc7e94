# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What paths, accounts, masks, sockets and URLs must look like, wherever a variable has one.

Each function returns what is wrong, as the end of a sentence that begins with the variable and its value, or nothing.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import without_logins

# As EL's useradd takes a name (shadow-utils).
ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}\$?")
ACCOUNT_RULE = "lower-case letters, digits, _ and -, a letter or _ first, 32 at most"
# sun_path of struct sockaddr_un, less the NUL at its end.
LONGEST_SOCKET = 107
# Where any account may put a file of any name, or take one away that root left out.
OPEN_TO_ALL = ("/tmp", "/var/tmp", "/dev/shm")
# What belongs to the system. Whatever root writes there may be executed, or read as configuration.
SYSTEM = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr"),
    *("/var/lib/systemd", "/var/spool"),
)
# What the collection's apps may write.
HOMES, RUNS, LOGS = _layout.STATE, _layout.RUN, _layout.LOG
DEVICES = ("/dev/stdout", "/dev/stderr", "/dev/null")
# Variables by which a loader or an interpreter finds code, with colons between paths; PATH and what root's account
# would run for it.
SEARCH_PATHS = ("LD_AUDIT", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP")


def has_control(text: str) -> bool:
    """Line breaks, escapes and marks that turn the direction of a text: what no name, path or address needs."""
    return any(not char.isprintable() and char != "\u00a0" for char in text)


def below(path: str, directories: Iterable[str]) -> str:
    """Which of the directories a path is, or lies below; empty for none."""
    plain = posixpath.normpath(path)
    found = (directory for directory in directories if plain == directory or plain.startswith(f"{directory}/"))
    return next(found, "")


def is_above(path: str, directory: str) -> bool:
    plain = posixpath.normpath(path)
    return plain in ("/", "//") or directory.startswith(f"{plain}/")


def absolute(path: str) -> str:
    """A full path that says where it leads: no .., no white space, nothing twice."""
    if not re.fullmatch(r"/\S*", path) or has_control(path):
        return "it must be a full path without spaces, such as /srv/data"
    if posixpath.normpath(path) != (path.rstrip("/") or "/"):
        return "it must be a full path without '..', '.' and '//'"
    return ""


def tree(path: str) -> str:
    """A directory below which root makes directories of its own."""
    problem = absolute(path)
    if problem:
        return problem
    if not re.fullmatch(r"[\w./-]+", path, re.ASCII):
        return "it must be letters, digits, '_', '.' and '-', since it is used in files of several languages"
    if len(path.strip("/").split("/")) < 2:
        return "it must be a directory of the collection's own below another one, such as /opt/fastapi"
    # Of /usr a host's administrator has /usr/local.
    found = below(path, (*OPEN_TO_ALL, *SYSTEM, "/home", "/root", "/run", "/var/run", HOMES, LOGS))
    if found and not below(path, ("/usr/local",)):
        return f"it must not lie below {found}: choose another path, such as /opt/fastapi"
    return ""


def relative(path: str) -> str:
    """A path below the app's source."""
    if path.startswith("/") or ".." in path.split("/") or has_control(path):
        return "it must be a path below the source, without '..' and not from /"
    return ""


def served(path: str) -> str:
    """A directory whose files nginx hands out."""
    problem = absolute(path)
    if problem:
        return problem
    if re.search(r"[;{}\"'$\\]", path):
        return "it must be a full path without any of ; { } \" ' $ \\, which nginx reads as something else"
    closed = (*(part for part in SYSTEM if part != "/usr"), "/root", "/run", "/var/run", "/var/log", *OPEN_TO_ALL)
    found = below(path, closed)
    if not found and below(path, ("/usr",)) and not below(path, ("/usr/share", "/usr/local/share")):
        found = "/usr"
    if found:
        return f"it must be a directory of files for everybody, and not below {found}"
    above = [known for known in ("/etc", "/usr", HOMES, LOGS, "/var/spool") if is_above(path, known)]
    if above:
        return f"it must be a directory of files for everybody, and {above[0]} lies below it"
    return ""


def written_by_root(path: str, good: str = "/var/log") -> str:
    """A file or socket that supervisord opens as root: nobody else may put a link in its place."""
    if path in DEVICES:
        return ""
    problem = absolute(path)
    found = below(path, (*SYSTEM, *OPEN_TO_ALL, "/home", HOMES, RUNS))
    if not problem and found:
        problem = f"root opens it, so it must not lie below {found}: choose another path, such as one below {good}"
    return problem


def trusted(path: str) -> str:
    """What root executes or reads as configuration."""
    problem = absolute(path)
    found = below(path, (*OPEN_TO_ALL, "/home", HOMES, RUNS, LOGS))
    if not problem and found:
        problem = (
            f"root uses it, and others may write below {found}: choose another path, such as one below /etc or /opt"
        )
    return problem


def account(name: str) -> str:
    return "" if ACCOUNT.fullmatch(name) else f"it must be the name of an account: {ACCOUNT_RULE}"


def socket_path(path: str) -> str:
    return absolute(path) or socket_size(path)


def socket_size(path: str) -> str:
    size = len(path.encode())
    if size > LONGEST_SOCKET:
        return f"it is {size} bytes long, and {LONGEST_SOCKET} are the most that the kernel allows for a socket"
    return ""


def umask(text: str) -> str:
    """A mask that is octal digits, which others check, and that leaves files writable for everybody."""
    if re.fullmatch(r"0?[0-7]{1,4}", text) and not int(text, 8) & 0o002:
        return "everybody could write the files; it must take the write bit from others, such as '022' or '027'"
    return ""


def mode(text: str) -> str:
    if re.fullmatch(r"0?[0-7]{1,4}", text) and int(text, 8) & 0o002:
        return "everybody could write to it; it must leave the write bit of others out, such as '0660'"
    return ""


def index_url(url: str) -> str:
    """The address of a package index: a login in it would show in process lists."""
    if has_control(url) or not re.fullmatch(r"(https?://[^/\s]+|file:///)\S*", url):
        return "it must be a URL that begins with https://, http:// or file:///"
    if without_logins(url) != url:
        return "it must be a URL without user and password: set python_venv_credentials"
    return ""


def command(words: Any) -> str:
    if not isinstance(words, (list, tuple)) or not words or not all(isinstance(word, str) for word in words):
        return "must be a command as a list of texts"
    if not words[0].strip():
        return "has an empty first word: name the program to run"
    if any("\0" in word for word in words):
        return "has a NUL character in it, which no argument can hold"
    return ""


def search_paths(environment: Mapping[str, Any]) -> Iterator[str]:
    """Variables that would have code come from where any account may put it, a sentence each."""
    for name in SEARCH_PATHS:
        value = environment.get(name)
        if not isinstance(value, str) or not value:
            continue
        for part in re.split(r"[:\s]" if name.startswith("LD_") else ":", value):
            if below(part, OPEN_TO_ALL):
                yield f"{name} is {value!r}: code would come from {part}, where any account may write"
            elif not part.startswith("/") and name in ("PATH", "LD_LIBRARY_PATH", "LD_AUDIT"):
                yield f"{name} is {value!r}: it must be full paths with ':' between them, and {part!r} is none"
        if name == "PATH" and "/usr/bin" not in value.split(":"):
            yield f"PATH is {value!r}: it must have /usr/bin in it, whose programs start the app"
