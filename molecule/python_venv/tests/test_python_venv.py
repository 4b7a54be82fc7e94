"""Environments that work for the app's user and that only root may change."""

from __future__ import annotations

import json
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


def test_a_project_is_built_without_rights(host) -> None:
    venv = host.check_output(f"readlink -f {BASE}/project")
    code = "import json, looker; print(json.dumps(looker.ANSWERS))"
    assert json.loads(host.check_output(f"{venv}/bin/python -c '{code}'")) == {
        "account": "fastapi-build",
        "shadow": "Permission denied",
        "cache": "Permission denied",
        "opt": "Read-only file system",
        # Of its own.
        "tmp": "done",
        "network": "Network is unreachable",
    }
    assert not host.file("/tmp/written-by-a-build").exists


def test_only_a_group_may_use_it(host) -> None:
    venv = host.file(host.check_output(f"readlink -f {BASE}/project"))
    assert (venv.user, venv.group, venv.mode) == ("root", "daemon", 0o750)
    assert host.run(f"runuser -u nobody -- {venv.path}/bin/python -c ''").rc != 0


def test_the_account_of_builds_may_not_log_in(host) -> None:
    account = host.user("fastapi-build")
    assert (account.home, account.shell) == ("/nonexistent", "/sbin/nologin")
    assert 0 < account.uid < 1000
    assert account.password in ("!", "!!", "*", "!*")


def test_a_package_without_a_wheel_is_refused(host, play) -> None:
    """With the line to set; and its code has not run."""
    host.check_output("mkdir -p /etc/locks/trap/trap-1.0")
    host.check_output('echo \'open("/root/trapped", "w")\' > /etc/locks/trap/trap-1.0/setup.py')
    host.check_output("tar -czf /etc/locks/trap/trap-1.0.tar.gz -C /etc/locks/trap trap-1.0")
    digest = host.check_output("sha256sum /etc/locks/trap/trap-1.0.tar.gz").split()[0]
    host.check_output(f"echo trap==1.0 --hash=sha256:{digest} > /etc/locks/trap/requirements.txt")
    variables = (
        f"python_venv_path={BASE}/trap python_venv_lock=/etc/locks/trap/requirements.txt "
        "python_venv_wheelhouse=/etc/locks/trap"
    )
    done = play("../shared/venv.yml", "--limit", host.backend.name, "--extra-vars", variables)
    assert done.status != 0, done.output
    assert "source_distributions: [trap]" in done.output
    assert not host.file("/root/trapped").exists


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
