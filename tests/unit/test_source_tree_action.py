"""The module and its action plugin, as a play runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.controller

ANSIBLE = Path(sys.executable).with_name("ansible-playbook")


@pytest.fixture
def bring(tmp_path):
    """Runs the module on some sources, one after the other; returns their results."""

    def run(*sources: Any, check: bool = False) -> list[dict[str, Any]]:
        found = tmp_path / "found.json"
        tasks: list[dict[str, Any]] = []
        for number, source in enumerate(sources):
            arguments = {"releases": str(tmp_path / "apps" / "orders" / "releases"), "source": source}
            tasks.append(
                {
                    "asgiops.fastapi_host.source_tree": arguments,
                    "register": f"result_{number}",
                    "ignore_errors": True,
                    "check_mode": check,
                }
            )
        results = "{{ [" + ", ".join(f"result_{number}" for number in range(len(sources))) + "] | to_json }}"
        tasks.append({"ansible.builtin.copy": {"content": results, "dest": str(found), "mode": "0600"}})
        play = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]
        (tmp_path / "play.yml").write_text(json.dumps(play))
        # Python alone may not have what the controller's has, as on hosts.
        command = [str(ANSIBLE), "-i", "localhost,", "-e", f"ansible_python_interpreter={sys.executable}"]
        done = subprocess.run(
            [*command, str(tmp_path / "play.yml")],
            env={
                **os.environ,
                "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"),
                "ANSIBLE_REMOTE_TEMP": str(tmp_path / "tmp"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert found.exists(), done.stdout
        return json.loads(found.read_text())

    return run


def repository(tmp_path: Path) -> str:
    script = """
        git init -q -b main work && cd work && echo 1 >main.py && git add .
        git -c user.name=x -c user.email=x@example.com commit -qm x
        git tag v1 && git clone -q --bare . ../orders.git
    """
    subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, check=True)
    return str(tmp_path / "orders.git")


def test_what_is_refused_before_git_sees_it(bring, tmp_path) -> None:
    mark = tmp_path / "mark"
    address = repository(tmp_path)
    found = bring(
        {"repo": f"--upload-pack=touch {mark};", "version": "main"},
        {"repo": f"--upload-pack=touch${{IFS}}{mark};", "version": "main"},
        {"repo": f"ext::sh -c touch% {mark}"},
        {"repo": address, "version": f"--upload-pack=touch {mark}"},
        {"archive": "http://x/a.tar.gz", "checksum": "sha256:00"},
        {"archive": str(tmp_path / "work" / "main.py"), "strip_components": -1},
    )
    assert all(result["failed"] for result in found)
    keys = ["repo", "repo", "repo", "version", "checksum", "strip_components"]
    assert [result["msg"].partition(" is ")[0] for result in found] == [f"source.{key}" for key in keys]
    assert not mark.exists()
    assert not (tmp_path / "apps").exists()


def test_a_repository_and_check_mode(bring, tmp_path) -> None:
    source = {"repo": repository(tmp_path), "version": "v1"}
    (would,) = bring(source, check=True)
    assert would["changed"]
    assert not (tmp_path / "apps").exists()
    did, again = bring(source, source)
    assert (did["changed"], again["changed"]) == (True, False)
    assert would["revision"] == did["revision"] == again["revision"]
    assert (Path(did["path"]) / "app" / "main.py").read_text() == "1\n"
    same, absent = bring(source, {**source, "version": "0" * 40}, check=True)
    assert not same["changed"]
    assert "has no such tag, branch or commit" in absent["msg"]


def test_a_directory_without_its_secrets(bring, tmp_path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "main.py").write_text("1")
    (source / ".env").write_text("KEY=x")
    first, again, with_it = bring(
        {"path": str(source)}, {"path": str(source)}, {"path": str(source), "include": [".env"]}
    )
    assert first["left_out"] == again["left_out"] == [".env"]
    assert "'.env'" in first["warnings"][0]
    assert "source.include" in first["warnings"][0]
    assert "warnings" not in again
    assert with_it["left_out"] == []
    assert os.listdir(Path(first["path"]) / "app") == ["main.py"]
    assert sorted(os.listdir(Path(with_it["path"]) / "app")) == [".env", "main.py"]


def test_an_archive_with_links_out(bring, tmp_path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "up").symlink_to("deep/er")
    (tmp_path / "out").symlink_to("up/../../../../etc/passwd")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for name in ("deep", "up", "out"):
            tar.add(tmp_path / name, arcname=name)
    (result,) = bring({"archive": str(tmp_path / "a.tar.gz")})
    assert "link 'out' points outside, to 'up/../../../../etc/passwd', by way of other links" in result["msg"]
    assert os.listdir(tmp_path / "apps" / "orders" / "releases") == []


def test_an_address_that_does_not_answer_keeps_its_password(bring) -> None:
    (result,) = bring({"archive": "http://me:hunter2@127.0.0.1:9/a.tar.gz", "checksum": "sha256:" + "0" * 64})
    assert result["msg"].startswith("source.archive is 'http://***@127.0.0.1:9/a.tar.gz': the host could not fetch it")
    assert "hunter2" not in json.dumps(result)
