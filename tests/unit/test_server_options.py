"""What an app asks for and that does nothing, files of hooks, and the action that checks all variables at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.asgiops.fastapi_host.plugins.filter import serving
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _apps, _operations, _server_options

pytestmark = pytest.mark.controller

ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
COLLECTIONS = Path(__file__).resolve().parents[2] / ".cache" / "collections"
GOOD: dict[str, Any] = {"name": "orders", "app": "orders.main:app", "source": {"path": "/src"}}
WSGI = {"interface": "wsgi", "worker_class": "gthread"}


def warnings(**app: Any) -> list[str]:
    assert _apps.app_problems([{**GOOD, **app}]) == []
    return _apps.app_warnings([{**GOOD, **app}])


@pytest.mark.parametrize(
    ("app", "fragments"),
    [
        ({"gunicorn": {"worker_connections": 5}}, ["gunicorn.worker_connections", "uvicorn_worker.UvicornWorker"]),
        ({**WSGI, "worker_class": "sync", "gunicorn": {"keepalive": 5}}, ["gunicorn.keepalive", "'sync'"]),
        ({"gunicorn": {"limit_request_line": 5}}, ["gunicorn.limit_request_line"]),
        ({"gunicorn": {"access_log_format": "x"}}, ["gunicorn.access_log_format"]),
        ({"gunicorn": {"root_path": "/x"}}, ["gunicorn.root_path", "set uvicorn.root_path"]),
        ({"gunicorn": {"asgi_loop": "uvloop"}}, ["gunicorn.asgi_loop", "set uvicorn.loop"]),
        ({**WSGI, "gunicorn": {"asgi_lifespan": "on"}}, ["gunicorn.asgi_lifespan", "'gthread'"]),
        ({"worker_class": "asgi", "uvicorn": {"loop": "asyncio"}}, ["uvicorn has no effect", "'asgi'"]),
        ({"uvicorn": {"use_colors": True}}, ["uvicorn.use_colors", "server is gunicorn"]),
        ({"server": "uvicorn", "gunicorn": {"timeout": 5}}, ["gunicorn has no effect", "server is uvicorn"]),
        ({"worker_class": "uvicorn.workers.UvicornWorker"}, ["deprecated", "set uvicorn_worker.UvicornWorker"]),
        ({"gunicorn": {"max_requests_jitter": 5}}, ["max_requests_jitter", "gunicorn.max_requests is not set"]),
        ({"gunicorn": {"reload_engine": "poll"}}, ["reload_engine", "gunicorn.reload is not set"]),
        ({"gunicorn": {"ssl_version": 2}}, ["ssl_version", "the hook ssl_context"]),
        ({"gunicorn": {"control_socket": "/run/x"}}, ["control_socket", "control_socket_disable"]),
    ],
)
def test_what_does_nothing_is_reported(app, fragments) -> None:
    (text,) = warnings(**app)
    assert all(fragment in text for fragment in ["app orders: ", *fragments]), text


@pytest.mark.parametrize(
    "app",
    [
        {},
        {"gunicorn": {"timeout": 60, "keepalive": 5, "max_requests": 10, "max_requests_jitter": 5, "backlog": 9}},
        {**WSGI, "gunicorn": {"threads": 4, "worker_connections": 9, "limit_request_line": 0}},
        {"worker_class": "asgi", "gunicorn": {"asgi_loop": "uvloop", "root_path": "/x", "limit_request_line": 0}},
        {"uvicorn": {"loop": "asyncio", "ws_max_size": 5}},
        {"server": "uvicorn", "uvicorn": {"use_colors": False}},
        {"worker_class": "orders.workers.Own", "gunicorn": {"root_path": "/x", "worker_connections": 7}},
        {"gunicorn": {"certfile": "/c", "keyfile": "/k", "ciphers": "x"}, "health_path": ""},
    ],
)
def test_what_works_is_not_warned_about(app) -> None:
    assert warnings(**app) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no function that is a hook"),
        ("def post_frok(server, worker): pass\n", "has no function that is a hook"),
        ("def post_fork(server):\n    pass\n", "post_fork takes 1 arguments: Gunicorn calls it with 2"),
        ("def post_request(a):\n    pass\n", "post_request takes 1 arguments: Gunicorn calls it with 2 or 3 or 4"),
        ("def post_fork(server, worker)\n    pass\n", "is no Python: line 1"),
    ],
)
def test_files_of_hooks_that_cannot_work(tmp_path, text, reason) -> None:
    file = tmp_path / "hooks.py"
    file.write_text(text, encoding="utf-8")
    found = list(_server_options.hooks_problems(str(file)))
    assert any(reason in problem for problem in found), found


@pytest.mark.parametrize(
    "text",
    [
        "def post_fork(server, worker):\n    pass\n",
        "def post_fork(*everything):\n    pass\n",
        "when_ready = print\n",
        "import os\n\n\ndef helper():\n    pass\n\n\ndef on_exit(server):\n    helper()\n",
    ],
)
def test_files_of_hooks(tmp_path, text) -> None:
    file = tmp_path / "hooks.py"
    file.write_text(text, encoding="utf-8")
    assert list(_server_options.hooks_problems(str(file))) == []


def test_what_must_not_show() -> None:
    apps = [{**GOOD, "secrets": {"A": "one", "B": ""}}, {**GOOD, "uvicorn": {"ssl_keyfile_password": "two"}}, GOOD]
    assert _operations.app_secrets(apps) == ["one", "two"]


@pytest.fixture
def play(tmp_path):
    """Runs the action as a play does, for a host that nobody can reach; its result."""

    def run(variables: dict[str, Any], **arguments: Any) -> dict[str, Any]:
        task = {"asgiops.fastapi_host.check_variables": arguments or None}
        host = {"ansible_connection": "ssh", "ansible_host": "192.0.2.1"}
        book = [{"hosts": "all", "gather_facts": False, "tasks": [task], "vars": variables}]
        (tmp_path / "play.yml").write_text(yaml.safe_dump(book), encoding="utf-8")
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"nowhere": host}}}), encoding="utf-8")
        done = subprocess.run(
            [ANSIBLE, "-i", tmp_path / "hosts.yml", tmp_path / "play.yml"],
            env={
                "PATH": f"{ANSIBLE.parent}:/usr/bin:/bin",
                "HOME": str(tmp_path),
                "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
                "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.startswith("{"), done.stdout + done.stderr
        return dict(json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]["nowhere"])

    return run


def test_all_that_is_wrong_in_one_message_and_no_connection(play) -> None:
    result = play(
        {
            "supervisor_logleval": "debug",
            "supervisord_unit_limit_nofile": "many",
            "python_venv_version": "3.9",
            "supervisor_identifier": "{{ nobody_knows }}",
            "fastapi_apps": [{**GOOD, "workers": "{{ 'lo' ~ 'ts' }}"}, {**GOOD, "name": "shop", "secrets": "hunter2"}],
        }
    )
    assert result["failed"]
    lines = result["msg"].splitlines()
    for fragment in (
        "did you mean supervisor_loglevel?",
        "supervisord_unit_limit_nofile is 'many'",
        "python_venv_version is '3.9'",
        "supervisor_identifier can't be read",
        "app orders: workers is 'lots'",
        "app shop: secrets has a value that is not shown",
        "bind 127.0.0.1:8000 is used by 2 apps",
    ):
        assert sum(fragment in line for line in lines) == 1, (fragment, lines)
    assert len(lines) == 7
    assert "hunter2" not in str(result)


def test_right_variables_and_a_warning(play) -> None:
    result = play({"fastapi_apps": [{**GOOD, "gunicorn": {"worker_connections": 5}}], "supervisor_umask": "027"})
    assert not result.get("failed")
    assert not result["changed"]
    assert any("gunicorn.worker_connections has no effect" in warning for warning in result["warnings"])


def test_one_role_alone(play) -> None:
    variables = {"supervisor_umask": "9", "python_venv_version": "3.9", "supervisord_unit_timeout_stop_sec": 10}
    assert play(variables, roles=["python_venv"])["msg"].count("\n") == 0
    assert "may take 90 s" in play(variables, roles=["supervisord_unit"])["msg"]


def test_the_filter_warns_too(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(serving.display, "warning", lines.append)
    check = serving.FilterModule().filters()["app_problems"]
    assert check([{**GOOD, "server": "uvicorn", "gunicorn": {"timeout": 5}}]) == []
    assert lines == ["app orders: gunicorn has no effect: server is uvicorn"]
    # What is refused comes first.
    assert check([{**GOOD, "server": "uvicorn", "gunicorn": {"timeout": 5}, "workers": "x"}])
    assert len(lines) == 1
