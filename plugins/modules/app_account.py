#!/usr/bin/python

# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_account
short_description: Make sure of the accounts that apps run as, and change none that exists
version_added: 0.1.0
description:
  - Creates an account that is not there, as a system account without a shell. An account that exists is used as it is,
    and neither its home, its shell nor its groups are changed.
  - An account is refused when it is root or in root's group, when it is a system account that was not created by this
    module, and when another app has it, unless the app says that the latter two are meant. When one account is refused,
    none is created.
  - C(/etc/fastapi/accounts.json) records which accounts were created for apps, and which apps run as them. Where it is
    missing, an account whose home has the name of an app, beside O(accounts[].home), and whose shell is
    C(/sbin/nologin) counts as that app's.
notes:
  - M(ansible.builtin.user) changes an account that exists, and costs a round trip for each account and group.
author:
  - asgiops maintainers (@asgiops)
attributes:
  check_mode:
    description: Reports which accounts would be created, and refuses what a run would refuse.
    support: full
  diff_mode:
    description: Shows the accounts that are created, and the record before and after.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
options:
  accounts:
    description: The accounts of all apps, or of some.
    type: list
    elements: dict
    required: true
    suboptions:
      app:
        description: The app's name.
        type: str
        required: true
      user:
        description: The account's name.
        type: str
        required: true
      group:
        description:
          - The group that the app's files have. It is created when neither it nor the account is there; an account that
            exists must be in it.
          - The group of the account's own name when empty. Where there is one already, but no such account, that is
            refused.
        type: str
        default: ""
      home:
        description:
          - The home of an account that is created; the directory itself is not. Its parent is where the homes of all
            apps are.
        type: path
        required: true
      shared_user:
        description: Whether the account may be that of other apps as well.
        type: bool
        default: false
      existing_user:
        description: Whether the account may be a system account that was not created by this module.
        type: bool
        default: false
"""

EXAMPLES = r"""
- name: An account of its own for one app, one account for two others
  asgiops.fastapi_host.app_account:
    accounts:
      - app: orders
        user: orders
        home: /var/lib/fastapi/orders
      - app: shop
        user: webapps
        home: /var/lib/fastapi/shop
        shared_user: true
      - app: blog
        user: webapps
        home: /var/lib/fastapi/blog
        shared_user: true
"""

RETURN = r"""
differences:
  description: What was (or in check mode would be) changed, a line for each account, and one for the record.
  returned: success
  type: list
  elements: str
  sample: ["account orders: new, group orders, home /var/lib/fastapi/orders, shell /sbin/nologin"]
accounts:
  description: What the apps run as, in the order of O(accounts).
  returned: success
  type: list
  elements: dict
  contains:
    app:
      description: The app's name.
      type: str
    user:
      description: The account's name.
      type: str
    group:
      description: The name of the group that the app's files have.
      type: str
    home:
      description: The account's home as the host has it.
      type: str
    uid:
      description: The account's number. None when it would be created in check mode.
      type: int
    gid:
      description: The group's number. None when it would be created in check mode.
      type: int
    made:
      description: Whether the account was created for an app.
      type: bool
    apps:
      description: The apps that run as it.
      type: list
      elements: str
  sample:
    - app: orders
      user: orders
      group: orders
      home: /var/lib/fastapi/orders
      uid: 989
      gid: 989
      made: true
      apps: [orders]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._host import account as _app_account


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "accounts": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "app": {"type": "str", "required": True},
                    "user": {"type": "str", "required": True},
                    "group": {"type": "str", "default": ""},
                    "home": {"type": "path", "required": True},
                    "shared_user": {"type": "bool", "default": False},
                    "existing_user": {"type": "bool", "default": False},
                },
            }
        },
        supports_check_mode=True,
    )
    # The modes are meant as they stand, whatever the umask of the connection.
    os.umask(0o022)
    try:
        outcome = _app_account.settle(_app_account.from_options(module.params["accounts"]), module.check_mode)
    except _app_account.AccountError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    for warning in outcome.warnings:
        module.warn(warning)
    module.exit_json(
        changed=bool(outcome.differences),
        differences=outcome.differences,
        accounts=[vars(account) for account in outcome.accounts],
        diff=outcome.diff(),
    )


if __name__ == "__main__":
    main()
