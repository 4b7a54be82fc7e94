"""What is damaged by hand, one kind after the other: the plan names it, and one run mends all of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Plans = Callable[[], dict[str, dict[str, Any]]]
SITE = "asgiops.fastapi_host.site"
LIVE = "$(dirname $(readlink /run/fastapi/shop/live.sock))"
ORDERS = "/opt/fastapi/apps/orders"
SHOP = "/opt/fastapi/apps/shop"
PACKAGES = "lib/python*/site-packages"

# What is damaged, whose it is, and what the plan says of it. Each damage stays until one run mends them all.
DRIFTS = {
    "the content of a file": ("echo '# by hand' >> /etc/nginx/nginx.conf", "nginx", "/etc/nginx/nginx.conf: content"),
    "the mode of a file": ("chmod 0666 /etc/supervisord.conf", "supervisor", "supervisord.conf: mode 0666 -> 0640"),
    "the mode of a directory": ("chmod 0777 /var/log/nginx", "nginx", "/var/log/nginx: mode 0777 -> 0710"),
    "the owner of a file": ("chown nobody /etc/fastapi/orders/run", "orders", "/etc/fastapi/orders/run: owner -> root"),
    "the group of a file": (
        "chgrp nobody /opt/fastapi/uv/requirements.txt",
        "python_venv",
        "/opt/fastapi/uv/requirements.txt: group -> root",
    ),
    "a file that is gone": (f"rm /etc/fastapi/shop/{LIVE}/check.py", "shop", "/check.py: new"),
    "a file that is too much": ("touch /etc/nginx/fastapi/tls/old.key", "nginx", "/tls/old.key: removed"),
    "a unit's file": (
        "echo '# by hand' >> /etc/systemd/system/supervisord.service.d/10-timeout.conf",
        "supervisord_unit",
        "10-timeout.conf: content",
    ),
    "the link of an app without slots": (f"rm {ORDERS}/current", "orders", f"{ORDERS}/current: new"),
    "the link that nginx follows": (
        "ln -sfn nowhere/app.sock /run/fastapi/shop/live.sock",
        "shop",
        "/run/fastapi/shop/live.sock: does not lead to",
    ),
    "the file of the next boot": (
        "echo '# by hand' >> /etc/tmpfiles.d/fastapi-shop.conf",
        "shop",
        "fastapi-shop.conf: content",
    ),
    "a program of the host": (
        "supervisorctl stop sleeper && supervisorctl remove sleeper",
        "supervisor",
        "program sleeper: to be added",
    ),
    "a program of an app": ("supervisorctl stop orders", "orders", "program orders: to be started"),
    "an environment": (
        f"rm -r {ORDERS}/current/venv/{PACKAGES}/click || rm -r {ORDERS}/releases/*/venv/{PACKAGES}/click*",
        "orders",
        "the environment was changed by hand",
    ),
    "an environment of a slot": (
        f"rm -r {SHOP}/current/venv/{PACKAGES}/click*",
        "shop",
        "its packages are not those that were installed",
    ),
    "the group of a source": (f"chgrp root {SHOP}/current/app", "shop", "group -> shop"),
    "the record of accounts": ("rm /etc/fastapi/accounts.json", "shop", "/etc/fastapi/accounts.json: content"),
    "an account": ("userdel fastapi-build", "python_venv", "account fastapi-build: new"),
    "a package": ("rpm --erase --nodeps $(rpm -qa 'python3*-pip')", "python_venv", "-pip: not installed"),
    "uv": ("rm /opt/fastapi/uv/*/bin/uv", "python_venv", "uv "),
    "what nginx has read": (
        "cp -a /etc/nginx/conf.d/fastapi-status.conf /root/ && sed -i s/configuration:/configuration:0/"
        " /etc/nginx/conf.d/fastapi-status.conf && nginx -s reload && sleep 1"
        " && mv /root/fastapi-status.conf /etc/nginx/conf.d/",
        "nginx",
        "unit nginx: runs with another configuration",
    ),
    "what systemd has read": (
        "touch /etc/systemd/system/nginx.service.d/fastapi.conf",
        "nginx",
        "unit nginx: systemd has not read its files",
    ),
    "a unit at boot": ("systemctl disable nginx", "nginx", "unit nginx: not enabled"),
    "a unit": ("systemctl stop nginx", "nginx", "unit nginx: not running"),
}


@pytest.fixture(scope="module")
def plans(play, host_names, tmp_path_factory) -> Plans:
    """The plan of each host, which changes nothing."""
    folder: Path = tmp_path_factory.mktemp("plans")

    def compare() -> dict[str, dict[str, Any]]:
        done = play("plan.yml", "--extra-vars", f"plan_folder={folder}")
        assert done.status == 0, done.output
        return {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in host_names}

    return compare


@pytest.fixture(scope="module")
def damaged(play, plans) -> Iterator[None]:
    """All that the tests damage is mended in the end, by one run, whichever of them ran."""
    yield
    done = play(SITE)
    assert done.status == 0, done.output
    for name, plan in plans().items():
        assert (plan["roles"], plan["apps"]) == ([], []), f"{name}: {plan['differences']}"


def test_a_host_as_it_should_be(plans) -> None:
    for name, plan in plans().items():
        assert (plan["roles"], plan["apps"], plan["summary"]) == ([], [], []), f"{name}: {plan['differences']}"


def test_with_nothing_to_do_a_run_ends_at_the_plan(play, host_names) -> None:
    done = play(SITE)
    assert done.status == 0, done.output
    assert "TASK [Roles |" not in done.output and "TASK [Apps |" not in done.output
    assert all(done.recap[name]["ok"] <= 5 and done.recap[name]["changed"] == 0 for name in host_names), done.recap


def test_check_mode_prints_the_plan_and_changes_nothing(play, hosts, scenario_apps) -> None:
    orders, shop = scenario_apps
    apps = {"fastapi_apps": [orders, {**shop, "environment": {"ORDERS_GREETING": "changed"}}]}
    look = "supervisorctl status | awk '{print $1, $4}'; readlink /run/fastapi/shop/live.sock"
    before = [host.check_output(look) for host in hosts]
    done = play(SITE, "--check", "--diff", "--extra-vars", json.dumps(apps))
    assert done.status == 0, done.output
    # A long line is broken.
    shown = " ".join(done.output.split())
    assert "shop: /etc/fastapi/shop/blue/environment, /etc/supervisord.d/shop_blue.ini, move to green" in shown
    assert "s3cr3t-key-of-shop" not in done.output
    shown = done.output.partition("Show what is to be applied")[2].partition("TASK")[0]
    assert "shop:" in shown and "orders:" not in shown
    assert [host.check_output(look) for host in hosts] == before


def test_a_restart_of_supervisord_is_no_reason_to_move_an_app(play, hosts, plans) -> None:
    """The apps are compared again after it, when they run."""
    live = [host.check_output("readlink /run/fastapi/shop/live.sock") for host in hosts]
    masters = [host.check_output("systemctl show -P MainPID supervisord") for host in hosts]
    for variables in (("--extra-vars", "supervisor_loglevel=warn"), ()):
        done = play(SITE, *variables)
        assert done.status == 0, done.output
        assert "supervisor: /etc/supervisord.conf" in done.output
    assert [host.check_output("readlink /run/fastapi/shop/live.sock") for host in hosts] == live
    assert [host.check_output("systemctl show -P MainPID supervisord") for host in hosts] != masters
    for name, plan in plans().items():
        assert plan["summary"] == [], f"{name}: {plan['differences']}"


@pytest.mark.usefixtures("damaged")
@pytest.mark.parametrize("kind", list(DRIFTS))
def test_the_plan_names_what_differs(hosts, plans, kind) -> None:
    damage, whose, text = DRIFTS[kind]
    for host in hosts:
        done = host.run(damage)
        assert done.rc == 0, done.stdout + done.stderr
    for name, plan in plans().items():
        assert whose in plan["roles"] + plan["apps"], f"{name}: {plan['summary']}"
        assert any(text in found for found in plan["differences"][whose]), f"{name}: {plan['differences'][whose]}"
