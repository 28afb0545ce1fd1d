"""Which methods can be told apart over several blocks (a data set, its setting and a fraction): Friedman and Wilcoxon.

After Demšar (JMLR 2006): methods are ranked within each block by mean accuracy; Friedman's test asks whether mean ranks
differ at all, Wilcoxon's signed-rank test of each pair with Holm's correction which do, and Nemenyi's critical
difference is drawn. From SciPy. Where too little is known nothing is claimed.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from scipy import stats

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lcmat.errors import UserError
from lcmat.reports.figures import save_figure
from lcmat.reports.table_text import markdown
from lcmat.reports.tables import Table

FEWEST_BLOCKS, FEWEST_METHODS, LEVEL = 6, 3, 0.05


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods over the blocks that all of them stand in.

    accuracies: (blocks, methods), means over seeds, in per cent. pairs: by two methods, Holm's corrected p of
    Wilcoxon's test.
    """

    methods: list[str]
    blocks: list[str]
    accuracies: np.ndarray
    p: float
    pairs: dict[tuple[str, str], float]

    @property
    def ranks(self) -> np.ndarray:
        """Mean rank of each method, 1 for the best of every block; ties share the mean of theirs."""
        return stats.rankdata(-self.accuracies, axis=1).mean(0)

    @property
    def critical_difference(self) -> float:
        """Nemenyi's: mean ranks that differ by less are not separable."""
        count = len(self.methods)
        q = stats.studentized_range.ppf(1 - LEVEL, count, np.inf) / math.sqrt(2)
        return float(q * math.sqrt(count * (count + 1) / (6 * len(self.blocks))))

    def separable(self, one: str, other: str) -> bool:
        """Tell whether two methods are: Friedman's test finds a difference at all, and Wilcoxon's one of these."""
        p = self.pairs[min((one, other), (other, one), key=lambda pair: pair not in self.pairs)]
        return self.p < LEVEL and p < LEVEL


def compared(tables: Iterable[Table], methods: list[str] | None = None) -> Comparison:
    """Compare methods over all blocks in which they stand; without names, those that make the most cells.

    Raises UserError if there are fewer than six such blocks, or three methods.
    """
    found = _blocks(tables)
    methods = _most_cells(list(found.values())) if methods is None else methods
    blocks = [name for name, cells in found.items() if set(methods) <= cells.keys()]
    if len(blocks) < FEWEST_BLOCKS or len(methods) < FEWEST_METHODS:
        raise UserError(
            f"{len(methods)} methods stand together in {len(blocks)} blocks (data set, setting and fraction); "
            f"statistics need {FEWEST_METHODS} methods in {FEWEST_BLOCKS} blocks: run more, or leave --statistics out"
        )
    accuracies = np.array([[found[block][method] for method in methods] for block in blocks])
    return Comparison(methods, blocks, accuracies, friedman(accuracies), _pairs(methods, accuracies))


def _blocks(tables: Iterable[Table]) -> dict[str, dict[str, float]]:
    """Return each block's accuracies by method; a second setting of one title has a number."""
    found, seen = {}, Counter()
    for table in tables:
        seen[table.title] += 1
        title = table.title if seen[table.title] == 1 else f"{table.title} (setting {seen[table.title]})"
        for fraction in table.fractions:
            cells = {m: table.cells[m, fraction] for m in table.methods if (m, fraction) in table.cells}
            found[f"{title}, {100 * fraction:.4g}%"] = {m: statistics.fmean(cell.final) for m, cell in cells.items()}
    return found


def friedman(accuracies: np.ndarray) -> float:
    """Return the p of Friedman's test over (blocks, methods); 1 where no block tells any two apart."""
    if (accuracies == accuracies[:, :1]).all():
        return 1.0
    return float(stats.friedmanchisquare(*accuracies.T).pvalue)


def holm(p: list[float]) -> list[float]:
    """Return p-values corrected for being several (Holm 1979), in their order."""
    order = np.argsort(p)
    steps = [min(1.0, (len(p) - place) * p[index]) for place, index in enumerate(order)]
    corrected = np.maximum.accumulate(steps)
    return [float(corrected[list(order).index(index)]) for index in range(len(p))]


def _pairs(methods: list[str], accuracies: np.ndarray) -> dict[tuple[str, str], float]:
    pairs = list(itertools.combinations(range(len(methods)), 2))
    differences = [accuracies[:, i] - accuracies[:, j] for i, j in pairs]
    raw = [float(stats.wilcoxon(d, zero_method="zsplit").pvalue) if d.any() else 1.0 for d in differences]
    return {(methods[i], methods[j]): p for (i, j), p in zip(pairs, holm(raw), strict=True)}


def _most_cells(blocks: list[dict[str, float]]) -> list[str]:
    """Return the methods, most often found first, whose common blocks have the most cells in all."""
    counts = {method: sum(method in cells for cells in blocks) for cells in blocks for method in cells}
    by_count = sorted(counts, key=lambda method: (-counts[method], method))
    choices = [by_count[:count] for count in range(FEWEST_METHODS, len(by_count) + 1)]
    common = [sum(set(choice) <= cells.keys() for cells in blocks) for choice in choices]
    cells = [
        len(choice) * count if count >= FEWEST_BLOCKS else 0 for choice, count in zip(choices, common, strict=True)
    ]
    return choices[cells.index(max(cells))] if choices else by_count


def in_words(comparison: Comparison) -> str:
    """Return the comparison as Markdown: mean ranks, and of each method whether it is separable from Uniform."""
    best = sorted(zip(comparison.ranks, comparison.methods, strict=True))
    rows = []
    for rank, method in best:
        said = ""
        if "Uniform" in comparison.methods and method != "Uniform":
            said = "separable" if comparison.separable(method, "Uniform") else "not separable"
        rows.append([method, f"{rank:.2f}", said])
    found = "differ" if comparison.p < LEVEL else "are not separable"
    return (
        f"## {len(comparison.methods)} methods over {len(comparison.blocks)} blocks\n\n"
        f"Mean rank by final accuracy (mean over seeds), 1 for the best. Friedman: p = {comparison.p:.2g}, mean ranks "
        f"{found} at {LEVEL:g}. From Uniform: Wilcoxon's signed-rank test of each of "
        f"{len(comparison.pairs)} pairs, Holm's correction. Nemenyi's critical difference of mean ranks: "
        f"{comparison.critical_difference:.2f}. Blocks that share a data set, or subsets tested on several networks, "
        f"are not independent, and p-values then too small.\n\n"
        + markdown(["Method", "Mean rank", "From Uniform"], rows)
        + "\nBlocks: "
        + "; ".join(comparison.blocks)
        + ".\n"
    )


def critical_difference_diagram(comparison: Comparison, folder: Path) -> list[Path]:
    """Draw mean ranks on a line, and bars over methods that differ by less than the critical difference."""
    order = np.argsort(comparison.ranks)
    ranks, names = comparison.ranks[order], [comparison.methods[index] for index in order]
    count, width = len(names), comparison.critical_difference
    bars = _not_separable(ranks, width)
    figure, axes = plt.subplots(figsize=(7, 1.4 + 0.22 * count + 0.1 * len(bars)), layout="constrained")
    axes.hlines(0, 1, count, color="black", linewidth=1)
    for tick in range(1, count + 1):
        axes.vlines(tick, 0, 0.15, color="black", linewidth=1)
        axes.text(tick, 0.25, str(tick), ha="center", va="bottom", fontsize=8)
    axes.hlines(1.0, 1, 1 + width, color="black", linewidth=2)
    axes.text(1 + width / 2, 1.1, f"critical difference {width:.2f}", ha="center", va="bottom", fontsize=8)
    for number, (first, last) in enumerate(bars):
        axes.hlines(-0.3 - 0.3 * number, ranks[first] - 0.04, ranks[last] + 0.04, color="0.4", linewidth=3)
    below = -0.5 - 0.3 * len(bars)
    for place, (rank, name) in enumerate(zip(ranks, names, strict=True)):
        left = place < (count + 1) // 2
        height = below - 0.5 * (place if left else count - 1 - place)
        end = 0.8 if left else count + 0.2
        axes.plot([rank, rank, end], [0, height, height], color="black", linewidth=0.8)
        axes.text(end, height, f" {name} ({rank:.2f}) ", ha="right" if left else "left", va="center", fontsize=8)
    axes.set_xlim(-0.6, count + 1.6)
    axes.set_ylim(top=1.9)  # above the words of the critical difference
    axes.set_axis_off()
    axes.set_title(f"Mean rank over {len(comparison.blocks)} blocks (Nemenyi, {LEVEL:g})", fontsize=10)
    return save_figure(figure, folder, "critical-difference")


def _not_separable(ranks: np.ndarray, width: float) -> list[tuple[int, int]]:
    """Return the longest runs of sorted ranks, as first and last position, that span less than `width`."""
    runs = []
    for first in range(len(ranks)):
        last = int(np.searchsorted(ranks, ranks[first] + width, side="left")) - 1
        if last > first and not (runs and runs[-1][1] >= last):
            runs.append((first, last))
    return runs
