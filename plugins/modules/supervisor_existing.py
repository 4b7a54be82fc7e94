#!/usr/bin/python

# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: supervisor_existing
short_description: Keep programs of supervisord's configuration that the role supervisor did not write
version_added: 0.1.0
description:
  - The role C(supervisor) owns C(/etc/supervisord.conf) and writes no programs into it. Sections C([program:x]),
    C([group:x]), C([fcgi-program:x]) and C([eventlistener:x]) that are found there are moved, as they are, to
    C(/etc/supervisord.d/_existing.ini), which the role's configuration includes and never rewrites.
  - Fails before anything is changed where the role's configuration would restart programs that are not the role's,
    unless O(restart) allows it, or where it would lose them, as with an include of another directory.
  - Where the configuration differs from O(content) in those sections alone, supervisord reads the same afterwards, and
    nothing is restarted.
notes:
  - Sections are never shown, since an environment may hold secrets.
author:
  - asgiops maintainers (@asgiops)
attributes:
  check_mode:
    description: Fails as a real run would, and changes nothing.
    support: full
  diff_mode:
    description: Shows nothing, since the sections may hold secrets; RV(sections) names them.
    support: none
  idempotent:
    description: A second run finds nothing to move.
    support: full
options:
  content:
    description: The configuration that the role is going to write.
    type: str
    required: true
  names:
    description: The programs and groups that are the role's own or those of apps.
    type: list
    elements: str
    default: []
  restart:
    description: Whether programs that are in none of O(names) may be restarted, with supervisord.
    type: bool
    default: false
seealso:
  - module: asgiops.fastapi_host.file_set
  - module: asgiops.fastapi_host.supervisor_process
"""

EXAMPLES = r"""
- name: Keep programs that were there before
  asgiops.fastapi_host.supervisor_existing:
    content: "{{ lookup('ansible.builtin.template', 'supervisord.conf.j2') }}"
    names: [orders]
"""

RETURN = r"""
sections:
  description: The sections that were moved, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: ["program:legacy"]
restarted:
  description: The running processes that the role's configuration restarts.
  returned: success
  type: list
  elements: str
  sample: [legacy]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files.file_set import (
    FileSetError,
    Item,
    apply,
    compare,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import existing
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.rpc import Connection, SupervisorError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            # It holds supervisorctl's password.
            "content": {"type": "str", "required": True, "no_log": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "restart": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params

    def label(path: str) -> None:
        module.set_default_selinux_context(path, False)

    os.umask(0o022)
    try:
        plan = existing.make_plan(
            options["content"],
            options["names"],
            options["restart"],
            Connection(config=existing.CONFIG, connect_timeout=0),
        )
        if plan.items and not module.check_mode:
            items = [Item(os.path.dirname(existing.KEPT), "root", "root", 0o755), *plan.items]
            apply([found for found in map(compare, items) if found], label)
    except (FileSetError, SupervisorError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}; nothing more was changed")
    if plan.sections:
        module.warn(
            f"{existing.CONFIG}: kept in {existing.KEPT}, since the role supervisor did not write them: "
            + ", ".join(plan.sections)
        )
    module.exit_json(changed=bool(plan.items), sections=plan.sections, restarted=plan.restarted)


if __name__ == "__main__":
    main()
