"""Commands of the host: their output, and their end at the limit."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.commands import output_of, run


def test_output_and_status() -> None:
    assert run(["/bin/sh", "-c", "echo a; echo b >&2; exit 3"], 30) == (3, "a\nb\n", "")
    assert run(["/bin/cat"], 30, given=b"text", stderr=subprocess.PIPE) == (0, "text", "")
    assert run(["/usr/bin/env"], 30).output.startswith("PATH=/usr/local/bin:")
    with pytest.raises(OSError, match="/no/such"):
        run(["/no/such"], 30)


def test_output_of_what_is_missing_or_hangs_is_empty() -> None:
    assert output_of("echo", "a", limit=30) == "a\n"
    assert output_of("/no/such", limit=30) == output_of("/bin/sh", "-c", "echo a; sleep 60", limit=0.5) == ""


@pytest.mark.parametrize("child", ["sleep 60", "trap '' TERM; sleep 60; sleep 60"])
def test_the_limit_ends_what_the_command_started(child: str) -> None:
    ended = run(["/bin/sh", "-c", f"({child}) >/dev/null 2>&1 & echo $!; wait"], 0.5)
    assert ended.status is None
    state = Path("/proc", ended.output.strip(), "stat")
    deadline = time.monotonic() + 10
    # Nobody may wait for it in a container.
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)
