# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rewrite the roles' vars/main/pins.yml: the versions and hashes of what the roles install by themselves.

Without options the versions stay as they are and only what is missing is resolved, so the same files come out.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CHECKOUT = Path(__file__).resolve().parents[2]
UV = CHECKOUT / ".venv" / "bin" / "uv"
INDEX = "https://pypi.org/simple"
HEADER = """\
---
# Written by tests/tools/refresh_pins.py (--upgrade moves the versions); do not edit.
# {what}
"""


@dataclass(frozen=True)
class PinFile:
    path: str
    variable: str
    shape: Literal["mapping", "list", "string"]
    packages: tuple[str, ...]
    python: str
    """The oldest Python that must be able to use the pins; the resolution holds for all newer ones."""
    what: str


PIN_FILES = (
    PinFile(
        path="roles/gunicorn_uvicorn/vars/main/pins.yml",
        variable="__gunicorn_uvicorn_pins",
        shape="mapping",
        packages=("gunicorn", "uvicorn", "uvicorn-worker", "gevent", "packaging", "tornado"),
        python="3.11",
        what="The server packages that an app's own lock file may lack, with all they need; Python 3.11 and newer.",
    ),
    PinFile(
        path="roles/python_venv/vars/main/pins.yml",
        variable="__python_venv_uv_requirement",
        shape="string",
        packages=("uv",),
        python="3.9",
        what="The uv that builds the environments; Python 3.9 and newer.",
    ),
    PinFile(
        path="roles/python_venv/vars/main/pins-build.yml",
        variable="__python_venv_build_requirements",
        shape="list",
        packages=(
            "flit-core",
            "hatch-vcs",
            "hatchling",
            "pdm-backend",
            "poetry-core",
            "setuptools",
            "setuptools-scm",
            "uv-build",
            "wheel",
        ),
        python="3.11",
        what="The build back ends of projects that pin none in their lock, with all they need; Python 3.11 and newer.",
    ),
    PinFile(
        path="roles/supervisor/vars/main/pins.yml",
        variable="__supervisor_pip_requirements",
        shape="list",
        packages=("supervisor",),
        python="3.9",
        what="The supervisor that is installed where pip is asked for instead of the package; Python 3.9 and newer.",
    ),
)


def known_versions(text: str) -> str:
    """What the file pins today, as requirements without hashes (uv would copy old hashes unchecked)."""
    return "\n".join(re.findall(r"^ *([\w.-]+==\S+)", text, re.MULTILINE))


def resolve(pins: PinFile, today: str, upgrade: list[str] | None) -> str:
    moves = ["--upgrade"] if upgrade == [] else [f"--upgrade-package={name}" for name in upgrade or ()]
    environment = {name: value for name, value in os.environ.items() if not re.match(r"UV_.*(INDEX|LINKS)", name)}
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "pins.txt")
        output.write_text(today)
        command = [UV, "pip", "compile", "-", "--quiet", "--no-config", "--default-index", INDEX, *moves]
        command += ["--universal", "--generate-hashes", "--no-header", "--no-annotate"]
        command += ["--python-version", pins.python, "--output-file", output]
        subprocess.run(command, input="\n".join(pins.packages), text=True, check=True, timeout=120, env=environment)
        return output.read_text()


def requirements(compiled: str) -> dict[str, list[str]]:
    """Package -> the requirement and its hashes, in the order of uv, which sorts both. No host runs Windows."""
    found: dict[str, list[str]] = {}
    for line in compiled.replace("\\\n", " ").splitlines():
        requirement, *hashes = re.split(r"\s+(?=--hash=)", line.strip())
        if "sys_platform == 'win32'" in requirement:
            continue
        name = re.split(r"[ =;]", requirement)[0]
        if name in found:
            raise SystemExit(f"{name}: one version for all Pythons is needed, uv found several; pin it further")
        found[name] = [requirement, *hashes]
    return found


def render(pins: PinFile, found: Mapping[str, list[str]]) -> str:
    return HEADER.format(what=pins.what) + "\n".join(yaml_lines(pins, found)) + "\n"


def yaml_lines(pins: PinFile, found: Mapping[str, list[str]]) -> Iterator[str]:
    if pins.shape == "string":
        (parts,) = found.values()
        yield f"{pins.variable}: >-"
        yield from (f"  {part}" for part in parts)
        return
    yield f"{pins.variable}:"
    for name, parts in found.items():
        yield f"  {name}: >-" if pins.shape == "mapping" else "  - >-"
        yield from (f"    {part}" for part in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--upgrade", nargs="*", metavar="NAME[==VERSION]", help="move these packages, or all of them when none is named"
    )
    upgrade = parser.parse_args().upgrade
    for pins in PIN_FILES:
        path = CHECKOUT / pins.path
        before = path.read_text() if path.exists() else ""
        after = render(pins, requirements(resolve(pins, known_versions(before), upgrade)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(after)
        print(f"{pins.path}: {'unchanged' if after == before else 'written'}", file=sys.stderr)


if __name__ == "__main__":
    main()
