"""The module as Ansible runs it: answers, diffs, secrets, and runs that are cut off."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.environment import VenvError
from fixtures.uv_venv.host import UV, Host, Index

pytest.importorskip("ansible.module_utils.testing")
pytestmark = [
    pytest.mark.controller,
    pytest.mark.skipif(not os.path.exists(UV), reason="uv is not beside the interpreter"),
]

RUNNER = """
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.asgiops.fastapi_host.plugins.modules.uv_venv import main
with patch_module_args(json.load(sys.stdin)):
    main()
"""
PASSWORD = 's3 cr"et#%40\\'


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    made.write_lock(made.wheel("alpha", requires=["beta>=1"]), made.wheel("beta"))
    return made


def start(host, **changes):
    options = {
        "path": str(host.link),
        "python": sys.executable,
        "uv": UV,
        "lock": str(host.lock),
        "wheelhouse": str(host.wheelhouse),
        "compile_bytecode": False,
        "timeout": 60,
    }
    options.update(changes)
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdin.write(json.dumps({name: value for name, value in options.items() if value is not None}))
    process.stdin.close()
    process.stdin = None
    return process


def run(host, **changes):
    out, err = start(host, **changes).communicate(timeout=60)
    assert out, err
    return json.loads(out)


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_the_answer(host):
    host.lock.write_text("--index-url https://pypi.example.com/simple\n" + host.lock.read_text())
    predicted = run(host, _ansible_check_mode=True, _ansible_diff=True)
    answer = run(host, _ansible_diff=True)
    assert answer["changed"] and predicted["changed"]
    assert answer["diff"] == predicted["diff"]
    assert (answer["diff"]["before"], answer["diff"]["after"]) == ("", "alpha==1.0\nbeta==1.0\n")
    assert "--index-url on line 1 of the lock is not followed" in json.dumps(answer["warnings"])
    documented = {"path", "build", "fingerprint", "reasons", "python_version", "packages", "added"}
    assert documented <= set(answer)
    again = run(host)
    assert not again["changed"]
    assert "diff" not in again
    assert {name: again[name] for name in documented - {"reasons"}} == {
        name: answer[name] for name in documented - {"reasons"}
    }


def test_a_failure_is_an_answer_too(host):
    answer = run(host, lock=str(host.app / "absent.txt"))
    assert answer["failed"]
    assert answer["msg"] == (
        f"lock={host.app / 'absent.txt'} does not exist: install or copy it before this task, or correct the option"
    )


# -- secrets -----------------------------------------------------------------------------------------------------


@pytest.fixture
def watched_uv(tmp_path):
    """The real uv, after a note of all that others on the host could see of it."""
    log = tmp_path / "seen"
    log.mkdir()
    script = tmp_path / "watched-uv"
    script.write_text(
        f'#!/bin/sh\n{{ echo "$@"; env; }} >> {log}/open\nstat -c %a "$NETRC" "$(dirname "$NETRC")" >> {log}/modes\n'
        f'cat "$NETRC" >> {log}/netrc\nexec {UV} "$@"\n'
    )
    script.chmod(0o755)
    return script, log


def through(index, password=PASSWORD):
    login = {"host": "127.0.0.1", "username": "bob", "password": password}
    return {"wheelhouse": None, "index_url": index.url, "credentials": [login]}


def test_the_password_reaches_the_index_and_nothing_else(host, watched_uv):
    script, log = watched_uv
    with Index(host.wheelhouse, login=f"bob:{PASSWORD}") as index:
        process = start(host, uv=str(script), **through(index))
        out, err = process.communicate(timeout=60)
    answer = json.loads(out)
    assert answer.get("packages") == {"alpha": "1.0", "beta": "1.0"}, answer
    assert 'password "s3 cr\\"et#%40\\\\"' in (log / "netrc").read_text()
    assert set((log / "modes").read_text().split()) == {"600", "700"}
    assert "pip sync" in (log / "open").read_text()
    assert host.beside() == {"orders", Path(answer["build"]).name}, "nothing of the login stays"
    printed = [out, err, (log / "open").read_text()]
    printed += [path.read_text(errors="replace") for path in host.venvs.rglob("*") if path.is_file()]
    assert not [text for text in printed if 'cr"et' in text or 'cr\\"et' in text]


def test_a_wrong_password(host):
    with Index(host.wheelhouse, login="bob:another") as index:
        answer = run(host, **through(index))
    assert answer["msg"].startswith(
        f"The index {index.url} refused access (401 Unauthorized): check its URL, and the host"
    )
    assert 'cr"et' not in answer["msg"]
    assert host.beside() == set()


@pytest.mark.parametrize(
    "options",
    [
        {"index_url": "https://bob:s3cret@pypi.example.com/simple"},
        {"extra_index_urls": ["https://pypi.example.com/simple", "http://u:s3cret@127.0.0.1:9/simple"]},
        {"extra_index_urls": ["http://u:s3cret@[127.0.0.1:9/simple"]},
        {"extra_index_urls": ["u:s3cret@127.0.0.1:9/simple"]},
        {"index_url": "https://s3cret@pypi.example.com/simple"},
        {"index_url": "https://bob:s3cret/1@pypi.example.com/simple"},
        {"credentials": [{"host": "bob:s3cret@127.0.0.1", "username": "bob", "password": "x"}]},
        {"credentials": [{"host": "127.0.0.1", "username": "bob", "password": "s3cret\nx"}]},
    ],
)
def test_a_planted_password_does_not_come_back(host, options):
    for check in (False, True):
        out, err = start(host, wheelhouse=None, _ansible_check_mode=check, **options).communicate(timeout=60)
        answer = json.loads(out)
        assert answer["failed"]
        assert "credentials" in answer["msg"]
        assert "s3cret" not in out + err


def test_an_own_authority(host, tmp_path, monkeypatch, watched_uv):
    script, log = watched_uv
    for name, value in (("SSL_CERT_FILE", "/host/ca"), ("https_proxy", "http://proxy.example.com"), ("OTHER", "x")):
        monkeypatch.setenv(name, value)
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    run(host, uv=str(script))
    assert {"SSL_CERT_FILE=/host/ca", "https_proxy=http://proxy.example.com"} <= set((log / "open").read_text().split())
    assert "OTHER" not in (log / "open").read_text()
    (log / "open").unlink()
    host.write_lock(host.wheel("beta"))
    run(host, uv=str(script), ca_bundle=str(bundle))
    assert f"SSL_CERT_FILE={bundle}" in (log / "open").read_text()
    assert "/host/ca" not in (log / "open").read_text()


# -- cut off -----------------------------------------------------------------------------------------------------


@pytest.fixture
def half_way(host):
    """A run that waits for a silent index in the middle of a build, over an environment that is published."""
    old = host.ensure()
    host.write_lock(host.wheel("alpha", "2.0"))
    with Index(host.wheelhouse) as index:
        index.go_on.clear()
        process = start(host, wheelhouse=None, index_url=index.url)
        wait_for(index.reached.is_set)
        yield old, process, index
        process.kill()
        process.communicate()


def test_killed(host, half_way):
    old, process, index = half_way
    process.kill()
    process.wait()
    assert os.readlink(host.link) == Path(old.build).name
    # uv lives on and writes: nobody may build in the same place yet.
    with pytest.raises(VenvError, match="another run has been building"):
        host.ensure(timeout=1)
    index.go_on.set()
    wait_for(lambda: not holders(host.venvs / ".orders.lock"))
    result = host.ensure()
    assert result.packages == {"alpha": "2.0"}
    assert host.beside() == {"orders", Path(old.build).name, Path(result.build).name}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_stop(host, half_way, number):
    old, process, _index = half_way
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert host.beside() == {"orders", Path(old.build).name}
    assert not holders(host.venvs / ".orders.lock")


def holders(file):
    """Processes that have a file open."""
    found = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        # Any of them may end meanwhile.
        with contextlib.suppress(OSError):
            found += [name for name in os.listdir(folder) if _leads_to(folder / name) == str(file)]
    return found


def _leads_to(link):
    try:
        return os.readlink(link)
    except OSError:
        return None
