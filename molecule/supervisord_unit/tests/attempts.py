"""What a program of supervisord may do, tried by root below the unit. Prints JSON: attempt -> "" or the error's name.

Runs inside a test host, on the platform's Python.
"""

import ctypes
import errno
import json
import mmap
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
from multiprocessing import Pool
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_NS, NEW_UTS, NEW_USER, NEW_PID, NEW_NET = 0x20000, 0x4000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
FOLDER = Path(tempfile.mkdtemp())


def call(name, *arguments):
    if getattr(LIBC, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def in_child(action):
    """Runs an action in a process of its own; its exit status is the error's number."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(status, "in a child")


def namespaces(flags):
    return lambda: in_child(lambda: call("unshare", flags))


def launch():
    """As the launcher does: namespaces, a view of its own, another account, no new privileges."""
    call("unshare", NEW_NS | NEW_PID | NEW_NET)
    in_child(enter)


def enter():
    call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    call("mount", b"tmpfs", b"/tmp", b"tmpfs", 0, None)
    call("mount", b"/var/lib", b"/var/lib", None, MS_BIND | MS_REC, None)
    call("mount", None, b"/var/lib", None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)
    call("mount", b"proc", b"/proc", b"proc", 0, None)
    if os.getpid() != 1 or Path("/proc/1/comm").read_text() != Path("/proc/self/comm").read_text():
        raise OSError(errno.ESRCH, "another process is the first")
    account = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    call("prctl", 38, 1, 0, 0, 0)


def cgroup():
    """A child moves into a cgroup below the unit's, and the kernel ends it there."""
    unit = next(row for row in Path("/proc/self/cgroup").read_text().splitlines() if row.startswith("0::"))[3:]
    folder = Path("/sys/fs/cgroup" + unit) / "attempt"
    folder.mkdir()
    child = os.fork()
    if child == 0:
        signal.pause()
    (folder / "cgroup.procs").write_text(str(child))
    (folder / "cgroup.kill").write_text("1")
    os.waitpid(child, 0)
    folder.rmdir()


def setuid_file():
    path = FOLDER / "file"
    path.touch()
    path.chmod(0o4755)


def executable_memory():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def processes():
    with Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]


ATTEMPTS = {
    "launch": lambda: in_child(launch),
    "cgroup": cgroup,
    "executable memory": executable_memory,
    "processes": processes,
    "another account": lambda: subprocess.run(["su", "nobody", "-s", "/bin/true"], check=True),
    "user namespace": namespaces(NEW_USER),
    "host name namespace": namespaces(NEW_UTS),
    "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0),
    "setuid file": setuid_file,
    "ptrace": lambda: in_child(lambda: call("ptrace", 0, 0, 0, 0)),
    "device": lambda: os.mknod(FOLDER / "device", 0o20600, os.makedev(1, 3)),
}


def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return ""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps({name: attempt(action) for name, action in ATTEMPTS.items()}))
