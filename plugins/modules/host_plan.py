#!/usr/bin/python

# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_plan
short_description: Compare all that is wanted of a host with what is there, in one call
version_added: 0.1.0
description:
  - Compares packages, accounts, units, files, programs, sources, environments and slots with what the variables of the
    roles and O(apps) ask for. Nothing is changed.
  - RV(roles) and RV(apps) name what a run has to apply. When both are empty, there is nothing to do.
  - What can't be compared counts as different, so that the role which applies it reports the cause.
notes:
  - Each role would compare its own part, which costs several calls for each app.
  - This module works with an action plugin of its name, which renders what is wanted from the variables.
author:
  - asgiops maintainers (@asgiops)
extends_documentation_fragment:
  - asgiops.fastapi_host.read_only
options:
  host:
    description: What the module M(asgiops.fastapi_host.host_info) returned of this host. Required.
    type: dict
  roles:
    description: The roles whose part is compared, beside the apps.
    type: list
    elements: str
    choices: [python_venv, supervisor, supervisord_unit, nginx]
    default: []
  apps:
    description: The apps that are compared, entries of C(fastapi_apps).
    type: list
    elements: dict
    default: []
  connect_timeout:
    description: How many seconds a supervisord that is being restarted gets to answer.
    type: float
    default: 0
  request:
    description: Set by the action plugin, what is wanted, as JSON. It has secrets in it.
    type: str
"""

EXAMPLES = r"""
- name: Look at the host
  asgiops.fastapi_host.host_info:
  register: host

- name: Compare the host with what is wanted
  asgiops.fastapi_host.host_plan:
    host: "{{ host }}"
    apps: "{{ fastapi_apps }}"
  register: plan

- name: Show what would change
  ansible.builtin.debug:
    msg: "{{ plan.summary }}"
"""

RETURN = r"""
roles:
  description: The roles that have something to apply, in their order.
  returned: success
  type: list
  elements: str
  sample: [nginx]
apps:
  description: The names of the apps that have something to apply, in their order.
  returned: success
  type: list
  elements: str
  sample: [orders]
summary:
  description: The plan in words, a line for each role and each app.
  returned: success
  type: list
  elements: str
  sample: ["orders: code 1c2d3e4f5a6b -> 3f786850e387, move to green"]
found:
  description: What was found of each app by its name, which the role C(release) takes as C(release_found).
  returned: success
  type: dict
  sample:
    orders:
      differences: ["release 1c2d3e4f5a6b -> 3f786850e387"]
      previous: 1c2d3e4f5a6b
      release: 3f786850e387
      revision: 3f786850e387550fdab836ed7e6dc881de23001b
      move: true
      account: false
      source: new
differences:
  description: All differences of each role and each app in RV(roles) and RV(apps).
  returned: success
  type: dict
  sample: {"nginx": ["/etc/nginx/nginx.conf: mode 0666 -> 0644"]}
"""

import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._host.plan import compare


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "dict"},
            "roles": {
                "type": "list",
                "elements": "str",
                "choices": ["python_venv", "supervisor", "supervisord_unit", "nginx"],
                "default": [],
            },
            "apps": {"type": "list", "elements": "dict", "default": []},
            "connect_timeout": {"type": "float", "default": 0},
            "request": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    if module.params["request"] is None:
        module.fail_json(msg="the action plugin of this module did not run: call it as asgiops.fastapi_host.host_plan")
    scratch = module.tmpdir if module.check_mode else ""
    found = compare(json.loads(module.params["request"]), scratch, module.params["connect_timeout"])
    module.exit_json(changed=False, found=found)


if __name__ == "__main__":
    main()
