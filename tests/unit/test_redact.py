"""What people read of a program's output, and what the next task needs."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _redact
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import (
    HIDDEN,
    REDACTED,
    Output,
    printable,
    redact,
    without_secrets,
)
from hypothesis import given
from hypothesis import strategies as st

DSN = "postgresql://app:5up3r-S3cr3t@db.internal/app-production-database"
KEY = "sk-live-0123456789abcdefghijklmnopqrstuv"
PLAIN = st.characters(codec="utf-8", exclude_categories=("Cs",))


@pytest.mark.parametrize(
    ("text", "secrets", "expected"),
    [
        (f"could not connect to {DSN}.", [DSN], f"could not connect to {REDACTED}."),
        # pydantic
        ("input_value='postgre...pp-production-database'", [DSN], f"input_value='{REDACTED}'"),
        ("input_value='postgresql://app:5up3r-S...pp-production-database'", [DSN], f"input_value='{REDACTED}'"),
        ("got 'postgresql://app:5u…'", [DSN], f"got '{REDACTED}…'"),
        ("tail [...]tion-database", [DSN], f"tail [...]{REDACTED}"),
        # 29 of 40 characters
        (f"bad key {KEY[:29]}", [KEY], f"bad key {REDACTED}"),
        (f"bad key {KEY[-29:]}!", [KEY], f"bad key {REDACTED}!"),
        (f"{KEY[:20]}***", [KEY], f"{REDACTED}***"),
        # What only begins alike is left as it is.
        ("postgresql.service failed, postgresql is down...", [DSN], "postgresql.service failed, postgresql is down..."),
        ("see https://example.org/x", ["https://hooks.internal/T0/B0/token"], "see https://example.org/x"),
        # Too short to be distinguished from what is there by chance.
        (
            "release 1c2d3e4f5a6b at /opt/fastapi/apps/a",
            ["a", "1", "app"],
            "release 1c2d3e4f5a6b at /opt/fastapi/apps/a",
        ),
        ("it is hunter2.", ["hunter2"], f"it is {REDACTED}."),
        ("?key=a%26b%3Dcdefg", ["a&b=cdefg"], f"?key={REDACTED}"),
        (repr("two\nlines of 'it'\""), ["two\nlines of 'it'\""], f"'{REDACTED}'"),
        (json.dumps({"k": 'say "so" again'}), ['say "so" again'], f'{{"k": "{REDACTED}"}}'),
        (
            "line MIIEvQIBADANBg of a key",
            ["-----BEGIN X-----\nMIIEvQIBADANBg\n-----END X-----"],
            f"line {REDACTED} of a key",
        ),
        ("nothing", ["", "nothing here"], "nothing"),
        # The longer one of two that overlap goes first.
        ("x hunter2-hunter2 y", ["hunter2", "hunter2-hunter2"], f"x {REDACTED} y"),
    ],
)
def test_redact(text: str, secrets: list[str], expected: str) -> None:
    assert redact(text, secrets) == expected


@given(st.text(PLAIN, max_size=60), st.text(PLAIN, min_size=5, max_size=40), st.text(PLAIN, max_size=60))
def test_no_secret_is_left_whole(before: str, secret: str, after: str) -> None:
    left = redact(f"{before}{secret}{after}", [secret])
    # What was around it may complete one again only if the secret has stars itself.
    assert "*" in secret or secret not in left


@given(
    st.text(st.sampled_from("abcdefgh0123-/:"), min_size=20, max_size=60),
    st.integers(0, 19),
    st.integers(0, 19),
    st.sampled_from(["...", "…", " [...] ", "***", "<...>", "....", " ... "]),
)
def test_no_long_part_is_left_beside_a_cut(secret: str, head: int, tail: int, cut: str) -> None:
    shown = f"'{secret[:head]}{cut}{secret[len(secret) - tail :]}'"
    left = redact(shown, [secret])
    assert head < 8 or secret[:head] not in left
    assert tail < 8 or secret[len(secret) - tail :] not in left
    assert head + tail < 8 or left != shown


@given(st.text(PLAIN, max_size=200), st.lists(st.text(PLAIN, max_size=4)))
def test_short_values_change_nothing(text: str, secrets: list[str]) -> None:
    assert redact(text, secrets) == text


def test_long_texts_take_no_time() -> None:
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *["abcdefgh" * 8] * 50, "-----END PRIVATE KEY-----"])
    text = ("." * 10 + " " * 50 + "abcdefgh" + "...") * 2000
    assert KEY not in redact(text + KEY, [key, KEY])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b]0;owned\x07\x1b[2J", "\\x1b]0;owned\\x07\\x1b[2J"),
        ("50%\r100%", "50%\\r100%"),
        ("\x9b31m", "\\x9b31m"),
        ("admin\u202egnp.exe\u2066", "admin\\u202egnp.exe\\u2066"),
        ("grün 🐟", "grün 🐟"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(st.text(PLAIN))
def test_nothing_printable_steers_a_terminal(text: str) -> None:
    shown = printable(text)
    assert not any((ord(char) < 32 and char not in "\t\n") or 0x7F <= ord(char) < 0xA0 for char in shown)
    assert printable(shown) == shown


SPEC = {
    "redact": {"type": "list", "no_log": True},
    "password": {"type": "str", "no_log": True},
    "name": {"type": "str"},
    "files": {"type": "list", "options": {"path": {}, "secret_content": {"no_log": True}}},
    "login": {"type": "dict", "options": {"user": {}, "password": {"no_log": True}}},
}
ARGUMENTS = {
    "redact": ["hunter2", "a"],
    "password": "",
    "name": "orders",
    "files": [{"path": "/a", "secret_content": "hunter2"}, {"path": "/b", "secret_content": None}],
    "login": {"user": "u", "password": "hunter2"},
}


def test_arguments_are_shown_without_secrets() -> None:
    assert without_secrets(ARGUMENTS, SPEC) == {
        "redact": HIDDEN,
        "password": "",
        "name": "orders",
        "files": [{"path": "/a", "secret_content": HIDDEN}, {"path": "/b", "secret_content": None}],
        "login": {"user": "u", "password": HIDDEN},
    }


class Module:
    """What Output uses of AnsibleModule."""

    def __init__(self) -> None:
        self.params, self.argument_spec, self.no_log_values = ARGUMENTS, SPEC, {"hunter2", "a"}


def test_only_texts_for_people_are_redacted() -> None:
    module = Module()
    output = Output(module, ["hunter2", "a"])
    assert module.no_log_values == set()
    found = output.result(
        {
            "release": "1c2hunter2",
            "output": ["uses hunter2\x1b[2J"],
            "processes": [{"name": "a", "spawn_error": "hunter2?", "log_tail": {"stdout": ["hunter2"]}, "pid": 5}],
            "causes": [{"cause": "hunter2"}],
            "reason": None,
        }
    )
    assert found == {
        "release": "1c2hunter2",
        "output": [f"uses {REDACTED}\\x1b[2J"],
        "processes": [{"name": "a", "spawn_error": f"{REDACTED}?", "log_tail": {"stdout": [REDACTED]}, "pid": 5}],
        "causes": [{"cause": REDACTED}],
        "reason": None,
    }


def test_the_shortest_that_is_redacted_is_what_the_check_warns_about() -> None:
    assert redact("abcd", ["abcd"]) == "abcd"
    assert redact("abcde", ["abcde"]) == REDACTED
    assert _redact.SHORTEST == 5


RUNNER = """
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.asgiops.fastapi_host.plugins.modules.file_set import main
with patch_module_args(json.load(sys.stdin)):
    main()
"""


def run_file_set(**arguments: Any) -> dict[str, Any]:
    """The module as Ansible runs it, with all that -vvv shows of its result."""
    pytest.importorskip("ansible.module_utils.testing")
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        input=json.dumps(arguments),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return dict(json.loads(done.stdout))


def test_a_module_returns_its_paths_whole_and_no_secret(tmp_path: Path) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    place = {"owner": me, "group": "root" if me == "root" else me, "mode": "0600"}
    path, secret = str(tmp_path / "a-file"), "sk-live-0123456789"
    files = [{**place, "path": path, "secret_content": f"KEY={secret}\n"}]
    found = run_file_set(files=files, redact=["a", secret])
    assert found["differences"][0].startswith(path)
    assert found["invocation"]["module_args"]["files"][0]["path"] == path
    assert Path(path).read_text() == f"KEY={secret}\n"
    assert secret not in json.dumps(found)


@pytest.mark.skipif(os.geteuid() != 0, reason="candidates lie below /run")
def test_what_a_check_prints_is_for_people(tmp_path: Path) -> None:
    secret = "sk-live-0123456789"
    program = tmp_path / "check.py"
    argument = f"--key={secret}"
    program.write_text(f"print('a \\x1b[2J {secret[:12]}... {secret}'); raise SystemExit(1)")
    files = [{"path": str(tmp_path / "f"), "content": "x"}]
    failed = run_file_set(
        files=files, redact=["a", secret], checks=[{"argv": [sys.executable, str(program), argument]}]
    )
    assert f"a \\x1b[2J {REDACTED}... {REDACTED}" in failed["msg"]
    # Neither in what -vvv shows of its arguments.
    assert failed["invocation"]["module_args"]["checks"][0]["argv"][2] == f"--key={REDACTED}"
    assert secret[:12] not in json.dumps(failed)
