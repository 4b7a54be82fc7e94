#!/usr/bin/python

# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: supervisor_log_clear
short_description: Empty the logs of supervisord's processes
version_added: 0.1.0
description:
  - Empties the current stdout and stderr logs of named processes, over supervisord's XML-RPC interface. Rotated logs
    stay.
  - What C(supervisorctl clear) does, and the logs of processes that do not run as well, which supervisord leaves alone
    without a word.
notes:
  - No module of community.general or ansible.builtin does this. To empty the file of a running process past supervisord
    is not safe, since it goes on at the place where it was.
author:
  - asgiops maintainers (@asgiops)
extends_documentation_fragment:
  - asgiops.fastapi_host.supervisor
attributes:
  check_mode:
    description: Reports which logs would be emptied.
    support: full
  diff_mode:
    description: There is nothing to compare; RV(cleared) reports the sizes.
    support: none
  idempotent:
    description: A log that is empty already is no change.
    support: full
options:
  names:
    description: Groups as V(group), processes as V(group:process), V(all), or V(one|other) for those that are loaded.
    type: list
    elements: str
    required: true
  connect_timeout:
    description: The most seconds to wait for supervisord to accept commands. V(0) tries once.
    type: int
    default: 10
seealso:
  - module: asgiops.fastapi_host.supervisor_process
  - module: asgiops.fastapi_host.supervisor_info
"""

EXAMPLES = r"""
- name: Empty the logs of one program
  asgiops.fastapi_host.supervisor_log_clear:
    names: [orders]
"""

RETURN = r"""
cleared:
  description: The logs that had something in them.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The process.
      type: str
      sample: orders
    log:
      description: The path of the log.
      type: str
      sample: /var/log/fastapi/orders/server.log
    bytes:
      description: What was in it.
      type: int
      sample: 5120
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import Output
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.log_clear import run
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.rpc import (
    CONNECTION_OPTIONS,
    Connection,
    SupervisorError,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "names": {"type": "list", "elements": "str", "required": True},
            "connect_timeout": {"type": "int", "default": 10},
        },
        required_together=[("username", "password")],
        supports_check_mode=True,
    )
    options = module.params
    output = Output(module, [*options["redact"], options["password"]])
    connection = Connection.of(options)
    try:
        result = run(connection, options["names"], module.check_mode)
    except SupervisorError as error:
        output.fail(str(error))
    output.exit(**result)


if __name__ == "__main__":
    main()
