"""Figures of analyses, from their rows: methods as rows, fractions as columns."""

from __future__ import annotations

import csv
import itertools
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lcmat.analysis.groups import Row
from lcmat.reports import save_figure
from lcmat.reports.figures import BLUE, COLOURS, MARKERS, ORANGE, legend_outside, styles

Rows = dict[str, list[Row]]


def draw(analysis: str, rows: Rows, titled: tuple[str, float | None], folder: Path, name: str) -> list[Path]:
    """Draw an analysis as <name>.png and .pdf and return the paths; titled: its title and ρ, None if not known."""
    title, radius = titled
    return save_figure(DRAWN[analysis](rows, title, "" if radius is None else f", ρ = {radius:g}"), folder, name)


# What a file of an analysis begins with and holds at least; and what of it is text.
NEEDED = {
    "bound": {"": {"gradient", "half_rho_lambda_1"}},
    "sharpness": {"": {"eq6", "eq7", "sharpness", "network_sharpness"}},
    "landscape": {"": {"x", "y", "loss", "apart"}},
    "variance": {"": {"class", "rank"}, "-spectrum": {"network", "seed", "rank", "variance"}},
    "overlap": {"": {"per_sample"}, "-jaccard": {"method", "other", "fraction", "jaccard"}},
    "diagonal": {"": {"share", "lambda_abs", "diagonal"}},
}
TEXT = ("method", "other", "network", "class")


def redraw(folder: Path, title_of: Callable[[str], str]) -> tuple[list[Path], list[Path]]:
    """Draw the analyses whose tables lie in a folder's tables/; return the figures, and files that are no such table.

    title_of: the title of a grid by its name.
    """
    drawn, strange = [], []
    for analysis, parts in NEEDED.items():
        for path in sorted((folder / "tables").glob(f"{analysis}-*.csv")):
            if any(part and path.stem.endswith(part) for part in parts):
                continue
            rows = {part: _read(path.with_name(f"{path.stem}{part}.csv"), needed) for part, needed in parts.items()}
            if not all(rows.values()):
                strange.append(path)
                continue
            name = path.stem.removeprefix(f"{analysis}-")
            drawn += draw(analysis, rows, (title_of(name), _radius(rows[""])), folder / "figures", path.stem)
    return drawn, strange


def _read(path: Path, needed: set[str]) -> list[Row]:
    """Return a table's rows, none if it is not there or not such a table."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows or not needed | {"seed"} <= rows[0].keys():
            return []
        return [{k: v if k in TEXT else float(v) if v else None for k, v in row.items()} for row in rows]
    except (OSError, ValueError, TypeError):
        return []


def _radius(rows: list[Row]) -> float | None:
    """Return the ρ that a table was made with, None if it does not say."""
    said = [2 * row["half_rho_lambda_1"] / row["lambda_1"] for row in rows if row.get("lambda_1")]
    return float(f"{said[0]:.4g}") if said else None


def _is_t(method: str) -> bool:
    """Tell whether a row is of T itself, by whatever network."""
    return method.partition(" [")[0] == "T"


def _methods(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))


def _fractions(rows: list[Row]) -> list[float]:
    return sorted({row["fraction"] for row in rows})


def _over_seeds(rows: list[Row]) -> str:
    """Say what stands for a cell: of one seed, the value itself."""
    count = len({row["seed"] for row in rows})
    return "one network" if count == 1 else f"{count} networks, a mark each; a bar at their mean"


def _marks(axes: plt.Axes, methods: list[str], found: dict[str, list[float]], style: dict[str, object]) -> None:
    """Draw each method's values in its row, and a bar at the mean of several; the first row on top."""
    for place, method in enumerate(methods):
        values = found.get(method, [])
        axes.scatter(values, [place + style["shift"]] * len(values), s=26, color=style["color"],
                     marker=style["marker"], label=style["label"] if place == 0 else None, zorder=3)  # fmt: skip
        if len(values) > 1:
            axes.plot(np.mean(values), place + style["shift"], marker="|", markersize=13, color=style["color"])
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.grid(alpha=0.3)


def _columns(count: int, methods: list[str], width: float = 3.6) -> tuple[plt.Figure, np.ndarray]:
    """Return a figure with a column for each fraction, which share rows and scale."""
    label, height = 0.075 * max(map(len, methods)), 1.3 + 0.36 * len(methods)
    size = {"figsize": (width * count + label + 1.6, height), "sharex": True, "sharey": True, "squeeze": False}
    figure, panels = plt.subplots(1, count, **size, layout="constrained")
    return figure, panels[0]


def _values(rows: list[Row], fraction: float, column: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["fraction"] == fraction and row[column] is not None:
            found[row["method"]].append(row[column])
    return found


def _terms(rows: Rows, title: str, radius: str) -> plt.Figure:
    """Fig. 2: the two terms of Eq. 6 beside each other."""
    methods, fractions = _methods(rows[""]), _fractions(rows[""])
    figure, panels = _columns(len(fractions), methods)
    for axes, fraction in zip(panels, fractions, strict=True):
        for column, label, colour, marker, shift in (
            ("gradient", "gradient term\n‖∇L(T) − ∇L(S)‖₂", BLUE, "o", -0.13),
            ("half_rho_lambda_1", "curvature term\n½ρλ₁(H_T − H_S)", ORANGE, "s", 0.13),
        ):
            style = {"color": colour, "marker": marker, "label": label, "shift": shift}
            _marks(axes, methods, _values(rows[""], fraction, column), style)
        axes.set_xscale("log")
        axes.set_xlabel("size of the term")
        axes.set_title(f"{100 * fraction:.4g}%", fontsize=10)
    legend_outside(figure, panels[0])
    figure.suptitle(f"{title}: the terms of Eq. 6{radius}; {_over_seeds(rows[''])}", fontsize=10)
    return figure


WITH_LAMBDA, WITH_DIAGONAL = "gradient + curvature term (Eq. 6)", "gradient + diagonal's term (Eq. 7)"
OF_LAYER, OF_NETWORK = (
    "measured sharpness,\nlast layer moves (Eq. 4)",
    "measured sharpness,\nall parameters move (Eq. 4)",
)


def _scatter(rows: Rows, title: str, radius: str) -> plt.Figure:
    """Measured sharpness against what the paper bounds it by, and over all parameters against the last layer."""
    pairs = [
        ("eq6", "sharpness", WITH_LAMBDA, OF_LAYER),
        ("eq7", "sharpness", WITH_DIAGONAL, OF_LAYER),
        ("sharpness", "network_sharpness", OF_LAYER.replace(",\n", ", "), OF_NETWORK),
    ]
    pairs = [pair for pair in pairs if any(row[pair[1]] is not None for row in rows[""])]
    figure, (panels,) = plt.subplots(
        1, len(pairs), figsize=(3.7 * len(pairs) + 1.4, 3.9), layout="constrained", squeeze=False
    )
    fractions, styled = _fractions(rows[""]), styles(_methods(rows[""]))
    for axes, (x, y, below, beside) in zip(panels, pairs, strict=True):
        for method, (place, fraction) in itertools.product(styled, enumerate(fractions)):
            key = (method, fraction)
            some = [r for r in rows[""] if (r["method"], r["fraction"]) == key and r[y] is not None]
            style = {"color": styled[method]["color"], "marker": MARKERS[place % len(MARKERS)]}
            label = f"{method} {100 * fraction:.4g}%"
            axes.scatter([row[x] for row in some], [row[y] for row in some], s=24, label=label, **style)
        values = [row[x] for row in rows[""] if row[y] is not None]
        if not y.startswith("network"):
            ends = [min(values), max(values)]
            axes.plot(ends, ends, color="0.5", linewidth=1, linestyle="--", label="both equal")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(below, fontsize=9)
        axes.set_ylabel(beside, fontsize=9)
        axes.grid(alpha=0.3)
    legend_outside(figure, panels[0], 7)
    figure.suptitle(
        f"{title}: sharpness of the loss difference, measured and as the paper bounds it{radius}", fontsize=10
    )
    return figure


def _contours(rows: Rows, title: str, radius: str) -> plt.Figure:
    """Fig. 1b: loss contours of T's sample and of the first seed's subsets, on common levels, which have numbers."""
    first = rows[""][0]["seed"]
    surfaces: dict[tuple, dict] = defaultdict(dict)
    apart: dict[tuple, list[float]] = defaultdict(list)
    for row in rows[""]:
        if row["seed"] == first:
            surfaces[row["method"], row["fraction"]][row["x"], row["y"]] = row["loss"]
            apart[row["method"], row["fraction"]].append(row["apart"])
    everything = np.array([loss for surface in surfaces.values() for loss in surface.values()])
    levels = _levels(float(np.quantile(everything, 0.02)), float(np.quantile(everything, 0.98)))
    methods = list(dict.fromkeys(method for method, _ in surfaces))
    fractions = sorted({fraction for method, fraction in surfaces if not _is_t(method)}) or [1.0]
    size = (2.7 * len(fractions) + 0.4, 2.4 * len(methods) + 0.6)
    figure, panels = plt.subplots(len(methods), len(fractions), figsize=size, layout="constrained", squeeze=False)
    for line, method in zip(panels, methods, strict=True):
        for axes, fraction in zip(line, fractions, strict=True):
            key = (method, 1.0 if _is_t(method) and axes is line[0] else fraction)
            if key not in surfaces:
                axes.axis("off")
                continue
            name = f"{method} (a fixed sample)" if _is_t(method) else f"{method} {100 * fraction:.4g}%"
            more = "" if _is_t(method) else f"\nmean distance from T's {np.mean(apart[key]):.2g}"
            _surface(axes, surfaces[key], levels)
            at = surfaces[key].get((0.0, 0.0))
            axes.set_title(name if at is None else f"{name}: loss at θ {at:.3g}{more}", fontsize=8)
    words = "loss around the network's θ (+), along two random directions, in filter norms"
    figure.suptitle(f"{title}, seed {first:g}\n{words}", fontsize=9)
    return figure


def _levels(low: float, high: float) -> np.ndarray:
    """Return losses between the two to draw contours at: 1, 3, 10, …, or closer where these are fewer than six."""
    for steps in ((1, 3), (1, 2, 3, 5), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)):
        found = [step * 10.0**decade for decade in range(-6, 7) for step in steps]
        found = [level for level in found if low <= level <= high]
        if len(found) > 5:
            break
    return np.array(found or [(low + high) / 2])


def _surface(axes: plt.Axes, surface: dict[tuple[float, float], float], levels: np.ndarray) -> None:
    places = sorted({x for x, _ in surface})
    z = np.array([[surface[x, y] for x in places] for y in places])
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(levels)))  # the end of it is too pale
    if ((levels >= z.min()) & (levels <= z.max())).any():
        drawn = axes.contour(places, places, z, levels=levels, colors=colours, linewidths=1.1)
        axes.clabel(drawn, fmt="%g", fontsize=7)
    axes.plot(0, 0, marker="+", color="black")
    axes.set_xlim(places[0], places[-1])
    axes.set_ylim(places[0], places[-1])
    axes.tick_params(labelsize=6)


def _spectrum(rows: Rows, title: str, radius: str) -> plt.Figure:
    """Fig. 6, and how often the true k of Eq. 8 is among the K dimensions that vary most."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.3), layout="constrained")
    networks = dict.fromkeys((row["seed"], row["network"]) for row in rows["-spectrum"])
    for number, (seed, network) in enumerate(networks):
        some = [row for row in rows["-spectrum"] if (row["seed"], row["network"]) == (seed, network)]
        left.plot(
            [row["rank"] for row in some],
            [row["variance"] for row in some],
            color=COLOURS[number % len(COLOURS)],
            label=f"network of seed {seed:g}" + (f", {network}" if network else ""),
        )
    left.axvline(100, color="0.5", linestyle="--", linewidth=1, label="K = 100")
    values = [row["variance"] for row in rows["-spectrum"] if row["variance"] > 0]
    left.set_ylim(bottom=max(min(values), max(values) * 1e-12))
    left.set_yscale("log")
    left.set_xlabel("dimension k of the diagonal, by its variance")
    left.set_ylabel("variance over samples of entry k")
    sizes = np.unique(np.geomspace(10, 1000, 40).round().astype(int))
    for scope, style in (("all", "-"), ("class", "--")):
        for place, fraction in enumerate(_fractions(rows[""])):
            some = [row for row in rows[""] if row["fraction"] == fraction]
            ranks = np.array([row["rank"] for row in some if (row["class"] == "all") == (scope == "all")])
            label = f"{100 * fraction:.4g}%, {'all of T' if scope == 'all' else 'within a class'}"
            share = [100 * float((ranks <= size).mean()) for size in sizes]
            right.plot(sizes, share, style, color=COLOURS[place % len(COLOURS)], label=label, clip_on=False)
    right.set_xscale("log")
    right.xaxis.set_major_formatter("{x:g}")
    right.set_ylim(0, 100)
    right.set_xlabel("K")
    right.set_ylabel("subsets whose largest difference (Eq. 8)\nlies among the K dimensions kept (%)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes is right or len(networks) <= 8:
            axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
    figure.suptitle(f"{title}: variance of the Hessian diagonal (Fig. 6)", fontsize=10)
    return figure


def _agreement(rows: Rows, title: str, radius: str) -> plt.Figure:
    """Jaccard indices as a heat map for each fraction, and below it the cost of each method's subsets."""
    methods, fractions = _methods(rows[""]), _fractions(rows[""])
    side, below = 0.42 * len(methods) + 1.2, 0.26 * len(methods) + 0.9
    figure, panels = plt.subplots(
        2, len(fractions), figsize=(side * len(fractions) + 1.4, side + below + 0.8), layout="constrained",
        squeeze=False, height_ratios=(side, below), sharey="row", sharex="row",
    )  # fmt: skip
    for number, fraction in enumerate(fractions):
        pairs: dict[tuple, list[float]] = defaultdict(list)
        for row in rows["-jaccard"]:
            if row["fraction"] == fraction:
                pairs[row["method"], row["other"]].append(row["jaccard"])
        shares = np.array([[np.mean(pairs[a, b]) if pairs[a, b] else np.nan for b in methods] for a in methods])
        axes = panels[0, number]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for i, j in itertools.product(range(len(methods)), repeat=2):
            if not np.isnan(shares[i, j]):
                colour = "white" if shares[i, j] > 0.6 else "black"
                axes.text(j, i, f"{shares[i, j]:.2f}", ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(methods)), methods, rotation=90, fontsize=8)
        axes.set_yticks(range(len(methods)), methods, fontsize=8)
        axes.set_title(f"{100 * fraction:.4g}%: shared samples, |A ∩ B| / |A ∪ B|", fontsize=9)
        axes = panels[1, number]
        style = {"color": BLUE, "marker": "o", "label": None, "shift": 0.0}
        _marks(axes, methods, _values(rows[""], fraction, "per_sample"), style)
        axes.tick_params(labelsize=8)
        axes.set_xlim(left=0)
        axes.set_xlabel("cost of the subset, L(S) / n (Eq. 11)", fontsize=8)
    figure.suptitle(f"{title}: agreement of subsets, and their cost\n{_over_seeds(rows[''])}", fontsize=10)
    return figure


def _diagonality(rows: Rows, title: str, radius: str) -> plt.Figure:
    """The share of the Frobenius norm on the diagonal, and λ₁ beside the largest diagonal entry."""
    keys = list(dict.fromkeys((row["method"], row["fraction"]) for row in rows[""]))
    names = [method.replace("T", "T itself", 1) if _is_t(method) else f"{method} {100 * f:.4g}%" for method, f in keys]
    size = {"figsize": (9.5, 1.4 + 0.3 * len(keys)), "sharey": True}
    figure, (left, right) = plt.subplots(1, 2, **size, layout="constrained")
    for axes, column, label, colour, marker in (
        (left, "share", None, BLUE, "o"),
        (right, "lambda_abs", "of the full matrix", BLUE, "o"),
        (right, "diagonal", "of its diagonal alone", ORANGE, "s"),
    ):
        found = defaultdict(list)
        for row in rows[""]:
            if row[column] is not None:
                found[names[keys.index((row["method"], row["fraction"]))]].append(row[column])
        _marks(axes, names, found, {"color": colour, "marker": marker, "label": label, "shift": 0.0})
    left.set_xlim(0, 1)
    left.set_xlabel("share of the diagonal in the matrix, ‖diag(H)‖ / ‖H‖")
    right.set_xscale("log")
    right.set_xlabel("largest eigenvalue by size")
    legend_outside(figure, right)
    words = f"T: the last layer's Hessian H_T; methods: H_T − H_S\n{_over_seeds(rows[''])}"
    figure.suptitle(f"{title}: {words}", fontsize=10)
    return figure


DRAWN = {
    "bound": _terms,
    "sharpness": _scatter,
    "landscape": _contours,
    "variance": _spectrum,
    "overlap": _agreement,
    "diagonal": _diagonality,
}
