# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The paths and names of an app on a host, for the controller and for the host alike."""

from __future__ import annotations

BASE_DIR = "/opt/fastapi"
# Of all apps; each has a directory of its name in them: configuration, sockets, logs, homes.
ETC = "/etc/fastapi"
RUN = "/run/fastapi"
LOG = "/var/log/fastapi"
STATE = "/var/lib/fastapi"
PROGRAMS = "/etc/supervisord.d"
SLOTS = ("blue", "green")
# How supervisor's options and file names write a Unix socket.
UNIX = "unix:"
# Of an app's directory in /run: the link that nginx follows, and in a slot's own directory its socket.
LIVE_SOCKET = "live.sock"
SOCKET = "app.sock"


def run_directory(app: str) -> str:
    return f"{RUN}/{app}"


def apps_directory(base_dir: str) -> str:
    """The directory with the releases of all apps."""
    return f"{base_dir}/apps"


def program_file(program: str) -> str:
    return f"{PROGRAMS}/{program}.ini"


def tmpfiles(app: str) -> str:
    """What makes an app's directories and link at boot."""
    return f"/etc/tmpfiles.d/fastapi-{app}.conf"


def live_socket(app: str) -> str:
    """The link that nginx follows to the socket of the live slot."""
    return f"{run_directory(app)}/{LIVE_SOCKET}"


def live_bind(app: str) -> str:
    """The same as an app's bind."""
    return UNIX + live_socket(app)


def slot_socket(app: str, slot: str) -> str:
    return f"{run_directory(app)}/{slot}/{SOCKET}"


def slot_program(app: str, slot: str) -> str:
    """The program of a slot, as supervisord knows it."""
    return f"{app}_{slot}"


def slot_programs(app: str) -> list[str]:
    return [slot_program(app, slot) for slot in SLOTS]
