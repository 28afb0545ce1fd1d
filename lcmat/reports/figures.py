"""Figures: accuracy against fraction with bands of one standard deviation, and the course of a search."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lcmat.bilevel.lexicographic import best_index, thresholds
from lcmat.files import write_atomically
from lcmat.reports.tables import Table

COLOURS = [plt.get_cmap("tab10")(i) for i in range(10)]
MARKERS = "os^vDP"


def band(mean: Sequence[float], std: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Return mean ± standard deviation, (low, high), of accuracies in per cent: no more than 0 to 100."""
    pairs = [(m, s or 0.0) for m, s in zip(mean, std, strict=True)]
    return [max(0.0, m - s) for m, s in pairs], [min(100.0, m + s) for m, s in pairs]


def accuracy_figure(table: Table, folder: Path) -> list[Path]:
    """Draw test accuracy after the last epoch against the fraction, a line for each method; with bands if they are few.

    Writes <slug>.png and .pdf to `folder` and returns their paths.
    """
    many = len(table.methods) > 8
    figure, axes = plt.subplots(figsize=(9, 5) if many else (6, 4), layout="constrained")
    for number, method in enumerate(table.methods):
        cells = [(f, table.cells[method, f].final) for f in table.fractions if (method, f) in table.cells]
        if not cells:  # asked for, and not recorded yet
            continue
        x = [100 * fraction for fraction, _ in cells]
        mean = [statistics.fmean(values) for _, values in cells]
        std = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in cells]
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number // len(COLOURS) % len(MARKERS)]}
        if method in ("Uniform", "Full"):
            style = {"color": "0.35", "linestyle": "--", "marker": "o"}
        (line,) = axes.plot(x, mean, markersize=4, linewidth=1 if many else 1.5, label=method, **style)
        if many:  # bands of many lines would hide them; the table has the numbers
            continue
        axes.fill_between(x, *band(mean, std), color=line.get_color(), alpha=0.2, linewidth=0)
    if table.full:
        axes.axhline(statistics.fmean(table.full.final), color="0.35", linewidth=1, linestyle=":", label="Full")
    axes.set_xscale("log")
    ticks = [100 * fraction for fraction in table.fractions]
    axes.set_xticks(ticks, [f"{tick:.4g}%" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("fraction of the training set")
    axes.set_ylabel("test accuracy (%)")
    trainings = table.trainings.replace("mean ± standard deviation", "mean") if many else table.trainings
    axes.set_title(f"{table.title}: {trainings}", fontsize=10)
    axes.grid(alpha=0.3)
    if many:  # beside the axes, in the order of the right-hand ends
        handles, labels = axes.get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda i: -handles[i].get_ydata()[-1])
        figure.legend([handles[i] for i in order], [labels[i] for i in order], loc="outside right upper", fontsize=8)
    else:
        axes.legend()
    return save_figure(figure, folder, table.slug)


def search_figure(trials: list[dict], tolerance: float, title: str, folder: Path, name: str) -> list[Path]:
    """Draw f₁ and f₂ of each trial and of the incumbent against trials, with the threshold of f₁ and the answer.

    trials: as `bilevel.trials.read_trials` returns them. Writes <name>.png and .pdf to `folder`; returns the paths.
    """
    history = [(one["f1"], one["f2"]) for one in trials]
    bounds = [thresholds(history[: t + 1], tolerance)[0] for t in range(len(history))]
    answer = best_index(history, tolerance)
    x = [one["trial"] for one in trials]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
    for number, axes in enumerate((top, bottom)):
        for accepted, colour, size in ((False, "0.65", 8), (True, COLOURS[0], 14)):
            some = [(one["trial"], one[("f1", "f2")[number]]) for one in trials if one["accepted"] == accepted]
            if some:
                axes.scatter(*zip(*some, strict=True), s=size, color=colour, label="accepted" if accepted else "not")
        incumbents = [one["incumbent"][number] if one["incumbent"] else math.nan for one in trials]  # none: restarted
        axes.step(x, incumbents, where="post", color=COLOURS[0], label="incumbent")
        axes.scatter([x[answer]], [history[answer][number]], marker="*", s=120, color=COLOURS[3], label="answer")
        axes.grid(alpha=0.3)
    top.plot(x, bounds, color=COLOURS[1], linestyle="--", linewidth=1, label=f"(1 + {tolerance:g}) · lowest")
    if max(f1 for f1, _ in history) > 10 * bounds[-1]:  # a training diverged
        top.set_yscale("log")
    top.set_ylabel("f₁: loss on the training set")
    top.set_title(f"{title}: {history[answer][1]:,} samples at f₁ = {history[answer][0]:.4f}", fontsize=10)
    top.legend(fontsize=8)
    bottom.set_ylabel("f₂: samples chosen")
    bottom.set_xlabel("trial")
    return save_figure(figure, folder, name)


def save_figure(figure: plt.Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as <name>.png and .pdf, close it, and return the paths."""
    paths = [Path(folder) / f"{name}.{suffix}" for suffix in ("png", "pdf")]
    for path in paths:
        # No date in the metadata: the same records give the same file.
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else {}
        write_atomically(
            path, lambda file, p=path, m=metadata: figure.savefig(file, format=p.suffix[1:], dpi=150, metadata=m)
        )
    plt.close(figure)
    return paths


def write_figures(tables: list[Table], folder: Path) -> list[Path]:
    """Draw every table that has more than one fraction; tables that would share a name are numbered."""
    paths, used = [], set()
    for table in tables:
        if len(table.fractions) < 2:
            continue
        if table.slug in used:
            number = next(n for n in range(2, 10**6) if f"{table.slug}-{n}" not in used)
            table = Table(table.title, table.caption, f"{table.slug}-{number}", table.test_interval, table.cells)
        used.add(table.slug)
        paths += accuracy_figure(table, folder)
    return paths
