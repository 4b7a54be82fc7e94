"""Checks whether supervisor would read a candidate of its configuration, beside the program files that are there.

usage: check.py STAGE, the folder under which the candidates lie at their full paths

Neither supervisord nor supervisorctl has an option that only checks its configuration, so their own parsers are called.
"""

import configparser
import glob
import os
import socket
import sys

from supervisor.options import ClientOptions, ServerOptions, UnhosedConfigParser

CONFIG = "/etc/supervisord.conf"
INCLUDED = "/etc/supervisord.d/*.ini"
PROGRAMS = "/etc/supervisord.d/_programs.ini"


def for_owner_alone(path, flags):
    """The candidate may hold a password, and others may pass through the folder."""
    return os.open(path, flags, 0o600)


def refuse_open_directories(servers):
    """Whoever may write to a socket's directory can put another one there, and receive the password."""
    for server in servers:
        if server["family"] == socket.AF_UNIX:
            directory = os.path.dirname(server["file"])
            where = "[{}] file={}".format(server["section"], server["file"])
            if not os.path.isdir(directory):
                sys.exit(f"{where}: there is no directory {directory}. Make it, with tmpfiles.d if it is below /run")
            found = os.stat(directory)
            # The package's /run/supervisor is open to the group root.
            open_to = 0o002 if found.st_gid == 0 else 0o022
            if found.st_uid != 0 or found.st_mode & open_to:
                sys.exit(f"{where}: others than root may write to {directory}; choose a directory of root's, mode 0755")


def refuse_shared_sections(written, others):
    """supervisor would merge two sections of one name, of which one is nobody's any more."""
    ours = sections_of(written)
    for path in others:
        for name in sorted(sections_of(path) & ours):
            sys.exit(f"[{name}] is in {path} and in a list of the role supervisor: remove it from one of them")


def sections_of(path):
    parser = UnhosedConfigParser()
    try:
        parser.read(path)
    except configparser.Error:
        # What is wrong with it, supervisor's own parser reports.
        return set()
    return set(parser.sections())


def main(stage):
    staged = glob.glob(stage + INCLUDED)
    kept = [path for path in glob.glob(INCLUDED) if not os.path.exists(stage + path)]
    with open(stage + CONFIG, encoding="utf-8") as source:
        text = source.read()
    candidate = stage + CONFIG + ".check"
    with open(candidate, "w", encoding="utf-8", opener=for_owner_alone) as target:
        target.write(text.replace("files=" + INCLUDED, "files=" + " ".join([*staged, *kept])))
    refuse_shared_sections(stage + PROGRAMS, kept)
    options = ServerOptions()
    options.realize(["-n", "-c", candidate])
    refuse_open_directories(options.server_configs)
    ClientOptions().realize(["-c", candidate, "status"])


if __name__ == "__main__":
    main(sys.argv[1])
