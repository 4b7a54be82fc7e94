"""The roles' variables and templates as a play would see them, without a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _app_files, _description

CHECKOUT = Path(__file__).resolve().parents[2]
ROLES = CHECKOUT / "roles"
FACTS = {
    "distribution": "CentOS",
    "distribution_major_version": "9",
    "architecture": "x86_64",
}
# What the module host_info returns for a host where everything is there.
HOST: dict[str, Any] = {
    "packages": {"nginx": "1.20.1", "supervisor": "4.2.5"},
    "units": {
        unit: {"active": True, "enabled": True, "needs_reload": False} for unit in ("firewalld", "nginx", "supervisord")
    },
    "uv": [],
    "supervisor_existing": False,
    "nginx_existing": [],
    "nginx_servers": [],
    "nginx_ports_taken": [],
    "nginx_closed": [],
    "nginx_configuration": "",
    "cpus": 2,
    "memory_mb": 4000,
}


def _load(path: Path) -> dict[str, Any]:
    return dict(DataLoader().load_from_file(str(path), cache=False, trusted_as_template=True) or {})


class Role:
    """A role with variables of a user's, as a play has them."""

    def __init__(self, name: str, **given: Any) -> None:
        self.path = ROLES / name
        self.variables: dict[str, Any] = {
            "ansible_facts": FACTS,
            "fastapi_host_info": HOST,
            "ansible_managed": "Written by Ansible.",
            "role_path": str(self.path),
            "ansible_search_path": [str(self.path)],
        }
        self.variables |= _load(self.path / "defaults" / "main.yml")
        for file in sorted((self.path / "vars").rglob("*.yml")):
            self.variables |= _load(file)
        self.variables |= given

    def template(self, text: str) -> Any:
        return Templar(loader=DataLoader(), variables=self.variables).template(trust_as_template(text))

    def value(self, name: str) -> Any:
        return self.template("{{ " + name + " }}")

    def render(self, template: str) -> str:
        """A template of the role, as the lookup in its tasks does it."""
        return str(
            self.template("{{ lookup('ansible.builtin.template', '%s') }}" % (self.path / "templates" / template))
        )


def app_files(app: dict[str, Any], **given: Any) -> dict[str, Any]:
    """What an app consists of, from what a user writes of it."""
    complete = _description.complete(app, _description.defaults_of(given))
    around = _app_files.surroundings(given, cpus=HOST["cpus"], memory_mb=HOST["memory_mb"])
    return _app_files.render(complete, around)
