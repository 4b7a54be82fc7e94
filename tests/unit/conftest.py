"""Unit tests import the collection by its real name, as Ansible does."""

from __future__ import annotations

import sys
from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

CHECKOUT = Path(__file__).resolve().parents[2]
COLLECTIONS = CHECKOUT / ".cache" / "collections"


def _link_checkout() -> None:
    link = COLLECTIONS / "ansible_collections" / "asgiops" / "fastapi_host"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(CHECKOUT)


_link_checkout()
sys.path.insert(0, str(COLLECTIONS))
# Ansible finds a collection's filters only if its own importer saw the collection first.
init_plugin_loader([str(COLLECTIONS)])


def pytest_configure(config) -> None:
    config.addinivalue_line(
        "markers", "controller: of what runs on the controller, so not on the oldest Python of a host"
    )
