#!/usr/bin/python

# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_prune
short_description: Remove old releases of an app, never the live one
version_added: 0.1.0
description:
  - Keeps the live release and the newest others, and removes the rest and what runs that were cut off left behind.
  - Refuses a directory that others than root can write, who could lead it elsewhere.
notes:
  - M(ansible.builtin.find) and M(ansible.builtin.file) would need a round trip for each release.
author:
  - asgiops maintainers (@asgiops)
attributes:
  check_mode:
    description: Reports what would change and changes nothing.
    support: full
  diff_mode:
    description: There is no diff of directories.
    support: none
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
options:
  releases:
    description: The directory below which each release has its own.
    type: path
    required: true
  live:
    description: The name of the release that is served.
    type: str
    required: true
  keep:
    description: How many releases stay, the live one included.
    type: int
    default: 3
"""

EXAMPLES = r"""
- name: Keep the live release and two more
  asgiops.fastapi_host.release_prune:
    releases: /opt/fastapi/apps/orders/releases
    live: 3f786850e387
"""

RETURN = r"""
removed:
  description: The names of the releases that went.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.archive import SourceTreeError
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.tree import prune


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "releases": {"type": "path", "required": True},
            "live": {"type": "str", "required": True},
            "keep": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
    )
    params = module.params
    if params["keep"] < 1:
        module.fail_json(msg=f"keep is {params['keep']}: it must be 1 at least, since the live release stays")
    try:
        removed = prune(params["releases"], params["live"], params["keep"], module.check_mode)
    except SourceTreeError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(changed=bool(removed), removed=removed)


if __name__ == "__main__":
    main()
