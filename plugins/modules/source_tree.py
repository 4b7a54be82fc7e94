#!/usr/bin/python

# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: source_tree
short_description: Bring one revision of an app's source to a host, whole or not at all
version_added: 0.1.0
description:
  - Brings the source of an app to a directory of its own, named by its revision, and tells where. The revision is the
    commit of a repository, the digest of an archive, or the digest of what a directory on the controller holds.
  - A source that is there already is not sent again.
notes:
  - M(ansible.builtin.copy) sends a directory file by file, M(ansible.builtin.unarchive) unpacks into the place that is
    used, and neither names the place by what is in it.
  - This module works with an action plugin of its name, which packs and sends what lies on the controller.
author:
  - asgiops maintainers (@asgiops)
attributes:
  check_mode:
    description: Tells what would change and changes nothing.
    support: full
  diff_mode:
    description: There is no diff of sources.
    support: none
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
options:
  releases:
    description: The directory below which each revision has its own.
    type: path
    required: true
  source:
    description: Where the source comes from, one of C(path), C(archive), C(repo) and C(package).
    type: dict
    required: true
    suboptions:
      path:
        description: A directory on the controller.
        type: str
      exclude:
        description: Shell patterns of names that are left out of C(path).
        type: list
        elements: str
        default: [.git, .venv, __pycache__, "*.pyc", .mypy_cache, .pytest_cache, .ruff_cache]
      archive:
        description: A tar or zip file on the controller, or its URL.
        type: str
      checksum:
        description: The archive's digest as V(sha256:HEX). Required with a URL.
        type: str
      strip_components:
        description: How many leading directories of an archive's names are dropped.
        type: int
        default: 0
      repo:
        description: The address of a git repository. The host fetches from it, so git must be there.
        type: str
      version:
        description: A tag, branch or commit of the repository.
        type: str
        default: HEAD
      key_file:
        description: A private SSH key on the host that may read the repository.
        type: str
      package:
        description: A Python package as NAME==VERSION. The source is its lock file alone, C(requirements.txt).
        type: str
      lock:
        description: A file of hashed requirements on the controller that has the package in it.
        type: str
  revision:
    description: Set by the action plugin, the revision that is wanted.
    type: str
  archive:
    description: Set by the action plugin, an archive of the revision on the host.
    type: path
  repository:
    description: Set by the action plugin, a clone on the host that has the revision.
    type: path
"""

EXAMPLES = r"""
- name: Bring the source
  asgiops.fastapi_host.source_tree:
    releases: /opt/fastapi/apps/orders/releases
    source:
      repo: https://git.example.com/orders.git
      version: v1.4.2
  register: tree
"""

RETURN = r"""
revision:
  description: The whole revision.
  returned: always
  type: str
  sample: 3f786850e387550fdab836ed7e6dc881de23001b
path:
  description: The directory of the release.
  returned: always
  type: str
  sample: /opt/fastapi/apps/orders/releases/3f786850e387
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._source_tree import (
    EXCLUDE,
    SourceTreeError,
    archive_commit,
    is_there,
    release_path,
    unpack_release,
)


def _bring(module: AnsibleModule) -> None:
    params = module.params
    archive = params["archive"]
    if params["repository"]:
        handle, archive = tempfile.mkstemp(suffix=".tar", dir=module.tmpdir)
        os.close(handle)
        git = module.get_bin_path("git", required=True)
        archive_commit(git, params["repository"], params["revision"], archive)
    unpack_release(params["releases"], params["revision"], archive, params["source"]["strip_components"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "releases": {"type": "path", "required": True},
            "source": {
                "type": "dict",
                "required": True,
                "options": {
                    "path": {"type": "str"},
                    "exclude": {"type": "list", "elements": "str", "default": EXCLUDE},
                    "archive": {"type": "str"},
                    "checksum": {"type": "str"},
                    "strip_components": {"type": "int", "default": 0},
                    "repo": {"type": "str"},
                    "version": {"type": "str", "default": "HEAD"},
                    "key_file": {"type": "str", "no_log": False},
                    "package": {"type": "str"},
                    "lock": {"type": "str"},
                },
                "required_one_of": [("path", "archive", "repo", "package")],
                "mutually_exclusive": [("path", "archive", "repo", "package")],
                "required_together": [("package", "lock")],
            },
            "revision": {"type": "str"},
            "archive": {"type": "path"},
            "repository": {"type": "path"},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    releases, revision = module.params["releases"], module.params["revision"]
    if not revision:
        module.fail_json(
            msg="the action plugin of this module did not run: call it as asgiops.fastapi_host.source_tree"
        )
    missing = not is_there(releases, revision)
    # Without an archive the action plugin only asks whether it must send one.
    wanted = module.params["archive"] or module.params["repository"]
    if missing and wanted and not module.check_mode:
        try:
            _bring(module)
        except SourceTreeError as error:
            module.fail_json(msg=str(error))
        except OSError as error:
            module.fail_json(msg=f"{error.filename or releases}: {error.strerror}; the release was not made")
    module.exit_json(changed=missing, revision=revision, path=release_path(releases, revision))


if __name__ == "__main__":
    main()
