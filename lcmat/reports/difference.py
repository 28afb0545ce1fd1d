"""How far each method is from Uniform, with intervals: a table, and dots with intervals by fraction, sorted.

Methods differ less than seeds do, so accuracies side by side say little; differences seed by seed, in which a seed's
initial weights and order of batches cancel, say more.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lcmat.errors import UserError, suggest
from lcmat.files import write_text
from lcmat.reports import tables
from lcmat.reports.dots import dots_figure, panel, side
from lcmat.reports.found import Found
from lcmat.reports.table_text import csv_text, in_words, markdown
from lcmat.reports.tables import Paired, Table

BASELINE = "Uniform"


@dataclass(frozen=True)
class Differences:
    """Final accuracy minus the baseline's in percentage points, by row and fraction, of the rows that have one."""

    table: Table
    baseline: str
    cells: dict[tuple[str, float], Paired]

    @property
    def fractions(self) -> list[float]:
        """Columns, in order."""
        return sorted({fraction for _, fraction in self.cells})

    @property
    def rows(self) -> list[str]:
        """Row names, from the largest mean over fractions to the smallest."""
        means: dict[str, list[float]] = {}
        for (row, _), cell in self.cells.items():
            means.setdefault(row, []).append(cell.mean)
        return sorted(means, key=lambda row: -statistics.fmean(means[row]))

    def of(self, fraction: float) -> dict[str, Paired]:
        """Return the differences at a fraction by row, the largest first."""
        here = {row: cell for (row, where), cell in self.cells.items() if where == fraction}
        return dict(sorted(here.items(), key=lambda item: -item[1].mean))


def difference(found: Found, baseline: str = BASELINE) -> list[Path]:
    """Each row's final accuracy minus `baseline`'s, seed by seed, with a 95% interval: tables, and a figure for each.

    What cannot be told apart from the baseline is grey in the figure, and not bold in the table.
    """
    made = [differences(table, baseline) for table in tables.accuracy_tables(found.there)]
    made = [one for one in made if one.cells]
    if not made:
        rows = dict.fromkeys(row for table in tables.accuracy_tables(found.there) for row, _ in table.cells)
        raise UserError(f"report difference: no runs to compare with those of '{baseline}'{suggest(baseline, rows)}")
    paths = [found.path(suffix, "-difference") for suffix in (".md", ".csv")]
    write_text(paths[0], found.heading() + "\n".join(map(_markdown, made)))
    write_text(paths[1], _csv(made))
    more = tables.told_apart([(one.table.title, one.table) for one in made])
    for number, one in enumerate(made):
        name = f"{found.name}-difference" + (f"-{number + 1}" if number else "")
        paths += draw_differences(one, found.titled(f"{one.table.title}{more[number]}"), found.figures, name)
    return paths


def differences(table: Table, baseline: str) -> Differences:
    """Return the differences of a table's rows from one of them at the same fraction, over the seeds that both have."""
    cells = {}
    for (row, fraction), cell in table.ordered:
        other = table.cells.get((baseline, fraction))
        against = None if other is None or row == baseline else tables.paired(cell, other)
        if against is not None:
            cells[row, fraction] = against
    return Differences(table, baseline, cells)


def _markdown(made: Differences) -> str:
    most = max(cell.count for cell in made.cells.values())

    def shown(key: tuple[str, float]) -> str:
        if key not in made.cells:
            return "–"
        cell = made.cells[key]
        text = f"**{in_words(cell)}**" if side(cell) else in_words(cell)
        return text if cell.count == most else f"{text} ({cell.count})"

    rows = [[row, *(shown((row, fraction)) for fraction in made.fractions)] for row in made.rows]
    header = [f"Minus {made.baseline}", *(f"{100 * fraction:.4g}%" for fraction in made.fractions)]
    caption = made.table.caption[0].upper() + made.table.caption[1:]
    return (
        f"## {made.table.title}\n\nTest accuracy after the last epoch minus {made.baseline}'s in percentage points: "
        f"the mean of the differences over {most} seeds (in brackets, where fewer) and half the width of its 95% "
        f"interval by Student's t; bold where the interval does not contain 0. Each interval is for itself: of twenty "
        f"methods that do not differ from {made.baseline}, one is bold. {caption}.\n\n{markdown(header, rows)}"
    )


def _csv(made: list[Differences]) -> str:
    rows = []
    for one in made:
        for fraction in one.fractions:
            for row, cell in one.of(fraction).items():
                low, high = (None, None) if cell.half is None else (cell.mean - cell.half, cell.mean + cell.half)
                rows.append([one.table.title, fraction, row, cell.count, cell.mean, low, high, side(cell)])
    return csv_text(["setting", "fraction", "method", "seeds", "difference", "low", "high", "side"], rows)


def draw_differences(made: Differences, title: str, folder: Path, name: str) -> list[Path]:
    """Draw a panel for each fraction: a dot and an interval for each row, the best at the top; grey: not told apart."""
    panels = []
    for fraction in made.fractions:
        base = statistics.fmean(made.table.cells[made.baseline, fraction].final)
        single = ", one seed" * all(cell.count == 1 for cell in made.of(fraction).values())
        panels.append(panel(f"{100 * fraction:.4g}%\n{made.baseline} {base:.1f}%{single}", made.of(fraction)))
    counts = [cell.count for cell in made.cells.values()]
    full = f"; all data: {statistics.fmean(made.table.full.final):.1f}%" if made.table.full else ""
    words = f"{title}\n{words_of(made.baseline, counts)}{full}"
    return dots_figure(panels, words, f"test accuracy minus {made.baseline}'s (points)", folder, name)


def words_of(baseline: str, counts: Collection[int], seeds: str = "seeds") -> str:
    """Return what the dots are, of differences over so many seeds."""
    least, most = min(counts), max(counts)
    many = f"{least}" if least == most else f"{least} to {most}"
    if most == 1:
        return f"differences of single {seeds}, which tell nothing apart from {baseline}"
    return f"mean difference over {many} {seeds}, 95% interval; grey: not separable from {baseline}"
