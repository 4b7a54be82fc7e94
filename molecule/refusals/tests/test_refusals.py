"""What cannot work fails with a message that names the cause, and the version that ran before still runs."""

from __future__ import annotations

import copy
import json
import re
import tarfile
from pathlib import Path

import pytest


@pytest.fixture
def source(tmp_path, example_app) -> Path:
    """A copy of the example app, to break."""
    return example_app(tmp_path / "app")


@pytest.fixture
def refused(play, converge_playbook, hosts, scenario_apps):
    """Runs the site with a changed app; returns its output, once it is sure that the old version serves on."""

    def run(**changes) -> str:
        before = [_version(host) for host in hosts]
        app = {**copy.deepcopy(scenario_apps[0]), **changes}
        done = play(converge_playbook, "--extra-vars", json.dumps({"fastapi_apps": [app]}))
        assert done.status != 0, done.output
        assert [row["failed"] for row in done.recap.values()] == [1] * len(hosts), done.output
        assert [_version(host) for host in hosts] == before
        return " ".join(done.output.split())

    return run


def _version(host) -> dict[str, str]:
    """Which server answers, by its first process."""
    pid = host.check_output("supervisorctl pid orders")
    answer = json.loads(host.check_output("curl --silent --fail http://127.0.0.1:8000/version"))
    return {"pid": pid, "version": answer["version"]}


def test_wrong_module_path(refused) -> None:
    assert "ModuleNotFoundError: No module named 'orders.mian'" in refused(app="orders.mian:app")


def test_wrong_attribute(refused) -> None:
    assert re.search(r"ap1\b", refused(app="orders.main:ap1"))


def test_missing_dependency(refused, source) -> None:
    (source / "orders" / "main.py").write_text("import sqlalchemy\n", encoding="utf-8")
    assert "ModuleNotFoundError: No module named 'sqlalchemy'" in refused(source={"path": str(source)})


def test_wrong_hash_in_the_lock(refused, source) -> None:
    lock = source / "requirements.txt"
    text = lock.read_text(encoding="utf-8")
    start = text.index("\nfastapi==")
    end = text.index("\n", text.index("# via", start))
    wrong = re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, text[start:end])
    lock.write_text(text[:start] + wrong + text[end:], encoding="utf-8")
    said = refused(source={"path": str(source)})
    assert "fastapi" in said
    assert re.search(r"hash", said, flags=re.I)


def test_an_archive_whose_links_lead_out_together(refused, source) -> None:
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "keep").touch()
    (source / "up").symlink_to("deep/er")
    (source / "stolen").symlink_to("up/../../../../../../../../etc/passwd")
    archive = source.with_suffix(".tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, arcname="")
    said = refused(source={"archive": str(archive)})
    assert "link 'stolen' points outside, to 'up/../../../../../../../../etc/passwd', by way of other links" in said


def test_a_small_archive_that_fills_a_disk(refused, source) -> None:
    with open(source / "zeros", "wb") as stream:
        stream.truncate(64 << 20)
    archive = source.with_suffix(".tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, arcname="")
    assert "larger than 1048576 bytes together" in refused(source={"archive": str(archive), "max_bytes": 1 << 20})


@pytest.mark.parametrize(
    "changes",
    [
        {"repo": "--upload-pack=touch /root/marker;", "version": "main"},
        {"repo": "ext::sh -c touch% /root/marker"},
        {"repo": "/srv/orders.git", "version": "--upload-pack=touch /root/marker"},
    ],
)
def test_a_command_for_git(refused, hosts, changes) -> None:
    said = refused(source=changes)
    assert re.search(r"source\.(repo|version) is '[^']*marker", said)
    for host in hosts:
        assert not host.file("/root/marker").exists


def test_port_in_use(refused, hosts) -> None:
    for host in hosts:
        listener = "import socket,time; s=socket.create_server(('0.0.0.0', 8123)); time.sleep(120)"
        host.check_output(f'systemd-run --unit=squatter python3 -c "{listener}"')
        host.check_output("sh -c 'until ss -Hltn | grep -q :8123; do sleep 0.1; done'")
    try:
        said = refused(bind="127.0.0.1:8123")
    finally:
        for host in hosts:
            host.run("systemctl stop squatter")
    assert "port 8123 is in use by a process of the user root" in said


def test_broken_gunicorn_option(refused) -> None:
    said = refused(gunicorn={"timeout": "soon"})
    assert "timeout" in said
    assert "soon" in said


def test_unknown_gunicorn_option(refused) -> None:
    assert "unknown variable gunicorn.timout; did you mean gunicorn.timeout?" in refused(gunicorn={"timout": 60})


def test_a_worker_class_that_can_not_be_imported(refused) -> None:
    assert "No module named 'orders.workers'" in refused(worker_class="orders.workers.Own")


def test_unknown_variable_of_an_app(refused) -> None:
    assert "app orders: unknown variable worker_clas; did you mean worker_class?" in refused(worker_clas="asgi")


def test_a_crash_at_start_says_why_and_shows_no_secret(play, converge_playbook, hosts, scenario_apps, source):
    """What no check finds, since only a start runs the lifespan: here the old version is lost, and put back after."""
    main = source / "orders" / "main.py"
    crash = "    raise RuntimeError('no database, key ' + os.environ['ORDERS_API_KEY'])\n    app.state.settings"
    main.write_text(main.read_text(encoding="utf-8").replace("    app.state.settings", crash, 1), encoding="utf-8")
    secrets = {"ORDERS_API_KEY": "s3cr3t-never-shown"}
    app = {**scenario_apps[0], "source": {"path": str(source)}, "secrets": secrets}
    done = play(converge_playbook, "--extra-vars", json.dumps({"fastapi_apps": [app]}))
    assert done.status != 0, done.output
    assert "RuntimeError: no database" in done.output
    said = " ".join(done.output.split())
    assert "Likely cause: The app's startup (lifespan) failed: RuntimeError: no database" in said
    assert "s3cr3t-never-shown" not in done.output
    good = play(converge_playbook)
    assert good.status == 0, good.output
    for host in hosts:
        assert _version(host)["version"]


def test_secret_in_a_failing_check_does_not_show(refused, source) -> None:
    main = source / "orders" / "main.py"
    main.write_text("import os\nraise RuntimeError('bad key ' + os.environ['ORDERS_API_KEY'])\n", encoding="utf-8")
    said = refused(source={"path": str(source)}, secrets={"ORDERS_API_KEY": "s3cr3t-never-shown"})
    assert "RuntimeError: bad key" in said
    assert "s3cr3t-never-shown" not in said
