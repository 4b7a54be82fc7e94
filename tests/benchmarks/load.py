"""What requests cost: while an app moves, at full load, and in memory."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from .hosts import DEPLOY, ROLLBACK, SITE, Fleet, fleet, podman
from .results import PROJECT, Results, alternating

WORKERS = os.cpu_count() or 1
CONNECTIONS = 64
NO_WRK = "throughput: skipped, wrk is not in PATH: `apt-get install wrk` on Debian, else https://github.com/wg/wrk"
# The ports of the host on which the same app listens, and what starts it there. Gunicorn's come from the collection.
NGINX, DIRECT, UVICORN_ALONE, BARE, DOCS = 80, 8101, 8102, 8103, 8104
BARE_OPTIONS = f"--workers {WORKERS} --no-access-log"
# `fastapi run --workers N` starts Uvicorn like this, for all addresses.
DOCS_OPTIONS = f"--workers {WORKERS}"


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def bench_latency(results: Results, options: Namespace) -> None:
    """Requests lost, and how long others took, while an app is deployed and rolled back."""
    quiet = 10.0
    with fleet("latency") as place:
        inventory = place.inventory([place.app(workers=WORKERS, drain_timeout=8)])
        place.play(inventory, SITE)
        client = str(PROJECT / "tests" / "load" / "client.py")
        podman("cp", client, f"{place.hosts[0]}:/root/")
        begin = time.time()
        # It stops by itself, even if this does not live to see it.
        limit = 120 + 120 * options.runs
        load = "exec /usr/bin/python3 /root/client.py --host orders.example.com"
        load += f" --seconds {limit} --stop /root/stop --records /root/records.json > /root/result.json"
        place.run("systemd-run", "--unit=load", "--collect", "sh", "-c", load)
        moves: list[tuple[str, float, float]] = []

        def move(name: str, *arguments: str) -> None:
            start = time.time()
            place.play(inventory, *arguments)
            moves.append((name, start, time.time()))
            time.sleep(quiet)

        time.sleep(quiet)
        for _run in range(options.runs):
            place.change_code()
            move("deploy", DEPLOY)
            move("rollback", ROLLBACK, "--extra-vars", "app=orders")
        place.run("touch", "/root/stop")
        place.run("sh", "-c", "while systemctl is-active --quiet load; do sleep 0.2; done")
        result = json.loads(place.run("cat", "/root/result.json"))
        records = [(at, 1000 * taken) for at, taken in json.loads(place.run("cat", "/root/records.json"))]

    def of_phase(name: str) -> list[float]:
        spans = [(start, end) for what, start, end in moves if what == name]
        if name == "quiet":
            return [taken for at, taken in records if not any(start <= at <= end for _what, start, end in moves)]
        return [taken for at, taken in records if any(start <= at <= end for start, end in spans)]

    results.add("latency", "requests", [result["requests"]], "1")
    results.add("latency", "requests lost", [result["failed"]], "1")
    for share in (0.5, 0.99):
        base = None
        for name in ("quiet", "deploy", "rollback"):
            row = results.add("latency", f"p{share * 100:.0f}, {name}", [quantile(of_phase(name), share)], "ms", base)
            base = base or row
    seconds: dict[int, list[float]] = {}
    for at, taken in records:
        seconds.setdefault(int(at - begin), []).append(taken)
    results.series["latency"] = {
        "begin": begin,
        "moves": moves,
        "requests": result["requests"],
        "lost": result["failed"],
        "failures": result["failures"],
        "seconds": [
            {
                "second": second,
                "p50": round(statistics.median(taken), 2),
                "p99": round(quantile(taken, 0.99), 2),
                "max": round(max(taken), 2),
            }
            for second, taken in sorted(seconds.items())
        ],
    }


@contextmanager
def serving(bench: str) -> Iterator[Fleet]:
    """A host on which the example app is served in each of the ways that are compared."""
    with fleet(bench) as place:
        apps = [
            place.app(workers=WORKERS),
            place.app("direct", workers=WORKERS, bind=f"127.0.0.1:{DIRECT}"),
            place.app("alone", workers=WORKERS, bind=f"127.0.0.1:{UVICORN_ALONE}", server="uvicorn"),
        ]
        place.play(place.inventory(apps), SITE)
        here = "/opt/fastapi/apps/orders/current"
        for unit, port, more in (("bare", BARE, BARE_OPTIONS), ("docs", DOCS, DOCS_OPTIONS)):
            # With the packages and the account of an app of the collection, and like it with a file for its log.
            command = f"cd {here}/app && exec {here}/venv/bin/python -m uvicorn orders.main:app --port {port} {more}"
            unit_file = f"[Service]\nUser=orders\nStandardOutput=append:/var/log/{unit}.log\nStandardError=inherit\n"
            unit_file += f"ExecStart=/bin/sh -c '{command}'\n"
            path = f"/etc/systemd/system/{unit}.service"
            podman("exec", "--interactive", place.hosts[0], "tee", path, given=unit_file)
            place.run("systemctl", "daemon-reload")
            place.run("systemctl", "start", unit)
        yield place


def bench_throughput(results: Results, options: Namespace) -> None:
    """Requests a second over 64 connections, by wrk in the network namespace of the host."""
    wrk = shutil.which("wrk")
    if not wrk:
        print(NO_WRK)
        return
    with serving("throughput") as place:
        p99: dict[str, list[float]] = {}
        pid = podman("inspect", "--format", "{{.State.Pid}}", place.hosts[0])
        # Only loopback of the test host is asked.
        inside = [*([] if os.geteuid() == 0 else ["sudo"]), "nsenter", f"--target={pid}", "--net"]

        def load(what: str, port: int, seconds: int = options.seconds) -> float:
            command = [*inside, wrk, "--latency", "--threads=1", f"--connections={CONNECTIONS}"]
            command += [
                f"--duration={seconds}s",
                "--header=Host: orders.example.com",
                f"http://127.0.0.1:{port}/version",
            ]
            said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            assert "Non-2xx" not in said and "Socket errors" not in said, f"{what}: {said}"
            p99.setdefault(what, []).append(milliseconds(re.search(r"99%\s+([0-9.]+)(us|ms|s)", said)))
            rate = re.search(r"Requests/sec:\s+([0-9.]+)", said)
            assert rate, said
            return float(rate[1])

        ports = {
            "bare uvicorn --no-access-log": BARE,
            "Uvicorn as in FastAPI's docs": DOCS,
            "Uvicorn of the collection, direct": UVICORN_ALONE,
            "Gunicorn of the collection, direct": DIRECT,
            "Gunicorn of the collection, behind nginx": NGINX,
        }
        for what, port in ports.items():
            ask(place, port)
            load(what, port, 1)
        p99.clear()
        ways: dict[str, Callable[[], float]] = {what: partial(load, what, port) for what, port in ports.items()}
        base = None
        for what, samples in alternating(ways, options.runs).items():
            row = results.add("throughput", what, samples, "req/s", base)
            base = base or row
        base = None
        for what, samples in p99.items():
            row = results.add("throughput", f"{what}: p99", samples, "ms", base)
            base = base or row


def milliseconds(found: re.Match[str] | None) -> float:
    assert found
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]]


def ask(place: Fleet, port: int, times: int = 1) -> None:
    """So many requests one after the other, each over a connection of its own, so that all workers get some."""
    retry = ["--retry", "30", "--retry-connrefused", "--retry-delay", "1"]
    url = f"http://127.0.0.1:{port}/version?[1-{times}]"
    headers = ["--header", "Host: orders.example.com", "--header", "Connection: close"]
    place.run("curl", "--silent", "--fail", "--output", "/dev/null", *retry, *headers, url)


def bench_memory(results: Results, options: Namespace) -> None:
    """The memory of each way to serve, started afresh and alone, so that none shares pages with another."""
    with serving("memory") as place:
        units = ("bare", "docs")
        ways = {
            "bare uvicorn --no-access-log": ("bare", BARE),
            "Uvicorn of the collection": ("alone", UVICORN_ALONE),
            "Gunicorn of the collection": ("direct", DIRECT),
        }
        workers: dict[str, list[float]] = {}

        def measure(what: str, name: str, port: int) -> float:
            """MiB of all its processes."""
            place.run("supervisorctl", "stop", "all")
            place.run("systemctl", "stop", *units)
            if name in units:
                place.run("systemctl", "start", name)
                pid = int(place.run("systemctl", "show", "--property=MainPID", "--value", name))
            else:
                place.run("supervisorctl", "start", name)
                pid = int(place.run("supervisorctl", "pid", name))
            ask(place, port, 200)
            memory, leaves = processes(place, pid)
            assert len(leaves) == WORKERS, leaves
            workers.setdefault(what, []).append(statistics.mean(memory[leaf] for leaf in leaves))
            return sum(memory.values())

        totals = alternating({what: partial(measure, what, *way) for what, way in ways.items()}, options.runs)
        for label, found in (("each worker", workers), (f"all processes, {WORKERS} workers", totals)):
            base = None
            for what, samples in found.items():
                row = results.add("memory", f"{what}: {label}", samples, "MiB", base)
                base = base or row


def processes(place: Fleet, root: int) -> tuple[dict[int, float], list[int]]:
    """The memory of a process and all below it in MiB, and those of them that are workers."""
    rows = [line.split(None, 2) for line in place.run("ps", "-eo", "pid=,ppid=,args=").splitlines()]
    parents = {int(pid): int(parent) for pid, parent, _args in rows}
    below = [root]
    for pid in below:
        below += [child for child, parent in parents.items() if parent == pid]
    trackers = {int(pid) for pid, _parent, args in rows if "resource_tracker" in args}
    leaves = [pid for pid in below if pid not in parents.values() and pid not in trackers]
    files = [f"/proc/{pid}/smaps_rollup" for pid in below]
    # Root of a container may not look into the processes of others without it.
    said = podman("exec", "--privileged", place.hosts[0], "awk", "/^Pss:/ {print $2}", *files)
    return dict(zip(below, (int(kib) / 1024 for kib in said.split()), strict=True)), leaves
