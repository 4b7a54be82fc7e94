#!/usr/bin/python

# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: uv_venv
short_description: Build a virtual environment from a lock file with uv, whole or not at all
version_added: 0.1.0
description:
  - Builds one virtual environment from a lock file with C(uv) on the host. The environment is built in a directory of
    its own beside O(path), at the path where it stays. When it is complete, O(path), a symbolic link, is pointed to
    it in one atomic step.
  - A build that fails or is cut off changes nothing at O(path), and running again makes it whole.
  - Every package is verified by the hashes of the lock. The addresses in a lock are not followed, whatever its
    format. The lock says which files are right, and O(index_url), O(extra_index_urls) or O(wheelhouse) say where they
    come from.
  - An environment is rebuilt when its fingerprint differs, which covers the content of the lock (and of
    C(pyproject.toml) where it matters), the interpreter's real path and version, O(additions), O(extras), O(groups),
    O(install_project) with the project's files, and O(compile_bytecode). It does not cover where packages come from,
    that is O(index_url), O(extra_index_urls), O(ca_bundle), O(credentials), O(wheelhouse) and O(cache_dir), nor uv
    itself.
  - It is also rebuilt when the host drifted, that is when the link or the environment's interpreter is broken,
    when the environment was moved, or when packages in it were installed, removed or replaced by hand. Changes within
    the files of a package are not noticed.
notes:
  - M(ansible.builtin.pip) installs into an environment that is in use, package by package. A run that fails half way
    leaves a mixture, a lock's content is not compared with what is there, and check mode can't report what would
    happen.
  - Files and directories of the environment are readable by everybody, or by O(group) only, and belong to and can be
    written by only the user who runs the module, whatever the umask.
  - No code of a package runs as the user who runs the module. Wheels are only unpacked, and the environment's
    interpreter, which executes the C(.pth) files of packages, is not started once they are there.
  - uv sees nothing of the host's configuration. Only proxy variables (E(HTTP_PROXY), E(HTTPS_PROXY), E(ALL_PROXY),
    E(NO_PROXY)) pass, and E(SSL_CERT_FILE) and E(SSL_CERT_DIR) unless O(ca_bundle) is given.
  - Only wheels are installed. A package that has none for the interpreter is refused unless
    O(source_distributions) names it.
  - What is built from source, that is those packages and the project with O(install_project), is built by O(build_user)
    through O(launcher), without a network, and with no directory to write to but one of its own. Where the host lets
    nobody make namespaces, as in some containers, only the account's lack of rights is left of that. A user other than
    root builds as himself.
  - The requirements of such a build are wheels, pinned with their hashes by the lock or by O(build_requirements).
    Others are refused.
  - In check mode on a fresh host, where the interpreter, uv, the lock or a folder is still missing, the module
    reports a change and says what is missing. Outside check mode that is an error.
  - Old builds are removed by the next run that changes something, not by runs that find all in order.
author:
  - asgiops maintainers (@asgiops)
attributes:
  check_mode:
    description: Reports what would change and changes nothing.
    support: full
  diff_mode:
    description: Shows the packages before and after.
    support: full
    details:
      - In check mode there is no diff where what would be installed can't be found out without uv or the lock.
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
options:
  path:
    description:
      - Where users find the environment. A symbolic link, whose folder must exist.
      - The builds, named C(.NAME-FINGERPRINT), and a lock file lie beside it.
    type: path
    required: true
  python:
    description: The interpreter of the environment.
    type: path
    required: true
  uv:
    description: The uv program.
    type: path
    required: true
  lock:
    description: The lock file on the host.
    type: path
    required: true
  lock_format:
    description:
      - The format of O(lock). With V(auto) the name decides, C(uv.lock), C(pylock*.toml), and anything else is
        V(requirements).
      - With V(requirements) every line must be a version with its hashes. Other files and addresses named in it are
        not followed.
      - With V(pylock) O(python) must be 3.11 or newer. Packages from version control or directories are refused,
        since no hash vouches for them.
      - With V(uv) the file must be named C(uv.lock), with C(pyproject.toml) beside it. The project itself and the
        development group are not installed, unless O(install_project) and O(groups) ask for them.
    type: str
    choices: [auto, requirements, pylock, uv]
    default: auto
  install_project:
    description:
      - Whether to install the project in the lock's folder as well, not editable, without its dependencies.
      - There must be a C(pyproject.toml). A copy is built, so the folder stays as it is.
    type: bool
    default: false
  extras:
    description: Extras of the project, for C(uv.lock) and pylock files.
    type: list
    elements: str
    default: []
  groups:
    description: Dependency groups of the project, for C(uv.lock) and pylock files.
    type: list
    elements: str
    default: []
  additions:
    description:
      - Hashed requirement lines, each installed only when the lock has no such package for O(python). The lock's own
        versions always win.
      - The build fails when the packages do not fit together.
    type: list
    elements: str
    default: []
  index_url:
    description: The package index instead of PyPI. User and password belong to O(credentials).
    type: str
  extra_index_urls:
    description: More indexes, each asked before O(index_url). A package is taken from the first index that has it.
    type: list
    elements: str
    default: []
  ca_bundle:
    description: A PEM file on the host with the certificates of the authorities to trust.
    type: path
  credentials:
    description: Logins for hosts of indexes. They go to uv through a private file that is removed afterwards.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: The host's name, without scheme and port.
        type: str
        required: true
      username:
        description: The user's name.
        type: str
        required: true
      password:
        description: The user's password or token.
        type: str
        required: true
  wheelhouse:
    description:
      - A directory on the host with all packages. Nothing is fetched then, and O(index_url), O(extra_index_urls),
        O(credentials) and O(ca_bundle) play no part.
    type: path
  cache_dir:
    description:
      - The cache of uv, a directory that only the user who runs the module can write. Without it nothing is kept.
      - On the file system of O(path) environments share its files by hard links.
    type: path
  compile_bytecode:
    description: Whether to compile bytecode, since the app's user can't write into the environment.
    type: bool
    default: true
  source_distributions:
    description:
      - Names of packages of the lock that are built from their source distributions, which runs their code.
    type: list
    elements: str
    default: []
  build_requirements:
    description:
      - Hashed requirement lines of back ends, and of all that they need, for what is built from source. What a project
        names in C(build-system.requires) is taken from the lock when that has it, and from here otherwise.
    type: list
    elements: str
    default: []
  build_user:
    description: The account that builds from source. It must exist, and needs no rights at all.
    type: str
  launcher:
    description: The collection's launcher on the host, which gives O(build_user) a view of the host of its own.
    type: path
  group:
    description:
      - The group whose members may use the environment. Its directory is then closed to everybody else. Without it,
        everybody may use it.
      - A change of this needs no new build.
    type: str
  siblings:
    description:
      - A shell pattern of the links of other environments, for example of the app's other releases.
      - Where one of them has the same fingerprint and is exactly as it was built, this one becomes a copy of it, which
        takes neither uv nor a package index. The files are hard links, except those that name the environment's path.
      - It plays no part with O(install_project), and where links are not possible the environment is built.
    type: path
  keep:
    description:
      - How many complete builds stay, the published one included. A build that a running process uses is never
        removed.
    type: int
    default: 2
  timeout:
    description: How many seconds a build may take, and how many to wait for another run on the same environment.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Build the environment of orders from its hashed requirements, with the server added
  asgiops.fastapi_host.uv_venv:
    path: /opt/fastapi/venvs/orders
    python: /usr/bin/python3.12
    uv: /usr/local/bin/uv
    lock: /opt/fastapi/apps/orders/requirements.txt
    additions:
      - "gunicorn==27.0.1 --hash=sha256:{{ gunicorn_sha256 }}"
    cache_dir: /opt/fastapi/cache/uv

- name: Build from a uv.lock with one extra, through a private index, and install the project
  asgiops.fastapi_host.uv_venv:
    path: /opt/fastapi/venvs/orders
    python: /usr/bin/python3.12
    uv: /usr/local/bin/uv
    lock: /opt/fastapi/apps/orders/uv.lock
    extras: [postgres]
    install_project: true
    index_url: https://pypi.example.com/simple
    ca_bundle: /etc/pki/tls/certs/example.pem
    credentials:
      - host: pypi.example.com
        username: deploy
        password: "{{ index_password }}"

- name: Build on a host without a network
  asgiops.fastapi_host.uv_venv:
    path: /opt/fastapi/venvs/orders
    python: /usr/bin/python3.12
    uv: /usr/local/bin/uv
    lock: /opt/fastapi/apps/orders/pylock.toml
    wheelhouse: /opt/fastapi/wheelhouse
"""

RETURN = r"""
path:
  description: The link to the environment.
  returned: success
  type: str
  sample: /opt/fastapi/venvs/orders
build:
  description: The directory that the link points to. In check mode the one that it would point to, as far as known.
  returned: success
  type: str
  sample: /opt/fastapi/venvs/.orders-3f2a1c9d0b77
fingerprint:
  description: The digest of all that the environment is built from. Empty in check mode while something is missing.
  returned: success
  type: str
  sample: 3f2a1c9d0b77c1f0a8b7e6d5c4b3a29180f1e2d3c4b5a69788796a5b4c3d2e1f
reasons:
  description: Why the environment was (or would be) rebuilt.
  returned: success
  type: list
  elements: str
  sample: [the lock file changed]
python_version:
  description: The version of O(python). Empty in check mode while something is missing.
  returned: success
  type: str
  sample: 3.12.12
packages:
  description: Packages as installed, versions by normalised name. In check mode those that are installed now.
  returned: success
  type: dict
  sample: {fastapi: 0.165.0, gunicorn: 27.0.1}
added:
  description: Names of the additions that the lock did not have. In check mode those that would be installed.
  returned: success
  type: list
  elements: str
  sample: [gunicorn]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import Output
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.environment import Result, ensure
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.run import ended_by_signals, user_info
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.settings import EnvironmentSettings, VenvError


def _secrets(module: AnsibleModule) -> list[str]:
    """Passwords, and those in addresses too: such an address is refused, and the refusal must not show them."""
    accounts = module.params["credentials"]
    addresses = [module.params["index_url"] or "", *module.params["extra_index_urls"]]
    logins = [user_info(address) for address in addresses + [account["host"] for account in accounts]]
    words = [word for login in logins for word in (login, login.partition(":")[2]) if word]
    return [account["password"] for account in accounts] + words


def _lines(packages: dict[str, str]) -> str:
    return "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))


def _answer(module: AnsibleModule, result: Result) -> dict[str, object]:
    answer = vars(result).copy()
    before, after = answer.pop("before"), answer.pop("after")
    for warning in answer.pop("warnings"):
        module.warn(warning)
    if module._diff and after is not None:
        header = f"packages of {result.path}"
        answer["diff"] = {
            "before_header": header,
            "after_header": header,
            "before": _lines(before),
            "after": _lines(after),
        }
    return answer


def main() -> None:
    """Entry point."""
    strings = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "python": {"type": "path", "required": True},
            "uv": {"type": "path", "required": True},
            "lock": {"type": "path", "required": True},
            "lock_format": {"type": "str", "choices": ["auto", "requirements", "pylock", "uv"], "default": "auto"},
            "install_project": {"type": "bool", "default": False},
            "extras": strings,
            "groups": strings,
            "additions": strings,
            "index_url": {"type": "str"},
            "extra_index_urls": strings,
            "ca_bundle": {"type": "path"},
            "credentials": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "no_log": False,
                "options": {
                    "host": {"type": "str", "required": True},
                    "username": {"type": "str", "required": True},
                    "password": {"type": "str", "required": True, "no_log": True},
                },
            },
            "wheelhouse": {"type": "path"},
            "cache_dir": {"type": "path"},
            "compile_bytecode": {"type": "bool", "default": True},
            "source_distributions": strings,
            "build_requirements": strings,
            "build_user": {"type": "str"},
            "launcher": {"type": "path"},
            "group": {"type": "str"},
            "siblings": {"type": "path"},
            "keep": {"type": "int", "default": 2, "no_log": False},
            "timeout": {"type": "int", "default": 600},
        },
        required_together=[("build_user", "launcher")],
        supports_check_mode=True,
    )
    output = Output(module, _secrets(module))
    try:
        with ended_by_signals():
            result = ensure(EnvironmentSettings.of(module.params), module.check_mode)
    except VenvError as error:
        output.fail(str(error))
    output.exit(**_answer(module, result))


if __name__ == "__main__":
    main()
