#!/usr/bin/python

# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Report in one call what the roles need to know of a host
version_added: 0.1.0
description:
  - Returns which of the roles' packages are installed, the state of their units, which releases of uv are there, which
    configuration nginx runs with, and what CPUs and memory the host has.
  - The roles leave out what would find nothing to do. What can't be found out counts as not there, so that it is done.
notes:
  - M(ansible.builtin.dnf) and M(ansible.builtin.systemd_service) cost a round trip and most of a second for each
    package and unit, M(ansible.builtin.setup) half a second for the number of CPUs; M(ansible.builtin.package_facts)
    and M(ansible.builtin.service_facts) list the whole host.
author:
  - asgiops maintainers (@asgiops)
extends_documentation_fragment:
  - asgiops.fastapi_host.read_only
options:
  base_dir:
    description: The directory below which uv lies.
    type: path
    default: /opt/fastapi
  nginx_status_port:
    description: The port of 127.0.0.1 where nginx reports its status.
    type: int
    default: 8008
"""

EXAMPLES = r"""
- name: Look at the host
  asgiops.fastapi_host.host_info:
  register: host

- name: Install nginx
  ansible.builtin.dnf:
    name: nginx
    state: present
  when: "'nginx' not in host.packages"
"""

RETURN = r"""
packages:
  description: The versions of the roles' packages that are installed, by name.
  returned: always
  type: dict
  sample: {"nginx": "1.20.1", "supervisor": "4.2.5"}
units:
  description: The units C(supervisord), C(nginx) and C(firewalld).
  returned: always
  type: dict
  contains:
    active:
      description: Whether it runs.
      type: bool
    enabled:
      description: Whether it starts at boot.
      type: bool
    needs_reload:
      description: Whether systemd has yet to read its files.
      type: bool
  sample: {"nginx": {"active": true, "enabled": true, "needs_reload": false}}
uv:
  description: The releases of uv that are there.
  returned: always
  type: list
  elements: str
  sample: ["0.13.9"]
accounts:
  description: Those of the roles' own accounts that are there.
  returned: always
  type: list
  elements: str
  sample: ["fastapi-build"]
groups:
  description: All groups.
  returned: always
  type: list
  elements: str
  sample: ["root", "nginx"]
supervisor_existing:
  description:
    - Whether there is a C(/etc/supervisord.conf) that the role C(supervisor) has not written, or has programs added to
      it, which M(asgiops.fastapi_host.supervisor_existing) then looks at.
  returned: always
  type: bool
nginx_existing:
  description:
    - What C(/etc/nginx/nginx.conf) serves by itself and the role's would not, as servers, upstreams, and includes of
      other places. The page of the distribution's package does not count.
  returned: always
  type: list
  elements: str
  sample: ["server legacy.example.com"]
nginx_servers:
  description: The servers in C(/etc/nginx/conf.d) that are not the role's.
  returned: always
  type: list
  elements: dict
  contains:
    file:
      description: The file.
      type: str
    names:
      description: Its names.
      type: list
      elements: str
    ports:
      description: The ports that it listens on, whatever the address.
      type: list
      elements: int
  sample: [{"file": "/etc/nginx/conf.d/legacy.conf", "names": ["legacy.example.com"], "ports": [80]}]
nginx_ports_taken:
  description: The ports that nginx needs and another process listens on, where nginx does not run.
  returned: always
  type: list
  elements: str
  sample: ["port 80 by process 4711 (httpd) of user root"]
nginx_closed:
  description: What firewalld and SELinux, where they are on, still keep nginx from, a sentence each.
  returned: always
  type: list
  elements: str
  sample: ["firewalld: https is not open now"]
nginx_configuration:
  description: The digest of the configuration that nginx has read. Empty when it does not run or reports none.
  returned: always
  type: str
  sample: 9f86d081884c7d65
cpus:
  description: The CPUs that a process may run on.
  returned: always
  type: int
  sample: 4
memory_mb:
  description: The host's memory in MiB.
  returned: always
  type: int
  sample: 7821
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._host import info as _host_info
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._host import nginx_access as _nginx_access
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._host import nginx_existing as _nginx_existing
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._layout import BASE_DIR
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import existing as _supervisor_existing


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "base_dir": {"type": "path", "default": BASE_DIR},
            "nginx_status_port": {"type": "int", "default": 8008},
        },
        supports_check_mode=True,
    )
    units = _host_info.units()
    nginx_port = module.params["nginx_status_port"]
    module.exit_json(
        changed=False,
        packages=_host_info.packages(),
        units={name: unit._asdict() for name, unit in units.items()},
        uv=_host_info.uv_releases(module.params["base_dir"]),
        accounts=_host_info.accounts(),
        groups=_host_info.groups(),
        supervisor_existing=_supervisor_existing.needs_look(),
        nginx_existing=_nginx_existing.existing(),
        nginx_servers=_nginx_existing.other_servers(),
        nginx_ports_taken=(
            [] if units["nginx"].active else _host_info.ports_taken([*_host_info.NGINX_PORTS, nginx_port])
        ),
        nginx_closed=_nginx_access.closed(units["firewalld"].active),
        nginx_configuration=_host_info.nginx_configuration(nginx_port),
        cpus=_host_info.cpus(),
        memory_mb=_host_info.memory_mb(),
    )


if __name__ == "__main__":
    main()
