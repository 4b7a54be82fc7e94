# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The complete description of an app: its own keys over the variables of the roles, and these over their defaults.

The only merge there is: the check on the controller, the roles and the playbooks take an app from here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _spec

# An app is described by what these roles take, without their prefixes, and by what nginx takes of it.
ROLES = ("release", "gunicorn_uvicorn")
# What is about a host or a run.
NOT_OF_AN_APP = ("settings", "found", "proxy_url")
# What only an app with slots has, one that nginx serves.
SLOTTED_KEYS = ("drain_timeout", "health_period", "hooks", "lock_timeout", "migrate", "shared", "soak")
# The variable with what an app leaves out of its keys for nginx.
NGINX_DEFAULTS = "nginx_defaults"
CERTIFICATE_KEYS = ("certificate", "certificate_content", "key", "key_content")


@functools.cache
def role_options() -> list[tuple[str, str, dict[str, Any]]]:
    """The variables of the roles that are about an app: the app's key, the variable's name, its spec.

    A key may be there twice: each role has a variable of its own for the name.
    """
    return [
        (name[len(role) + 1 :], name, option)
        for role in ROLES
        for name, option in _spec.role_options(role).items()
        if name[len(role) + 1 :] not in NOT_OF_AN_APP
    ]


@functools.cache
def nginx_options() -> dict[str, Any]:
    """What nginx takes of an app, as its role's argument spec describes it."""
    options: dict[str, Any] = _spec.role_options("nginx")[NGINX_DEFAULTS]["options"]
    return options


def variables_of_apps() -> list[str]:
    """The variables that a description is made of, beside the app itself."""
    return [*(name for _key, name, _option in role_options()), NGINX_DEFAULTS]


def defaults_of(variables: Mapping[str, Any]) -> dict[str, Any]:
    """What an app has that leaves a key out, from the variables and else from the roles' defaults."""
    defaults = {}
    for key, name, option in role_options():
        value = variables.get(name, option.get("default"))
        if value is not None:
            defaults[key] = value
    own = variables.get(NGINX_DEFAULTS)
    if isinstance(own, Mapping):
        defaults.update({key: own[key] for key in own.keys() & nginx_options().keys() - {"server_names"}})
    return defaults


def complete_apps(apps: Any, defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those apps that are mappings, in full."""
    entries = apps if isinstance(apps, (list, tuple)) else []
    return [complete(app, defaults) for app in entries if isinstance(app, Mapping)]


def complete(app: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The app in full. Mappings are merged key by key; lists are replaced, and so is a certificate with its key."""
    names = app.get("server_names", defaults.get("server_names"))
    left_out = set() if names else {*SLOTTED_KEYS, *nginx_options()} - {"server_names"}
    rest = {key: value for key, value in defaults.items() if key not in left_out}
    tls, own = rest.get("tls"), app.get("tls")
    if isinstance(tls, Mapping) and isinstance(own, Mapping) and any(own.get(name) for name in CERTIFICATE_KEYS):
        rest["tls"] = {name: value for name, value in tls.items() if name not in CERTIFICATE_KEYS}
    whole = _over(rest, app)
    if names and not app.get("bind"):
        # Its sockets are its own, whatever other apps listen on.
        whole["bind"] = _layout.live_bind(str(whole.get("name")))
    return whole


def _over(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _over(defaults[key], given[key])
        for key in defaults.keys() & given.keys()
        if isinstance(defaults[key], Mapping) and isinstance(given[key], Mapping)
    }
    return {**defaults, **given, **both}
