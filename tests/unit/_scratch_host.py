"""A host whose /etc is a scratch directory: the real programs and the C library use it, the machine's own is untouched.

Each command has a mount namespace of its own with that directory in the place of /etc.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
PASSWD = ["root:x:0:0:root:/root:/bin/bash", "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin"]
GROUP = ["root:x:0:", "nobody:x:65534:"]


class ScratchHost:
    def __init__(self, folder: Path) -> None:
        self.etc = folder / "etc"
        self.etc.mkdir()
        for name, lines in (("passwd", PASSWD), ("group", GROUP), ("shadow", []), ("gshadow", [])):
            (self.etc / name).write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        (self.etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\n", encoding="ascii")
        (self.etc / "login.defs").write_text("UID_MIN 1000\nSYS_UID_MIN 201\nSYS_UID_MAX 999\nUSERGROUPS_ENAB yes\n")
        # Where the interpreter finds its libraries.
        for cache in ("ld.so.cache", "alternatives"):
            if (Path("/etc") / cache).is_dir():
                shutil.copytree(Path("/etc") / cache, self.etc / cache, symlinks=True)
            elif (Path("/etc") / cache).exists():
                shutil.copy(Path("/etc") / cache, self.etc)
        try:
            self.run("true")
        except (AssertionError, OSError) as error:
            pytest.skip(f"no mount namespace: {error}")

    def start(self, *command: str) -> subprocess.Popen[str]:
        script = f'mount --bind {self.etc} /etc && exec "$@"'
        return subprocess.Popen(
            [*UNSHARE, "/bin/sh", "-c", script, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, given: str = "") -> str:
        process = self.start(*command)
        output, errors = process.communicate(given, timeout=60)
        assert process.returncode == 0, errors
        return output

    def files(self) -> dict[str, bytes]:
        """All that is below /etc, by its path."""
        return {str(path.relative_to(self.etc)): path.read_bytes() for path in self.etc.rglob("*") if path.is_file()}

    def entry(self, user: str) -> list[str]:
        """The fields of an account, none when there is no such account."""
        lines = (self.etc / "passwd").read_text(encoding="ascii").splitlines()
        return next((line.split(":") for line in lines if line.startswith(f"{user}:")), [])
