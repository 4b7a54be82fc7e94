# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be checked on the controller of the accounts that apps run as; the module app_account asks the host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible.module_utils.common.validation import check_type_bool

# By number as well, as supervisor takes users.
ROOT = ("root", "0")
# Of EL's base system, and of packages that are often beside an app.
SYSTEM_ACCOUNTS = frozenset(
    {
        "adm",
        "apache",
        "avahi",
        "bin",
        "chrony",
        "cockpit-ws",
        "daemon",
        "dbus",
        "dnsmasq",
        "etcd",
        "ftp",
        "games",
        "grafana",
        "halt",
        "haproxy",
        "keycloak",
        "ldap",
        "lp",
        "mail",
        "memcached",
        "mongod",
        "munge",
        "mysql",
        "named",
        "nginx",
        "nobody",
        "operator",
        "polkitd",
        "postfix",
        "postgres",
        "prometheus",
        "rabbitmq",
        "redis",
        "root",
        "rpc",
        "rpcuser",
        "shutdown",
        "squid",
        "sshd",
        "sssd",
        "sync",
        "systemd-coredump",
        "systemd-network",
        "systemd-oom",
        "systemd-resolve",
        "tomcat",
        "tss",
        "unbound",
        "valkey",
        "varnish",
        "zabbix",
    }
)


def problems(app: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the account of one app, a sentence each."""
    name, user, group = ("" if app.get(key) is None else str(app[key]) for key in ("name", "user", "group"))
    if (user or name) in ROOT:
        yield f"{_setting(name, user)}, and no app runs as root: set user to another name"
    elif (user or name) in SYSTEM_ACCOUNTS and not _is_true(app.get("existing_user")):
        yield (
            f"{_setting(name, user)}, an account of the system or of another service: set user to another name, such as"
            f" user: {_free_name(name)}, or existing_user: true if the app is meant to run as it"
        )
    if group in ROOT:
        yield f"group is {group!r}, and no app runs in root's group: remove group, or set it to another name"


def shared_by_accident(apps: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each account of several apps of which not all say that this is meant."""
    of_user: dict[str, dict[str, bool]] = {}
    for app in apps:
        name = str(app.get("name") or "")
        if name:
            of_user.setdefault(str(app.get("user") or name), {})[name] = _is_true(app.get("shared_user"))
    for user, shared in of_user.items():
        if len(shared) > 1 and not all(shared.values()):
            silent = ", ".join(name for name, is_meant in shared.items() if not is_meant)
            yield (
                f"user {user} is the account of {len(shared)} apps ({', '.join(shared)}), which could read, change and"
                f" stop each other: give each a user of its own, or set shared_user: true for {silent} if this is meant"
            )


def _setting(name: str, user: str) -> str:
    return f"user is {user!r}" if user else f"name is {name!r}"


def _free_name(name: str) -> str:
    return f"{name[:28]}_app" if name in SYSTEM_ACCOUNTS else name


def _is_true(value: Any) -> bool:
    """What is no boolean is refused by its type, and means nothing here."""
    try:
        return bool(check_type_bool(value))
    except TypeError:
        return False
