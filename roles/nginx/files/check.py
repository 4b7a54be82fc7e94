"""Tests a candidate of nginx's configuration; a name that an app shares with a server of somebody else is an error.

usage: check.py STAGE, the folder under which the candidates lie at their full paths

nginx only warns of such a name, gives all its requests to the server that it reads first, and does not say where the
other one is.
"""

import re
import subprocess
import sys

CONFIG = "/etc/nginx/nginx.conf"
OURS = "/etc/nginx/conf.d/fastapi.conf"
CONFLICT = re.compile(r'conflicting server name "([^"]*)" on ([^,\s]+), ignored')
FILE = re.compile(r"^# configuration file (.+):$", re.MULTILINE)
NAMES = re.compile(r"^[^#\n]*?\bserver_name\s+([^;]+);", re.MULTILINE)


def names_by_file(dump, stage):
    """The server names of each file of a dump (nginx -T)."""
    _before, *parts = FILE.split(dump)
    found = {}
    for path, text in zip(parts[::2], parts[1::2]):
        names = {name.strip("\"'").lower() for group in NAMES.findall(text) for name in group.split()}
        found[path.replace(stage, "")] = names
    return found


def has(names, name):
    """.example.com is short for example.com and *.example.com."""
    bare = name[2:] if name.startswith("*.") else name
    return name in names or f".{bare.lstrip('.')}" in names


def main(stage):
    # nginx makes logs that are not there yet, in a test as well: closed to other accounts.
    done = subprocess.run(["nginx", "-T", "-c", stage + CONFIG], capture_output=True, check=False, umask=0o027)
    messages = done.stderr.decode("utf-8", "replace")
    if done.returncode:
        print(messages, end="")
        return done.returncode
    for line in messages.splitlines():
        if "[warn]" in line:
            print(line)
    files = names_by_file(done.stdout.decode("utf-8", "replace"), stage)
    failed = 0
    for name, address in dict.fromkeys(CONFLICT.findall(messages)):
        places = [path for path, names in files.items() if has(names, name)]
        if OURS in places:
            failed = 1
            others = ", ".join(path for path in places if path != OURS) or "another server of the same file"
            print(f"error: server_name {name or '(none)'} on {address}: an app has it, and so has {others}")
    if failed:
        print("Remove the name there, or from server_names of the app. nginx goes on with the configuration before.")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
