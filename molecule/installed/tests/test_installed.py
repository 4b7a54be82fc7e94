"""What was installed from the built collection is what served the app."""

from __future__ import annotations

import os
from pathlib import Path

COLLECTION = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "collections/ansible_collections/asgiops/fastapi_host"


def test_app_answers(host, curl) -> None:
    assert curl(host, "http://127.0.0.1:8000/health").endswith("\n200")


def test_it_is_the_installed_collection(play) -> None:
    done = play("asgiops.fastapi_host.site", "--syntax-check")
    assert done.status == 0, done.output
    assert f"playbook: {COLLECTION / 'playbooks' / 'site.yml'}" in done.output


def test_it_has_what_users_need_and_nothing_of_ours() -> None:
    names = {path.name for path in COLLECTION.iterdir()}
    assert {"README.md", "LICENSE", "MANIFEST.json", "meta", "playbooks", "plugins", "roles", "examples"} <= names
    assert not names & {".cache", ".venv", ".git", "molecule", "tests"}
