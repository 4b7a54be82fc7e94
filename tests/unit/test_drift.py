"""The argument specs against the installed releases themselves, so that an upgrade of a pin says what changed."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import gunicorn.config
import pytest
import uvicorn
import yaml
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _server_options, _spec

pytestmark = pytest.mark.controller

CHECKOUT = Path(__file__).resolve().parents[2]
ROLES = CHECKOUT / "roles"

# How Gunicorn's validators take what a spec calls by these names.
GUNICORN_TYPES = {
    "validate_bool": [("bool", None)],
    "validate_chdir": [("path", None)],
    "validate_class": [("str", None)],
    "validate_dict": [("dict", None)],
    "validate_http2_frame_size": [("int", None)],
    "validate_http2_stream_limit": [("int", None)],
    "validate_http2_window_size": [("int", None)],
    "validate_http_protocols": [("list", "str")],
    "validate_list_of_files_or_patterns": [("list", "path")],
    "validate_list_string": [("list", "str")],
    # As digits in quotes where it is octal.
    "validate_pos_int": [("int", None), ("str", None)],
    "validate_ssl_version": [("int", None)],
    "validate_statsd_address": [("str", None)],
    "validate_string": [("str", None), ("path", None)],
    "validate_string_to_addr_list": [("list", "str")],
    "validate_string_to_list": [("list", "str")],
}
# Defaults that depend on where it starts.
ELSEWHERE = ("chdir", "control_socket")

SETTINGS = {setting.name: setting for setting in gunicorn.config.KNOWN_SETTINGS}
GUNICORN = _server_options.options_of("gunicorn")
COMMAND = {param.name: param for param in sys.modules["uvicorn.main"].main.params}
UVICORN = _server_options.options_of("uvicorn")
SUPERVISOR = _spec.role_options("supervisor")


def default_of(server: str, spec: dict[str, Any], name: str) -> Any:
    """The spec's default as the server would take it."""
    render = _server_options.gunicorn_settings if server == "gunicorn" else _server_options.uvicorn_settings
    return render({name: spec[name]["default"]})[name]


@pytest.mark.parametrize("package", ["gunicorn", "uvicorn"])
def test_the_releases_looked_at_are_the_pinned_ones(package) -> None:
    pins = (ROLES / "gunicorn_uvicorn" / "vars" / "main" / "pins.yml").read_text(encoding="utf-8")
    assert importlib.metadata.version(package) == re.search(rf"\b{package}==([\d.]+)", pins)[1]


def test_each_setting_of_gunicorn_is_there() -> None:
    elsewhere = set(_server_options.INSTEAD["gunicorn"])
    assert set(GUNICORN) - {"hooks_file"} == set(SETTINGS) - elsewhere
    assert elsewhere <= set(SETTINGS)


@pytest.mark.parametrize("name", sorted(set(GUNICORN) - {"hooks_file"}))
def test_setting_of_gunicorn(name) -> None:
    setting, option = SETTINGS[name], GUNICORN[name]
    validator = setting.validator.__name__
    kinds = GUNICORN_TYPES.get(validator, [("str", None)])
    assert (option["type"], option.get("elements")) in kinds
    if name in ELSEWHERE:
        assert "default" not in option
    elif setting.default is None:
        assert option.get("default") is None
    else:
        # Through Gunicorn's own validator, which must accept what we write.
        assert setting.validator(default_of("gunicorn", GUNICORN, name)) == setting.validator(setting.default)
    if validator not in GUNICORN_TYPES or name == "http_protocols":
        assert option["choices"], "Gunicorn has a validator of its own: it has choices or a range"
    for choice in option.get("choices", []):
        setting.validator(choice)
    if "choices" in option and option["type"] == "str" and validator not in ("validate_string", "validate_list_string"):
        with pytest.raises((ValueError, TypeError, gunicorn.config.ConfigError)):
            setting.validator("no such choice")


@pytest.mark.parametrize(
    ("name", "bad"),
    [(name, edge) for name, (low, high) in _server_options.RANGES.items() for edge in (low - 1, high and high + 1)],
)
def test_ranges_are_no_wider_than_gunicorns(name, bad) -> None:
    """What Gunicorn refuses is out of our range; ours may be narrower, where a value would make no sense."""
    server, _dot, setting = name.partition(".")
    if server == "gunicorn" and bad is not None:
        low, high = _server_options.RANGES[name]
        for good in (low, high):
            if good is not None:
                SETTINGS[setting].validator(good)


def test_hooks_of_gunicorn() -> None:
    known = {name: setting for name, setting in SETTINGS.items() if "Hook" in setting.section}
    assert set(_server_options.HOOKS) == set(known)
    for name, counts in _server_options.HOOKS.items():
        for count in range(1, 6):
            names = ", ".join("abcdef"[:count])
            hook = eval(f"lambda {names}: None")
            if count in counts:
                known[name].validator(hook)
            else:
                with pytest.raises(TypeError):
                    known[name].validator(hook)


def test_worker_classes_of_gunicorn() -> None:
    from gunicorn.workers import SUPPORTED_WORKERS

    ours = {*_server_options.WSGI_CLASSES, *_server_options.ASGI_CLASSES}
    assert set(SUPPORTED_WORKERS) <= ours
    assert {name for name in ours if "." not in name} == set(SUPPORTED_WORKERS)


def test_each_option_of_uvicorn_is_there() -> None:
    assert set(UVICORN) == set(COMMAND) - set(_server_options.INSTEAD["uvicorn"])
    assert set(_server_options.INSTEAD["uvicorn"]) <= set(COMMAND)


@pytest.mark.parametrize("name", sorted(UVICORN))
def test_option_of_uvicorn(name) -> None:
    param, option = COMMAND[name], UVICORN[name]
    kinds = {"text": "str", "integer": "int", "boolean": "bool", "float": "float", "path": "path", "choice": "str"}
    kind = kinds[param.type.name]
    wanted = "list" if param.multiple or name == "forwarded_allow_ips" else kind
    allowed = {wanted, "path"} if name in ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs") else {wanted}
    assert option["type"] in allowed
    if param.type.name == "choice":
        assert option["choices"] == list(param.type.choices)
    default = [] if param.multiple else param.default
    assert option.get("default") == default
    # The library takes the same names.
    assert name in inspect.signature(uvicorn.run).parameters


@pytest.mark.parametrize("key", sorted(_server_options.IMPLEMENTATIONS))
def test_implementations_of_uvicorn(key) -> None:
    known = {"loop": "LOOP_FACTORIES", "http": "HTTP_PROTOCOLS", "ws": "WS_PROTOCOLS"}[key]
    assert set(_server_options.IMPLEMENTATIONS[key]) == set(getattr(uvicorn.config, known))


# --- supervisor


# EPEL's release; it needs pkg_resources, which setuptools had until 82.
EPELS = ("supervisor==4.2.5", "setuptools==80.9.0")


def python_with_epels_supervisor() -> Path:
    place = CHECKOUT / ".cache" / "servers" / "supervisor-epel"
    if not (place / "ready").exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, place], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", place / "bin" / "python", *EPELS], check=True)
        (place / "ready").touch()
    return place / "bin" / "python"


@pytest.fixture(scope="module", params=["pypi", "epel"])
def release(request) -> dict[str, Any]:
    """What one of the two releases asks for, and the events that it knows."""
    python = sys.executable if request.param == "pypi" else python_with_epels_supervisor()
    script = Path(__file__).with_name("_supervisor_asks.py")
    done = subprocess.run([python, "-W", "ignore", script], capture_output=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    assert found["version"] == {"pypi": pinned_supervisor(), "epel": "4.2.5"}[request.param]
    return found


def pinned_supervisor() -> str:
    pins = (ROLES / "supervisor" / "vars" / "main" / "pins.yml").read_text(encoding="utf-8")
    return re.search(r"supervisor==([\d.]+)", pins)[1]


@pytest.fixture(scope="module")
def asked(release) -> dict[str, dict[str, Any]]:
    """Section -> option -> default, as supervisor's own parser asks for them."""
    return release["asked"]


@pytest.mark.parametrize(
    ("section", "variable", "ours"),
    [
        ("program", "supervisor_programs", {"name", "secrets"}),
        ("fcgi-program", "supervisor_fcgi_programs", {"name", "secrets"}),
        ("eventlistener", "supervisor_event_listeners", {"name", "secrets"}),
        ("group", "supervisor_groups", {"name"}),
        ("inet_http_server", "supervisor_inet_http_server", {"public"}),
        ("inet_http_server", "supervisor_inet_http_servers", {"name", "public"}),
        ("unix_http_server", "supervisor_unix_http_server", set()),
        ("unix_http_server", "supervisor_unix_http_servers", {"name"}),
        ("supervisorctl", "supervisor_supervisorctl", set()),
    ],
)
def test_options_of_a_section(asked, section, variable, ours) -> None:
    spec = SUPERVISOR[variable]["options"]
    assert set(spec) - ours == set(asked[section])
    for name, theirs in asked[section].items():
        same_default(section, name, spec[name], theirs)


# Where this role has a default of its own, or none is a value too.
OWN_DEFAULTS = {"stdout_logfile", "stderr_logfile", "redirect_stderr", "killasgroup", "process_name"}
SPELLED_OUT = {("fcgi-program", "socket_mode"): "0700", ("program", "serverurl"): "AUTO"}


def same_default(section: str, name: str, option: dict[str, Any], theirs: Any) -> None:
    if name in OWN_DEFAULTS or (section, name) == ("supervisorctl", "serverurl"):
        assert "default" not in option
    elif theirs in (None, ""):
        expected = SPELLED_OUT.get((section, name), SPELLED_OUT.get(("program", name)))
        assert option.get("default") == expected, name
    elif option["type"] == "list":
        assert [str(item) for item in option.get("default", [])] == [item for item in str(theirs).split(",") if item], (
            name
        )
    else:
        assert str(option["default"]).lower() == str(theirs).lower(), name


def test_options_of_supervisord(asked) -> None:
    for name, theirs in asked["supervisord"].items():
        option = SUPERVISOR[f"supervisor_{name}"]
        if name in ("logfile", "pidfile"):
            # Theirs lies where supervisord happens to be started.
            assert option["default"].endswith(f"/{theirs}")
        elif name == "childlogdir":
            assert (option["default"], theirs) == ("", tempfile.gettempdir())
        else:
            assert str(option["default"] or "").lower() == str(theirs or "").lower().replace("false", ""), name


def test_each_section_is_there(asked) -> None:
    """The cases above, supervisord's own section, and what supervisor reads whole."""
    theirs = {"program", "fcgi-program", "eventlistener", "group", "inet_http_server", "unix_http_server"}
    assert set(asked) == theirs | {"supervisord", "supervisorctl"}


def test_servers_have_names_or_none(release) -> None:
    sections = [f"{kind}{name}" for kind in ("inet_http_server", "unix_http_server") for name in ("", ":more")]
    assert release["listens"] == sections


def test_types_of_a_program() -> None:
    """Each type by a value that only this type has: supervisor's datatype must take it."""
    import supervisor.datatypes as theirs

    functions = {"int": theirs.integer, "bool": theirs.boolean}
    for option in SUPERVISOR["supervisor_programs"]["options"].values():
        if option["type"] in functions:
            functions[option["type"]](str(option.get("default", "1")).lower())


def test_events(release) -> None:
    events = SUPERVISOR["supervisor_event_listeners"]["options"]["events"]["choices"]
    assert events == release["events"]


def role_names() -> list[str]:
    return sorted(path.name for path in ROLES.iterdir())


@pytest.mark.parametrize("role", role_names())
def test_defaults_of_the_spec_are_the_roles(role) -> None:
    """Keys and values: a variable without a default in the spec has none in defaults/main.yml either."""
    specs = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    defaults = yaml.safe_load((ROLES / role / "defaults" / "main.yml").read_text(encoding="utf-8")) or {}
    documented = {
        name: option["default"]
        for spec in specs.values()
        for name, option in spec["options"].items()
        if "default" in option
    }
    computed = {name for name, value in defaults.items() if name not in documented}
    assert all("{{" in str(defaults[name]) for name in computed), f"the spec has no default of {computed}"
    known = {name for spec in specs.values() for name in spec["options"]}
    assert set(defaults) <= known
    for name, value in documented.items():
        ours = " ".join(str(defaults[name]).split()) if isinstance(defaults[name], str) else defaults[name]
        wanted = " ".join(value.split()) if isinstance(value, str) else value
        assert (type(ours), ours) == (type(wanted), wanted), name
