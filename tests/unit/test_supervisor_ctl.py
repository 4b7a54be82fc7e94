"""Where the modules look for supervisord when no option says so: where supervisorctl does."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from _supervisor_daemon import Daemon, own_daemon_fixture  # noqa: F401
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor import ctl, rpc
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._supervisor.process import Request, run
from supervisor.options import ClientOptions
from test_supervisor_rpc import CHECKOUT, run_module

PASSWORD = "50%;hunter2 ü"
LOGIN = "username=ops\npassword=50%%;hunter2 ü\n"


@pytest.fixture(name="daemon")
def daemon_fixture(own_daemon: Daemon) -> Daemon:
    """A supervisord with a login, whose file says both halves of it."""
    digest = hashlib.sha1(PASSWORD.encode()).hexdigest()
    own_daemon.server += f"username=ops\npassword={{SHA}}{digest}\n"
    own_daemon.extra = f"[supervisorctl]\nserverurl={own_daemon.url} ; the socket\n{LOGIN}"
    own_daemon.login = {"username": "ops", "password": PASSWORD}
    own_daemon.program("web")
    own_daemon.start()
    return own_daemon


def by_file(daemon: Daemon, **options: Any) -> rpc.Connection:
    return rpc.Connection(**{"config": str(daemon.config), "connect_timeout": 0, **options})


def test_the_file_says_where_and_who(daemon: Daemon) -> None:
    server = rpc.connect(by_file(daemon))
    assert server.call("getState")["statename"] == "RUNNING"
    server.close()
    assert run(by_file(daemon), Request(["web"]), check_mode=False)["changed"] is False


def test_an_option_goes_before_the_file(daemon: Daemon) -> None:
    with pytest.raises(rpc.SupervisorError, match="refused the user name ops"):
        rpc.connect(by_file(daemon, username="ops", password="wrong"))
    # A login is for the server that it was written for.
    with pytest.raises(rpc.SupervisorError, match="asks for a user name"):
        rpc.connect(by_file(daemon, server_url=daemon.url))
    rpc.connect(by_file(daemon, server_url=daemon.url, **daemon.login)).close()


@pytest.mark.parametrize("login", ["", "username=ops\npassword=other-hunter2\n"])
def test_a_login_that_supervisord_has_not_taken_over(daemon: Daemon, login: str) -> None:
    daemon.extra = f"[supervisorctl]\nserverurl={daemon.url}\n{login}"
    daemon.write()
    with pytest.raises(rpc.OtherLogin) as caught:
        run(by_file(daemon), Request(["web"]), check_mode=False)
    assert str(daemon.config) in str(caught.value)
    assert "hunter2" not in str(caught.value)
    result = run(by_file(daemon), Request(["web"], state="present", require_running=False), check_mode=False)
    assert not result["changed"]
    assert "another login" in result["skipped_reason"]


def test_a_socket_that_supervisord_has_not_taken_over(daemon: Daemon) -> None:
    daemon.extra = f"[supervisorctl]\nserverurl=unix://{daemon.folder}/new.sock\n{LOGIN}"
    daemon.write()
    with pytest.raises(rpc.NotRunning, match=f"{daemon.config}: serverurl .*/new.sock.*has changed since"):
        rpc.connect(by_file(daemon))


def test_the_modules_themselves(daemon: Daemon, tmp_path: Path) -> None:
    for module in ("supervisor_process", "supervisor_info", "supervisor_log_clear", "app_status"):
        options = {"names": ["web"], "config": str(daemon.config)}
        result, output = run_module(CHECKOUT / f"plugins/modules/{module}.py", options, tmp_path)
        assert not result.get("failed"), output
        assert result.get("running", True)
        assert "hunter2" not in output


TEXTS = [
    "serverurl=unix:///run/s.sock",
    "serverurl = unix:///run/../run/s.sock   ; moved\nusername: ops  # who\npassword = a;b#c",
    "serverurl=unix://%(here)s/s.sock",
    "serverurl=unix://%(ENV_PLACE)s/s.sock\nusername=%(ENV_WHO)s\npassword=50%%",
    "serverurl=http://127.0.0.1:9001\nusername=ops",
    "username=ops\npassword=secret",
    "; nothing",
    "serverurl=http://localhost:1\n[supervisorctl]\nserverurl=http://localhost:2",
    "serverurl=unix:///a\n[include]\nfiles=*.ini",
]


@pytest.mark.parametrize("text", TEXTS)
def test_it_reads_as_supervisorctl_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PLACE", "/run/ops")
    monkeypatch.setenv("WHO", "ops")
    config = tmp_path / "supervisord.conf"
    config.write_text(f"[supervisord]\n[supervisorctl]\n{text}\n", encoding="utf-8")
    theirs = ClientOptions()
    theirs.realize(["-c", str(config), "status"])
    login = (theirs.username, theirs.password) if theirs.username and theirs.password else (None, None)
    assert ctl.read(str(config)) == ctl.CtlSettings(theirs.serverurl, *login)


def test_no_file_and_no_section_mean_the_usual_socket(tmp_path: Path) -> None:
    config = tmp_path / "supervisord.conf"
    assert ctl.read(str(config)) is None
    config.write_text("[supervisord]\n", encoding="utf-8")
    assert ctl.read(str(config)) is None
    for path in (config, tmp_path / "none", config / "none"):
        assert rpc.Supervisor(rpc.Connection(config=str(path))).address.url == rpc.DEFAULT_URL


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("hunter2\n", "line 1 belongs to no section"),
        ("[supervisorctl]\nhunter2\n", "line 2 is no section"),
        ("[supervisorctl]\npassword=hunter2%\n", "password in [supervisorctl] holds a percent sign"),
        ("[supervisorctl]\npassword=hunter2%(x)s\n", "password in [supervisorctl] holds x, which is not known"),
        ("[supervisorctl]\nserverurl=ftp://hunter\n", "serverurl ftp://hunter: unknown kind"),
    ],
    ids=["no-section", "no-option", "percent", "unknown-name", "url"],
)
def test_a_broken_file(tmp_path: Path, text: str, named: str) -> None:
    config = tmp_path / "supervisord.conf"
    config.write_text(text, encoding="utf-8")
    with pytest.raises(rpc.SupervisorError) as caught:
        rpc.connect(rpc.Connection(config=str(config)))
    assert named in str(caught.value)
    assert str(config) in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lose rights to test them")
def test_a_closed_file(daemon: Daemon) -> None:
    daemon.folder.chmod(0o755)
    daemon.config.chmod(0o600)
    os.seteuid(65534)
    try:
        with pytest.raises(rpc.SupervisorError, match="become"):
            rpc.connect(by_file(daemon))
    finally:
        os.seteuid(0)
    with pytest.raises(rpc.SupervisorError, match="Is a directory"):
        rpc.connect(by_file(daemon, config=str(daemon.folder)))
