"""Hosts of a bench, reached over SSH with pipelining as real ones are, and runs of Ansible against them."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .results import PROJECT

COLLECTIONS = PROJECT / ".cache" / "collections"
TESTHOSTS = str(PROJECT / "tests" / "hosts" / "testhosts")
IMAGE = "localhost/fastapi-host-test:el9"
DEPLOY, ROLLBACK, SITE = (f"asgiops.fastapi_host.{name}" for name in ("deploy", "rollback", "site"))
FACTS = """- hosts: fastapi
  become: true
  gather_facts: false
  tasks:
    - ansible.builtin.setup:
"""


def load_runner() -> ModuleType:
    """tests/run, which knows the hosts' keys and Pythons."""
    loader = importlib.machinery.SourceFileLoader("runner", str(PROJECT / "tests" / "run"))
    spec = importlib.util.spec_from_loader("runner", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


runner = load_runner()


def podman(*arguments: str, given: str | None = None, check: bool = True) -> str:
    command = [TESTHOSTS, "enter", "podman", *arguments]
    return subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=check).stdout.strip()


@functools.cache
def image_kind() -> str:
    """Builds the image where it is missing; what it is made from."""
    subprocess.run([TESTHOSTS, "images", "el9"], check=True)
    subprocess.run([TESTHOSTS, "network"], check=True)
    return subprocess.run([TESTHOSTS, "kind"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@dataclass(frozen=True)
class Played:
    seconds: float
    waited: float
    """Seconds of it in which apps started, were watched or finished their requests, by release_slot's own account."""


class Fleet:
    """The hosts of one bench, an app's source that the bench may change, and inventories of them."""

    def __init__(self, folder: Path, hosts: list[str], kind: str) -> None:
        self.folder, self.hosts, self.kind = folder, hosts, kind
        self.key = runner.ssh_key()
        self.source = folder / "app"
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / "examples" / "app", self.source, ignore=ignore)
        self.facts = folder / "facts.yml"
        self.facts.write_text(FACTS, encoding="utf-8")
        self.environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_NOCOLOR": "1",
            "PATH": f"{runner.BIN}:{os.environ['PATH']}",
        }

    def app(self, name: str = "orders", **more: Any) -> dict[str, Any]:
        """An entry of fastapi_apps that nginx serves, unless it says otherwise."""
        entry = {"name": name, "app": "orders.main:app", "source": {"path": str(self.source)}, "workers": 1}
        return {**entry, **({} if "bind" in more else {"server_names": [f"{name}.example.com"]}), **more}

    def inventory(self, apps: list[dict[str, Any]], hosts: int = 1) -> Path:
        door = f'ProxyCommand="{TESTHOSTS} enter podman exec --interactive %h /usr/sbin/sshd -i"'
        quiet = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        variables = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": self.key,
            # One connection for all tasks of a run, as Ansible has it by default.
            "ansible_ssh_common_args": f"-F /dev/null -o {door} {quiet} -o ControlMaster=auto -o ControlPersist=60s",
            "ansible_python_interpreter": "/usr/bin/python3",
            "python_venv_version": runner.PYTHONS[self.kind]["el9"],
            "fastapi_apps": apps,
        }
        path = self.folder / f"hosts-{hosts}-{len(apps)}.json"
        group = {"hosts": dict.fromkeys(self.hosts[:hosts], variables)}
        path.write_text(json.dumps({"fastapi": group}), encoding="utf-8")
        return path

    def play(self, inventory: Path, playbook: str, *options: str, changes: bool = True) -> Played:
        begin = time.perf_counter()
        command = ["ansible-playbook", "-v", "-i", str(inventory), playbook, *options]
        done = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        taken = time.perf_counter() - begin
        changed = sum(map(int, re.findall(r"^\S+ +: ok=\d+ +changed=(\d+)", done.stdout, re.M)))
        assert done.returncode == 0, done.stdout
        assert changes or changed == 0, f"{playbook} changed something:\n{done.stdout}"
        return Played(taken, sum(map(float, re.findall(r'"waited": ([0-9.]+)', done.stdout))))

    def run(self, *command: str, host: int = 0) -> str:
        return podman("exec", self.hosts[host], *command)

    def change_code(self) -> None:
        with (self.source / "orders" / "__init__.py").open("a", encoding="utf-8") as code:
            code.write("# another one\n")


@contextmanager
def fleet(bench: str, count: int = 1) -> Iterator[Fleet]:
    """So many hosts, which are there as long as the bench runs."""
    kind = image_kind()
    key = runner.ssh_key()
    hosts = [f"fastapi-host-test-bench-{bench}-{number + 1}" for number in range(count)]
    try:
        with ThreadPoolExecutor() as pool, tempfile.TemporaryDirectory() as name:
            list(pool.map(lambda host: start_host(host, key), hosts))
            yield Fleet(Path(name), hosts, kind)
    finally:
        podman("rm", "--force", "--ignore", "--time=0", *hosts)


def start_host(name: str, key: str) -> None:
    """A host with a door for SSH, as the scenarios have it."""
    machine = json.loads(subprocess.run([TESTHOSTS, "run-args"], check=True, stdout=subprocess.PIPE, text=True).stdout)
    options = [f"--volume={volume}" for volume in machine["volumes"]]
    options += [f"--env={variable}={value}" for variable, value in machine["env"].items()]
    options += [f"--name={name}", f"--hostname={name}", "--systemd=always", "--cap-add=SYS_ADMIN"]
    podman("run", "--detach", "--replace", *options, "--network=fastapi-host-test", IMAGE)
    # It fails until systemd is there to be asked.
    deadline = time.monotonic() + 60
    while podman("exec", name, "systemctl", "is-system-running", "--wait", check=False) != "running":
        assert time.monotonic() < deadline, f"{name}: systemd is not up"
        time.sleep(0.5)
    podman("exec", name, "dnf", "--quiet", "--assumeyes", "install", "openssh-server")
    podman("exec", name, "ssh-keygen", "-A")
    podman("exec", name, "mkdir", "-p", "-m", "0700", "/root/.ssh", "/run/sshd")
    public = Path(f"{key}.pub").read_text(encoding="utf-8")
    podman("exec", "--interactive", name, "sh", "-c", "umask 077; cat > /root/.ssh/authorized_keys", given=public)
