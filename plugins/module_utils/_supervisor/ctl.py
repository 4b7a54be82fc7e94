# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where supervisord is and how to be let in, as supervisorctl finds out: from its section of the configuration."""

from __future__ import annotations

import configparser
import os
from dataclasses import dataclass, field
from typing import Optional

SECTION = "supervisorctl"
# supervisorctl's own, where its section names none.
SERVER_URL = "http://localhost:9001"


class Unreadable(Exception):
    """What is wrong with the file; its text shows no value, which may be a password."""


@dataclass(frozen=True)
class CtlSettings:
    server_url: str
    username: Optional[str] = None
    password: Optional[str] = field(default=None, repr=False)


def read(path: str) -> Optional[CtlSettings]:
    """The section's settings, None where there is no such file or section.

    As in supervisor.options.ClientOptions: included files are not looked at.
    """
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    try:
        # A comment in another encoding is none of our business.
        with open(path, encoding="utf-8", errors="replace") as file:
            parser.read_file(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except configparser.MissingSectionHeaderError as error:
        raise Unreadable(f"line {error.lineno} belongs to no section") from None
    except configparser.ParsingError as error:
        raise Unreadable(f"line {error.errors[0][0]} is no section, no option and no comment") from None
    if not parser.has_section(SECTION):
        return None
    environment = {f"ENV_{name}": value for name, value in os.environ.items()}
    here = {"here": os.path.dirname(os.path.abspath(path))}
    server_url = _option(parser, "serverurl", {**environment, **here}) or SERVER_URL
    if server_url.startswith("unix://"):
        server_url = "unix://" + os.path.abspath(os.path.expanduser(server_url[len("unix://") :]))
    username, password = (_option(parser, name, environment) for name in ("username", "password"))
    if not (username and password):
        return CtlSettings(server_url)
    return CtlSettings(server_url, username, password)


def _option(parser: configparser.RawConfigParser, name: str, expansions: dict[str, str]) -> str:
    try:
        return parser.get(SECTION, name, fallback="") % expansions
    except KeyError as error:
        raise Unreadable(f"{name} in [{SECTION}] holds {error.args[0]}, which is not known") from None
    except (TypeError, ValueError):
        raise Unreadable(f"{name} in [{SECTION}] holds a percent sign that is not doubled") from None
