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
  - Brings the source of an app to a directory of its own, named by its revision, and returns where. The revision is the
    commit of a repository, the digest of an archive, or the digest of what a directory on the controller holds.
  - A source that is there already is not sent again.
  - Only root can read what is brought, and O(group). An archive is refused that has a link which leads out of it, by
    itself or with others, a hard link, a device, a named pipe, a sparse file, the same name twice, or more than
    100 levels or 200,000 files and directories.
notes:
  - M(ansible.builtin.copy) sends a directory file by file, M(ansible.builtin.unarchive) unpacks into the place that is
    used, and neither names the place by what is in it.
  - This module works with an action plugin of its name, which packs and sends what lies on the controller.
author:
  - asgiops maintainers (@asgiops)
attributes:
  check_mode:
    description: Reports what would change and changes nothing.
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
      include:
        description:
          - Shell patterns of names that are taken from C(path) all the same. Without it, files that usually hold
            secrets are left out as well, such as C(.env), C(.netrc), C(.pypirc), C(.ssh) and C(.aws).
        type: list
        elements: str
        default: []
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
      max_bytes:
        description: How large the files may be together, in bytes. A small archive can unpack to a full disk.
        type: int
        default: 2147483648
      repo:
        description:
          - The address of a git repository, for https, http, ssh, git, or a path on the host, without a password. The
            host fetches from it, so git must be there.
        type: str
      version:
        description: A tag, a branch or a commit of the repository.
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
  group:
    description: A group that may read the source. When it is not there yet, only root can.
    type: str
    default: ""
  ask:
    description:
      - Whether the host is asked first if a source that lies on the controller is there. Set it to V(false) where
        M(asgiops.fastapi_host.host_plan) has found that it is not.
    type: bool
    default: true
  revision:
    description: Set by the action plugin, the revision that is wanted.
    type: str
  archive:
    description: Set by the action plugin, an archive of the revision on the host.
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
missing:
  description: Whether the source was not there.
  returned: always
  type: bool
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
left_out:
  description: The names below C(path) that were left out since they usually hold secrets.
  returned: when the source is a directory
  type: list
  elements: str
  sample: [.env]
"""

import functools
import os
from typing import Any, Callable, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.archive import (
    MAX_BYTES,
    SourceTreeError,
    Tree,
    unpack,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.git import Repository
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.tree import (
    EXCLUDE,
    bring,
    group_id,
    is_there,
    regroup,
    release_path,
)

SOURCE_OPTIONS: dict[str, Any] = {
    "path": {"type": "str"},
    "exclude": {"type": "list", "elements": "str", "default": EXCLUDE},
    "include": {"type": "list", "elements": "str", "default": []},
    "archive": {"type": "str"},
    "checksum": {"type": "str"},
    "strip_components": {"type": "int", "default": 0},
    "max_bytes": {"type": "int", "default": MAX_BYTES},
    "repo": {"type": "str"},
    "version": {"type": "str", "default": "HEAD"},
    "key_file": {"type": "str", "no_log": False},
    "package": {"type": "str"},
    "lock": {"type": "str"},
}


def _from_repository(module: AnsibleModule) -> tuple[str, Callable[[Tree], None]]:
    releases, source = module.params["releases"], module.params["source"]
    git = module.get_bin_path("git")
    if not git:
        raise SourceTreeError("source.repo is set, but git is not on the host: install the package git-core")
    repository = Repository(
        git,
        source["repo"],
        source["key_file"],
        clone=os.path.join(os.path.dirname(releases), "repository"),
        scratch=module.tmpdir if module.check_mode else "",
    )
    revision = repository.revision(source["version"])
    # In check mode only what nobody has confirmed yet: that there is such a commit.
    if not is_there(releases, revision) and (revision == source["version"] or not module.check_mode):
        repository.bring(revision)
    return revision, functools.partial(repository.unpack, revision)


def _run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    releases, source, archive = params["releases"], params["source"], params["archive"]
    if source["strip_components"] < 0:
        raise SourceTreeError(f"source.strip_components is {source['strip_components']}: it must be 0 or more")
    fill: Optional[Callable[[Tree], None]] = functools.partial(unpack, archive) if archive else None
    revision = params["revision"]
    if source["repo"]:
        revision, fill = _from_repository(module)
    missing = not is_there(releases, revision)
    # Without an archive the action plugin only asks whether it must send one.
    if missing and fill and not module.check_mode:
        bring(
            releases,
            revision,
            fill,
            strip=source["strip_components"],
            max_bytes=source["max_bytes"],
            gid=group_id(params["group"]),
        )
    regrouped = not missing and regroup(releases, revision, group_id(params["group"]), module.check_mode)
    path = release_path(releases, revision)
    return {"changed": missing or regrouped, "missing": missing, "revision": revision, "path": path}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "releases": {"type": "path", "required": True},
            "source": {
                "type": "dict",
                "required": True,
                "options": SOURCE_OPTIONS,
                "required_one_of": [("path", "archive", "repo", "package")],
                "mutually_exclusive": [("path", "archive", "repo", "package")],
                "required_together": [("package", "lock")],
            },
            "group": {"type": "str", "default": ""},
            "ask": {"type": "bool", "default": True},
            "revision": {"type": "str"},
            "archive": {"type": "path"},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    if not module.params["revision"]:
        module.fail_json(
            msg="the action plugin of this module did not run: call it as asgiops.fastapi_host.source_tree"
        )
    try:
        result = _run(module)
    except SourceTreeError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        path = error.filename or module.params["releases"]
        module.fail_json(msg=f"{path}: {error.strerror or error}; the release was not made")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
