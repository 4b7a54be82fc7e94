# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nginx serves of a list of apps, and what of it cannot work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _description, _serving, _shapes

# Below /etc/nginx; the role's own, which removes what no app needs.
TLS_FOLDER = "fastapi/tls"

# Seconds: nginx's own default, and Gunicorn's for what it bounds.
READ_TIMEOUT = 60
GUNICORN_TIMEOUT = 30
HEALTH_PATH = "/health"

SERVER_NAME = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.I)
HSTS = re.compile(r"max-age=\d+(; *includeSubDomains)?(; *preload)?", re.I)
SIZE = re.compile(r"\d+[kmg]?", re.I)
RATE = re.compile(r"[1-9]\d*r/[sm]")
# URLs of nginx's own, in the server of each app.
OWN_URLS = {
    "/.fastapi": "nginx has its own error page",
    "/.well-known/acme-challenge": "nginx serves nginx_acme_webroot",
}
# What needs no quotes in nginx's configuration and holds no variable.
PLAIN_PATH = re.compile(r"/[^\s;{}\"'$\\]*")


def servers(apps: Iterable[Any]) -> list[dict[str, Any]]:
    """Each app that has server names, with all that the templates ask for and no secret."""
    return [_server(app) for app in _served(apps)]


def tls_files(apps: Iterable[Any]) -> list[dict[str, Any]]:
    """The certificates and keys whose content is given, as the module file_set takes files."""
    files: list[dict[str, Any]] = []
    for app in _served(apps):
        tls = app["tls"]
        if tls.get("certificate_content"):
            files.append({"path": _host_path(app, "crt"), "content": _ended(tls["certificate_content"])})
        if tls.get("key_content"):
            files.append({"path": _host_path(app, "key"), "secret_content": _ended(tls["key_content"]), "mode": "0600"})
    return files


def _served(apps: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for app in apps:
        if app.get("server_names"):
            options = {"server_names": app["server_names"], "tls": app.get("tls"), "nginx": app.get("nginx")}
            yield {**app, **_settled(options)}


def _settled(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as their types and with the defaults of the spec."""
    # Without null, and with the mappings there, so that the validator fills them up.
    given = {key: _without_null(options.get(key) or {}) if key != "server_names" else options[key] for key in options}
    result = ArgumentSpecValidator(_description.nginx_options()).validate(given)
    if result.error_messages:
        raise _serving.ServingError("; ".join(result.error_messages))
    settled: dict[str, Any] = result.validated_parameters
    return settled


def _without_null(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _server(app: Mapping[str, Any]) -> dict[str, Any]:
    tls, nginx = app["tls"], dict(app["nginx"])
    nginx["proxy_read_timeout"] = nginx.get("proxy_read_timeout") or max(READ_TIMEOUT, app_timeout(app) or 0)
    return {
        "name": app["name"],
        "server_names": [str(name).lower() for name in app["server_names"]],
        "upstream": upstream(app),
        "health_path": str(app.get("health_path", HEALTH_PATH) or "").partition("?")[0],
        "nginx": nginx,
        "tls": {
            # Relative to the configuration, so that a check of the candidates looks at theirs.
            "certificate": tls.get("certificate") or _relative_path(app, "crt", tls.get("certificate_content")),
            "key": tls.get("key") or _relative_path(app, "key", tls.get("key_content")),
            "hsts": tls["hsts"],
            "redirect": tls["redirect"],
        },
    }


def _relative_path(app: Mapping[str, Any], suffix: str, content: Any) -> str:
    return f"{TLS_FOLDER}/{app['name']}.{suffix}" if content else ""


def _host_path(app: Mapping[str, Any], suffix: str) -> str:
    return f"/etc/nginx/{TLS_FOLDER}/{app['name']}.{suffix}"


def _ended(text: Any) -> str:
    return str(text).rstrip("\n") + "\n"


def upstream(app: Mapping[str, Any]) -> str:
    """Where nginx finds the app, as its directive `server` takes it: the live slot's link, or the app's own bind."""
    if not app.get("bind"):
        return _layout.live_bind(str(app["name"]))
    probe = _serving.probe_address(str(app["bind"]), "")
    return f"unix:{probe['unix_socket']}" if probe["unix_socket"] else probe["url"].partition("://")[2]


def app_timeout(app: Mapping[str, Any]) -> int | None:
    """Seconds after which Gunicorn ends a worker that is stuck; None where nothing bounds it."""
    if app.get("server", "gunicorn") != "gunicorn":
        return None
    options = app.get("gunicorn")
    try:
        timeout = int(options.get("timeout", GUNICORN_TIMEOUT)) if isinstance(options, Mapping) else GUNICORN_TIMEOUT
    except (TypeError, ValueError):
        return None
    # Zero is no limit to Gunicorn.
    return timeout or None


def problems(app: Mapping[str, Any]) -> Iterator[str]:
    """What an app asks of nginx that cannot work, a sentence each. Types are checked elsewhere."""
    names = _names(app)
    for name in names:
        if not SERVER_NAME.fullmatch(name) or len(name) > 253:
            yield f"server_names has {name!r}: it must be a host name, such as orders.example.com or *.example.com"
    for key in ("tls", "nginx"):
        if isinstance(app.get(key), Mapping) and app[key] and not names:
            yield f"{key} is set, and server_names is not: nginx serves only apps that have server_names"
    if isinstance(app.get("tls"), Mapping):
        yield from _tls_problems(app["tls"])
    if isinstance(app.get("nginx"), Mapping):
        yield from _nginx_problems(app, app["nginx"])
    if names and app.get("health_path") and not PLAIN_PATH.fullmatch(str(app["health_path"])):
        yield f"health_path is {app['health_path']!r}: it must be a path that begins with /, without spaces and quotes"


def default_problems(defaults: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with nginx_defaults, whichever app takes it over."""
    for key, check in (("tls", _tls_problems), ("nginx", lambda options: _nginx_problems({}, options))):
        if isinstance(defaults.get(key), Mapping):
            yield from (f"nginx_defaults.{problem}" for problem in check(defaults[key]))


def names_used_twice(apps: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    users: dict[str, list[str]] = {}
    for app in apps:
        for name in _names(app):
            users.setdefault(name.lower(), []).append(str(app.get("name")))
    for name, owners in users.items():
        if len(owners) > 1:
            yield f"server_names: {name} is used {len(owners)} times ({', '.join(owners)}): it can be only one app's"


def _names(app: Mapping[str, Any]) -> list[str]:
    given = app.get("server_names")
    if isinstance(given, str):
        # As Ansible reads a string where it wants a list.
        return [name.strip() for name in given.split(",")]
    return [str(name) for name in given] if isinstance(given, (list, tuple)) else []


def _tls_problems(tls: Mapping[str, Any]) -> Iterator[str]:
    for name in ("certificate", "key"):
        content = f"{name}_content"
        if tls.get(name) and tls.get(content):
            yield f"tls.{name} and tls.{content} are set: keep one, the path on the host or the content"
        if tls.get(name) and not PLAIN_PATH.fullmatch(str(tls[name])):
            yield f"tls.{name} is {tls[name]!r}: it must be a full path on the host; content belongs into tls.{content}"
    has = {name: bool(tls.get(name) or tls.get(f"{name}_content")) for name in ("certificate", "key")}
    for name, other in (("certificate", "key"), ("key", "certificate")):
        if has[name] and not has[other]:
            yield f"tls has a {name} and no {other}: set tls.{other} or tls.{other}_content"
    for name, mark in (("certificate_content", "CERTIFICATE-----"), ("key_content", "PRIVATE KEY-----")):
        # The value is not shown: it may be a key.
        if tls.get(name) and mark not in str(tls[name]):
            yield f"tls.{name} is not PEM: -----BEGIN ...{mark} is missing"
    if tls.get("hsts") and not HSTS.fullmatch(str(tls["hsts"])):
        yield f"tls.hsts is {tls['hsts']!r}: it must be like max-age=31536000; includeSubDomains"


def _nginx_problems(app: Mapping[str, Any], nginx: Mapping[str, Any]) -> Iterator[str]:
    size = nginx.get("client_max_body_size")
    if size is not None and not SIZE.fullmatch(str(size)):
        yield f"nginx.client_max_body_size is {size!r}: it must be a number of bytes, or one with k, m or g"
    rate_limit = nginx.get("rate_limit")
    if isinstance(rate_limit, Mapping) and rate_limit and not RATE.fullmatch(str(rate_limit.get("rate", ""))):
        yield f"nginx.rate_limit.rate is {rate_limit.get('rate')!r}: it must be like 10r/s or 300r/m"
    if isinstance(nginx.get("static"), Mapping):
        for url, directory in nginx["static"].items():
            yield from _static_problems(app, str(url), directory)
    for name in ("proxy_connect_timeout", "proxy_send_timeout", "proxy_read_timeout"):
        if _seconds(nginx.get(name)) == 0:
            yield f"nginx.{name} is {nginx[name]}: it must be a number of seconds from 1"
    limit, read = app_timeout(app), _seconds(nginx.get("proxy_read_timeout"))
    if limit and read and read < limit:
        yield (
            f"nginx.proxy_read_timeout is {read}, gunicorn.timeout is {limit}: nginx would give up on requests that the"
            " app still works on; proxy_read_timeout must be at least as long"
        )


def _static_problems(app: Mapping[str, Any], url: str, directory: Any) -> Iterator[str]:
    if not PLAIN_PATH.fullmatch(url) or url.strip("/") == "" or _shapes.absolute(url):
        yield f"nginx.static has {url!r}: it must be a path below /, such as /static"
    for taken, what in OWN_URLS.items():
        if _covers(url, taken):
            yield f"nginx.static has {url!r}, below which {what}: choose another one, such as /static"
    health = app.get("health_path", HEALTH_PATH)
    if isinstance(health, str) and health and _covers(url, health):
        yield (
            f"nginx.static has {url!r}, and health_path {health!r} lies below it: nginx would look for a file instead"
            " of asking the app; choose another path for one of them"
        )
    if not isinstance(directory, str) or not PLAIN_PATH.fullmatch(directory):
        yield f"nginx.static[{url}] is {directory!r}: it must be a full path of a directory on the host"
    elif _shapes.served(directory):
        yield f"nginx.static[{url}] is {str(directory)!r}: {_shapes.served(directory)}"


def _covers(url: str, path: str) -> bool:
    """Whether a location takes the requests for a path, or is one that has the path above it."""
    one, other = f"{url.rstrip('/')}/", f"{path.rstrip('/')}/"
    return other.startswith(one) or (path in OWN_URLS and one.startswith(other))


def _seconds(value: Any) -> int | None:
    """A whole number from zero, zero for all below; None for what is none, which the types' check names."""
    try:
        return None if value is None else max(0, int(value))
    except (TypeError, ValueError):
        return None
