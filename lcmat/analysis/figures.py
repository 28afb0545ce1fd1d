"""Figures of analyses, from their rows."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm

from lcmat.analysis.groups import Row
from lcmat.reports import save_figure
from lcmat.reports.figures import COLOURS, MARKERS
from lcmat.reports.tables import mean_std

Rows = dict[str, list[Row]]


def draw(analysis: str, rows: Rows, title: str, radius: float, folder: Path, name: str) -> list[Path]:
    """Draw an analysis as <name>.png and .pdf and return the paths."""
    return save_figure(DRAWN[analysis](rows, title, radius), folder, name)


def means(rows: list[Row], columns: tuple[str, ...]) -> dict[tuple[str, float], dict[str, tuple[float, float | None]]]:
    """Return mean and standard deviation over seeds of some columns, by method and fraction."""
    cells: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for column in columns:
            if row[column] is not None:
                cells[row["method"], row["fraction"]][column].append(row[column])
    return {key: {name: mean_std(values) for name, values in cell.items()} for key, cell in cells.items()}


def _is_t(method: str) -> bool:
    """Tell whether a row is of T itself, by whatever network."""
    return method.partition(" [")[0] == "T"


def _methods(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))


def _fractions(rows: list[Row]) -> list[float]:
    return sorted({row["fraction"] for row in rows})


def _panels(count: int, width: float, height: float) -> tuple[plt.Figure, np.ndarray]:
    figure, panels = plt.subplots(1, count, figsize=(width * count + 0.6, height), layout="constrained", squeeze=False)
    return figure, panels[0]


def _stacked(rows: Rows, title: str, radius: float) -> plt.Figure:
    """Fig. 2: the two terms of Eq. 6 on top of each other, a panel for each fraction."""
    methods, fractions = _methods(rows[""]), _fractions(rows[""])
    figure, panels = _panels(len(fractions), 0.45 * len(methods) + 1.2, 4)
    cells = means(rows[""], ("gradient", "half_rho_lambda_1"))
    for axes, fraction in zip(panels, fractions, strict=True):
        here = [method for method in methods if (method, fraction) in cells]
        foot = np.zeros(len(here))
        labels = ("‖∇L(T) − ∇L(S)‖₂", f"½ρλ₁, ρ = {radius:g}")
        for column, label, colour in zip(("gradient", "half_rho_lambda_1"), labels, COLOURS, strict=False):
            mean, std = (np.array(x, float) for x in zip(*(cells[m, fraction][column] for m in here), strict=True))
            axes.bar(here, mean, bottom=foot, yerr=np.nan_to_num(std), capsize=2, color=colour, label=label)
            foot = foot + mean
        axes.tick_params(axis="x", rotation=90)
        axes.set_title(f"{100 * fraction:.4g}%", fontsize=10)
        axes.grid(alpha=0.3, axis="y")
    panels[0].legend(fontsize=8)
    figure.suptitle(f"{title}: terms of Eq. 6, mean ± standard deviation over seeds", fontsize=10)
    return figure


def _scatter(rows: Rows, title: str, radius: float) -> plt.Figure:
    """Measured sharpness against what the paper bounds it by, and over all parameters against the last layer."""
    pairs = [
        ("eq6", "sharpness", "Eq. 6", "Eq. 4, last layer"),
        ("eq7", "sharpness", "Eq. 7 (diagonal)", "Eq. 4, last layer"),
        ("sharpness", "network_sharpness", "Eq. 4, last layer", "Eq. 4, all parameters"),
    ]
    pairs = [pair for pair in pairs if any(row[pair[1]] is not None for row in rows[""])]
    figure, panels = _panels(len(pairs), 3.8, 4.2)
    fractions = _fractions(rows[""])
    for axes, (x, y, below, beside) in zip(panels, pairs, strict=True):
        for number, method in enumerate(_methods(rows[""])):
            for place, fraction in enumerate(fractions):
                some = [
                    row
                    for row in rows[""]
                    if (row["method"], row["fraction"]) == (method, fraction) and row[y] is not None
                ]
                style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
                label = f"{method} {100 * fraction:.4g}%"
                axes.scatter([row[x] for row in some], [row[y] for row in some], s=22, label=label, **style)
        values = [row[x] for row in rows[""] if row[y] is not None]
        if not y.startswith("network"):
            axes.plot([min(values), max(values)], [min(values), max(values)], color="0.5", linewidth=1, linestyle="--")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(below)
        axes.set_ylabel(beside)
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    figure.suptitle(f"{title}: ρ = {radius:g}; dashed where both are equal", fontsize=10)
    return figure


def _contours(rows: Rows, title: str, radius: float) -> plt.Figure:
    """Fig. 1b: loss contours of T's sample and of the subsets of the first seed, on common levels."""
    first = rows[""][0]["seed"]
    surfaces: dict[tuple, dict] = defaultdict(dict)
    for row in rows[""]:
        if row["seed"] == first:
            surfaces[row["method"], row["fraction"]][row["x"], row["y"]] = row["loss"]
    across = min(4, len(surfaces))
    down = -(-len(surfaces) // across)
    figure, panels = plt.subplots(
        down, across, figsize=(2.6 * across + 0.8, 2.5 * down + 0.5), layout="constrained", squeeze=False
    )
    everything = np.array([loss for surface in surfaces.values() for loss in surface.values()])
    low = max(1e-4, float(np.quantile(everything, 0.02)))
    levels = np.geomspace(low, max(float(np.quantile(everything, 0.98)), 2 * low), 16)
    norm = LogNorm(levels[0], levels[-1])
    for axes in panels.flat:
        axes.axis("off")
    for axes, ((method, fraction), surface) in zip(panels.flat, surfaces.items(), strict=False):
        axes.axis("on")
        places = sorted({x for x, _ in surface})
        z = np.array([[surface[x, y] for x in places] for y in places])
        axes.contour(places, places, z, levels=levels, cmap="viridis", linewidths=0.9, norm=norm)
        axes.plot(0, 0, marker="+", color="black")
        name = f"{method} (fixed sample)" if _is_t(method) else f"{method} {100 * fraction:.4g}%"
        axes.set_title(f"{name}\nloss at θ: {surface[0.0, 0.0]:.3g}" if (0.0, 0.0) in surface else name, fontsize=8)
        axes.tick_params(labelsize=6)
    figure.colorbar(ScalarMappable(norm, "viridis"), ax=panels, label="loss", shrink=0.7, format="%g")
    figure.suptitle(f"{title}, seed {first}: loss around θ, filter-normalised random directions", fontsize=10)
    return figure


def _spectrum(rows: Rows, title: str, radius: float) -> plt.Figure:
    """Fig. 6, and how often the true k of Eq. 8 is among the K dimensions that vary most."""
    figure, (left, right) = _panels(2, 4.2, 3.6)
    networks = dict.fromkeys((row["seed"], row["network"]) for row in rows["-spectrum"])
    for number, (seed, network) in enumerate(networks):
        some = [row for row in rows["-spectrum"] if (row["seed"], row["network"]) == (seed, network)]
        left.plot(
            [row["rank"] for row in some],
            [row["variance"] for row in some],
            color=COLOURS[number % len(COLOURS)],
            label=f"seed {seed}" + (f", {network}" if network else ""),
        )
    left.axvline(100, color="0.5", linestyle="--", linewidth=1)
    values = [row["variance"] for row in rows["-spectrum"] if row["variance"] > 0]
    left.set_ylim(bottom=max(min(values), max(values) * 1e-12))
    left.set_yscale("log")
    left.set_xlabel("dimension k, sorted")
    left.set_ylabel("Var(λ_k)")
    if len(networks) <= 8:
        left.legend(fontsize=8)
    sizes = np.unique(np.geomspace(10, 1000, 40).round().astype(int))
    for scope, style in (("all", "-"), ("class", "--")):
        for place, fraction in enumerate(_fractions(rows[""])):
            some = [row for row in rows[""] if row["fraction"] == fraction]
            ranks = np.array([row["rank"] for row in some if (row["class"] == "all") == (scope == "all")])
            label = f"{100 * fraction:.4g}%, {'all of T' if scope == 'all' else 'within a class'}"
            share = [100 * float((ranks <= size).mean()) for size in sizes]
            right.plot(sizes, share, style, color=COLOURS[place % len(COLOURS)], label=label)
    right.set_xscale("log")
    right.set_ylim(0, 102)
    right.set_xlabel("K")
    right.set_ylabel("subsets whose true k lies in 𝒦 (%)".replace("𝒦", "K's set"))
    right.legend(fontsize=7)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(f"{title}: variance of the Hessian diagonal (Fig. 6)", fontsize=10)
    return figure


def _agreement(rows: Rows, title: str, radius: float) -> plt.Figure:
    """Jaccard indices as a heat map for each fraction, and the cost of each method's subsets."""
    methods, fractions = _methods(rows[""]), _fractions(rows[""])
    side = 0.42 * len(methods) + 1.6
    figure, panels = plt.subplots(
        2, len(fractions), figsize=(side * len(fractions) + 0.6, side + 2.6), layout="constrained", squeeze=False,
        height_ratios=(side, 2.6),
    )  # fmt: skip
    for number, fraction in enumerate(fractions):
        pairs: dict[tuple, list[float]] = defaultdict(list)
        for row in rows["-jaccard"]:
            if row["fraction"] == fraction:
                pairs[row["method"], row["other"]].append(row["jaccard"])
        shares = np.array([[np.mean(pairs[a, b]) if pairs[a, b] else np.nan for b in methods] for a in methods])
        axes = panels[0, number]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i, j in itertools.product(range(len(methods)), repeat=2):
            if not np.isnan(shares[i, j]):
                colour = "white" if shares[i, j] > 0.6 else "black"
                axes.text(j, i, f"{shares[i, j]:.2f}", ha="center", va="center", fontsize=6, color=colour)
        axes.set_xticks(range(len(methods)), methods, rotation=90, fontsize=7)
        axes.set_yticks(range(len(methods)), methods, fontsize=7)
        axes.set_title(f"{100 * fraction:.4g}%: |A ∩ B| / |A ∪ B|", fontsize=9)
        cells = means(rows[""], ("per_sample",))
        here = [method for method in methods if (method, fraction) in cells]
        mean, std = zip(*(cells[method, fraction]["per_sample"] for method in here), strict=True)
        axes = panels[1, number]
        axes.bar(here, mean, yerr=np.nan_to_num(np.array(std, float)), capsize=2, color=COLOURS[0])
        axes.tick_params(axis="x", rotation=90, labelsize=7)
        axes.set_ylabel("L(S) / n", fontsize=8)
        axes.grid(alpha=0.3, axis="y")
    figure.suptitle(f"{title}: agreement of subsets, and their cost (Eq. 11)", fontsize=10)
    return figure


def _diagonality(rows: Rows, title: str, radius: float) -> plt.Figure:
    """The share of the Frobenius norm on the diagonal, and λ₁ beside the largest diagonal entry."""
    keys = list(dict.fromkeys((row["method"], row["fraction"]) for row in rows[""]))
    cells = means(rows[""], ("share", "lambda_abs", "diagonal"))
    names = [method.replace("T", "H_T", 1) if _is_t(method) else f"{method} {100 * f:.4g}%" for method, f in keys]
    figure, (left, right) = _panels(2, 0.3 * len(keys) + 1.6, 4.2)
    for axes, columns in ((left, ("share",)), (right, ("lambda_abs", "diagonal"))):
        for number, column in enumerate(columns):
            mean, std = zip(*(cells[key][column] for key in keys), strict=True)
            place = np.arange(len(keys)) + (number - (len(columns) - 1) / 2) * 0.4
            axes.bar(
                place, mean, width=0.8 / len(columns), yerr=np.nan_to_num(np.array(std, float)), capsize=2,
                color=COLOURS[number], label={"lambda_abs": "|λ| of the full matrix"}.get(column, "of the diagonal"),
            )  # fmt: skip
        axes.set_xticks(range(len(keys)), names, rotation=90, fontsize=7)
        axes.grid(alpha=0.3, axis="y")
    left.set_ylabel("‖diag(H)‖ / ‖H‖ (Frobenius)")
    right.set_ylabel("largest eigenvalue by size")
    right.legend(fontsize=8)
    figure.suptitle(f"{title}: H_T, and H_T − H_S for each method's S (last layer)", fontsize=10)
    return figure


DRAWN = {
    "bound": _stacked,
    "sharpness": _scatter,
    "landscape": _contours,
    "variance": _spectrum,
    "overlap": _agreement,
    "diagonal": _diagonality,
}
