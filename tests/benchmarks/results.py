"""What the benches found: printed at once, and written as JSON with the facts of the machine that matter."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Row:
    bench: str
    what: str
    value: float
    unit: str
    ratio: float | None
    of: str
    samples: list[float]
    at: dict[str, int]
    """Where in a series it belongs, such as {"apps": 5}."""


@dataclass
class Results:
    folder: Path
    rows: list[Row] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)
    """What a plot needs besides the rows, by bench."""
    machine: dict[str, Any] = field(default_factory=dict)

    def add(
        self,
        bench: str,
        what: str,
        samples: Iterable[float],
        unit: str = "s",
        base: Row | None = None,
        at: dict[str, int] | None = None,
    ) -> Row:
        """Prints and keeps the median of the samples, and its ratio to the base."""
        taken = [round(sample, 4) for sample in samples]
        value = round(statistics.median(taken), 4)
        ratio = round(value / base.value, 3) if base and base.value else None
        row = Row(bench, what, value, unit, ratio, base.what if base else "", taken, at or {})
        self.rows.append(row)
        # A bench that fails later takes nothing away.
        self.write()
        spread = f"{shown(min(taken))} to {shown(max(taken))}" if len(taken) > 1 else ""
        compared = f"{ratio:6.2f} x {row.of}" if ratio is not None else ""
        print(f"{bench:<11}{what:<56}{shown(value):>10} {unit:<6}{spread:<20}{compared}".rstrip(), flush=True)
        return row

    def of(self, bench: str) -> list[Row]:
        return [row for row in self.rows if row.bench == bench]

    def write(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "results.json"
        text = {"machine": self.machine, "rows": [asdict(row) for row in self.rows], "series": self.series}
        path.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
        return path


def shown(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def alternating(functions: Mapping[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """The results of each function, called in turns: what else the machine does then falls on all of them."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _run in range(runs):
        for name, function in functions.items():
            taken[name].append(function())
    return taken


def seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()


def machine_facts(runs: int) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpus": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "ansible_core": importlib.metadata.version("ansible-core"),
        "commit": git("rev-parse", "--short=12", "HEAD"),
        "uncommitted_changes": bool(git("status", "--porcelain", "--untracked-files=no")),
        "runs": runs,
    }
