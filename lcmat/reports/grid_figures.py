"""Figures of grids: who beats whom, sensitivity to an option, seconds, and what was chosen."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lcmat.reports.figures import COLOURS, MARKERS, band, legend_outside, save_figure, styles
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
    drawn = axes.imshow(shares, cmap="RdBu_r", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(n), methods, rotation=45, ha="right")
    axes.set_yticks(range(n), methods)
    cases = max((count for count in counts.values()), default=0)
    figure.suptitle(f"{named[1]}:\nwins of the row over the column in {cases} cases (mean margin)", fontsize=10)
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
    methods = list(dict.fromkeys(name for name, _, _ in cells))
    styled = styles([*methods, *sorted({name for name, _ in others})])
    figure, panels = plt.subplots(1, len(fractions), figsize=(3.4 * len(fractions) + 1.5, 3.4), layout="constrained")
    for axes, fraction in zip(np.atleast_1d(panels), fractions, strict=True):
        for method in methods:
            here = {value: cells[method, fraction, value] for value in values if (method, fraction, value) in cells}
            mean, std = zip(*(mean_std(cell.final) for cell in here.values()), strict=True)
            low, high = band(mean, std)
            place = [values.index(value) for value in here]
            ends = np.array([np.subtract(mean, low), np.subtract(high, mean)])
            axes.errorbar(place, mean, yerr=ends if ends.any() else None, capsize=3, label=method, **styled[method])
        for method in (name for name, where in others if where == fraction):
            style = {"color": styled[method]["color"], "linestyle": styled[method]["linestyle"], "linewidth": 1.5}
            axes.axhline(mean_std(others[method, fraction].final)[0], label=method, **style)
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axes.set_xlabel(symbol)
        axes.set_title(f"{100 * fraction:.4g}%", fontsize=10)
        axes.grid(alpha=0.3)
    np.atleast_1d(panels)[0].set_ylabel("test accuracy (%)")
    legend_outside(figure, np.atleast_1d(panels)[0])
    figure.suptitle(f"{named[1]}: mean ± standard deviation over seeds", fontsize=10)
    return save_figure(figure, folder, named[0])


# Seconds below which nobody waits: methods that never take as long share a line.
QUICK = 0.1


def seconds_by_method(rows: list[list]) -> tuple[dict[str, dict[float, float]], list[str]]:
    """Return seconds of selection by method and fraction, the slowest first; and the methods that are always quick.

    rows: [method, fraction, n, pretrain, signals, select, ...]. Quick: below `QUICK` at every fraction; if all are,
    they have rows.
    """
    found: dict[str, dict[float, float]] = {}
    for method, fraction, _, _, _, seconds, *_ in rows:
        if fraction < 1:
            found.setdefault(method, {})[fraction] = seconds
    slowest = sorted(found, key=lambda method: -max(found[method].values()))
    quick = [method for method in slowest if max(found[method].values()) < QUICK]
    if len(quick) == len(slowest):
        return {method: found[method] for method in slowest}, []
    return {method: found[method] for method in slowest if method not in quick}, quick


def wallclock(rows: list[list], named: tuple[str, str], folder: Path) -> list[Path]:
    """Draw seconds of selection alone, a row for each method; rows: as `seconds_by_method` takes them."""
    slow, quick = seconds_by_method(rows)
    fractions = sorted({fraction for cells in slow.values() for fraction in cells})
    words = textwrap.fill(f"Below {QUICK:g} s at every fraction: {', '.join(sorted(quick))}.", 95) if quick else ""
    height = 1.5 + 0.3 * len(slow) + 0.17 * len(words.splitlines())
    figure, axes = plt.subplots(figsize=(7.5, height), layout="constrained")
    for number, fraction in enumerate(fractions):
        here = [(place, cells[fraction]) for place, cells in enumerate(slow.values()) if fraction in cells]
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        x = [max(seconds, 1e-3) for _, seconds in here]
        axes.scatter(x, [place for place, _ in here], s=30, label=f"{100 * fraction:.4g}%", zorder=3, **style)
    for place, cells in enumerate(slow.values()):
        axes.hlines(place, max(min(cells.values()), 1e-3), max(cells.values()), color="0.6", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(slow)), list(slow), fontsize=8)
    axes.set_ylim(len(slow) - 0.5, -0.5)
    axes.set_xlabel("seconds of selection" + f"\n\n{words}" * bool(words), fontsize=8)
    axes.grid(alpha=0.3)
    axes.set_title(f"{named[1]}: selection alone, by fraction", fontsize=10)
    legend_outside(figure, axes)
    return save_figure(figure, folder, f"{named[0]}-seconds")
