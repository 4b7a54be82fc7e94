# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: complete_apps
short_description: Describe apps in full
version_added: 0.1.0
author: asgiops maintainers (@asgiops)
description:
  - Each app with all the keys that it can have. What it leaves out comes from the variables C(release_*),
    C(gunicorn_uvicorn_*) and C(nginx_defaults) of the host, and else from the defaults of the roles.
  - Mappings are merged key by key. Lists are replaced. A certificate or key of the app's own replaces both of the
    defaults.
  - The check of variables, the roles and the playbooks of this collection read an app from here alone.
options:
  _terms:
    description: The apps, as C(fastapi_apps) lists them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show where the apps listen
  ansible.builtin.debug:
    msg: "{{ query('asgiops.fastapi_host.complete_apps', fastapi_apps) | map(attribute='bind') }}"
"""

RETURN = r"""
_value:
  description: The complete apps, in their order.
  type: list
  elements: dict
"""

from collections.abc import Iterable
from typing import Any, Optional

from ansible.plugins.lookup import LookupBase
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _description


class LookupModule(LookupBase):
    def run(
        self, terms: Iterable[Any], variables: Optional[dict[str, Any]] = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        given = variables or {}
        values = {
            name: self._templar.template(given[name])  # type: ignore[union-attr]
            for name in _description.variables_of_apps()
            if name in given
        }
        apps = [app for term in terms for app in (term if isinstance(term, (list, tuple)) else [term])]
        return _description.complete_apps(apps, _description.defaults_of(values))
