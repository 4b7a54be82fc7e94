# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts a program of an app as the app's account, apart from the rest of the host, and ends all that it started.

usage: python3 -IS launch.py CONFIG [ARGUMENT]...

CONFIG is a JSON file of root's; see Config. The ARGUMENTs are appended to its command.

    supervisord
      launcher   root; the process that supervisord knows: passes signals on, ends as the program ended
        init     root; process 1 of a PID namespace, in a mount namespace with a read-only view of the host
          program    the app's account

When the program ends, init ends, and with the first process of a PID namespace the kernel kills all others in it, those
with a session of their own too (pid_namespaces(7)). Where the host lets nobody make namespaces, as in a container
without CAP_SYS_ADMIN, init adopts what the program started (PR_SET_CHILD_SUBREAPER) and kills it, and the view of the
host is not read-only. Below a unit with Delegate=yes, the program has a cgroup of its own, which carries its limits.

The role writes this file to the host, and the modules import it: it uses the standard library of Python 3.9 alone.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import grp
import json
import os
import pwd
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NoReturn, Optional

# On a host.
FILE_NAME = "launch.py"
# In a directory that root alone may enter: each program's /tmp and /var/tmp.
PRIVATE = "/var/lib/fastapi/.private"
CGROUPS = "/sys/fs/cgroup"
# Below the cgroup of supervisord's unit: supervisord and what is no app's; the apps.
MAIN_CGROUP, APPS_CGROUP = "main", "apps"

PASSED_ON = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
AWAITED = {*PASSED_ON, signal.SIGCHLD}

# prctl(2)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
# unshare(2)
CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
# mount(2)
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_SLAVE = 2, 4, 8, 4096, 16384, 1 << 19
# mount_setattr(2), Linux 5.12; its number is the same on all architectures of EL.
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1

PERIOD = 100_000  # microseconds, of cpu.max
LIMITS = {"memory_max": ("memory", "memory.max"), "cpu_quota": ("cpu", "cpu.max"), "tasks_max": ("pids", "pids.max")}
KILL_SECONDS = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


class LaunchError(Exception):
    """The program can't be started; the text is for the log."""


@dataclass(frozen=True)
class Config:
    """What to start, and what it may. In all texts {here} is the directory of CONFIG, and {slot} the name of that."""

    # Of the private /tmp, and in messages: orders_blue.
    name: str
    command: Sequence[str]
    user: str
    group: str
    # Of the cgroup, below the unit's: orders/blue; none of its own when empty.
    cgroup: str = ""
    umask: str = "0027"
    # Directories that stay writable where the account has the right to; all others are read-only. One that may be
    # missing begins with -.
    writable: Sequence[str] = ()
    network: bool = True
    # Whether the program gets namespaces.
    sandbox: bool = True
    # memory_max as 512M, cpu_quota as 150%, tasks_max as 200.
    limits: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str) -> Config:
        try:
            here = os.path.dirname(os.path.abspath(path))
            text = Path(path).read_text(encoding="utf-8")
            found = json.loads(text.replace("{here}", here).replace("{slot}", os.path.basename(here)))
            return cls(**{name: found[name] for name in {each.name for each in fields(cls)} & set(found)})
        except (OSError, TypeError, ValueError) as error:
            raise LaunchError(f"{path}: {error}") from error


def config_of(command: str) -> Optional[Config]:
    """The configuration of a command line that starts this launcher; None for another one."""
    words = command.split()
    named = [number for number, word in enumerate(words[:-1]) if os.path.basename(word) == FILE_NAME]
    try:
        return Config.read(words[named[0] + 1]) if named else None
    except LaunchError:
        return None


def main(arguments: Sequence[str]) -> NoReturn:
    try:
        config = Config.read(arguments[0])
        status = launch(config, [*config.command, *arguments[1:]])
    except (LaunchError, OSError) as error:
        say(str(error))
        raise SystemExit(1) from None
    _end_as(status)


def say(text: str) -> None:
    sys.stderr.write(f"launcher: {text}\n")
    sys.stderr.flush()


def launch(config: Config, command: Sequence[str]) -> int:
    """Runs the command to its end and returns its status as wait(2) gives it."""
    account = Account.of(config)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    apart = config.sandbox and _unshare(CLONE_NEWPID)
    if config.sandbox and not apart:
        say("no namespaces: this host does not let root make them, so the view of the host is not read-only")
    with private_directory(config.name) as private:
        cgroup = own_cgroup(config)
        if cgroup:
            kill_all(cgroup)
        status_reader, status_writer = os.pipe()
        go, ready = os.pipe()
        init = os.fork()
        if init == 0:
            os.close(status_reader)
            os.close(ready)
            _init(config, command, account, private, apart, go, status_writer)
        os.close(go)
        os.close(status_writer)
        if cgroup:
            (cgroup / "cgroup.procs").write_text(str(init), encoding="ascii")
        os.write(ready, b"1")
        _pass_on_until_end(init)
        os.close(ready)
        status = _status_of(status_reader, os.waitpid(init, 0)[1])
        if cgroup:
            kill_all(cgroup)
    return status


def _status_of(reader: int, init: int) -> int:
    """The program's status as init reports it, or else that of init itself."""
    text = os.read(reader, 32)
    os.close(reader)
    return int(text) if text else init


def _end_as(status: int) -> NoReturn:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    raise SystemExit(os.WEXITSTATUS(status))


def _pass_on_until_end(child: int) -> None:
    """Passes signals on until a child has ended, which stays to be waited for."""
    while True:
        number = signal.sigwait(AWAITED)
        if number != signal.SIGCHLD:
            os.kill(child, number)
        elif os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return


# --- the account


@dataclass(frozen=True)
class Account:
    uid: int
    gid: int
    groups: Sequence[int]

    @classmethod
    def of(cls, config: Config) -> Account:
        try:
            uid, gid = pwd.getpwnam(config.user).pw_uid, grp.getgrnam(config.group).gr_gid
        except KeyError as error:
            raise LaunchError(f"user {config.user!r}, group {config.group!r}: {error.args[0]}") from error
        return cls(uid, gid, os.getgrouplist(config.user, gid))

    def become(self, umask: int) -> None:
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
        os.umask(umask)


# --- init and the program


def _init(
    config: Config, command: Sequence[str], account: Account, private: str, apart: bool, go: int, writer: int
) -> NoReturn:
    status = 1
    try:
        # With the launcher, who is the one that supervisord knows, all ends.
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.read(go, 1):
            if apart:
                isolate(config, private)
            else:
                _prctl(PR_SET_CHILD_SUBREAPER, 1)
            status = _run(config, command, account)
            if not apart:
                _end_children()
            os.write(writer, str(status).encode("ascii"))
    except (LaunchError, OSError) as error:
        say(str(error))
    os._exit(0 if status == 0 else 1)


def _run(config: Config, command: Sequence[str], account: Account) -> int:
    program = os.fork()
    if program == 0:
        try:
            os.setsid()
            account.become(int(config.umask, 8))
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
                # By Python, and what is executed would inherit that.
                signal.signal(ignored, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
            os.chdir("/")
            os.execvp(command[0], list(command))
        except OSError as error:
            say(f"{command[0]}: {error.strerror}")
        finally:
            os._exit(127)
    while True:
        number = signal.sigwait(AWAITED)
        if number != signal.SIGCHLD:
            os.kill(program, number)
            continue
        # What lost its parent is init's to wait for.
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            if ended[0] == program:
                return ended[1]


def _end_children() -> None:
    """Kills what the program left, again and again, since the kernel's list may lack what is just being adopted."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    try:
        while True:
            for child in children.read_text(encoding="ascii").split():
                os.kill(int(child), signal.SIGKILL)
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.01)
    except (ChildProcessError, FileNotFoundError):
        pass


# --- namespaces


def isolate(config: Config, private: str) -> None:
    """A view of the host of one's own: nothing can be written but what config names, and a /tmp that nobody shares."""
    if not _unshare(CLONE_NEWNS | (0 if config.network else CLONE_NEWNET)):
        raise LaunchError("this host has PID namespaces but no mount namespaces: set sandbox.enabled to false")
    _mount(None, "/", None, MS_REC | MS_SLAVE)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for place in ("/tmp", "/var/tmp"):
        _mount(os.path.join(private, place.strip("/").replace("/", "-")), place, None, MS_BIND)
    writable = [path.lstrip("-") for path in config.writable if path[:1] != "-" or os.path.isdir(path[1:])]
    for path in writable:
        _mount(path, path, None, MS_BIND | MS_REC)
    _set_readonly("/", True, recursive=True)
    # Of /dev, what may be written is a matter of its devices; /dev/shm is below it.
    for path in ("/proc", "/dev", "/tmp", "/var/tmp", *writable):
        _set_readonly(path, False, recursive=path != "/proc")


@contextmanager
def private_directory(name: str) -> Iterator[str]:
    """A directory with the program's /tmp and /var/tmp. What a killed launcher left goes with the next of its name."""
    os.makedirs(os.path.dirname(PRIVATE), mode=0o755, exist_ok=True)
    os.makedirs(PRIVATE, mode=0o700, exist_ok=True)
    for entry in os.listdir(PRIVATE):
        if entry.startswith(f"{name}."):
            _remove_unless_held(os.path.join(PRIVATE, entry))
    path = tempfile.mkdtemp(prefix=f"{name}.", dir=PRIVATE)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        for place in ("tmp", "var-tmp"):
            os.mkdir(os.path.join(path, place))
            os.chmod(os.path.join(path, place), 0o1777)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def _remove_unless_held(path: str) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)


def _unshare(flags: int) -> bool:
    """False where the host does not permit it."""
    if _libc.unshare(flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.ENOSPC):
        return False
    raise OSError(number, os.strerror(number), "unshare")


def _mount(source: Optional[str], target: str, kind: Optional[str], flags: int) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    if _libc.mount(*words, ctypes.c_ulong(flags), None) != 0:
        _fail(f"mount {target}")


def _set_readonly(path: str, readonly: bool, recursive: bool) -> None:
    bits = (MOUNT_ATTR_RDONLY, 0) if readonly else (0, MOUNT_ATTR_RDONLY)
    attributes = struct.pack("QQQQ", *bits, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    arguments = (ctypes.c_int(AT_FDCWD), os.fsencode(path), ctypes.c_uint(flags), attributes)
    if _libc.syscall(ctypes.c_long(SYS_MOUNT_SETATTR), *arguments, ctypes.c_size_t(len(attributes))) != 0:
        _fail(f"mount_setattr {path}")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        _fail(f"prctl {option}")


def _fail(what: str) -> NoReturn:
    number = ctypes.get_errno()
    raise LaunchError(f"{what}: {os.strerror(number)}; sandbox.enabled: false starts the app without namespaces")


# --- cgroups


def own_cgroup(config: Config) -> Optional[Path]:
    """The program's cgroup with its limits; None where the unit that this runs below has no cgroups to give away."""
    unit = delegated_cgroup() if config.cgroup else None
    if unit is None:
        _report_limits(config.limits, "this program runs below no systemd unit with Delegate=yes")
        return None
    path = unit / APPS_CGROUP / config.cgroup
    path.mkdir(parents=True, exist_ok=True)
    if config.limits:
        _enable_controllers(unit, path)
    for name, (controller, file) in LIMITS.items():
        value = config.limits.get(name)
        if (path / file).exists():
            (path / file).write_text(limit_text(name, value) if value else "max", encoding="ascii")
        elif value:
            _report_limits({name: value}, f"the cgroups of this host have no controller {controller}")
    return path


def _report_limits(limits: Mapping[str, str], reason: str) -> None:
    for name, value in limits.items():
        say(f"limits.{name} {value} is not applied: {reason}")


def delegated_cgroup() -> Optional[Path]:
    """The nearest cgroup of a service, at or above this process, that systemd gave away to it (Delegate=yes)."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        if line.startswith("0::/"):
            path = Path(CGROUPS + line[len("0::") :].rstrip("/"))
            return next((each for each in (path, *path.parents) if _is_delegated(each)), None)
    return None


def _is_delegated(path: Path) -> bool:
    # A container's own root is given away, too, to the container's systemd, and a user's to that user's.
    if not path.name.endswith(".service") or path.name.startswith("user@"):
        return False
    for name in ("trusted.delegate", "user.delegate"):
        try:
            if os.getxattr(path, name) == b"1":
                return os.access(path / "cgroup.procs", os.W_OK)
        except OSError:
            continue
    return False


def _enable_controllers(unit: Path, path: Path) -> None:
    """From the unit's cgroup down to the program's. One with processes in it can't, so supervisord gets its own."""
    there = (unit / "cgroup.controllers").read_text(encoding="ascii").split()
    wanted = " ".join(f"+{name}" for name in sorted({controller for controller, _file in LIMITS.values()} & set(there)))
    if not wanted:
        return
    for _attempt in range(10):
        _move_all(unit, unit / MAIN_CGROUP)
        try:
            for each in (unit, *reversed([each for each in path.parents if unit in each.parents])):
                (each / "cgroup.subtree_control").write_text(wanted, encoding="ascii")
            return
        except OSError as error:
            # A process that was started meanwhile is in it.
            if error.errno != errno.EBUSY:
                raise
    raise LaunchError(f"{unit}: processes come faster than they can be moved to {MAIN_CGROUP}")


def _move_all(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for pid in (source / "cgroup.procs").read_text(encoding="ascii").split():
        try:
            (target / "cgroup.procs").write_text(pid, encoding="ascii")
        except ProcessLookupError:
            pass


def kill_all(cgroup: Path) -> None:
    """Kills every process of a cgroup (cgroup.kill, Linux 5.14, or one by one) and waits until they are gone."""
    end = time.monotonic() + KILL_SECONDS
    while processes(cgroup) and time.monotonic() < end:
        try:
            (cgroup / "cgroup.kill").write_text("1", encoding="ascii")
        except OSError:
            for pid in processes(cgroup):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        time.sleep(0.01)


def processes(cgroup: Path) -> list[int]:
    try:
        return [int(pid) for pid in (cgroup / "cgroup.procs").read_text(encoding="ascii").split()]
    except OSError:
        return []


def limit_text(name: str, value: str) -> str:
    """A limit as the kernel takes it, of one as systemd.resource-control(5) writes it."""
    if name == "cpu_quota":
        return f"{max(1000, round(float(value.rstrip('%')) * PERIOD / 100))} {PERIOD}"
    unit = {"K": 1, "M": 2, "G": 3, "T": 4}.get(value[-1:].upper(), 0) if name == "memory_max" else 0
    return str(int(value[:-1] if unit else value) * 1024**unit)


if __name__ == "__main__":
    main(sys.argv[1:])
