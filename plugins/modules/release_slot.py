#!/usr/bin/python

# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_slot
short_description: Bring an app's change live in its idle slot, one stage at a call
version_added: 0.1.0
description:
  - An app has two slots, C(blue) and C(green), each a supervisor program with a socket, a configuration and a release
    of its own. C(live.sock), a link in the app's directory below C(/run/fastapi), leads to the socket of one of them.
  - A change of any kind is made in the other slot, proved there, and made live by one rename of the link. The slot that
    served before is stopped when the last connection to it is closed.
  - The stages of O(state) are called in their order, as long as V(plan) has RV(differences). A run that was cut off
    between two of them, or in one, left the old or the new version serving, and the next run completes it.
notes:
  - No module of Ansible's own does any of this; M(ansible.builtin.file) replaces a link in two steps.
  - This module works with an action plugin of its name, which reports who holds the lock of the app, and waits
    for others that hold it.
  - In check mode V(plan) reports what differs, and the other stages do nothing.
author:
  - asgiops maintainers (@asgiops)
attributes:
  check_mode:
    description: Reports what would change and changes nothing.
    support: full
  diff_mode:
    description: RV(differences) names what differs; contents are not shown, since secrets are among them.
    support: none
  idempotent:
    description: V(plan) reports that nothing is to be done when the live slot is as it should be, except for a restart.
    support: full
extends_documentation_fragment:
  - asgiops.fastapi_host.supervisor
options:
  name:
    description: The app's name.
    type: str
    required: true
  state:
    description:
      - V(plan) compares the live slot with what is wanted. If they differ it takes the lock, for all later stages.
      - V(configure) writes the idle slot after a check of its candidate files, and runs its O(commands).
      - V(start) starts it, waits until it is well, and runs its O(commands).
      - V(promote) moves C(live.sock), makes sure that the new slot answers there, runs its O(commands) and watches the
        slot for O(soak). What fails turns the link back.
      - V(finalize) lets the old slot finish, stops it, removes old releases, runs its O(commands) and gives the lock
        back.
      - V(abort) clears away what a run began that failed between two stages. Nothing is done if no lock is held.
      - A stage that fails does the same by itself.
      - The stages are gone through in this order. Those that are left on the way to the one that is asked for belong to
        the call.
    type: str
    choices: [plan, configure, start, promote, finalize, abort]
    required: true
  begin:
    description:
      - Whether the run begins with this stage. It compares first and takes the lock, as V(plan) does, and does nothing
        more when nothing differs.
    type: bool
    default: false
  environment:
    description:
      - What the environment of a release that is deployed is built with, options of M(asgiops.fastapi_host.uv_venv).
        The variables of the role C(python_venv) are the rest of it. Without it, the environment must have been built.
    type: json
  action:
    description:
      - V(deploy) brings O(release). V(restart) brings the live release again, with the files given.
      - V(rollback) brings O(to), or the last release in the ledger that was live before the present one.
    type: str
    choices: [deploy, rollback, restart]
    default: deploy
  to:
    description: The release to roll back to.
    type: str
    default: ""
  force:
    description: Whether to roll back past a migration that cannot be undone, or to a release that never went live.
    type: bool
    default: false
  base_dir:
    description: The directory below which C(apps/NAME) is.
    type: path
    default: /opt/fastapi
  release:
    description:
      - The release's name below C(apps/NAME/releases). For other actions than V(deploy), what V(plan) returned.
    type: str
    default: ""
  revision:
    description: The whole revision of the release's source, for the ledger.
    type: str
    default: ""
  build:
    description: Anything that identifies what the release's environment is built from; another text is a change.
    type: str
    default: ""
  user:
    description: The account of the app. Checks and commands run as it.
    type: str
    default: root
  group:
    description: The group that may read the slot's directory.
    type: str
    default: root
  directories:
    description: Directories that both slots need, parents before children.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The full path; of O(files) one relative to the slot's directory.
        type: str
        required: true
      owner:
        description: The owning user.
        type: str
        default: root
      group:
        description: The owning group.
        type: str
        default: root
      mode:
        description: The permissions, in octal digits. V(0755) for a directory and V(0640) for a file when not set.
        type: str
  files:
    description:
      - The files of a slot. C(run) must be among them, a shell script that starts the server on the socket of the slot
        whose directory it lies in, that with C(--check) reports whether it would, and that with C(--exec) executes a
        command in the app's environment.
      - Beside them are the links C(release) and C(venv).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The full path; of O(files) one relative to the slot's directory.
        type: str
        required: true
      content:
        description: The content, as text.
        type: str
      secret_content:
        description: The content, where it must not be shown.
        type: str
      owner:
        description: The owning user.
        type: str
        default: root
      group:
        description: The owning group.
        type: str
        default: root
      mode:
        description: The permissions, in octal digits. V(0755) for a directory and V(0640) for a file when not set.
        type: str
  program:
    description:
      - The section of the supervisor program. C({slot}) is replaced by the slot's name, and C({set_digest}) by the
        fingerprint of all that goes into the slot.
    type: str
    default: ""
  tmpfiles:
    description: Lines for C(/etc/tmpfiles.d/fastapi-NAME.conf), to which the module adds the link.
    type: str
    default: ""
  health:
    description: How a slot shows that it is well.
    type: dict
    default: {}
    suboptions:
      path:
        description: The path to ask for; nothing is asked when empty.
        type: str
        default: /health
      status:
        description: The status that it answers with.
        type: int
        default: 200
      timeout:
        description: Seconds until the first good answer.
        type: float
        default: 30
      period:
        description: Seconds for which it must go on answering so, with the same workers, before it goes live.
        type: float
        default: 3
      host:
        description: The name to ask for, in the Host header.
        type: str
        default: localhost
      proxy_url:
        description:
          - The address of the proxy in front. A new live slot is asked through it as well, if something listens there,
            and the answer must prove that it comes from this slot, as the role P(asgiops.fastapi_host.nginx#role) has
            nginx do it. Nothing is asked when empty.
        type: str
        default: ""
  soak:
    description: How long the new live slot is watched before the old one is stopped.
    type: dict
    default: {}
    suboptions:
      seconds:
        description: For how many seconds it is asked for its health, once in each.
        type: float
        default: 0
      max_failures:
        description: How many bad answers are allowed.
        type: int
        default: 0
  drain_timeout:
    description: The most seconds to wait for open connections to a slot before it is stopped.
    type: float
    default: 30
  shared:
    description: What all releases of the app share, in C(apps/NAME/shared).
    type: dict
    default: {}
    suboptions:
      directories:
        description: Directories, relative to the source. They are made, and are the app's own.
        type: list
        elements: str
        default: []
      files:
        description: Files, relative to the source. They must be there.
        type: list
        elements: str
        default: []
  static:
    description:
      - Directories that the proxy serves by itself. Those in the release or in C(apps/NAME/shared) are opened to it;
        the rest of a release is the app's alone.
    type: list
    elements: path
    default: []
  proxy_group:
    description: The group of the proxy's account, for what it serves of C(apps/NAME/shared).
    type: str
    default: root
  commands:
    description: Commands to run in the slot's environment at the end of this stage, as the app's user.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is, for messages.
        type: str
        required: true
      argv:
        description: The command and its arguments.
        type: list
        elements: str
        required: true
      stage:
        description: The stage at whose end it runs.
        type: str
        choices: [configure, start, promote, finalize]
        required: true
      timeout:
        description: Seconds until it is ended and counts as failed.
        type: int
        default: 300
  irreversible:
    description: Whether what this release does to the app's data cannot be undone, so that no rollback goes past it.
    type: bool
    default: false
  keep:
    description: How many releases stay, the live one included. The last good one before it always stays.
    type: int
    default: 3
  reason:
    description: Why a run ends with V(abort), for the ledger.
    type: str
    default: ""
  lock_timeout:
    description: Seconds to wait for another run that is at work on the app.
    type: int
    default: 60
  timeout:
    description: The most seconds for one stop and for one start of a slot.
    type: int
    default: 300
  connect_timeout:
    description: The most seconds to wait for supervisord to accept commands.
    type: int
    default: 10
  log_lines:
    description: How many lines of the end of a failed slot's log to show.
    type: int
    default: 20
  owner:
    description: Set by the action plugin, who runs this and where.
    type: dict
    suboptions:
      run:
        description: A name that no other run has.
        type: str
        required: true
      by:
        description: The user.
        type: str
        required: true
      controller:
        description: The controller's host name.
        type: str
        default: ""
      pid:
        description: The process on the controller.
        type: int
        default: 0
  dead_run:
    description: Set by the action plugin, a run that holds the lock and is known to have ended.
    type: str
    default: ""
seealso:
  - module: asgiops.fastapi_host.supervisor_process
  - module: asgiops.fastapi_host.file_set
"""

EXAMPLES = r"""
- name: See what is to be done
  asgiops.fastapi_host.release_slot:
    name: orders
    state: plan
    release: 3f786850e387
    user: orders
    group: orders
    files: "{{ files }}"
    program: "{{ lookup('ansible.builtin.template', 'program.ini.j2') }}"
  register: plan

- name: Do it
  asgiops.fastapi_host.release_slot:
    name: orders
    state: finalize
    release: 3f786850e387
    user: orders
    group: orders
    files: "{{ files }}"
    program: "{{ lookup('ansible.builtin.template', 'program.ini.j2') }}"
  when: plan is changed
"""

RETURN = r"""
differences:
  description: Why the live slot, or what is around it, is not as it should be.
  returned: with O(state=plan)
  type: list
  elements: str
  sample: ["release 1c2d3e4f5a6b -> 3f786850e387"]
move:
  description:
    - Whether the idle slot has to be filled. If there are RV(differences) and this is not so, an earlier run was
      cut off and its
      last stages, V(promote) and V(finalize), are all that is missing.
  returned: with O(state=plan)
  type: bool
release:
  description: The release that this is about.
  returned: success
  type: str
  sample: 3f786850e387
previous:
  description: The release that is live now, or an empty text.
  returned: with O(state=plan)
  type: str
slot:
  description: The slot that this is about.
  returned: success
  type: str
  sample: green
dropped:
  description: How many connections to the old slot were still open when O(drain_timeout) had passed.
  returned: with O(state=finalize)
  type: int
waited:
  description: Seconds that passed while the app started, was watched, or finished its requests.
  returned: with every stage after V(plan)
  type: float
  sample: 4.2
removed:
  description: The releases that were removed.
  returned: with O(state=finalize)
  type: list
  elements: str
output:
  description: What the check of the slot's files printed, line by line.
  returned: when the stage V(configure) was gone through
  type: list
  elements: str
  sample: [uses loop uvloop]
pid:
  description: The first process of the new slot.
  returned: when the stage V(start) was gone through
  type: int
holder:
  description: Who holds the lock, when that is why the task failed.
  returned: when the app is locked
  type: dict
"""

import json
import os
from dataclasses import asdict
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files.file_set import (
    FileSetError,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._layout import BASE_DIR
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import Output
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.ledger import LedgerError
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.lock import Locked, LostLock, Run
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.move import (
    ACTIONS,
    STAGES,
    Command,
    Move,
    Options,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots.slots import AppPaths, SlotError, WantedSlot
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.rpc import (
    CONNECTION_OPTIONS,
    Connection,
    SupervisorError,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.settings import EnvironmentSettings

PLACE = {
    "path": {"type": "str", "required": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str"},
}
CONTENT = {"content": {"type": "str"}, "secret_content": {"type": "str", "no_log": True}}
SPEC: dict[str, Any] = {
    **CONNECTION_OPTIONS,
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": list(STAGES), "required": True},
    "begin": {"type": "bool", "default": False},
    # It may have passwords of package indexes in it.
    "environment": {"type": "json", "no_log": True},
    "action": {"type": "str", "choices": list(ACTIONS), "default": "deploy"},
    "to": {"type": "str", "default": ""},
    "force": {"type": "bool", "default": False},
    "base_dir": {"type": "path", "default": BASE_DIR},
    "release": {"type": "str", "default": ""},
    "revision": {"type": "str", "default": ""},
    "build": {"type": "str", "default": ""},
    "user": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "directories": {"type": "list", "elements": "dict", "default": [], "options": PLACE},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {**PLACE, **CONTENT},
        "required_one_of": [("content", "secret_content")],
        "mutually_exclusive": [("content", "secret_content")],
    },
    "program": {"type": "str", "default": ""},
    "tmpfiles": {"type": "str", "default": ""},
    "health": {
        "type": "dict",
        "default": {},
        "apply_defaults": True,
        "options": {
            "path": {"type": "str", "default": "/health"},
            "status": {"type": "int", "default": 200},
            "timeout": {"type": "float", "default": 30},
            "period": {"type": "float", "default": 3},
            "host": {"type": "str", "default": "localhost"},
            "proxy_url": {"type": "str", "default": ""},
        },
    },
    "soak": {
        "type": "dict",
        "default": {},
        "apply_defaults": True,
        "options": {"seconds": {"type": "float", "default": 0}, "max_failures": {"type": "int", "default": 0}},
    },
    "drain_timeout": {"type": "float", "default": 30},
    "shared": {
        "type": "dict",
        "default": {},
        "apply_defaults": True,
        "options": {
            "directories": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "str", "default": []},
        },
    },
    "static": {"type": "list", "elements": "path", "default": []},
    "proxy_group": {"type": "str", "default": "root"},
    "commands": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "argv": {"type": "list", "elements": "str", "required": True},
            "stage": {"type": "str", "choices": ["configure", "start", "promote", "finalize"], "required": True},
            "timeout": {"type": "int", "default": 300},
        },
    },
    "irreversible": {"type": "bool", "default": False},
    "keep": {"type": "int", "default": 3},
    "reason": {"type": "str", "default": ""},
    "lock_timeout": {"type": "int", "default": 60},
    "timeout": {"type": "int", "default": 300},
    "connect_timeout": {"type": "int", "default": 10},
    "log_lines": {"type": "int", "default": 20},
    "redact": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "owner": {
        "type": "dict",
        "options": {
            "run": {"type": "str", "required": True},
            "by": {"type": "str", "required": True},
            "controller": {"type": "str", "default": ""},
            "pid": {"type": "int", "default": 0},
        },
    },
    "dead_run": {"type": "str", "default": ""},
}


def _options(params: dict[str, Any], environment: Optional[EnvironmentSettings]) -> Options:
    health, soak, shared = params["health"], params["soak"], params["shared"]
    same = (
        "action",
        "to",
        "force",
        "user",
        "static",
        "proxy_group",
        "drain_timeout",
        "irreversible",
        "keep",
        "timeout",
        "log_lines",
        "redact",
    )
    return Options(
        health_path=health["path"],
        health_status=health["status"],
        health_timeout=health["timeout"],
        health_period=health["period"],
        host=health["host"],
        proxy_url=health["proxy_url"],
        soak_seconds=soak["seconds"],
        soak_failures=soak["max_failures"],
        shared_directories=shared["directories"],
        shared_files=shared["files"],
        commands=[Command(**command) for command in params["commands"]],
        connection=Connection.of(params),
        environment=environment,
        **{name: params[name] for name in same},
    )


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, required_together=[("username", "password")], supports_check_mode=True)
    params = module.params
    environment = EnvironmentSettings.of(json.loads(params["environment"])) if params["environment"] else None
    passwords = [account.password for account in environment.credentials] if environment else []
    output = Output(module, [*params["redact"], *passwords, params["password"]])
    if params["owner"] is None:
        output.fail("the action plugin of this module did not run: call it as asgiops.fastapi_host.release_slot")
    if params["keep"] < 1:
        output.fail(f"keep is {params['keep']}: it must be 1 at least, since the live release stays")

    def label(path: str) -> None:
        module.set_default_selinux_context(path, False)

    os.umask(0o022)
    paths = AppPaths.on_host(params["name"], params["base_dir"])
    move = Move(paths, WantedSlot.of(params), _options(params, environment), Run(**params["owner"]), label)
    try:
        result = move.run(
            params["state"], params["dead_run"], params["reason"], module.check_mode, begin=params["begin"]
        )
    except Locked as error:
        holder = asdict(error.claim.owner) if error.claim else {}
        output.fail(f"{params['name']} is locked: {error}", locked=True, holder=holder)
    except (SlotError, LedgerError, LostLock, FileSetError, SupervisorError) as error:
        output.fail(str(error))
    except OSError as error:
        output.fail(f"{error.filename or params['name']}: {error.strerror or error}")
    output.exit(**result)


if __name__ == "__main__":
    main()
