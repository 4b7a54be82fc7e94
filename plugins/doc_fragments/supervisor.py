# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """How to reach supervisord."""

    DOCUMENTATION = r"""
options:
  config:
    description:
      - The configuration whose section C([supervisorctl]) says where supervisord listens and what its login is, as
        C(supervisorctl) itself does it. So neither is given twice, and no password leaves the host.
      - It is used where O(server_url) is left out. Where there is no such file or section, supervisord is expected at
        V(unix:///run/supervisor/supervisor.sock), without a login.
    type: path
    default: /etc/supervisord.conf
  server_url:
    description:
      - Where supervisord listens, either its Unix socket as V(unix:///path/of/the.sock), or V(http://host:port).
      - The host is the one that the module runs on, not the controller.
      - The login of O(config) is not used with it.
    type: str
  username:
    description: The user name of supervisord's C([unix_http_server]) or C([inet_http_server]), if it has one.
    type: str
  password:
    description: The password that goes with O(username). It is sent over the connection and shows nowhere else.
    type: str
  redact:
    description:
      - Values that must not show in messages and logs that are returned, such as secrets that a program may have
        written to its log.
      - A value is redacted as a whole from five characters on. Of a longer one its beginnings and ends are redacted
        too, where a library has cut out the rest. Names and other values for further tasks are left as they are.
    type: list
    elements: str
    default: []
"""
