#!/usr/bin/python

# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_status
short_description: Report the status of all programs of supervisord, and why some do not run well
version_added: 0.1.0
description:
  - Returns in one call, for every program of supervisord on a host, its state, since when, its memory, its restarts
    and the answer of its health check.
  - For what is not well it returns the likely cause and the fix, and the end of its log. The causes are recognised
    from the messages of supervisor, Gunicorn, Uvicorn, Python, systemd and the kernel.
  - A host where supervisord does not run, or does not answer, is a result, RV(running=false), with its own cause and
    fix.
notes:
  - M(asgiops.fastapi_host.supervisor_info) shows only what supervisord itself reports. No other module sees processes,
    health, logs and causes in one round trip.
  - A program that was stopped on request counts as well, and so does one that ended with one of its C(exitcodes).
  - The kernel's log and other users' processes can be read by root only. Without root there are fewer causes.
author:
  - asgiops maintainers (@asgiops)
extends_documentation_fragment:
  - asgiops.fastapi_host.supervisor
  - asgiops.fastapi_host.read_only
options:
  names:
    description:
      - Groups as V(group), and processes as V(group:process), to which the result is limited. All when empty.
    type: list
    elements: str
    default: []
  health:
    description:
      - Where to ask for the health of programs. All are asked at the same time, and only when they are V(RUNNING).
      - Redirections are not followed, and certificates are checked.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The group, or V(group:process), that answers there.
        type: str
        required: true
      url:
        description: The URL to get.
        type: str
        required: true
      unix_socket:
        description: The Unix socket to ask instead of the host in O(health[].url).
        type: str
      status:
        description: The status of the answer that means that it is well.
        type: int
        default: 200
      timeout:
        description: The most seconds to wait for the answer.
        type: float
        default: 2
  connect_timeout:
    description: The most seconds to wait for supervisord to accept commands. V(0) tries once.
    type: int
    default: 0
  log_lines:
    description:
      - How many lines of the end of the logs to return of what is not well.
      - V(0) returns none and looks for no cause in the logs, as for a program that writes secrets to its log.
    type: int
    default: 10
seealso:
  - module: asgiops.fastapi_host.supervisor_info
  - module: asgiops.fastapi_host.supervisor_process
"""

EXAMPLES = r"""
- name: Look at all programs
  asgiops.fastapi_host.app_status:
  register: status

- name: Look at one, and ask for its health
  asgiops.fastapi_host.app_status:
    names: [orders]
    health:
      - name: orders
        url: http://localhost/health
        unix_socket: /run/fastapi/orders/orders.sock

- name: Fail unless all are well
  ansible.builtin.assert:
    that:
      - status.running
      - status.processes | rejectattr('well') | length == 0
"""

RETURN = r"""
running:
  description: Whether supervisord runs and takes commands.
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
causes:
  description: Why supervisord does not run; empty when it does.
  returned: always
  type: list
  elements: dict
  contains:
    cause:
      description: The likely cause.
      type: str
      sample: The unit supervisord is stopped.
    fix:
      description: What to do about it.
      type: str
      sample: "Start it, and at every boot, with: systemctl enable --now supervisord."
log_tail:
  description: The last lines of the journal of supervisord's unit, where that failed; empty otherwise.
  returned: always
  type: list
  elements: str
processes:
  description: The processes, sorted by group and name.
  returned: always
  type: list
  elements: dict
  contains:
    group:
      description: The group's name.
      type: str
      sample: orders
    name:
      description: The process's name in its group.
      type: str
      sample: orders
    state:
      description: V(STOPPED), V(STARTING), V(RUNNING), V(BACKOFF), V(STOPPING), V(EXITED), V(FATAL) or V(UNKNOWN).
      type: str
      sample: RUNNING
    since:
      description:
        - When it was started, for one that is V(STARTING) or V(RUNNING). For the others, when it ended, or was last
          tried to start.
        - In UTC. Null for one that was never started.
      type: str
      sample: "2026-11-24T08:15:00Z"
    uptime:
      description: Seconds since the process was started, or null when there is none.
      type: int
      sample: 86400
    pid:
      description: The process id, or null.
      type: int
      sample: 4711
    memory:
      description:
        - Bytes of memory of the process and all that descend from it. Pages that they share count once (PSS) where the
          kernel reports so.
        - Null when there is no process, or supervisord is asked over TCP.
      type: int
      sample: 183500800
    restarts:
      description:
        - How often supervisord started it again by itself, since it was last started on request, or since supervisord's
          own start. Each attempt counts that got as far as a process.
        - Counted in the last 128 KiB of supervisord's log. What is older, or rotated away, is not counted.
        - Null where the log does not report, since it can't be read, its C(loglevel) is above C(info), or a process of
          another group has the same name.
      type: int
      sample: 0
    health:
      description: The answer to its health check, or null when it was not asked.
      type: str
      sample: 200 in 3 ms
    well:
      description: Whether there is nothing to explain.
      type: bool
      sample: true
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
      sample: {stdout: /var/log/fastapi/orders/server.log, stderr: null}
    causes:
      description: The likely causes of what is not well, as RV(causes); empty for what is well.
      type: list
      elements: dict
      sample:
        - cause: Port 8000 of 127.0.0.1 is in use by process 812 (python3) of user root.
          fix: "See who listens with: ss -ltnp 'sport = :8000'. Stop it, or bind orders to another port."
    log_tail:
      description: The last lines of its logs, C(stdout) and C(stderr); both empty for what is well.
      type: dict
missing:
  description: The names that supervisord does not know.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import Output
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.app_status import look
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.rpc import (
    CONNECTION_OPTIONS,
    Connection,
    SupervisorError,
)

HEALTH_OPTIONS = {
    "name": {"type": "str", "required": True},
    "url": {"type": "str", "required": True},
    "unix_socket": {"type": "str"},
    "status": {"type": "int", "default": 200},
    "timeout": {"type": "float", "default": 2},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "names": {"type": "list", "elements": "str", "default": []},
            "health": {"type": "list", "elements": "dict", "default": [], "options": HEALTH_OPTIONS},
            "connect_timeout": {"type": "int", "default": 0},
            "log_lines": {"type": "int", "default": 10},
        },
        required_together=[("username", "password")],
        supports_check_mode=True,
    )
    options = module.params
    output = Output(module, [*options["redact"], options["password"]])
    connection = Connection.of(options)
    try:
        result = look(connection, options["names"], options["health"], options["log_lines"])
    except SupervisorError as error:
        output.fail(str(error), **error.details)
    output.exit(changed=False, **result)


if __name__ == "__main__":
    main()
