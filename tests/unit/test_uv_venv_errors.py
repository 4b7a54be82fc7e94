"""What uv really printed, recorded, becomes one sentence with the cause; and no secret gets out."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.errors import Circumstances, explain
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.run import (
    Credential,
    netrc_text,
    scrub,
    tail,
    user_info,
)

OUTPUTS = Path(__file__).parent / "fixtures" / "uv_venv" / "outputs"
PYTHON = "/usr/bin/python3.12, 3.12.1 on x86_64"
ABOUT = Circumstances("the index https://pypi.example.com/simple", PYTHON, "/app/uv.lock")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("unreachable", "The index can't be reached at http://127.0.0.1:9/simple/beta/: Connection refused"),
        ("no-such-host", "can't be reached at https://no-such-host.invalid/simple/alpha/: failed to lookup address"),
        ("server-error", "The index can't be reached at http://127.0.0.1:8765/503/simple/alpha/: HTTP status server"),
        ("untrusted", "The certificate of https://pypi.org/simple/alpha/ is not trusted"),
        ("forbidden", "The index http://127.0.0.1:8765/403/simple refused access (403 Forbidden)"),
        ("disk-full", "The disk is full"),
        ("build-requirement", "sdisty 1.0 has to be built from source, and its build requirement setuptools was not"),
        ("build-misfit", "The build requirements of orders-app do not fit the versions that are pinned: Because you"),
        ("build-network", "orders-app could not be built from source. A build has no rights, no network, and no"),
        ("no-build", "sdisty has only a source distribution in the index https://pypi.example.com/simple, or no wheel"),
        ("no-build-url", "or set `source_distributions: [sdisty]` to have it built on the host by an account without"),
        ("requires-python", "newpy 1.0 needs Python >=3.99, and `python` is /usr/bin/python3.12, 3.12.1"),
    ],
)
def test_sentence(name, sentence):
    assert sentence in explain((OUTPUTS / f"{name}.txt").read_text(), ABOUT)


def test_a_program_that_does_not_start():
    sentence = explain("/opt/uv can't be started: Exec format error", ABOUT)
    assert sentence.startswith("`uv` can't be started (/opt/uv): Exec format error")


def test_unknown_words_are_not_guessed_at():
    assert "not known here" in explain("error: something new", ABOUT)


def test_scrub():
    text = "fetch https://bob:s3cret@x/simple, p@ss w/rd and p%40ss%20w%2Frd, git@host"
    assert scrub(text, ["p@ss w/rd", ""]) == "fetch https://***@x/simple, ******** and ********, git@host"


@pytest.mark.parametrize(
    "address",
    ["http://u:pw@x/simple", "https://u:pw@x", "u:pw@x/simple", "//u:pw@x", "http://[u:pw@x", "https://u:pw/1@x"],
)
def test_user_info(address):
    assert "u:pw" in user_info(address)
    assert user_info("https://x/simple") == user_info("") == ""


def test_what_uv_prints_steers_no_terminal():
    shown = tail(scrub("a\x1b[2Jb\x07\x9b1mc\r\n\n\td\x1b]0;x\n", ()))
    assert shown == "ab\\x07\\x9b1mc\\r\n\td\\x1b]0;x"


def test_netrc_quotes():
    assert netrc_text([Credential("h", "bob", 'a "b" \\c #d')]) == (
        'machine h login "bob" password "a \\"b\\" \\\\c #d"\n'
    )
