# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of Gunicorn and Uvicorn that an app sets: what cannot work, what does nothing, and how they are written.

Names, types, choices and defaults are in the argument spec of the role gunicorn_uvicorn; here is what a spec can't say.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _serving, _spec

GEVENT_CLASSES = ("gevent", "gevent_wsgi", "gevent_pywsgi")
WSGI_CLASSES = ("sync", "gthread", *GEVENT_CLASSES, "tornado")
UVICORN_CLASSES = ("uvicorn_worker.UvicornWorker", "uvicorn_worker.UvicornH11Worker")
DEPRECATED_CLASSES = ("uvicorn.workers.UvicornWorker", "uvicorn.workers.UvicornH11Worker")
ASGI_CLASSES = ("asgi", *UVICORN_CLASSES, *DEPRECATED_CLASSES)
DEFAULT_CLASS = UVICORN_CLASSES[0]
OWN_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")

# Gunicorn's server hooks, and how many arguments each takes.
HOOKS = {
    "on_starting": (1,),
    "on_reload": (1,),
    "when_ready": (1,),
    "pre_fork": (2,),
    "post_fork": (2,),
    "post_worker_init": (1,),
    "worker_int": (1,),
    "worker_abort": (1,),
    "pre_exec": (1,),
    "pre_request": (2,),
    "post_request": (2, 3, 4),
    "child_exit": (2,),
    "worker_exit": (2,),
    "nworkers_changed": (3,),
    "on_exit": (1,),
    "ssl_context": (2,),
    "on_dirty_starting": (1,),
    "dirty_post_fork": (2,),
    "dirty_worker_init": (1,),
    "dirty_worker_exit": (2,),
}

# Names that the servers know and that no app may set there, with what is in their place.
INSTEAD = {
    "gunicorn": {
        "bind": "the app's own bind",
        "config": "this dictionary",
        "default_proc_name": "gunicorn.proc_name",
        "graceful_timeout": "the app's own graceful_timeout",
        "group": "the app's own group",
        "paste": "the app's own app",
        "user": "the app's own user",
        "worker_class": "the app's own worker_class",
        "workers": "the app's own workers",
        "wsgi_app": "the app's own app",
        **dict.fromkeys(HOOKS, "the function of this name in gunicorn.hooks_file"),
    },
    "uvicorn": {
        "app": "the app's own app",
        "app_dir": "the app's own app_dir",
        "fd": "the app's own bind",
        "host": "the app's own bind",
        "port": "the app's own bind",
        "timeout_graceful_shutdown": "the app's own graceful_timeout",
        "uds": "the app's own bind",
        "version": "no option that only prints",
        "workers": "the app's own workers",
    },
}
# Switches that must stay off, and why.
REFUSED = {
    "gunicorn": {
        "check_config": "the server would end at once; the role checks by itself",
        "daemon": "supervisord would lose sight of the server and start it again and again",
        "initgroups": "it needs root, which the server does not run as; supervisord gives it the groups of its account",
        "print_config": "the server would end at once",
        "reload": "it is for development, and would serve a release that is half there",
        "spew": "it traces every line and is for development",
    },
    "uvicorn": {"reload": "it is for development, and would serve a release that is half there"},
}

# The least and the most of what may not be any number from 0.
RANGES: dict[str, tuple[int, Optional[int]]] = {
    "graceful_timeout": (1, None),
    "gunicorn.backlog": (1, None),
    "gunicorn.dirty_threads": (1, None),
    "gunicorn.http2_initial_window_size": (0, 2**31 - 1),
    "gunicorn.http2_max_concurrent_streams": (1, None),
    "gunicorn.http2_max_frame_size": (16384, 16777215),
    "gunicorn.limit_request_fields": (1, 32768),
    "gunicorn.limit_request_line": (0, 8190),
    "gunicorn.threads": (1, None),
    "gunicorn.worker_connections": (1, None),
    "health_status": (100, 599),
    "health_timeout": (1, None),
    "keep": (1, None),
    "supervisor.exitcodes": (0, 255),
    "uvicorn.backlog": (1, None),
    "uvicorn.h11_max_incomplete_event_size": (1, None),
    "uvicorn.limit_concurrency": (1, None),
    "uvicorn.limit_max_requests": (1, None),
    "uvicorn.timeout_worker_healthcheck": (1, None),
    "uvicorn.ws_max_queue": (1, None),
    "uvicorn.ws_max_size": (1, None),
    "worker_memory_mb": (1, None),
}

# Gunicorn's settings that only some classes heed. Of a class of the user's own nothing is known.
OF_ITS_PARSER = (
    "access_log_format",
    "casefold_http_method",
    "forwarder_headers",
    "header_map",
    "http2_cleartext",
    "http2_initial_window_size",
    "http2_max_concurrent_streams",
    "http2_max_frame_size",
    "http2_max_header_list_size",
    "http_parser",
    "http_protocols",
    "limit_request_field_size",
    "limit_request_fields",
    "limit_request_line",
    "permit_obsolete_folding",
    "permit_unconventional_http_method",
    "permit_unconventional_http_version",
    "protocol",
    "proxy_allow_ips",
    "proxy_protocol",
    "secure_scheme_headers",
    "strip_header_spaces",
    "uwsgi_allow_ips",
)
PARSER_CLASSES = ("sync", "gthread", *GEVENT_CLASSES, "asgi")
HEEDED_BY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(OF_ITS_PARSER, PARSER_CLASSES),
    **dict.fromkeys(
        ("asgi_disconnect_grace_period", "asgi_lifespan", "asgi_loop", "root_path", "websocket_max_message_size"),
        ("asgi",),
    ),
    "keepalive": tuple({*WSGI_CLASSES, *ASGI_CLASSES} - {"sync"}),
    "worker_connections": ("gthread", *GEVENT_CLASSES),
}
# What does nothing unless another setting is there.
NEEDS = {
    "ca_certs": "certfile",
    "cert_reqs": "certfile",
    "ciphers": "certfile",
    "dirty_apps": "dirty_workers",
    "do_handshake_on_connect": "certfile",
    "max_requests_jitter": "max_requests",
    "reload_engine": "reload",
    "reload_extra_files": "reload",
    "syslog_facility": "syslog",
    "syslog_prefix": "syslog",
    "statsd_prefix": "statsd_host",
    "dogstatsd_tags": "statsd_host",
    "enable_backlog_metric": "statsd_host",
}
# Uvicorn's options that a Gunicorn worker has no use for.
ALONE_ONLY = (
    "reload_delay",
    "reload_dirs",
    "reload_excludes",
    "reload_includes",
    "timeout_worker_healthcheck",
    "use_colors",
)
IMPLEMENTATIONS = {
    "loop": ("auto", "asyncio", "uvloop", "zuvloop", "none"),
    "http": ("auto", "h11", "httptools", "zttp"),
    "ws": ("auto", "none", "websockets", "websockets-sansio", "wsproto"),
}
IMPORT_STRING = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
OCTAL = re.compile(r"0[0-7]{0,3}")
OCTAL_KEYS = ("umask", "control_socket_mode")
# A list here, and text with commas in Gunicorn's configuration file.
JOINED = ("forwarded_allow_ips", "proxy_allow_ips", "uwsgi_allow_ips", "forwarder_headers", "http_protocols")


def options_of(server: str) -> dict[str, Any]:
    """The argument spec of an app's dictionary `gunicorn` or `uvicorn`."""
    options: dict[str, Any] = _spec.role_options("gunicorn_uvicorn")[f"gunicorn_uvicorn_{server}"]["options"]
    return options


def gunicorn_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as Gunicorn's configuration file takes them."""
    settings = _spec.coerced(given, options_of("gunicorn"))
    settings.pop("hooks_file", None)
    for name in OCTAL_KEYS:
        if name in settings:
            settings[name] = int(settings[name], 8)
    for name in JOINED:
        if name in settings:
            settings[name] = ",".join(settings[name])
    return settings


def uvicorn_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options as uvicorn.Config takes them."""
    settings = _spec.coerced(given, options_of("uvicorn"))
    if "headers" in settings:
        settings["headers"] = [[part.strip() for part in header.split(":", 1)] for header in settings["headers"]]
    return settings


def problems(app: Mapping[str, Any]) -> Iterator[str]:
    """What an app asks of its server that cannot work, a sentence each. Types are checked elsewhere."""
    for server, instead in INSTEAD.items():
        given = _dictionary(app, server)
        for name in given:
            if name in instead:
                yield f"{server}.{name} is not for here: set {instead[name]} instead"
        for name, reason in REFUSED[server].items():
            if _is_on(given.get(name)):
                yield f"{server}.{name} is {given[name]}: {reason}; leave it out"
    yield from _class_problems(app)
    if app.get("server", "gunicorn") == "gunicorn":
        yield from _gunicorn_problems(app, _dictionary(app, "gunicorn"))
    yield from _uvicorn_problems(app, _dictionary(app, "uvicorn"))
    yield from _tls_problems(app)


def _dictionary(app: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = app.get(key)
    return value if isinstance(value, Mapping) else {}


def _is_on(value: Any) -> bool:
    return value is True or str(value).lower() in ("true", "yes", "on", "1", "y", "t")


def _number(value: Any) -> int:
    """0 where it is none, which the check of types reports."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _class_of(app: Mapping[str, Any]) -> str:
    return str(app.get("worker_class") or DEFAULT_CLASS)


def _class_problems(app: Mapping[str, Any]) -> Iterator[str]:
    name, interface = _class_of(app), str(app.get("interface") or "asgi")
    if app.get("server") == "uvicorn":
        if interface == "wsgi":
            yield "interface is wsgi and server is uvicorn, which serves ASGI apps: set server and worker_class"
        return
    known = (*WSGI_CLASSES, *ASGI_CLASSES)
    if name == "eventlet":
        yield "worker_class is 'eventlet', which Gunicorn 26 removed: gevent is the other class of pseudo-threads"
    elif name not in known and not OWN_CLASS.fullmatch(name):
        classes = ", ".join(["sync", "gthread", "gevent", "tornado", "asgi", *UVICORN_CLASSES])
        yield f"worker_class is {name!r}: it must be one of {classes}, or MODULE.CLASS"
    elif interface == "wsgi" and name in ASGI_CLASSES:
        yield (
            f"interface is wsgi and worker_class is {name!r}, which serves ASGI apps: set worker_class to sync, gthread"
            " or gevent"
        )
    elif interface == "asgi" and name in WSGI_CLASSES:
        yield (
            f"interface is asgi and worker_class is {name!r}, which serves WSGI apps: set worker_class to"
            f" {DEFAULT_CLASS} or asgi, or interface to wsgi if the app is one of Flask or Django"
        )


def _gunicorn_problems(app: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[str]:
    name = _class_of(app)
    if _number(given.get("threads", 1)) > 1 and name in {*WSGI_CLASSES, *ASGI_CLASSES} - {"sync", "gthread"}:
        threads = given["threads"]
        yield f"gunicorn.threads is {threads} and worker_class is {name!r}, which has no threads: raise workers"
    if _is_on(given.get("reuse_port")) and str(app.get("bind", "")).startswith("unix:"):
        yield "gunicorn.reuse_port is true and bind is a Unix socket, which knows no ports: leave it out"
    for key in OCTAL_KEYS:
        if given.get(key) is not None and not OCTAL.fullmatch(str(given[key])):
            yield f"gunicorn.{key} is {given[key]!r}: it must be octal digits in quotes, such as '0027'"
    for item in _items(given.get("raw_env")):
        if not re.match(r"[A-Za-z_]\w*=", item):
            yield f"gunicorn.raw_env has {item.partition('=')[0]!r}: it must be KEY=VALUE"
    graceful = _number(app.get("graceful_timeout", _serving.GRACEFUL_TIMEOUT))
    dirty = _number(given.get("dirty_graceful_timeout", 30))
    if _number(given.get("dirty_workers")) and dirty > graceful:
        yield (
            f"gunicorn.dirty_graceful_timeout is {dirty}, graceful_timeout is {graceful}: the master would not wait"
            " that long; it must not exceed graceful_timeout"
        )
    if given.get("hooks_file") is not None:
        yield from (f"gunicorn.hooks_file {problem}" for problem in hooks_problems(str(given["hooks_file"])))


def _items(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.split(",")
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []


def hooks_problems(path: str) -> Iterator[str]:
    """What is wrong with a file of hooks on the controller, as far as its text shows."""
    if not os.path.isabs(path) or not os.path.isfile(path):
        yield f"is {path!r}: it must be the full path of a file on the controller"
        return
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    try:
        body = ast.parse(text, filename=path).body
    except SyntaxError as error:
        yield f"{path} is no Python: line {error.lineno}: {error.msg}"
        return
    functions = {node.name: node.args for node in body if isinstance(node, ast.FunctionDef)}
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    others = {target.id for target in targets if isinstance(target, ast.Name)}
    if not {*functions, *others} & set(HOOKS):
        yield f"{path} has no function that is a hook; hooks are {', '.join(HOOKS)}"
    for name, args in functions.items():
        count = len(args.posonlyargs) + len(args.args)
        if name in HOOKS and not args.vararg and count not in HOOKS[name]:
            allowed = " or ".join(str(number) for number in HOOKS[name])
            yield f"{path}: {name} takes {count} arguments: Gunicorn calls it with {allowed}"


def _uvicorn_problems(app: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[str]:
    for key, known in IMPLEMENTATIONS.items():
        value = given.get(key)
        if value is not None and str(value) not in known and not IMPORT_STRING.fullmatch(str(value)):
            yield f"uvicorn.{key} is {value!r}: it must be one of {', '.join(known)}, or MODULE:NAME"
    if _is_on(given.get("http2")) and given.get("http") != "zttp":
        yield "uvicorn.http2 is true: it needs uvicorn.http to be zttp, whose package the lock must have"
    if given.get("interface") == "wsgi":
        yield "uvicorn.interface is wsgi: Uvicorn is for ASGI apps; set the app's interface to wsgi and a worker_class"
    for header in _items(given.get("headers")):
        if not re.match(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:", header) or re.search(r"[\r\n]", header):
            yield f"uvicorn.headers has {header!r}: it must be Name:Value in one line"
    config = given.get("log_config")
    if config is not None and not str(config).endswith((".ini", ".json", ".yaml", ".yml")):
        yield f"uvicorn.log_config is {config!r}: it must be the path of an .ini, .json or .yaml file on the host"


def _tls_problems(app: Mapping[str, Any]) -> Iterator[str]:
    names = {"gunicorn": ("certfile", "keyfile"), "uvicorn": ("ssl_certfile", "ssl_keyfile")}
    for server, (certificate, key) in names.items():
        given = _dictionary(app, server)
        if given.get(key) and not given.get(certificate):
            yield f"{server}.{key} is set and {server}.{certificate} is not: set both"
        if given.get(certificate) and app.get("health_path", "/health"):
            yield (
                f"{server}.{certificate} is set, and health_path is asked without TLS: set health_path to '', or let"
                " TLS end at nginx"
            )


def warnings(app: Mapping[str, Any]) -> Iterator[str]:
    """What an app asks of its server that does nothing, a sentence each."""
    server, name = app.get("server", "gunicorn"), _class_of(app)
    gunicorn, uvicorn = _dictionary(app, "gunicorn"), _dictionary(app, "uvicorn")
    if server == "uvicorn":
        if gunicorn:
            yield "gunicorn has no effect: server is uvicorn"
        return
    if name in DEPRECATED_CLASSES:
        instead = name.replace("uvicorn.workers", "uvicorn_worker")
        yield f"worker_class is {name!r}, which is deprecated: set {instead}"
    if uvicorn and name in {*WSGI_CLASSES, *ASGI_CLASSES} - {*UVICORN_CLASSES, *DEPRECATED_CLASSES}:
        yield f"uvicorn has no effect: worker_class is {name!r}"
    yield from (f"uvicorn.{key} has no effect: server is gunicorn" for key in ALONE_ONLY if key in uvicorn)
    yield from (f"gunicorn.{problem}" for problem in _idle_settings(name, gunicorn))


def _idle_settings(worker_class: str, given: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted(given):
        heeding = HEEDED_BY.get(key)
        if heeding and worker_class not in heeding and worker_class in (*WSGI_CLASSES, *ASGI_CLASSES):
            yield f"{key} has no effect: worker_class is {worker_class!r}{_rather(worker_class, key)}"
        if key in NEEDS and not given.get(NEEDS[key]):
            yield f"{key} has no effect: gunicorn.{NEEDS[key]} is not set"
    if "ssl_version" in given:
        yield "ssl_version has no effect: Gunicorn ignores it; the hook ssl_context is in its place"
    if given.get("control_socket") and _is_on(given.get("control_socket_disable", True)):
        yield "control_socket has no effect: gunicorn.control_socket_disable is true, as this role has it"


def _rather(worker_class: str, key: str) -> str:
    own = {"root_path": "uvicorn.root_path", "asgi_loop": "uvicorn.loop", "asgi_lifespan": "uvicorn.lifespan"}
    return f"; set {own[key]}" if key in own and worker_class in (*UVICORN_CLASSES, *DEPRECATED_CLASSES) else ""
