# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: app_files
short_description: Render all that an app consists of on a host
version_added: 0.1.0
author: asgiops maintainers (@asgiops)
description:
  - Account, directories, files, supervisor program and health check of each app, as data. Nothing is asked of a host
    and nothing is written.
  - An app with C(server_names) gets the files of a slot, with paths relative to the slot's directory.
options:
  _terms:
    description: Complete apps, as the lookup P(asgiops.fastapi_host.complete_apps#lookup) returns them.
    type: list
    elements: dict
    required: true
  cpus:
    description: The CPUs of the host, for C(workers=auto).
    type: int
    required: true
  memory_mb:
    description: The memory of the host in MiB, for C(workers=auto).
    type: int
    required: true
  build:
    description: Of an app without slots, the environment that it runs from. Its C(venv) when empty.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show the files of the first app
  ansible.builtin.debug:
    msg: >-
      {{ query('asgiops.fastapi_host.app_files', complete[0], cpus=2, memory_mb=4096)
         | map(attribute='files') | flatten | map(attribute='path') }}
  vars:
    complete: "{{ query('asgiops.fastapi_host.complete_apps', fastapi_apps) }}"
"""

RETURN = r"""
_value:
  description:
    - The rendered apps, in their order. C(directories), C(files) and C(host_files) are as the module
      M(asgiops.fastapi_host.file_set) takes them, C(account) as M(asgiops.fastapi_host.app_account).
    - The other keys are C(name), C(user), C(group), C(socket_group), C(workers) (how many, and why),
      C(environment) (as M(asgiops.fastapi_host.uv_venv) takes it), C(build) (a digest of what makes the environment),
      C(program), C(tmpfiles), C(check) (the command that checks candidates), C(health), C(probe) (where to ask for
      it), and C(redact).
  type: list
  elements: dict
"""

from collections.abc import Iterable
from typing import Any, Optional

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _app_files, _serving


class LookupModule(LookupBase):
    def run(
        self, terms: Iterable[Any], variables: Optional[dict[str, Any]] = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        given = variables or {}
        values = {
            name: self._templar.template(given[name])  # type: ignore[union-attr]
            for name in _app_files.VARIABLES
            if name in given
        }
        around = _app_files.surroundings(
            values, cpus=self.get_option("cpus"), memory_mb=self.get_option("memory_mb"), build=self.get_option("build")
        )
        apps = [app for term in terms for app in (term if isinstance(term, (list, tuple)) else [term])]
        try:
            return [_app_files.render(app, around) for app in apps]
        except _serving.ServingError as error:
            raise AnsibleLookupError(str(error)) from error
