# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: layout
short_description: Where the roles put what they have on a host
version_added: 0.1.0
author: asgiops maintainers (@asgiops)
description:
  - The directories of all apps on a host, from the one table of paths that modules, templates and tasks share.
options:
  _terms:
    description:
      - V(base_dir) is C(fastapi_base_dir) where it is set, below which environments and releases lie; V(etc) has the
        configuration, V(run) the sockets, V(log) the logs, V(state) the homes of apps.
    type: list
    elements: str
    choices: [base_dir, etc, run, log, state]
    required: true
"""

EXAMPLES = r"""
- name: Show where releases lie
  ansible.builtin.debug:
    msg: "{{ lookup('asgiops.fastapi_host.layout', 'base_dir') }}/apps"
"""

RETURN = r"""
_value:
  description: The paths, in the order of the terms.
  type: list
  elements: str
"""

from collections.abc import Iterable
from typing import Any, Optional

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout

PATHS = {"etc": _layout.ETC, "run": _layout.RUN, "log": _layout.LOG, "state": _layout.STATE}


class LookupModule(LookupBase):
    def run(self, terms: Iterable[str], variables: Optional[dict[str, Any]] = None, **kwargs: Any) -> list[str]:
        given = (variables or {}).get("fastapi_base_dir")
        base_dir = self._templar.template(given) if given else _layout.BASE_DIR  # type: ignore[union-attr]
        paths = {**PATHS, "base_dir": base_dir}
        unknown = [term for term in terms if term not in paths]
        if unknown:
            raise AnsibleLookupError(f"layout has no {', '.join(unknown)}; there are {', '.join(paths)}")
        return [paths[term] for term in terms]
