# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the variables of a host must look like so that no value reaches a file, or a line of one, that it is not for."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any, Callable
from urllib.parse import urlsplit

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._redact import without_logins
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import (
    _shapes,
    _spec,
    _supervisor_config,
    _unit_directives,
)
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._app_shapes import shaped

RULES: dict[str, Callable[[str], str]] = {
    "fastapi_base_dir": _shapes.tree,
    "nginx_acme_webroot": _shapes.served,
    "python_venv_base_dir": _shapes.tree,
    "python_venv_ca_bundle": _shapes.trusted,
    "python_venv_wheelhouse": _shapes.absolute,
    "supervisor_childlogdir": _shapes.written_by_root,
    "supervisor_directory": _shapes.absolute,
    "supervisor_pidfile": _shapes.written_by_root,
    "supervisor_socket_group": _shapes.account,
    "supervisor_umask": _shapes.umask,
    "supervisord_unit_config": _shapes.trusted,
    "supervisord_unit_supervisord": _shapes.trusted,
    "supervisord_unit_umask": _shapes.umask,
}
# RFC 9110's token, less what no variable of nginx may hold in its name.
HEADER_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")
# What nginx or the app sends itself with each answer.
HEADERS_NOT_FOR_HERE = {
    "connection": "nginx sends it by itself",
    "content-length": "nginx sends it by itself",
    "content-type": "the app sends it",
    "retry-after": "nginx sends it by itself",
    "set-cookie": "the app sends it",
    "strict-transport-security": "set tls.hsts of an app, or of nginx_defaults",
    "transfer-encoding": "nginx sends it by itself",
    "x-request-id": "nginx sends it by itself",
}
HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\]")


def problems(variables: Mapping[str, Any], roles: tuple[str, ...]) -> Iterator[str]:
    """A sentence for each value that is none of its kind; types are checked elsewhere."""
    for name, rule in RULES.items():
        if name in variables and name.startswith((*(f"{role}_" for role in roles), "fastapi_")):
            yield from shaped(name, variables[name], rule)
    if "python_venv" in roles:
        yield from _index_problems(variables)
    if "nginx" in roles:
        yield from _nginx_problems(variables)
    if "supervisor" in roles:
        yield from _supervisor_problems(variables)
    if "supervisord_unit" in roles:
        yield from _unit_problems(variables)


# --- python_venv


def _index_problems(variables: Mapping[str, Any]) -> Iterator[str]:
    urls = [("python_venv_index_url", variables.get("python_venv_index_url"))]
    extra = _list(variables.get("python_venv_extra_index_urls"))
    urls += [(f"python_venv_extra_index_urls[{number}]", url) for number, url in enumerate(extra)]
    plain = {}
    for name, url in urls:
        if not isinstance(url, str) or not url:
            continue
        problem = _shapes.index_url(url)
        if problem:
            yield f"{name} is {without_logins(url)!r}: {problem}"
        elif url.startswith("http://"):
            plain[_host_of(url)] = name
    for number, entry in enumerate(_entries(variables.get("python_venv_credentials"))):
        label, host = f"python_venv_credentials[{number}]", str(entry.get("host") or "")
        if host and not HOST_NAME.fullmatch(host):
            yield f"{label}.host is {host!r}: it must be a host name, as in the URL of the index"
        for key in ("username", "password"):
            text = str(_spec.unvaulted(entry.get(key)) or "")
            # Neither is shown: what is taken for the one may be the other.
            if re.search(r"\s", text) or _shapes.has_control(text):
                yield f"{label}.{key} holds white space or a control character, which a file netrc can't hold"
        if host and host in plain:
            yield (
                f"{label} is for {host}, and {plain[host]} asks it over http://: anybody on the way could read the"
                " password; give the URL with https://"
            )


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


# --- nginx


def _nginx_problems(variables: Mapping[str, Any]) -> Iterator[str]:
    for number, network in enumerate(_list(variables.get("nginx_trusted_proxies"))):
        label = f"nginx_trusted_proxies[{number}] is {str(network)!r}"
        try:
            known = ipaddress.ip_network(str(network), strict=False)
        except ValueError:
            yield f"{label}: it must be an IP address or a network, such as 192.0.2.1 or 10.0.0.0/8"
            continue
        if known.prefixlen == 0:
            yield f"{label}, which is everybody: any client could claim any address; name the proxies in front"
    headers = variables.get("nginx_security_headers")
    if isinstance(headers, Mapping):
        yield from _header_problems(headers)
    port = variables.get("nginx_status_port")
    if isinstance(port, (int, str)) and str(port) in ("80", "443"):
        yield f"nginx_status_port is {port}, on which nginx serves the apps: choose another one, such as 8008"


def _header_problems(headers: Mapping[Any, Any]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for name, value in headers.items():
        label, lower = f"nginx_security_headers[{name}]", str(name).lower()
        if not HEADER_NAME.fullmatch(str(name)):
            yield f"nginx_security_headers has {name!r}: it must be the name of a header, letters, digits and '-'"
        elif lower in HEADERS_NOT_FOR_HERE:
            yield f"nginx_security_headers has {name!r}: {HEADERS_NOT_FOR_HERE[lower]}"
        elif lower in seen:
            yield f"nginx_security_headers has {name!r} and {seen[lower]!r}, which are one header: keep one"
        seen[lower] = str(name)
        if not isinstance(value, (str, int, float)):
            yield f"{label} is {_spec.kind_of(value)}: it must be text"
        elif not re.fullmatch(r"[^\"\\$]*", str(value)) or _shapes.has_control(str(value)):
            yield f"{label} is {str(value)!r}: it may hold no '\"', '\\', '$', line break or other control character"


# --- supervisor


def _supervisor_problems(variables: Mapping[str, Any]) -> Iterator[str]:
    logfile = variables.get("supervisor_logfile")
    if logfile != "syslog":
        yield from shaped("supervisor_logfile", logfile, _shapes.written_by_root)
    if isinstance(variables.get("supervisor_environment"), Mapping):
        for problem in _shapes.search_paths(variables["supervisor_environment"]):
            yield f"supervisor_environment.{problem}"
    for number, pattern in enumerate(_list(variables.get("supervisor_include_files"))):
        if re.fullmatch(r"/\S*", str(pattern)):
            yield from shaped(f"supervisor_include_files[{number}]", pattern, _shapes.trusted)
    for key in ("rpcinterfaces", "ctlplugins"):
        for number, plugin in enumerate(_entries(variables.get(f"supervisor_{key}"))):
            options = plugin.get("options")
            for name, value in options.items() if isinstance(options, Mapping) else ():
                label = f"supervisor_{key}[{number}].options.{name}"
                if not re.fullmatch(r"[A-Za-z_][\w.-]*", str(name)):
                    yield f"{label}: it must be the name of an option, letters, digits, '_', '.' and '-'"
                yield from (f"{label}: {problem}" for problem in _supervisor_config.unwritable(str(value)))
    history = variables.get("supervisor_supervisorctl")
    if isinstance(history, Mapping) and str(history.get("history_file") or "").startswith("/"):
        yield from shaped("supervisor_supervisorctl.history_file", history["history_file"], _shapes.written_by_root)


# --- supervisord_unit


def _unit_problems(variables: Mapping[str, Any]) -> Iterator[str]:
    sandbox, environment = (variables.get(f"supervisord_unit_{key}") for key in ("sandbox", "environment"))
    if isinstance(sandbox, Mapping):
        yield from _unit_directives.problems("supervisord_unit_sandbox", sandbox)
    if isinstance(environment, Mapping):
        for problem in _shapes.search_paths(environment):
            yield f"supervisord_unit_environment.{problem}"
    limit, files = variables.get("supervisord_unit_limit_nofile"), variables.get("supervisor_minfds")
    try:
        short = limit is not None and files is not None and int(limit) < int(files)
    except (TypeError, ValueError):
        return
    if short:
        yield (
            f"supervisord_unit_limit_nofile is {limit}, supervisor_minfds is {files}: supervisord would not start with"
            " fewer file descriptors than that; raise the limit"
        )


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [item.strip() for item in value.split(",")]
    return list(value) if isinstance(value, (list, tuple)) else []


def _entries(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in _list(value) if isinstance(entry, Mapping)]
