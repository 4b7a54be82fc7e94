"""What runs of Ansible cost: with nothing to do, when they move an app, and what one call of a module takes."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable

import yaml

from .hosts import COLLECTIONS, DEPLOY, ROLLBACK, SITE, Played, fleet
from .results import PROJECT, Results, alternating, seconds

MODULE = COLLECTIONS / "ansible_collections/asgiops/fastapi_host/plugins/modules/supervisor_process.py"
# Packages that need no others and that the roles pin with hashes: any subset is a set of dependencies of its own.
EXTRAS = ("flit-core", "pdm-backend", "pluggy", "poetry-core", "setuptools", "tomlkit")


def bench_noop(results: Results, options: Namespace) -> None:
    """Runs of site and deploy with nothing to do, beside one that gathers the facts and does nothing else."""

    def compare(hosts: int, apps: int) -> None:
        inventory = place.inventory([place.app(f"app{number}", health_period=1) for number in range(apps)], hosts)
        place.play(inventory, SITE)

        def played(playbook: str) -> float:
            return place.play(inventory, playbook, changes=False).seconds

        ways = {"facts alone": str(place.facts), "site": SITE, "deploy": DEPLOY}
        taken = alternating({what: functools.partial(played, name) for what, name in ways.items()}, options.runs)
        at = {"hosts": hosts, "apps": apps}
        where = f", {hosts} host{'s' * (hosts > 1)}, {apps} app{'s' * (apps > 1)}"
        base = results.add("noop", "facts alone" + where, taken.pop("facts alone"), at=at)
        for what, samples in taken.items():
            results.add("noop", what + where, samples, base=base, at=at)

    with fleet("noop", max(options.hosts)) as place:
        for hosts in sorted(set(options.hosts)):
            compare(hosts, 1)
        for apps in sorted(set(options.apps) - ({1} if 1 in options.hosts else set())):
            compare(1, apps)


def bench_deploy(results: Results, options: Namespace) -> None:
    """Runs that move an app: new code, its rollback, other dependencies."""
    with fleet("deploy") as place:
        inventory = place.inventory([place.app()])
        lock = place.source / "requirements.txt"
        first_lock = lock.read_text(encoding="utf-8")
        pinned = extras()
        waited: dict[str, list[float]] = {}
        rounds = iter(range(1, 2 ** len(EXTRAS)))

        def new_code() -> Played:
            place.change_code()
            return place.play(inventory, DEPLOY)

        def new_dependencies() -> Played:
            number = next(rounds)
            more = [text for bit, text in enumerate(pinned) if number >> bit & 1]
            lock.write_text("\n".join([first_lock.rstrip(), *more, ""]), encoding="utf-8")
            return place.play(inventory, DEPLOY)

        def kept(what: str, function: Callable[[], Played]) -> float:
            played = function()
            waited.setdefault(what, []).append(played.waited)
            return played.seconds

        place.play(inventory, SITE)
        ways: dict[str, Callable[[], Played]] = {
            "facts alone": lambda: place.play(inventory, str(place.facts)),
            "deploy, nothing to do": lambda: place.play(inventory, DEPLOY, changes=False),
            "deploy of new code": new_code,
            # Back from the code of the step before, which then goes live with the other dependencies.
            "rollback": lambda: place.play(inventory, ROLLBACK, "--extra-vars", "app=orders"),
            "deploy of other dependencies": new_dependencies,
        }
        taken = alternating({what: functools.partial(kept, what, way) for what, way in ways.items()}, options.runs)
        base = results.add("deploy", "facts alone", taken.pop("facts alone"))
        for what, samples in taken.items():
            results.add("deploy", what, samples, base=base)
            if any(waited[what]):
                own = [sample - wait for sample, wait in zip(samples, waited[what], strict=True)]
                results.add("deploy", f"{what}, without start and drain", own, base=base)


def extras() -> list[str]:
    pins = PROJECT / "roles" / "python_venv" / "vars" / "main" / "pins-build.yml"
    (lines,) = yaml.safe_load(pins.read_text(encoding="utf-8")).values()
    found = {line.partition("==")[0]: line for line in lines}
    return [found[name] for name in EXTRAS]


def bench_supervisor(results: Results, options: Namespace) -> None:
    """A call of supervisor_process, the module's own start included, with fifty programs and with one."""
    sys.path[:0] = [str(COLLECTIONS), str(PROJECT / "tests" / "unit")]
    from _supervisor_daemon import supervisord

    with supervisord() as daemon, tempfile.TemporaryDirectory() as folder:
        for number in range(51):
            daemon.program(f"p{number}", "exec sleep 1000", autostart="false")
        daemon.start()
        names = {"1 program": ["p50"], "50 programs": [f"p{number}" for number in range(50)]}

        def call(names: list[str], state: str) -> None:
            arguments = {"names": names, "state": state, "server_url": daemon.url, "_ansible_remote_tmp": folder}
            done = subprocess.run(
                [sys.executable, str(MODULE)],
                input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
                env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            assert not json.loads(done.stdout).get("failed"), done.stdout

        def stop_and_start(names: list[str]) -> None:
            call(names, "stopped")
            call(names, "started")

        for each in names.values():
            call(each, "started")
        for what, way in (("no change", lambda names: call(names, "started")), ("stopped and started", stop_and_start)):
            calls = {how_many: functools.partial(way, each) for how_many, each in names.items()}
            ways = {how_many: functools.partial(seconds, function) for how_many, function in calls.items()}
            base = None
            for how_many, samples in alternating(ways, options.runs).items():
                row = results.add("supervisor", f"supervisor_process, {how_many}, {what}", samples, base=base)
                base = base or row
