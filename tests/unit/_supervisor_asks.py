"""Prints what supervisor's own parser asks a configuration for, as JSON: section -> option -> default.

It runs on any release of supervisor, by the Python that has it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import supervisor.options

CONFIG = """\
[supervisord]
[unix_http_server]
file=/tmp/x
[unix_http_server:more]
file=/tmp/y
[inet_http_server]
port=127.0.0.1:9
[inet_http_server:more]
port=127.0.0.1:10
[supervisorctl]
[program:p]
command=/bin/true
[program:q]
command=/bin/true
[group:g]
programs=q
[fcgi-program:f]
command=/bin/true
socket=unix:///tmp/f
[eventlistener:e]
command=/bin/true
events=TICK_5
"""
ASKED: dict[str, dict[str, Any]] = {}


class Recording(supervisor.options.UnhosedConfigParser):
    def saneget(self, section, option, default=supervisor.options._marker, **kwargs):
        known = default if isinstance(default, (str, int, bool)) else None
        # What it asks first: of an event listener's priority it has two opinions, and the group's counts.
        ASKED.setdefault(section.split(":")[0], {}).setdefault(option, known)
        return super().saneget(section, option, default, **kwargs)


def main() -> None:
    supervisor.options.UnhosedConfigParser = Recording
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "supervisord.conf")
        config.write_text(CONFIG, encoding="utf-8")
        server = supervisor.options.ServerOptions()
        server.realize(["-n", "-c", str(config)])
        supervisor.options.ClientOptions().realize(["-c", str(config), "status"])
    listens = [each["section"] for each in server.server_configs]
    found = {"version": supervisor.options.VERSION, "asked": ASKED, "events": events(), "listens": listens}
    json.dump(found, sys.stdout)


def events() -> list[str]:
    from supervisor.events import EventTypes

    return sorted(name for name in vars(EventTypes) if name.isupper())


if __name__ == "__main__":
    main()
