#!/usr/bin/python

# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: file_set
short_description: Write files that belong together, all or none, after a check of the candidates
version_added: 0.1.0
description:
  - Writes directories, files and symbolic links in one call. Files are written beside their paths first and renamed
    when all of them are whole, in the order given. Files that an earlier set has left can be removed with them.
  - Before anything is replaced, O(checks) run against the candidates, which lie under a temporary folder at their full
    paths; directories that are missing are made first. A check that fails leaves the host as it was.
  - A file with a secret is never readable by more people than it will be in the end, and its content is not shown in
    a diff.
notes:
  - M(ansible.builtin.template) and M(ansible.builtin.copy) check one file at a time, with C(validate), and know nothing
    of the others that it needs; each file costs a round trip of its own.
  - In check mode the checks do not run, since they need what a real run would have installed.
author:
  - asgiops maintainers (@asgiops)
attributes:
  check_mode:
    description: Reports what would change and changes nothing.
    support: full
  diff_mode:
    description: Shows the contents before and after, except secret ones.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
options:
  directories:
    description: Directories, parents before children.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The full path.
        type: path
        required: true
      owner:
        description: The owning user's name or number.
        type: str
        default: root
      group:
        description: The owning group's name or number.
        type: str
        default: root
      mode:
        description: The permissions, in octal digits. V(0755) for a directory and V(0644) for a file when not set.
        type: str
  files:
    description:
      - Files, in the order in which they are put into place.
      - C({set_digest}) in a content is replaced by a digest of all other files of the set, under a key of the host's.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The full path.
        type: path
        required: true
      content:
        description: The content, as text.
        type: str
      secret_content:
        description: The content, where it must not be shown.
        type: str
      secret_lines:
        description:
          - How a line of O(files[].content) begins that ends in a secret, as a regular expression. A diff does not show
            what follows, neither of the old content nor of the new one.
        type: str
      owner:
        description: The owning user's name or number.
        type: str
        default: root
      group:
        description: The owning group's name or number.
        type: str
        default: root
      mode:
        description: The permissions, in octal digits. V(0644) when not set.
        type: str
  links:
    description: Symbolic links, each put into place by one rename, after the files.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The full path of the link.
        type: path
        required: true
      target:
        description: What the link points to.
        type: str
        required: true
  purge:
    description:
      - Patterns of paths that are this set's alone, such as V(/etc/nginx/tls/*.key). Files and links that match and are
        not in the set are removed, after all others are in place.
      - Each pattern is one of Python's glob module. What a removed file held is not shown in a diff.
    type: list
    elements: str
    default: []
  context:
    description:
      - Directories of the host that are copied into the folder of the candidates, without what the set replaces or
        removes, for checks that look at a whole tree.
    type: list
    elements: path
    default: []
  checks:
    description: Commands that must succeed before anything is replaced. They run only when something differs.
    type: list
    elements: dict
    default: []
    suboptions:
      argv:
        description: The command and its arguments; C({stage}) is replaced by the folder of the candidates.
        type: list
        elements: str
        required: true
      user:
        description: The user to run as; root's rights, HOME and groups are left behind.
        type: str
        default: ""
      chdir:
        description: The working directory.
        type: path
        default: /
      timeout:
        description: Seconds until the check is ended with SIGKILL and counts as failed.
        type: int
        default: 60
  redact:
    description:
      - Values that must not show in messages, in what checks printed and in differences, such as secrets.
      - A value is redacted as a whole from five characters on. Of a longer one its beginnings and ends are redacted
        too, where a library has cut out the rest. Paths and other values for further tasks are left as they are.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: An application's settings, checked by the application itself
  asgiops.fastapi_host.file_set:
    directories:
      - path: /etc/orders
        group: orders
        mode: "0750"
    files:
      - path: /etc/orders/orders.toml
        content: "{{ lookup('ansible.builtin.template', 'orders.toml.j2') }}"
        group: orders
        mode: "0640"
      - path: /etc/orders/token
        secret_content: "{{ orders_token }}"
        group: orders
        mode: "0640"
    checks:
      - argv: [/opt/orders/bin/orders, --check, "{stage}/etc/orders/orders.toml"]
        user: orders

- name: The certificates of the apps that are there, in a tree that nginx accepts as a whole
  asgiops.fastapi_host.file_set:
    files:
      - path: /etc/nginx/tls/orders.key
        secret_content: "{{ orders_key }}"
        mode: "0600"
    purge: [/etc/nginx/tls/*.key]
    context: [/etc/nginx]
    checks:
      - argv: [nginx, -t, -c, "{stage}/etc/nginx/nginx.conf"]
"""

RETURN = r"""
differences:
  description: What was (or in check mode would be) changed, a line for each path.
  returned: always
  type: list
  elements: str
  sample: ["/etc/orders/orders.toml: content"]
digest:
  description: What C({set_digest}) is replaced by.
  returned: always
  type: str
  sample: 9f86d081884c7d65
output:
  description: What the checks printed, line by line. Empty when none ran.
  returned: success
  type: list
  elements: str
  sample: [uses loop uvloop]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files.file_set import (
    CandidateCheck,
    Difference,
    FileSetError,
    apply,
    check_candidates,
    compare,
    items_of,
    leftovers,
    machine_key,
    resolve_digest,
    set_digest,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import Output

# A tmpfs: candidates with secrets never touch a disk.
STAGE_PARENT = "/run"


def _place() -> dict[str, object]:
    return {
        "path": {"type": "path", "required": True},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        "mode": {"type": "str"},
    }


def _shown(difference: Difference) -> dict[str, str]:
    reasons = ", ".join(difference.reasons)
    return {
        "before_header": difference.item.path,
        "after_header": f"{difference.item.path} ({reasons})",
        "before": difference.before,
        "after": difference.after,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directories": {"type": "list", "elements": "dict", "default": [], "options": _place()},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    **_place(),
                    "content": {"type": "str"},
                    "secret_content": {"type": "str", "no_log": True},
                    # A pattern is no secret.
                    "secret_lines": {"type": "str", "no_log": False},
                },
                "required_one_of": [("content", "secret_content")],
                "mutually_exclusive": [("content", "secret_content")],
            },
            "links": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"path": {"type": "path", "required": True}, "target": {"type": "str", "required": True}},
            },
            "purge": {"type": "list", "elements": "str", "default": []},
            "context": {"type": "list", "elements": "path", "default": []},
            "checks": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "argv": {"type": "list", "elements": "str", "required": True},
                    "user": {"type": "str", "default": ""},
                    "chdir": {"type": "path", "default": "/"},
                    "timeout": {"type": "int", "default": 60},
                },
            },
            "redact": {"type": "list", "elements": "str", "default": [], "no_log": True},
        },
        supports_check_mode=True,
    )

    output = Output(module, module.params["redact"])

    def label(path: str) -> None:
        module.set_default_selinux_context(path, False)

    # The modes below are meant literally, whatever the umask of the connection.
    os.umask(0o022)
    printed: list[str] = []
    try:
        given, key = items_of(module.params), machine_key()
        items = resolve_digest(given, key)
        items += leftovers(module.params["purge"], items)
        differences = [difference for difference in map(compare, items) if difference]
        if differences and not module.check_mode:
            checks = [CandidateCheck(**check) for check in module.params["checks"]]
            if checks:
                printed = check_candidates(items, checks, STAGE_PARENT, label, module.params["context"])
            apply(differences, label)
    except FileSetError as error:
        output.fail(str(error))
    except OSError as error:
        output.fail(f"{error.filename}: {error.strerror}; nothing more was changed")
    output.exit(
        changed=bool(differences),
        differences=[f"{found.item.path}: {', '.join(found.reasons)}" for found in differences],
        # Ansible shows what a module returns, whatever the task's keyword diff says.
        diff=[_shown(difference) for difference in differences] if module._diff else [],
        digest=set_digest(given, key),
        output=printed,
    )


if __name__ == "__main__":
    main()
