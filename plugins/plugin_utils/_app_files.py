# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a complete app consists of on a host: account, directories, files, program and health check, as data.

Rendering looks at no host and changes none. The plan of a run and the role gunicorn_uvicorn take it from here alone.
"""

from __future__ import annotations

import functools
import hashlib
import json
import posixpath
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml
from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes import launcher
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import (
    _operations,
    _server_options,
    _serving,
    _spec,
)

ROLE = _spec.ROLES / "gunicorn_uvicorn"
SERVER_FILES = {"gunicorn": "gunicorn.conf.py", "uvicorn": "uvicorn_server.py"}
# Seconds; nginx closes its idle connections to a slot after two.
KEEPALIVE = 75
# What the lock may lack, for each kind of server; with what these need themselves.
UVICORN_NEEDS = ("uvicorn", "click", "h11")
# Gunicorn's own module for gevent imports packaging.
GEVENT_NEEDS = ("gevent", "greenlet", "packaging", "zope-event", "zope-interface")
CLASS_NEEDS = {
    "gevent": GEVENT_NEEDS,
    "gevent_wsgi": GEVENT_NEEDS,
    "gevent_pywsgi": GEVENT_NEEDS,
    "tornado": ("tornado",),
}
# By which an app says itself what becomes of the server's own access log.
ACCESS_LOG_KEYS = {"gunicorn": ("accesslog", "access_log_format"), "uvicorn": ("access_log", "log_config")}
# What an app says of its environment, beside its lock.
BUILD_KEYS = ("extras", "groups", "install_project", "source_distributions")
SANDBOX = {"enabled": True, "writable": [], "umask": "0027"}
# What Ansible calls a file of its own, unless the user has set ansible_managed.
MANAGED = "Ansible managed"
# What the sections of programs and the launcher's configuration say for the slot that they are about.
SLOT_TOKEN = "{slot}"
# What is a fact of the whole set of files: it changes with any of them.
DIGEST_TOKEN = "{set_digest}"


# The variables of a host that go into the files of its apps, beside the apps themselves.
VARIABLES = ("ansible_managed", "fastapi_base_dir", "python_venv_version")


@dataclass(frozen=True)
class Surroundings:
    """What the files of an app depend on beside its description."""

    cpus: int
    memory_mb: int
    interpreter: str
    base_dir: str = _layout.BASE_DIR
    # Of an app without slots: the environment that was built last, where the host knows it by now.
    build: str = ""
    # The first line of each file.
    managed: str = MANAGED


class AppFiles:
    """The rendering of one app."""

    def __init__(self, app: Mapping[str, Any], around: Surroundings) -> None:
        self.app, self.around = app, around
        self.name = str(app["name"])
        self.slotted = bool(app.get("server_names"))
        self.slot = SLOT_TOKEN if self.slotted else ""
        self.user = str(app["user"] or self.name)
        self.group = str(app["group"] or self.user)
        # Whose members may connect to the app's Unix sockets, beside the app itself.
        self.socket_group = str(app["socket_group"] or ("nginx" if self.slotted else self.group))
        self.etc = f"{_layout.ETC}/{self.name}"
        self.run = _layout.run_directory(self.name)
        self.log = f"{_layout.LOG}/{self.name}"
        self.home = f"{_layout.STATE}/{self.name}"
        self.venv = str(app.get("venv") or f"{around.base_dir}/venvs/{self.name}")
        # The build itself, not the link to it: what runs must not change when a new environment is published.
        self.build = around.build or self.venv
        self.uvicorn_worker = app["server"] == "gunicorn" and "uvicorn" in str(app["worker_class"])
        self.workers = _serving.worker_plan(
            app["workers"],
            "uvicorn" if app["server"] == "uvicorn" else str(app["worker_class"]),
            around.cpus,
            around.memory_mb,
            int(app["worker_memory_mb"]),
        )

    def as_data(self) -> dict[str, Any]:
        app = self.app
        return {
            "name": self.name,
            "user": self.user,
            "group": self.group,
            "socket_group": self.socket_group,
            "account": {
                "app": self.name,
                "user": self.user,
                "group": str(app["group"]),
                "home": self.home,
                "shared_user": app["shared_user"],
                "existing_user": app["existing_user"],
            },
            "workers": self.workers["reason"],
            "environment": self.environment,
            "build": self.build_digest,
            "directories": self.run_directories + self.lasting_directories,
            "files": self.files,
            "release_directories": self.release_directories,
            "slot_files": self.slot_files,
            "slot_programs": _layout.slot_programs(self.name),
            "program": self.program,
            "tmpfiles": self.tmpfiles,
            # Of an app without slots; those of a slot are written by its move.
            "host_files": [
                {"path": _layout.tmpfiles(self.name), "content": self.tmpfiles},
                {"path": _layout.program_file(self.name), "content": self.program, "mode": "0600"},
            ],
            "check": [*self.launch(f"{{stage}}{self.etc}"), "--check"],
            "health": {
                "path": str(app["health_path"] or ""),
                "status": int(app["health_status"]),
                "timeout": int(app["health_timeout"]),
            },
            "probe": {} if self.slotted else _serving.probe_address(str(app["bind"]), str(app["health_path"] or "")),
            "redact": _operations.app_secrets([app]),
        }

    # What it is built from

    @property
    def environment(self) -> dict[str, Any]:
        """As the module uv_venv takes it, beside what is the same for all environments of a host."""
        app = self.app
        lock = posixpath.join(str(app.get("directory") or ""), str(app["lock"])) if app["lock"] else ""
        same = {key: app[key] for key in BUILD_KEYS}
        return {"path": self.venv, "lock": lock, "group": self.group, "additions": self.additions, **same}

    @property
    def additions(self) -> list[str]:
        if self.app["server"] == "uvicorn":
            needs: tuple[str, ...] = UVICORN_NEEDS
        elif self.uvicorn_worker:
            needs = ("gunicorn", "uvicorn", "uvicorn-worker", *UVICORN_NEEDS[1:])
        else:
            needs = ("gunicorn", *CLASS_NEEDS.get(str(self.app["worker_class"]), ()))
        return [pins()[name] for name in needs]

    @property
    def build_digest(self) -> str:
        """A digest of what makes the environment, beside the release itself."""
        inputs = [self.around.interpreter, *(self.app[key] for key in ("lock", *BUILD_KEYS)), self.additions]
        return hashlib.sha256(json.dumps(inputs, default=str).encode()).hexdigest()

    # Directories

    @property
    def run_directories(self) -> list[dict[str, Any]]:
        """Made at each boot as well.

        The sockets lie where only the app and its proxy may enter, and what is made in there gets the proxy's group.
        The directory of the link that the proxy follows is root's.
        """
        closed = {"owner": self.user, "group": self.socket_group, "mode": "2750"}
        if self.slotted:
            slots = [
                {"path": posixpath.dirname(_layout.slot_socket(self.name, slot)), **closed} for slot in _layout.SLOTS
            ]
            return [{"path": posixpath.dirname(self.run)}, {"path": self.run}, *slots]
        return [{"path": posixpath.dirname(self.run)}, {"path": self.run, **closed}]

    @property
    def lasting_directories(self) -> list[dict[str, Any]]:
        closed = {"group": self.group, "mode": "0750"}
        return [
            {"path": posixpath.dirname(self.etc)},
            {"path": self.etc, **closed},
            {"path": posixpath.dirname(self.log)},
            {"path": self.log, **closed},
            {"path": posixpath.dirname(self.home)},
            {"path": self.home, "owner": self.user, **closed},
        ]

    @property
    def release_directories(self) -> list[dict[str, Any]]:
        """Others may pass through to what is theirs, and not look around."""
        apps = _layout.apps_directory(self.around.base_dir)
        open_to_pass = [f"{apps}/{self.name}", f"{apps}/{self.name}/releases"]
        return [
            {"path": self.around.base_dir},
            {"path": apps},
            *({"path": path, "mode": "0711"} for path in open_to_pass),
        ]

    @property
    def slot_files(self) -> list[str]:
        """Patterns of what an app leaves behind that had slots once."""
        return [
            *(_layout.program_file(program) for program in _layout.slot_programs(self.name)),
            *(f"{self.etc}/{slot}/*" for slot in _layout.SLOTS),
            _layout.live_socket(self.name),
        ]

    # Files

    @property
    def files(self) -> list[dict[str, Any]]:
        """Of a slot, relative to its directory."""
        place = "" if self.slotted else f"{self.etc}/"
        server_file = SERVER_FILES[str(self.app["server"])]
        own = {"group": self.group, "mode": "0640"}
        return [
            {"path": f"{place}environment", "secret_content": self.environment_file, **own},
            {"path": f"{place}{server_file}", "content": self.rendered(server_file), **own},
            {"path": f"{place}hooks.py", "content": self.hooks_file, **own},
            {"path": f"{place}check.py", "content": text_of(ROLE / "files" / "check.py"), **own},
            {"path": f"{place}launch.json", "content": json.dumps(self.launch_config, indent=4, sort_keys=True) + "\n"},
            {"path": f"{place}{launcher.FILE_NAME}", "content": text_of(Path(launcher.__file__))},
            {"path": f"{place}run", "content": self.rendered("run"), "group": self.group, "mode": "0750"},
        ]

    @property
    def heading(self) -> str:
        return f"# {self.around.managed}\n"

    @property
    def environment_file(self) -> str:
        base = {
            "HOME": self.home,
            "USER": self.user,
            "LOGNAME": self.user,
            "LANG": "C.UTF-8",
            # Log lines of the app reach its log when they are written.
            "PYTHONUNBUFFERED": "1",
        }
        if not self.slotted:
            # In slots the script run finds it out.
            base.update(PATH=f"{self.build}/bin:/usr/local/bin:/usr/bin:/bin", VIRTUAL_ENV=self.build)
        values = {**base, **self.app["environment"], **self.app["secrets"]}
        usage = "# Read by a POSIX shell: set -a; . ./environment\n"
        return self.heading + usage + _serving.shell_environment(values)

    @property
    def hooks_path(self) -> str:
        return str(self.app["gunicorn"].get("hooks_file") or "")

    @property
    def hooks_file(self) -> str:
        if not self.hooks_path:
            return f"{self.heading}# The app has no hooks of its own: gunicorn.hooks_file is not set.\n"
        return self.heading + text_of(Path(self.hooks_path))

    @property
    def leaves_access_log_to_nginx(self) -> bool:
        """A second line for each request costs a server a good part of its throughput."""
        servers = [str(self.app["server"]), *(["uvicorn"] if self.uvicorn_worker else [])]
        own = [key for name in servers for key in ACCESS_LOG_KEYS[name] if self.app[name].get(key) is not None]
        return self.slotted and not own

    @property
    def gunicorn_settings(self) -> dict[str, Any]:
        return {
            "proc_name": self.name,
            # The heartbeat files must not wait for a disk.
            "worker_tmp_dir": "/dev/shm",
            # Without it, neither Gunicorn nor a Uvicorn worker formats a line.
            **({} if self.leaves_access_log_to_nginx else {"accesslog": "-"}),
            "errorlog": "-",
            "forwarded_allow_ips": self.forwarders,
            # Of the socket alone: who may enter its directory may connect. Gunicorn gives it the app's group, so the
            # mode can't let the proxy in and keep others out. The app has the launcher's umask.
            "umask": 0o111,
            # Two masters would overwrite each other's.
            "control_socket_disable": True,
            **_server_options.gunicorn_settings(self.app["gunicorn"]),
        }

    @property
    def uvicorn_settings(self) -> dict[str, Any]:
        """A Gunicorn worker's access log follows Gunicorn's."""
        alone = self.app["server"] == "uvicorn"
        silent = {"access_log": False} if alone and self.leaves_access_log_to_nginx else {}
        return {**silent, **_server_options.uvicorn_settings(self.app["uvicorn"])}

    @property
    def forwarders(self) -> str:
        """Who may say what client it asks for: a proxy on this host. Who asks through a Unix socket has no address."""
        return "*" if str(self.app["bind"]).startswith(_layout.UNIX) else "127.0.0.1,::1"

    @property
    def implementation(self) -> dict[str, Any]:
        """What the options ask of the server of an ASGI app; `auto` is settled by what is installed."""
        app = self.app
        if app["server"] == "uvicorn" or self.uvicorn_worker:
            pure = self.uvicorn_worker and "H11Worker" in str(app["worker_class"])
            return {"loop": "asyncio" if pure else "auto", "http": "h11" if pure else "auto", **app["uvicorn"]}
        if app["worker_class"] == "asgi":
            options = app["gunicorn"]
            return {"loop": options.get("asgi_loop", "auto"), "http": options.get("http_parser", "auto")}
        return {}

    def rendered(self, name: str) -> str:
        """A template of the role."""
        app = self.app
        return (
            _templates()
            .get_template(f"{name}.j2")
            .render(
                heading=self.heading,
                app=app,
                slotted=self.slotted,
                run=self.run,
                socket=_layout.SOCKET,
                build=self.build,
                import_dir=posixpath.normpath(posixpath.join(str(app.get("directory") or "/"), str(app["app_dir"]))),
                keepalive=KEEPALIVE,
                workers=self.workers["count"],
                graceful_timeout=int(app["graceful_timeout"]),
                uvicorn_worker=self.uvicorn_worker,
                worker_class=str(app["worker_class"]).rpartition("."),
                gunicorn_settings=self.gunicorn_settings,
                uvicorn_settings=self.uvicorn_settings,
                checked_options=",".join(_server_options.gunicorn_settings(app["gunicorn"])),
                has_hooks=bool(self.hooks_path),
                implementation=self.implementation,
                forwarders=self.forwarders,
                bind=None if self.slotted else _serving.split_bind(str(app["bind"])),
            )
        )

    # How it is started

    @property
    def launch_config(self) -> dict[str, Any]:
        sandbox = {**SANDBOX, **self.app["sandbox"]}
        return {
            "name": "_".join(filter(None, [self.name, self.slot])),
            "cgroup": f"{self.name}/{self.slot or 'server'}",
            "command": ["/bin/sh", "{here}/run"],
            "user": self.user,
            "group": self.group,
            "umask": str(sandbox["umask"]),
            "sandbox": _spec.CONVERTERS["bool"](sandbox["enabled"]),
            "writable": [
                posixpath.join(self.run, self.slot).rstrip("/"),
                self.home,
                self.log,
                # If there is one.
                f"-{_layout.apps_directory(self.around.base_dir)}/{self.name}/shared",
                *sandbox["writable"],
            ],
            "limits": self.app["limits"],
        }

    @staticmethod
    def launch(folder: str) -> list[str]:
        """What starts the app by the launcher in a folder."""
        return ["/usr/bin/python3", "-IS", f"{folder}/{launcher.FILE_NAME}", f"{folder}/launch.json"]

    @property
    def program(self) -> str:
        """Its section of supervisord's configuration."""
        options = {
            # As root; the launcher is what becomes the app's account.
            "command": " ".join(self.launch(posixpath.join(self.etc, self.slot).rstrip("/"))),
            "directory": "/",
            # Changes with any file of the server, so that supervisord sees that the program is another one.
            "environment": {"FASTAPI_HOST_CONFIG": DIGEST_TOKEN},
            "autostart": True,
            # Also after an exit with status 0, as Uvicorn's limit_max_requests gives.
            "autorestart": True,
            "startsecs": 2,
            "startretries": 3,
            "stopsignal": "TERM",
            "stopwaitsecs": int(self.app["graceful_timeout"]) + _serving.STOP_MARGIN,
            "killasgroup": True,
            "redirect_stderr": True,
            "stdout_logfile": f"{self.log}/{self.slot or 'server'}.log",
            "stdout_logfile_maxbytes": "50MB",
            "stdout_logfile_backups": 5,
        }
        name = "_".join(filter(None, [self.name, self.slot]))
        section = _serving.supervisor_options({**options, **self.app["supervisor"]})
        return f"; {self.around.managed}\n[program:{name}]\n{section}"

    @property
    def tmpfiles(self) -> str:
        lines = [
            f"d {each['path']} {each.get('mode', '0755')} {each.get('owner', 'root')} {each.get('group', 'root')} -\n"
            for each in self.run_directories
        ]
        return self.heading + "".join(lines)


def surroundings(values: Mapping[str, Any], *, cpus: int, memory_mb: int, build: str = "") -> Surroundings:
    """From those of VARIABLES that are set."""
    version = values.get("python_venv_version") or _spec.role_options("python_venv")["python_venv_version"]["default"]
    return Surroundings(
        cpus=int(cpus),
        memory_mb=int(memory_mb),
        interpreter=f"/usr/bin/python{version}",
        base_dir=str(values.get("fastapi_base_dir") or _layout.BASE_DIR),
        build=build,
        managed=str(values.get("ansible_managed") or MANAGED),
    )


def render(app: Mapping[str, Any], around: Surroundings) -> dict[str, Any]:
    """All that a complete app consists of; the lookup app_files describes the keys."""
    return AppFiles(app, around).as_data()


@functools.cache
def pins() -> dict[str, str]:
    """The hashed requirement lines of what the locks of apps may lack, by package."""
    text = (ROLE / "vars" / "main" / "pins.yml").read_text(encoding="utf-8")
    found: dict[str, str] = yaml.load(text, Loader=_spec.YAML_LOADER)["__gunicorn_uvicorn_pins"]
    return found


@functools.cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def _templates() -> jinja2.Environment:
    """As Ansible sets Jinja up."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROLE / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters.update(python_literal=_serving.python_literal, quote=lambda value: shlex.quote(str(value)))
    return environment
