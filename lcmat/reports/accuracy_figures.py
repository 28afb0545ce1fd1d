"""Accuracy by method and fraction, drawn: lines with bands of a few methods, dots with intervals of many."""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lcmat.reports.difference import BASELINE, differences, draw_differences
from lcmat.reports.dots import accuracy_panel, dots_figure
from lcmat.reports.figures import band, legend_outside, save_figure, styles
from lcmat.reports.tables import Paired, Table, half_width, mean_std, told_apart

# The most methods whose lines can be followed.
FEW = 6


def is_drawn(table: Table) -> bool:
    """Tell whether a table has a figure: many methods, or a line's two fractions."""
    return len(_rows(table)) > FEW or len(table.fractions) > 1


def accuracy_figure(table: Table, title: str, folder: Path, suffix: str = "") -> list[Path]:
    """Draw a table's final accuracies against the fraction, as <slug><suffix>.png and .pdf, and return the paths.

    More methods than `FEW` are dots, each fraction by itself: minus Uniform's, as <slug>-difference<suffix>, or
    without Uniform the accuracies themselves.
    """
    if len(_rows(table)) <= FEW:
        return _lines(table, title, folder, f"{table.slug}{suffix}")
    made = differences(table, BASELINE)
    if made.cells:
        return draw_differences(made, title, folder, f"{table.slug}-difference{suffix}")
    return _accuracies(table, title, folder, f"{table.slug}{suffix}")


def write_figures(tables: list[Table], folder: Path) -> list[Path]:
    """Draw every table that can be, each with a title of its own; tables that would share a name are numbered."""
    paths, count = [], {}
    for table, more in zip(tables, told_apart([(one.title, one) for one in tables]), strict=True):
        if not is_drawn(table):
            continue
        number = count[table.slug] = count.get(table.slug, 0) + 1
        paths += accuracy_figure(table, table.title + more, folder, f"-{number}" if number > 1 else "")
    return paths


def _rows(table: Table) -> list[str]:
    """Return the rows that have a cell; others were asked for, and are not recorded yet."""
    return [row for row in table.methods if any((row, fraction) in table.cells for fraction in table.fractions)]


def _lines(table: Table, title: str, folder: Path, name: str) -> list[Path]:
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for row, style in styles(_rows(table)).items():
        cells = [(f, table.cells[row, f].final) for f in table.fractions if (row, f) in table.cells]
        x = [100 * fraction for fraction, _ in cells]
        mean, std = zip(*(mean_std(values) for _, values in cells), strict=True)
        axes.plot(x, mean, markersize=5, linewidth=1.5, label=row, **style)
        axes.fill_between(x, *band(mean, std), color=style["color"], alpha=0.15, linewidth=0)
    if table.full:
        axes.axhline(statistics.fmean(table.full.final), color="0.35", linewidth=1, linestyle=":", label="Full")
    axes.set_xscale("log")
    ticks = [100 * fraction for fraction in table.fractions]
    axes.set_xticks(ticks, [f"{tick:.4g}%" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("fraction of the training set")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(f"{title}\n{table.trainings}", fontsize=10)
    axes.grid(alpha=0.3)
    legend_outside(figure, axes)
    return save_figure(figure, folder, name)


def _accuracies(table: Table, title: str, folder: Path, name: str) -> list[Path]:
    panels = []
    for fraction in table.fractions:
        values = {row: tuple(cell.by_seed.values()) for (row, f), cell in table.cells.items() if f == fraction}
        cells = {row: Paired(statistics.fmean(v), half_width(v), len(v)) for row, v in values.items()}
        panels.append(accuracy_panel(f"{100 * fraction:.4g}%", cells))
    words = f"{title}\nmean and 95% interval over seeds"
    return dots_figure([one for one in panels if one.dots], words, "test accuracy (%)", folder, name)
