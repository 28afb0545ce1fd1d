"""Figures of grids: who beats whom, sensitivity to an option, seconds, and what was chosen."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lcmat.reports.figures import COLOURS, save_figure
from lcmat.reports.tables import Cell, mean_std


def heatmap(
    methods: list[str], wins: dict, margins: dict, counts: dict, named: tuple[str, str], folder: Path
) -> list[Path]:
    """Draw how often the method of a row beats that of a column, as a share of the cases, with the mean margin."""
    n = len(methods)
    shares = np.full((n, n), np.nan)
    figure, axes = plt.subplots(figsize=(1.6 + 0.85 * n, 1.2 + 0.6 * n), layout="constrained")
    for i, a in enumerate(methods):
        for j, b in enumerate(methods):
            if a == b or not counts[a, b]:
                continue
            shares[i, j] = wins[a, b] / counts[a, b]
            colour = "white" if abs(shares[i, j] - 0.5) > 0.3 else "black"
            label = f"{wins[a, b]:g}\n({margins[a, b]:+.1f})"
            axes.text(j, i, label, ha="center", va="center", fontsize=8, color=colour)
    drawn = axes.imshow(shares, cmap="RdBu_r", vmin=0, vmax=1)
    axes.set_xticks(range(n), methods, rotation=45, ha="right")
    axes.set_yticks(range(n), methods)
    cases = max((count for count in counts.values()), default=0)
    axes.set_title(f"{named[1]}:\nwins of the row over the column in {cases} cases (mean margin)", fontsize=10)
    figure.colorbar(drawn, ax=axes, label="share of cases won", shrink=0.8)
    return save_figure(figure, folder, named[0])


def sensitivity(
    cells: dict[tuple[str, float, float], Cell],
    others: dict[tuple[str, float], Cell],
    symbol: str,
    named: tuple[str, str],
    folder: Path,
) -> list[Path]:
    """Draw accuracy against an option, a panel for each fraction; methods without it as lines across."""
    fractions = sorted({fraction for _, fraction, _ in cells})
    values = sorted({value for _, _, value in cells})
    figure, panels = plt.subplots(1, len(fractions), figsize=(3.4 * len(fractions) + 0.6, 3.4), layout="constrained")
    for axes, fraction in zip(np.atleast_1d(panels), fractions, strict=True):
        for number, method in enumerate(dict.fromkeys(name for name, _, _ in cells)):
            here = {value: cells[method, fraction, value] for value in values if (method, fraction, value) in cells}
            mean, std = (
                np.array(part, float) for part in zip(*(mean_std(c.final) for c in here.values()), strict=True)
            )
            place = [values.index(value) for value in here]
            axes.errorbar(
                place, mean, yerr=np.nan_to_num(std), marker="o", capsize=3, color=COLOURS[number], label=method
            )
        for number, method in enumerate(sorted({name for name, _ in others})):
            if (method, fraction) in others:
                style = {"color": "0.35", "linestyle": ("--", ":", "-.")[number % 3], "linewidth": 1}
                axes.axhline(mean_std(others[method, fraction].final)[0], label=method, **style)
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axes.set_xlabel(symbol)
        axes.set_title(f"{100 * fraction:.4g}%", fontsize=10)
        axes.grid(alpha=0.3)
    np.atleast_1d(panels)[0].set_ylabel("test accuracy (%)")
    np.atleast_1d(panels)[0].legend(fontsize=8)
    figure.suptitle(f"{named[1]}: mean ± standard deviation over seeds", fontsize=10)
    return save_figure(figure, folder, named[0])


def wallclock(rows: list[list], named: tuple[str, str], folder: Path) -> list[Path]:
    """Draw seconds of selection alone against the fraction; rows: [method, fraction, n, pretrain, signals, select]."""
    rows = [row for row in rows if row[1] < 1]
    methods = list(dict.fromkeys(row[0] for row in rows))
    figure, axes = plt.subplots(figsize=(8, max(4.2, 0.25 * len(methods))), layout="constrained")
    for number, method in enumerate(methods):
        here = sorted((row[1], row[5]) for row in rows if row[0] == method)
        style = {"color": COLOURS[number % len(COLOURS)], "marker": "os^vDP"[number // len(COLOURS) % 6]}
        axes.plot([100 * f for f, _ in here], [max(s, 1e-3) for _, s in here], markersize=4, label=method, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = sorted({100 * row[1] for row in rows})
    axes.set_xticks(ticks, [f"{tick:.4g}%" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("fraction of the training set")
    axes.set_ylabel("seconds of selection")
    axes.grid(alpha=0.3)
    axes.set_title(f"{named[1]}: selection alone", fontsize=10)
    figure.legend(loc="outside right upper", fontsize=8)
    return save_figure(figure, folder, f"{named[0]}-seconds")
