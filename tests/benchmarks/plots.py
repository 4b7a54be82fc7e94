"""One picture for each bench, drawn from the results alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .results import Results, Row, shown

MISSING = (
    "no plots: matplotlib is missing. `make setup` installs it with the other tools, "
    "`.venv/bin/python -m pip install matplotlib` alone. Everything is in results.json as well."
)
# The top of the scale of latencies: the load's slowest answers are faster, or they are lost.
LIMIT_MS = 5000


def draw_noop(figure: Any, results: Results) -> None:
    axes = figure.subplots(1, 2, sharey=True)
    rows = results.of("noop")
    for panel, counted, fixed in ((axes[0], "apps", "hosts"), (axes[1], "hosts", "apps")):
        for what in ("site", "deploy", "facts alone"):
            found = [row for row in rows if row.what.partition(",")[0] == what and row.at[fixed] == 1]
            found.sort(key=lambda row: row.at[counted])
            places, values = [row.at[counted] for row in found], [row.value for row in found]
            below = [row.value - min(row.samples) for row in found]
            above = [max(row.samples) - row.value for row in found]
            panel.errorbar(places, values, yerr=(below, above), marker="o", markersize=4, capsize=3, label=what)
        panel.set_xlabel(f"{counted}, on one host" if counted == "apps" else f"{counted}, one app each")
        panel.set_xticks(sorted({row.at[counted] for row in rows}))
    # Once all is drawn: a limit that is set ends the automatic ones, of both panels.
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("seconds")
    axes[0].legend()
    figure.suptitle("Runs with nothing to do")


def draw_latency(figure: Any, results: Results) -> None:
    series = results.series["latency"]
    panel = figure.subplots()
    begin = series["begin"]
    for number, (name, start, end) in enumerate(series["moves"]):
        panel.axvspan(start - begin, end - begin, color="tab:orange" if name == "deploy" else "tab:green", alpha=0.15)
        place, height = (start + end) / 2 - begin, 0.97 - 0.05 * (number % 2)
        panel.text(place, height, name, ha="center", va="top", fontsize=8, transform=panel.get_xaxis_transform())
    places = [second["second"] for second in series["seconds"]]
    for name, width in (("max", 0.6), ("p99", 0.9), ("p50", 1.2)):
        panel.plot(places, [second[name] for second in series["seconds"]], label=name, linewidth=width)
    lost = [failure["at"] - begin for failure in series["failures"]]
    panel.plot(lost, [LIMIT_MS / 2] * len(lost), "x", color="tab:red", label=f"lost ({series['lost']})")
    panel.set_yscale("log")
    panel.set_ylim(0.5, LIMIT_MS)
    panel.set_xlabel("seconds")
    panel.set_ylabel("milliseconds, for each second")
    panel.legend(loc="upper right", ncols=4, bbox_to_anchor=(1, -0.12), frameon=False)
    figure.suptitle(f"{series['requests']} requests through nginx while an app moves")


def bars(title: str, bench: str, chosen: Callable[[Row], bool] = lambda row: True) -> Callable[[Any, Results], None]:
    """A bar for each row, its samples as dots."""

    def draw(figure: Any, results: Results) -> None:
        panel = figure.subplots()
        rows = [row for row in results.of(bench) if chosen(row)][::-1]
        panel.barh([row.what for row in rows], [row.value for row in rows], color="tab:blue", alpha=0.6)
        for row in rows:
            panel.plot(row.samples, [row.what] * len(row.samples), ".", color="black", markersize=4)
            label = shown(row.value) + (f" ({row.ratio:.2f} x)" if row.ratio is not None else "")
            end = (max(row.samples), row.what)
            panel.annotate(label, end, xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
        panel.margins(x=0.2)
        panel.set_xlabel(rows[0].unit)
        figure.suptitle(title)

    return draw


DRAWINGS: dict[str, Callable[[Any, Results], None]] = {
    "supervisor": bars("A call of supervisor_process", "supervisor"),
    "noop": draw_noop,
    "deploy": bars("Runs that move an app", "deploy"),
    "latency": draw_latency,
    "throughput": bars("64 connections, GET /version", "throughput", lambda row: row.unit == "req/s"),
    "memory": bars("Memory (PSS)", "memory"),
}


def draw(results: Results) -> list[Path]:
    """A picture of each bench that has rows."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        print(MISSING)
        return []
    # Text stays text, and the same results make the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench"})
    paths = []
    for bench in dict.fromkeys(row.bench for row in results.rows):
        figure = Figure(figsize=(9, 4), layout="constrained")
        DRAWINGS[bench](figure, results)
        path = results.folder / f"{bench}.svg"
        figure.savefig(path, metadata={"Date": None})
        paths.append(path)
    return paths
