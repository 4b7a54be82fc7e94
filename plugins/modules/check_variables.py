#!/usr/bin/python

# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: check_variables
short_description: Refuse variables that cannot work, before anything on a host changes
version_added: 0.1.0
description:
  - Checks the variables of this collection's roles, C(fastapi_apps) included, against the roles' argument specs and
    against each other, and reports all that is wrong in one message.
  - Types, choices, ranges, names that no role knows, ports and sockets that are used twice, and timeouts that break
    their chain.
  - What an app asks for and that does nothing is warned about.
notes:
  - It runs on the controller alone and does not connect to the host.
  - M(ansible.builtin.validate_argument_spec) looks at one role, stops where a type is wrong, and knows no rules across
    values.
author:
  - asgiops maintainers (@asgiops)
attributes:
  check_mode:
    description: It changes nothing.
    support: full
  diff_mode:
    description: It changes nothing.
    support: none
  idempotent:
    description: It changes nothing.
    support: full
options:
  roles:
    description: The roles whose variables are looked at. Those of the playbook C(site) when not set.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Refuse variables that cannot work
  asgiops.fastapi_host.check_variables:
"""

RETURN = r"""
problems:
  description: A sentence for each thing that is wrong.
  returned: always
  type: list
  elements: str
  sample: ["unknown variable supervisor_logleval; did you mean supervisor_loglevel?"]
"""
