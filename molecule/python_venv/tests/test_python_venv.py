"""Environments that work for the app's user and that only root may change."""

from __future__ import annotations

import os

import pytest

LOCKS = ["requirements.txt", "pylock.toml", "uv.lock"]
BASE = "/opt/fastapi/venvs"


@pytest.mark.parametrize("lock", LOCKS)
def test_everybody_may_use_it(host, lock) -> None:
    python = host.check_output(f"readlink -f {BASE}/{lock}") + "/bin/python"
    script = "import fastapi, uvicorn, websockets, sys; print('%d.%d' % sys.version_info[:2])"
    release = "EL10" if "el10" in host.backend.name else "EL9"
    assert host.check_output(f'runuser -u nobody -- {python} -c "{script}"') == os.environ[f"TEST_PYTHON_{release}"]


@pytest.mark.parametrize("lock", LOCKS)
def test_only_root_may_change_it(host, lock) -> None:
    venv = host.check_output(f"readlink -f {BASE}/{lock}")
    assert host.run(f"find {venv} ! -type l '(' ! -user root -o -perm /022 ')'").stdout == ""


def test_credentials_file_is_roots(host) -> None:
    file = host.file("/opt/fastapi/uv/netrc")
    assert (file.user, file.mode) == ("root", 0o600)


def test_uv_is_the_pinned_one(host) -> None:
    version = host.check_output("ls /opt/fastapi/uv | grep -E '^[0-9.]+$'")
    assert host.check_output(f"/opt/fastapi/uv/{version}/bin/uv --version").split()[1] == version


def test_a_build_that_fails_leaves_the_old_one(host, play) -> None:
    """A lock that the index can't fulfil: the link, the environment and the directory stay as they were."""
    before = host.check_output(f"ls -lA {BASE}")
    path = f"{BASE}/requirements.txt"
    host.check_output("cp /etc/locks/requirements.txt /etc/locks/broken.txt")
    host.check_output("sed -i 's/^fastapi==[^ ]*/fastapi==0.0.1/' /etc/locks/broken.txt")
    variables = f"python_venv_path={path} python_venv_lock=/etc/locks/broken.txt"
    done = play("../shared/venv.yml", "--limit", host.backend.name, "--extra-vars", variables)
    assert done.status != 0, done.output
    assert "fastapi" in done.output
    assert host.check_output(f"ls -lA {BASE}") == before
    assert host.run(f"{path}/bin/python -c 'import fastapi'").rc == 0
