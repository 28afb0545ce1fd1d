"""Figures of grids: who beats whom, sensitivity to an option, seconds, and what was chosen."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lcmat.command_line.grids import Grid
from lcmat.data.splits import Dataset
from lcmat.reports.figures import COLOURS, save_figure
from lcmat.reports.tables import Cell, mean_std
from lcmat.selection.select import Subset


def heatmap(methods: list[str], wins: dict, margins: dict, counts: dict, grid: Grid, folder: Path) -> list[Path]:
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
    axes.set_title(f"{grid.title}:\nwins of the row over the column in {cases} cases (mean margin)", fontsize=10)
    figure.colorbar(drawn, ax=axes, label="share of cases won", shrink=0.8)
    return save_figure(figure, folder, grid.name)


def sensitivity(
    cells: dict[tuple[str, float, float], Cell],
    others: dict[tuple[str, float], Cell],
    symbol: str,
    grid: Grid,
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
    figure.suptitle(f"{grid.title}: mean ± standard deviation over seeds", fontsize=10)
    return save_figure(figure, folder, grid.name)


def wallclock(rows: list[list], grid: Grid, folder: Path) -> list[Path]:
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
    axes.set_title(f"{grid.title}: selection alone", fontsize=10)
    figure.legend(loc="outside right upper", fontsize=8)
    return save_figure(figure, folder, f"{grid.name}-seconds")


Pictures = tuple[torch.Tensor, np.ndarray]  # uint8 (m, c, h, w) and labels (m,)


def contact_sheet(pictures: dict[str, Pictures], classes: int, title: str, name: str, folder: Path) -> list[Path]:
    """Draw each method's images: a panel for each method, a row for each class, in their order."""
    longest = max(int(np.bincount(labels).max()) for _, labels in pictures.values())
    across = max(1, min(len(pictures), 24 // longest))
    down = math.ceil(len(pictures) / across)
    height = 0.22 * classes + 0.35
    size = (0.22 * longest * across + 0.3 * across + 0.8, height * down + 0.4)
    figure, panels = plt.subplots(down, across, figsize=size, layout="constrained", squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for axes, (method, (images, labels)) in zip(panels.flat, pictures.items(), strict=False):
        sheet = _sheet(images, labels, classes, longest)
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(method, fontsize=7, pad=2)
    figure.suptitle(f"{title}: a row for each class, in the order chosen", fontsize=8)
    return save_figure(figure, folder, name)


def pictures_of(dataset: Dataset, subset: Subset) -> torch.Tensor:
    """Return the chosen images, in the subset's order."""
    chosen = dataset.train.take(torch.from_numpy(subset.indices))
    return torch.cat([images.cpu() for images, _, _ in chosen.batches(torch.arange(len(chosen)).split(256))])


def _sheet(images: torch.Tensor, labels: np.ndarray, classes: int, columns: int, gap: int = 1) -> np.ndarray:
    """Return images in rows by class, (h, w, 3) or (h, w), on white."""
    channels, height, width = images.shape[1:]
    sheet = torch.full((channels, classes * (height + gap), columns * (width + gap)), 255, dtype=torch.uint8)
    for position, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        column = int((labels[:position] == label).sum())
        top, left = label * (height + gap), column * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet[0].numpy() if channels == 1 else sheet.permute(1, 2, 0).numpy()
