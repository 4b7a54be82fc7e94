"""Worker counts, binds and the syntaxes of the files that the roles write."""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _serving
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._supervisor_config import COMMENT
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from supervisor.options import UnhosedConfigParser, dict_of_key_value_pairs
from supervisor.options import expand as supervisor_expand

pytestmark = pytest.mark.controller

UVICORN = "uvicorn_worker.UvicornWorker"
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
ONE_LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)


@pytest.mark.parametrize(
    ("workers", "worker_class", "cpus", "memory", "count"),
    [
        ("auto", UVICORN, 2, 16000, 2),
        ("auto", "asgi", 8, 16000, 8),
        ("auto", "uvicorn", 1, 16000, 1),
        ("auto", "gevent", 4, 16000, 4),
        ("auto", "sync", 2, 16000, 5),
        ("auto", "gthread", 4, 16000, 9),
        ("classic", UVICORN, 2, 16000, 5),
        ("auto", UVICORN, 64, 4000, 16),
        ("auto", UVICORN, 4, 100, 1),
        (7, UVICORN, 2, 100, 7),
        ("3", "sync", 2, 16000, 3),
    ],
)
def test_worker_plan(workers, worker_class, cpus, memory, count) -> None:
    plan = _serving.worker_plan(workers, worker_class, cpus, memory, 200)
    assert plan["count"] == count
    assert plan["reason"].startswith(str(count))


def test_worker_plan_says_what_bounds_it() -> None:
    assert "4000 MiB" in _serving.worker_plan("auto", UVICORN, 64, 4000, 200)["reason"]


@pytest.mark.parametrize("workers", ["many", 0, -1, "", None, 1.5j])
def test_worker_plan_refuses(workers) -> None:
    with pytest.raises((_serving.ServingError, TypeError)):
        _serving.worker_plan(workers, UVICORN, 2, 16000, 200)


@pytest.mark.parametrize(
    ("bind", "parts", "url"),
    [
        ("127.0.0.1:8000", {"host": "127.0.0.1", "port": 8000}, "http://127.0.0.1:8000/h"),
        ("0.0.0.0:80", {"host": "0.0.0.0", "port": 80}, "http://127.0.0.1:80/h"),
        ("[::]:8000", {"host": "::", "port": 8000}, "http://[::1]:8000/h"),
        ("localhost:1", {"host": "localhost", "port": 1}, "http://localhost:1/h"),
        ("unix:/run/a/b.sock", {"uds": "/run/a/b.sock"}, "http://localhost/h"),
    ],
)
def test_bind(bind, parts, url) -> None:
    assert _serving.split_bind(bind) == parts
    probe = _serving.probe_address(bind, "/h")
    assert probe == {"url": url, "unix_socket": parts.get("uds", "")}


@pytest.mark.parametrize(
    "bind", ["", "8000", "host", "host:", "host:0", "host:65536", "host:x", "unix:rel", ":::80", "a b:1"]
)
def test_bind_refused(bind) -> None:
    with pytest.raises(_serving.ServingError, match="bind is"):
        _serving.split_bind(bind)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, TEXTS, max_size=6))
def test_a_shell_reads_the_environment_back(variables) -> None:
    # What the shell itself sets or refuses to set.
    variables = {f"V_{name}": value for name, value in variables.items()}
    script = f"set -a\n{_serving.shell_environment(variables)}exec {sys.executable} -c " + (
        '\'import os, sys; sys.stdout.buffer.write(b"\\0".join(k + b"=" + v for k, v in os.environb.items()))\''
    )
    done = subprocess.run(["/bin/sh", "-s"], input=script.encode(), capture_output=True, check=True, env={})
    found = dict(item.split(b"=", 1) for item in done.stdout.split(b"\0"))
    assert {k: found[k.encode()] for k in variables} == {k: v.encode() for k, v in variables.items()}


@pytest.mark.parametrize("variables", [{"A B": "x"}, {"1A": "x"}, {"A": None}, {"A": []}, {"A": "a\0b"}, {"A.B": "x"}])
def test_shell_environment_refuses(variables) -> None:
    with pytest.raises(_serving.ServingError):
        _serving.shell_environment(variables)


def test_scalars_as_a_user_means_them() -> None:
    assert _serving.shell_environment({"A": True, "B": 1, "C": 1.5}) == "A=true\nB=1\nC=1.5\n"


def posix_pairs(arg: str) -> dict[str, str]:
    """dict_of_key_value_pairs as supervisor's next release has it (its pull request 1613)."""
    lexer = shlex.shlex(arg, posix=True)
    lexer.wordchars += "/.+-():"
    tokens = list(lexer)
    found = {}
    for start in range(0, len(tokens), 4):
        key, equals, value = tokens[start : start + 3]
        assert equals == "="
        found[key] = value
    return found


# What the parsers disagree about is rare in random text.
AWKWARD = st.text(st.sampled_from("\\\"'a ,=$n#%"), max_size=8)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, ONE_LINE | AWKWARD, min_size=1, max_size=5))
def test_each_supervisor_reads_the_environment_back(variables) -> None:
    try:
        rendered = _serving.supervisor_options({"command": "/bin/x", "environment": variables})
    except _serving.ServingError:
        ends = {text[place : place + 1] for text in variables.values() for place in (0, len(text) - 1)}
        both = any("'" in text and ('"' in text or "\\" in text) for text in variables.values())
        assert both or ends & {"'", '"'}
        return
    assume(not any(COMMENT.search(text) for text in variables.values()))
    parser = UnhosedConfigParser()
    parser.read_string(f"[program:x]\n{rendered}")
    value = parser.saneget("program:x", "environment", default=None, do_expand=False)
    expanded = supervisor_expand(value, {"here": "/"}, "environment")
    assert dict_of_key_value_pairs(expanded) == variables
    assert posix_pairs(expanded) == variables


@pytest.mark.parametrize("value", ["C:\\new\\x", "a\\\\b", 'say \\"so\\" now', "\\", ""])
def test_backslashes_stay(value) -> None:
    rendered = _serving.supervisor_options({"environment": {"A": value, "B": "b"}})
    text = rendered.partition("=")[2].strip()
    assert dict_of_key_value_pairs(text) == posix_pairs(text) == {"A": value, "B": "b"}


def test_what_has_no_backslash_is_written_as_before() -> None:
    """So that no program file changes for nothing."""
    assert _serving.supervisor_options({"environment": {"A": "it's", "B": "x"}}) == 'environment=A="it\'s",B="x"\n'


@pytest.mark.parametrize("value", ["'", '"', 'it\'s "so"', "ends'", '"starts', "it's \\ x"])
def test_what_supervisor_can_not_hold_is_refused(value) -> None:
    with pytest.raises(_serving.ServingError, match="can't hold"):
        _serving.supervisor_options({"environment": {"A": value}})


def test_supervisor_options() -> None:
    options = {"command": "/bin/x 100%", "autostart": True, "exitcodes": [0, 2], "startsecs": 2}
    assert _serving.supervisor_options(options) == "command=/bin/x 100%%\nautostart=true\nexitcodes=0,2\nstartsecs=2\n"
    with pytest.raises(_serving.ServingError, match="line break"):
        _serving.supervisor_options({"command": "a\nuser=root"})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    )
)
def test_python_reads_its_literals_back(value) -> None:
    assert ast.literal_eval(_serving.python_literal(value)) == value


def test_systemd_quote() -> None:
    assert _serving.systemd_quote('A=50% "x" \\') == '"A=50%% \\"x\\" \\\\"'


@pytest.mark.parametrize(
    ("apps", "seconds"),
    [
        ([], 90),
        ([{"name": "a"}], 90),
        ([{}, {}, {}], 150),
        ([{"graceful_timeout": 300}], 340),
        ([{"graceful_timeout": 300, "supervisor": {"stopwaitsecs": 400}}], 430),
        # Both slots run during a deploy.
        ([{"graceful_timeout": 60, "server_names": ["x"]}], 170),
    ],
)
def test_stop_budget(apps, seconds) -> None:
    assert _serving.stop_budget(apps) == seconds
