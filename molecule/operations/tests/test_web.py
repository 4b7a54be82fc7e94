"""The web page and XML-RPC over the network, through an SSH tunnel, as an operator would reach them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from playwright.sync_api import Error, sync_playwright
from test_operations import pids, without

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LOGIN = {"username": "ops", "password": "s3cr3t-of-ops"}
SHOTS = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / ".cache" / "screenshots"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def tunnel(host, wait_for):
    """The URL of this machine behind which the host's port 9001 is."""
    port = free_port()
    name = host.backend.name
    command = ["ssh", "-F", "/dev/null", "-i", os.environ["TEST_SSH_KEY"], "-N", "-o", "ExitOnForwardFailure=yes"]
    command += ["-o", f"ProxyCommand=podman exec --interactive {name} /usr/sbin/sshd -i"]
    command += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    process = subprocess.Popen([*command, "-L", f"127.0.0.1:{port}:127.0.0.1:9001", f"root@{name}"])

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(listens, 20, "the tunnel is open")
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, "no Chromium: run tests/hosts/testhosts browser"
    with sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        started = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


def test_it_listens_on_loopback_alone(host) -> None:
    rows = [row.split()[3] for row in host.check_output("ss -Hltn").splitlines()]
    assert [row for row in rows if row.endswith(":9001")] == ["127.0.0.1:9001"]


def opens(browser, url: str, login: dict[str, str] | None) -> bool:
    """Whether the page opens. Chromium shows a refusal as the answer 401, or takes it for a failure of its own."""
    context = browser.new_context(http_credentials=login)
    try:
        status = context.new_page().goto(url).status
    except Error as error:
        assert "ERR_INVALID_AUTH_CREDENTIALS" in str(error)
        return False
    finally:
        context.close()
    assert status in (200, 401)
    return status == 200


def test_a_wrong_password_is_refused(host, browser, tunnel) -> None:
    assert not opens(browser, tunnel, None)
    assert not opens(browser, tunnel, {**LOGIN, "password": "guess"})
    assert opens(browser, tunnel, LOGIN)
    asked = "curl --silent --output /dev/null --write-out '%{http_code}' http://127.0.0.1:9001/"
    assert host.check_output(asked) == host.check_output(f"{asked} --user ops:guess") == "401"


def test_the_page_shows_and_restarts(host, browser, tunnel, wait_for) -> None:
    wait_for(lambda: len(pids(host)) == 23, 30, "all run")
    before = pids(host)
    context = browser.new_context(http_credentials=LOGIN, viewport={"width": 1250, "height": 460})
    page = context.new_page()
    assert page.goto(tunnel).status == 200
    rows = page.locator("tr", has=page.locator("td.status"))
    text = {row.split("\t")[2].strip(): row for row in rows.all_inner_texts()}
    assert set(text) == set(before), text
    assert all("running" in row and before[name] in row for name, row in text.items()), text
    rows.filter(has_text="bystander").get_by_role("link", name="Restart").click()
    page.wait_for_load_state()
    wait_for(lambda: pids(host).get("bystander", before["bystander"]) != before["bystander"], 15, "another pid")
    assert without(pids(host), "bystander") == without(before, "bystander")
    SHOTS.mkdir(parents=True, exist_ok=True)
    time.sleep(1)
    page.goto(tunnel)
    page.screenshot(path=SHOTS / f"supervisor-{host.backend.name}.png")
    context.close()


def test_xml_rpc(host, play, tmp_path) -> None:
    """supervisor_process through the port: refused with a wrong password, without showing either."""
    playbook = tmp_path / "rpc.yml"
    for password, changed in (("s3cr3t-guess", None), (LOGIN["password"], 1)):
        playbook.write_text(
            f"""
- hosts: fastapi
  gather_facts: false
  tasks:
    - asgiops.fastapi_host.supervisor_process:
        names: [bystander]
        state: restarted
        server_url: http://127.0.0.1:9001
        username: ops
        password: {password}
""",
            encoding="utf-8",
        )
        done = play(str(playbook), "--limit", host.backend.name, "-vvv")
        assert password not in done.output
        if changed is None:
            assert done.status != 0
            assert "refused the user name ops with this password (HTTP 401)" in " ".join(done.output.split())
        else:
            assert (done.status, done.changed()) == (0, changed), done.output
