#!/usr/bin/python

# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: supervisor_info
short_description: Report the state of supervisord and its processes
version_added: 0.1.0
description:
  - Returns supervisord's version, state and process id, and for every process its state, process id, uptime,
    exit status, spawn error and logs, on request with the logs' last lines.
  - A host where supervisord does not run is a result, RV(running=false), and no failure, so that a status report covers
    such hosts too. Everything else that keeps the module from asking is a failure, be it a refused password, missing
    rights, or a supervisord that is shutting down.
notes:
  - No module of community.general returns the processes' states; M(community.general.supervisorctl) only sets them.
author:
  - asgiops maintainers (@asgiops)
extends_documentation_fragment:
  - asgiops.fastapi_host.supervisor
  - asgiops.fastapi_host.read_only
options:
  names:
    description:
      - Groups as V(group), and processes as V(group:process), to which the result is limited. All when empty or V(all).
    type: list
    elements: str
    default: []
  connect_timeout:
    description: The most seconds to wait for supervisord to accept commands. V(0) tries once.
    type: int
    default: 0
  log_lines:
    description: How many lines of the end of each log to return. V(0) returns none.
    type: int
    default: 0
  reread:
    description:
      - Whether supervisord reads its configuration files again and reports what differs from what is loaded, as
        C(supervisorctl reread) does. Nothing is loaded, started or stopped by it.
    type: bool
    default: false
seealso:
  - module: asgiops.fastapi_host.supervisor_process
"""

EXAMPLES = r"""
- name: Look at all processes
  asgiops.fastapi_host.supervisor_info:
  register: supervisor

- name: Fail unless all of them run
  ansible.builtin.assert:
    that:
      - supervisor.running
      - supervisor.processes | rejectattr('state', 'eq', 'RUNNING') | length == 0

- name: What a reload would change
  asgiops.fastapi_host.supervisor_info:
    reread: true
  register: supervisor

- name: The last lines of one program's logs
  asgiops.fastapi_host.supervisor_info:
    names: [orders_blue]
    log_lines: 50
"""

RETURN = r"""
running:
  description: Whether supervisord runs, that is, whether something answers where it should listen.
  returned: always
  type: bool
  sample: true
reason:
  description: Why it is taken as not running; null when it runs.
  returned: always
  type: str
version:
  description: supervisord's version; null when it does not run.
  returned: always
  type: str
  sample: 4.3.0
state:
  description: supervisord's own state; null when it does not run.
  returned: always
  type: str
  sample: RUNNING
pid:
  description: supervisord's process id; null when it does not run.
  returned: always
  type: int
  sample: 812
identification:
  description: supervisord's C(identifier); null when it does not run.
  returned: always
  type: str
  sample: supervisor
processes:
  description: The processes, sorted by group and name.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The process's name in its group.
      type: str
      sample: orders_blue
    group:
      description: The group's name.
      type: str
      sample: orders_blue
    state:
      description: V(STOPPED), V(STARTING), V(RUNNING), V(BACKOFF), V(STOPPING), V(EXITED), V(FATAL) or V(UNKNOWN).
      type: str
      sample: RUNNING
    pid:
      description: The process id, or null.
      type: int
      sample: 4711
    uptime:
      description: Seconds since the process was started, or null when there is none.
      type: int
      sample: 86400
    exit_status:
      description:
        - The exit status of the last run, V(-1) when a signal ended it.
        - Null where supervisord does not report it, which includes V(BACKOFF) and V(FATAL).
      type: int
    spawn_error:
      description: What supervisord says of the last failed start, or null.
      type: str
    logfiles:
      description: The paths of the logs, C(stdout) and C(stderr), each null when there is none.
      type: dict
      sample: {stdout: /var/log/orders/blue.log, stderr: null}
    stdout_tail:
      description: The last lines of the stdout log.
      returned: when O(log_lines) is not V(0)
      type: list
      elements: str
    stderr_tail:
      description: The last lines of the stderr log.
      returned: when O(log_lines) is not V(0)
      type: list
      elements: str
differences:
  description: The groups in which the configuration files differ from what is loaded.
  returned: with O(reread), when supervisord runs
  type: dict
  contains:
    added:
      description: Groups that are in the files only.
      type: list
      elements: str
    changed:
      description: Groups that are in both with a difference.
      type: list
      elements: str
    removed:
      description: Groups that are loaded only.
      type: list
      elements: str
  sample: {added: [reports], changed: [], removed: []}
missing:
  description: The O(names) that supervisord knows nothing of; all of them when it does not run.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import Output
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.rpc import (
    CONNECTION_OPTIONS,
    Connection,
    SupervisorError,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.status import gather


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "names": {"type": "list", "elements": "str", "default": []},
            "connect_timeout": {"type": "int", "default": 0},
            "log_lines": {"type": "int", "default": 0},
            "reread": {"type": "bool", "default": False},
        },
        required_together=[("username", "password")],
        supports_check_mode=True,
    )
    options = module.params
    output = Output(module, [*options["redact"], options["password"]])
    connection = Connection.of(options)
    try:
        result = gather(connection, options["names"], options["log_lines"], options["reread"])
    except SupervisorError as error:
        output.fail(str(error))
    output.exit(changed=False, **result)


if __name__ == "__main__":
    main()
