# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put pip into an environment of ansible-test, from PyPI alone: ansible-test's own script comes from another host.

tests/lint lays this file where ansible-test keeps the script that it would download, and it is called like that one.
"""

from __future__ import annotations

import subprocess
import sys

NOT_FOR_PIP = {"--no-setuptools", "--no-wheel"}

if __name__ == "__main__":
    # In a process of its own, because ensurepip makes pip deaf to the machine's configuration.
    subprocess.check_call([sys.executable, "-m", "ensurepip"])
    arguments = [argument for argument in sys.argv[1:] if argument not in NOT_FOR_PIP]
    subprocess.check_call([sys.executable, "-m", "pip", "install", *arguments])
