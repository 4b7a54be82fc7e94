"""Checks, as the app's user and in its environment, whether its server would start.

usage: check.py --bind ADDRESS --options NAME,NAME [--worker-class CLASS] [--loop NAME --http NAME] -- COMMAND...
COMMAND is the server's own check, which imports the app. It comes last and its output and status are the result's.
"""

import argparse
import difflib
import importlib.util
import ipaddress
import os
import pwd
import socket
import sys

LISTEN = "0A"


def listeners():
    """(address, port, uid) of each listening TCP socket, as the kernel lists them (proc_pid_net(5))."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as stream:
                rows = stream.readlines()[1:]
        except FileNotFoundError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == LISTEN:
                address, port = fields[1].split(":")
                yield address_of(address), int(port, 16), int(fields[7])


def address_of(digits):
    """The kernel prints an address as 32-bit words in the byte order of the host."""
    words = [int(digits[place : place + 8], 16).to_bytes(4, sys.byteorder) for place in range(0, len(digits), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address


def overlap(wanted, taken):
    return wanted == taken or wanted.is_unspecified or taken.is_unspecified


def check_bind(bind):
    if bind.startswith("unix:"):
        folder = os.path.dirname(bind[len("unix:") :])
        if not os.access(folder, os.W_OK | os.X_OK):
            sys.exit(f"bind {bind}: {pwd.getpwuid(os.getuid()).pw_name} can't create a socket in {folder}")
        return
    host, _colon, port = bind.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        sys.exit(f"bind {bind}: {host} is no address of this host: {error}")
    for wanted in {ipaddress.ip_address(entry[4][0]) for entry in found}:
        for address, taken, uid in listeners():
            # The app's own user is the version that runs now and makes place for this one.
            if taken == int(port) and overlap(wanted, address) and uid != os.getuid():
                owner = name_of(uid)
                sys.exit(
                    f"bind {bind}: port {port} is in use by a process of the user {owner};"
                    f" see: ss -ltnp 'sport = :{port}'"
                )


def name_of(uid):
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def check_options(names):
    """Gunicorn ignores unknown names in its configuration file."""
    from gunicorn.config import KNOWN_SETTINGS

    known = [setting.name for setting in KNOWN_SETTINGS]
    wrong = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            wrong.append(f"{name} is no setting of Gunicorn" + (f"; did you mean {near[0]}?" if near else ""))
    if wrong:
        sys.exit("\n".join(wrong))


def check_worker_class(name):
    """Gunicorn's own check does not import it."""
    from gunicorn.util import load_class

    # Where Gunicorn finds a class of the app's own.
    sys.path.insert(0, os.getcwd())
    try:
        load_class(name)
    except RuntimeError as error:
        # Its message holds the whole traceback, whose last line is the cause.
        cause = [line for line in str(error).splitlines() if line.strip(" ]")][-1]
        sys.exit(f"worker_class {name} can't be imported: {cause}")


def implementation(wanted, candidates):
    """What `auto` becomes: the first whose package is installed; the last needs none."""
    if wanted != "auto":
        return wanted
    return next(name for name, package in candidates if not package or importlib.util.find_spec(package))


def report(loop, http, native):
    parsers = [("fast", "gunicorn_h1c"), ("python", "")] if native else [("httptools", "httptools"), ("h11", "")]
    loops = [("uvloop", "uvloop"), ("asyncio", "")]
    print(f"uses loop {implementation(loop, loops)}, http {implementation(http, parsers)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bind", required=True)
    parser.add_argument("--options", default="")
    parser.add_argument("--worker-class", help="a worker class that the configuration file does not import by itself")
    parser.add_argument("--loop", help="the event loop of a server of ASGI apps")
    parser.add_argument("--http", help="its parser")
    parser.add_argument("--native", action="store_true", help="it is Gunicorn's own class asgi")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    if "gunicorn" in arguments.command:
        check_options([name for name in arguments.options.split(",") if name])
        if arguments.worker_class:
            check_worker_class(arguments.worker_class)
    check_bind(arguments.bind)
    if arguments.loop:
        report(arguments.loop, arguments.http, arguments.native)
    sys.stdout.flush()
    os.execv(arguments.command[0], arguments.command)


if __name__ == "__main__":
    main()
