# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof that a public answer came from an app's own server, over a new connection to one socket.

Who asks nginx from its own host with the header and a number gets them back, with the upstream of the server that
answered and the address that it connected to for this very request (templates of the role nginx). Another server of
the same name does not know the header, and what an app sends under its name is dropped. A new connection to the link
reaches who listens behind it now.
"""

from __future__ import annotations

import secrets

HEADER = "X-Fastapi-Probe"


def number() -> str:
    return secrets.token_hex(16)


def problem(answer: str, sent: str, app: str, path: str) -> str:
    """What is wrong with the header of an answer; empty when app was asked, through the socket at path.

    An answer of nginx's own (502, 504) names no upstream: look at the status first.
    """
    if not answer:
        return "another server than the app's answered: look for its server name in /etc/nginx/conf.d (nginx -T)"
    got, _space, rest = answer.partition(" ")
    upstream, _space, addresses = rest.partition(" ")
    if got != sent:
        return "the answer is that to another request: something between here and nginx keeps answers"
    if upstream != f"fastapi_probe-{app}":
        return f"the server of another app answered ({upstream.partition('-')[2] or 'none'})"
    # One that was tried in vain comes first.
    reached = addresses.rpartition(", ")[2]
    if reached != f"unix:{path}":
        return f"nginx asked {reached or 'nobody'} and not unix:{path}: it runs with an older configuration"
    return ""
