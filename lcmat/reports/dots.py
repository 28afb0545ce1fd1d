"""Dots with intervals: methods as rows, a panel for each fraction (or step), sorted; and the data of it, undrawn.

What lies on one side of nothing with its whole interval is blue or red, what cannot be told apart from it grey.
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lcmat.reports.figures import BLUE, GREY, VERMILLION, save_figure
from lcmat.reports.tables import Paired

# By the side of nothing that a dot is on; None: it is compared with nothing.
COLOUR = {1: BLUE, -1: VERMILLION, 0: GREY, None: "0.25"}
# Characters in a line of a row's name; inches of a figure's width, of a panel's without names, and of a character.
LABEL, WIDTH, PANEL, CHARACTER = 42, 10.5, 2.0, 0.068
# Intervals of more than so many times the median width may be cut, if all would make the axis so many times as wide.
WIDE, STRETCHED = 2, 1.3


@dataclass(frozen=True)
class Dot:
    """A row of a panel: its mean, and the ends of its 95% interval, which are the mean where there is none.

    side: of nothing, on which the whole interval lies: 1 above, −1 below, 0 neither; None where nothing is compared.
    """

    row: str
    mean: float
    low: float
    high: float
    side: int | None


@dataclass(frozen=True)
class Panel:
    """What is drawn of one fraction: a heading, and the dots from the largest mean to the smallest."""

    heading: str
    dots: tuple[Dot, ...]


def side(cell: Paired) -> int:
    """Return on which side of nothing the whole interval lies: 1 above, −1 below, 0 neither, or no interval."""
    if cell.half is None or abs(cell.mean) <= cell.half:
        return 0
    return 1 if cell.mean > 0 else -1


def panel(heading: str, differences: Mapping[str, Paired]) -> Panel:
    """Return the panel of differences by row."""
    dots = [
        Dot(row, c.mean, c.mean - (c.half or 0.0), c.mean + (c.half or 0.0), side(c)) for row, c in differences.items()
    ]
    return Panel(heading, _sorted(dots))


def accuracy_panel(heading: str, accuracies: Mapping[str, Paired]) -> Panel:
    """Return the panel of accuracies (%) by row, which are compared with nothing; intervals end at 0 and 100."""
    dots = [
        Dot(row, c.mean, max(0.0, c.mean - (c.half or 0.0)), min(100.0, c.mean + (c.half or 0.0)), None)
        for row, c in accuracies.items()
    ]
    return Panel(heading, _sorted(dots))


def _sorted(dots: list[Dot]) -> tuple[Dot, ...]:
    return tuple(sorted(dots, key=lambda dot: -dot.mean))


def dots_figure(panels: list[Panel], title: str, axis: str, folder: Path, name: str) -> list[Path]:
    """Draw the panels side by side, as far as they fit; axis: what is drawn, all panels on one scale."""
    labels = {dot.row: textwrap.fill(dot.row, LABEL) for one in panels for dot in one.dots}
    lines = [label.split("\n") for label in labels.values()]
    most, tall = max(len(one.dots) for one in panels), max(map(len, lines))
    name_width = CHARACTER * max(len(line) for several in lines for line in several)
    fitting = max(1, min(len(panels), int(WIDTH / (PANEL + name_width))))
    down = math.ceil(len(panels) / fitting)
    across = math.ceil(len(panels) / down)
    width = min(5.0 if across == 1 else 3.6, max(PANEL, WIDTH / across - name_width))
    size = (across * (width + name_width), 0.6 + down * (0.9 + (0.09 + 0.13 * tall) * most))
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained", sharex=True)
    for place in axes.flat[len(panels) :]:
        place.axis("off")
    for place, one in zip(axes.flat, panels, strict=False):
        _draw(place, one, labels, most)
        place.set_xlabel(axis, fontsize=8)
        place.tick_params(axis="x", labelsize=8, labelbottom=True)
    low, high = scale(panels)
    axes[0, 0].set_xlim(low, high)
    cut = any(dot.low < low or dot.high > high for one in panels for dot in one.dots)
    words = f"{title}; some intervals cross the frame" if cut else title
    wide = int(size[0] / 0.075)
    figure.suptitle("\n".join(textwrap.fill(line, wide) for line in words.splitlines()), fontsize=10)
    return save_figure(figure, folder, name)


def scale(panels: list[Panel]) -> tuple[float, float]:
    """Return the ends of the axis: of everything, unless a few wide intervals that tell nothing apart stretch it.

    Then those reach beyond it: of more than `WIDE` times the median width.
    """
    dots = [dot for one in panels for dot in one.dots]
    usual = WIDE * statistics.median(dot.high - dot.low for dot in dots)
    zero = [0.0] * any(dot.side is not None for dot in dots)
    needed, whole = (
        [*zero, *(dot.mean for dot in dots), *(end for dot in some for end in (dot.low, dot.high))]
        for some in ([dot for dot in dots if dot.side != 0 or dot.high - dot.low <= usual], dots)
    )
    stretched = max(whole) - min(whole) > STRETCHED * (max(needed) - min(needed))
    low, high = (min(needed), max(needed)) if stretched else (min(whole), max(whole))
    margin = 0.04 * (high - low) + 0.3
    return low - margin, high + margin


def _draw(axes: plt.Axes, one: Panel, labels: Mapping[str, str], most: int) -> None:
    for place, dot in enumerate(one.dots):
        ends = [[dot.mean - dot.low], [dot.high - dot.mean]] if dot.low < dot.high else None
        axes.errorbar(dot.mean, place, xerr=ends, fmt="o", markersize=4, capsize=2, color=COLOUR[dot.side])
    if any(dot.side is not None for dot in one.dots):
        axes.axvline(0, color="0.35", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(one.dots)), [labels[dot.row] for dot in one.dots], fontsize=8)
    axes.set_ylim(most - 0.5, -0.5)  # the first row on top, and rows as far apart in every panel
    axes.set_title(one.heading, fontsize=9)
    axes.grid(axis="x", alpha=0.3)
