"""Server hooks as a user has them."""

from __future__ import annotations

import os

# No hook: the app's own setting stays.
timeout = 5


def post_fork(server, worker):
    os.environ["HOOKED"] = f"worker {worker.age}"


def when_ready(server):
    server.log.info("the hook when_ready says hello")
