#!/usr/bin/python

# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: supervisor_process
short_description: Bring programs of supervisord to a state, touching only those that are named
version_added: 0.1.0
description:
  - Loads, starts, stops, restarts, signals and unloads programs and groups of supervisord, over its XML-RPC interface.
  - Only what O(names) names is touched. supervisord reads its configuration files again and reports what differs from
    what is loaded; of the differences only those of the named groups are loaded.
  - A start is done when the program is V(RUNNING), after its C(startsecs) and, if need be, its C(startretries).
    A program that ends in V(FATAL), V(EXITED) or an endless V(BACKOFF) fails the task, with supervisor's reason,
    the exit status, the likely cause with its fix, and the end of its logs.
  - All named programs are worked on side by side, so fifty of them take as long as the slowest.
notes:
  - M(community.general.supervisorctl) runs C(supervisorctl update) for all programs of the host, in check mode too,
    takes V(STARTING) for started, shows no diff, and puts the password on a command line that every user of the host
    can read.
  - supervisord replaces the configuration of a group only as a whole. When one process of a group changed, or
    C(numprocs) grew, all running processes of the group are stopped and started. The result's C(warnings) say so,
    in check mode too.
  - supervisord does not notice a change of nothing but C(socket_mode), C(socket_owner) or C(socket_backlog) of an
    C(fcgi-program), nor that a log file became V(AUTO). Unload such a program with O(state=absent) first.
  - Reading the configuration again leaves every program as it is, so a check changes nothing that runs. Yet, as with
    C(supervisorctl reread), supervisord takes over some values of a changed C([supervisord]) section at that moment,
    such as C(identifier).
  - O(state=stopped), O(state=absent) and O(state=signalled) do not read the configuration files, so they work with
    broken ones.
  - A check on a host where supervisord does not run reports what a run would do if nothing was loaded, with a warning.
author:
  - asgiops maintainers (@asgiops)
attributes:
  check_mode:
    description: Reports what would be added, updated, removed, started, stopped, restarted and signalled.
    support: full
  diff_mode:
    description: Shows the state of each named process before and after. Shows nothing of what a configuration contains.
    support: full
  idempotent:
    description:
      - A second run changes nothing, except with O(state=restarted) and O(state=signalled).
      - A program that ends by itself is V(EXITED) and not started, so O(state=started) starts it at each run.
    support: partial
extends_documentation_fragment:
  - asgiops.fastapi_host.supervisor
options:
  names:
    description:
      - The groups and processes. A program that is in no C([group]) is a group of its own with the program's name.
      - V(group) or V(group:*) means all processes of the group, V(group:process) one of them, V(all) all groups.
      - V(one|other) means those of the groups that are loaded, or all of them where none is.
      - Naming all processes of a group one by one is naming the group.
    type: list
    elements: str
    required: true
  exclude:
    description: Groups that V(all) leaves alone.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(started) loads what is new or changed, and starts what does not run.
      - V(restarted) loads what is new or changed, and restarts every process, each once.
      - V(present) loads what is new or changed. What starts then is what has C(autostart); the rest stays down.
      - V(stopped) stops and leaves the loaded configuration as it is, since loading one starts what has C(autostart).
      - V(absent) stops and unloads whole groups. supervisord loads them again when it starts, as long as they are in
        its files.
      - V(signalled) sends O(signal) to the processes that run, and waits for nothing.
      - With V(started), V(restarted) and V(present), a name that is not in the configuration files is an error.
    type: str
    choices: [started, stopped, restarted, present, absent, signalled]
    default: started
  signal:
    description: The signal to send with O(state=signalled), as a name or number, such as V(HUP).
    type: str
  load:
    description:
      - Whether V(started) and V(restarted) load what is new or changed in the configuration files first.
      - V(false) leaves the files unread and works with what is loaded, as C(supervisorctl start) and
        C(supervisorctl restart) do.
    type: bool
    default: true
  prune:
    description:
      - Whether groups that are loaded and in no configuration file any more are stopped and unloaded as well, whoever
        put them there. It is what C(supervisorctl update) does with them.
      - Only where the files are read. O(names) may be empty then.
    type: bool
    default: false
  one_by_one:
    description:
      - Whether processes that are restarted, and not loaded again, are restarted one after the other, each when the one
        before it is V(RUNNING). The first that fails ends the series, and those after it stay as they are.
    type: bool
    default: false
  require_running:
    description:
      - Whether a supervisord that does not run is an error. With V(false) there is nothing to do on such a host, for
        supervisord reads its files when it starts.
      - The same goes for one that still runs with another socket or login than O(config) has.
    type: bool
    default: true
  timeout:
    description:
      - The most seconds to wait for one program's stop, and for one program's start.
      - A start that takes all of C(startretries) with all of C(startsecs) ends earlier, and so do most stops, because
        supervisord ends a program after C(stopwaitsecs). Set more than the longest C(stopwaitsecs).
    type: int
    default: 300
  connect_timeout:
    description:
      - The most seconds to wait for supervisord to accept commands, for it may just be starting.
      - In check mode there is no wait.
    type: int
    default: 10
  log_lines:
    description: How many lines of the end of a failed program's logs to show. V(0) shows none and looks for no cause in
      them, as for a program that writes secrets to its log.
    type: int
    default: 20
seealso:
  - module: asgiops.fastapi_host.supervisor_info
  - module: community.general.supervisorctl
"""

EXAMPLES = r"""
- name: Load and start one program, and nothing else that may have changed on the host
  asgiops.fastapi_host.supervisor_process:
    names: [orders_blue]

- name: Restart two programs side by side
  asgiops.fastapi_host.supervisor_process:
    names:
      - mailer
      - reports
    state: restarted

- name: Restart one process of a group, the others keep serving
  asgiops.fastapi_host.supervisor_process:
    names: ["orders:orders_00"]
    state: restarted

- name: Load what the configuration says, starting what has autostart
  asgiops.fastapi_host.supervisor_process:
    names: [orders_blue, orders_green]
    state: present

- name: Restart the processes of a pool one after the other, as they are loaded
  asgiops.fastapi_host.supervisor_process:
    names: [orders]
    state: restarted
    load: false
    one_by_one: true

- name: Load what the files say, and unload what is in none of them any more
  asgiops.fastapi_host.supervisor_process:
    names: [all]
    state: present
    prune: true

- name: Have a program open its log files again
  asgiops.fastapi_host.supervisor_process:
    names: [orders_blue]
    state: signalled
    signal: USR1

- name: Stop and unload a program whose file is gone
  asgiops.fastapi_host.supervisor_process:
    names: [orders_old]
    state: absent

- name: The same with a password, over TCP
  asgiops.fastapi_host.supervisor_process:
    names: [orders_old]
    state: absent
    server_url: http://127.0.0.1:9001
    username: ops
    password: "{{ vault_supervisor_password }}"
"""

RETURN = r"""
added:
  description: Groups that were loaded for the first time.
  returned: always
  type: list
  elements: str
  sample: [orders_blue]
updated:
  description: Groups that were unloaded and loaded again, because their configuration changed.
  returned: always
  type: list
  elements: str
removed:
  description: Groups that were unloaded.
  returned: always
  type: list
  elements: str
started:
  description: Processes that did not run and were started, named as C(supervisorctl) names them.
  returned: always
  type: list
  elements: str
  sample: [orders_blue]
stopped:
  description: Processes that were stopped.
  returned: always
  type: list
  elements: str
restarted:
  description: Processes that ran, and were stopped and started.
  returned: always
  type: list
  elements: str
signalled:
  description: Processes that were sent the signal.
  returned: always
  type: list
  elements: str
processes:
  description: The named processes as they are afterwards, or as they are now in check mode.
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
skipped_reason:
  description: Why supervisord is taken as not running, so that nothing was to do.
  returned: with O(require_running=false), when supervisord does not run or has not taken over O(config) yet
  type: str
failures:
  description: The programs that did not reach the state. The error message says the same in words.
  returned: when a program failed
  type: list
  elements: dict
  contains:
    name:
      description: The process, or the group that could not be loaded.
      type: str
    state:
      description: The state in which it was left, or null when it is not loaded.
      type: str
    reason:
      description: What went wrong.
      type: str
    spawn_error:
      description: What supervisord says of the failed start, or null.
      type: str
    exit_status:
      description:
        - The exit status of the last run, from supervisord's own log where need be.
        - Null when a signal ended it, or nobody knows.
      type: int
    ending:
      description: How the last run ended by supervisord's own log, as V(exit status 3) or V(terminated by SIGKILL).
      type: str
    logfiles:
      description: The paths of the logs.
      type: dict
    stdout_tail:
      description: The last O(log_lines) lines of the stdout log.
      type: list
      elements: str
    stderr_tail:
      description: The last O(log_lines) lines of the stderr log.
      type: list
      elements: str
    causes:
      description:
        - The likely causes, recognised from what supervisor, the program and the kernel say, each with its C(fix).
        - Empty for a program that could not be stopped or unloaded.
      type: list
      elements: dict
      contains:
        cause:
          description: The likely cause.
          type: str
          sample: The module orders.main has no attribute ap.
        fix:
          description: What to do about it.
          type: str
          sample: Correct the part after the colon in app (MODULE:ATTRIBUTE).
warnings:
  description: What is worth knowing, such as processes that had to be stopped with another one of their group.
  returned: when there is something to warn of
  type: list
  elements: str
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import Output
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.plan import STATES
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.process import Request, run
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
            "exclude": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": list(STATES), "default": "started"},
            "signal": {"type": "str"},
            "load": {"type": "bool", "default": True},
            "prune": {"type": "bool", "default": False},
            "one_by_one": {"type": "bool", "default": False},
            "require_running": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 300},
            "connect_timeout": {"type": "int", "default": 10},
            "log_lines": {"type": "int", "default": 20},
        },
        required_if=[("state", "signalled", ["signal"])],
        required_together=[("username", "password")],
        supports_check_mode=True,
    )
    options = module.params
    output = Output(module, [*options["redact"], options["password"]])
    connection = Connection.of(options)
    request = Request(**{field.name: options[field.name] for field in dataclasses.fields(Request)})
    try:
        result = run(connection, request, module.check_mode)
        message = None
    except SupervisorError as error:
        result = error.details
        message = str(error)
    for warning in result.pop("warnings", []):
        output.warn(warning)
    if message is not None:
        output.fail(message, **result)
    output.exit(**result)


if __name__ == "__main__":
    main()
