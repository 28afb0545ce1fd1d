"""Accuracy by fraction and method (rows) and by the network that was trained on the subset (LCMat Table 2)."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lcmat.files import write_text
from lcmat.reports import tables
from lcmat.reports.difference import words_of
from lcmat.reports.dots import Panel, dots_figure, panel
from lcmat.reports.found import Found
from lcmat.reports.table_text import csv_text, emphasised, in_words, latex, latex_cell, markdown, mean_and_std

Key = tuple[float, str, str]  # fraction, method, network


@dataclass(frozen=True)
class Cells:
    """The cells that are there, and for each that was asked for its seeds; both by fraction, method and network."""

    there: dict[Key, tables.Cell]
    wanted: dict[Key, set[int]]

    @property
    def rows(self) -> list[tuple[float, str]]:
        """Fractions, and methods in each, in order."""
        fractions, methods = sorted({key[0] for key in self.wanted}), dict.fromkeys(key[1] for key in self.wanted)
        return list(itertools.product(fractions, methods))

    @property
    def networks(self) -> list[str]:
        """Columns, in order."""
        return list(dict.fromkeys(key[2] for key in self.wanted))

    def marks(self) -> dict[Key, int]:
        """Return which cells are the best (1) and second (2) of their fraction and network."""
        found: dict[Key, int] = {}
        for fraction, network in itertools.product({fraction for fraction, _ in self.rows}, self.networks):
            here = {key: cell for key, cell in self.there.items() if (key[0], key[2]) == (fraction, network)}
            found |= tables.first_and_second(here)
        return found

    def minus_uniform(self, key: Key) -> tables.Paired | None:
        """Return a cell's difference from Uniform's; None for Uniform itself, and where there is none."""
        fraction, method, network = key
        other = self.there.get((fraction, "Uniform", network))
        return None if method == "Uniform" or other is None else tables.paired(self.there[key], other)


def cross(found: Found) -> list[Path]:
    """Write the table as Markdown, CSV and LaTeX, and each cell beside Uniform's and the published one; and draw it."""
    cells = _cells(found)
    paths = [found.path(suffix) for suffix in (".md", ".csv", ".tex")]
    write_text(paths[0], found.heading() + _markdown(cells, found.there[0]))
    write_text(paths[1], _csv(cells))
    header, rows = _grid(cells, latex_cell)
    write_text(paths[2], latex(header, rows, texts=2))
    panels = panels_of(cells)
    if not panels:
        return paths
    words = words_of("Uniform", [pair.count for key in _present(cells) if (pair := cells.minus_uniform(key))])
    axis = "minus Uniform's (points)"
    return paths + dots_figure(panels, f"{found.title}\n{words}", axis, found.figures, f"{found.name}-difference")


def panels_of(cells: Cells) -> list[Panel]:
    """Return a panel for each network and fraction where methods stand beside Uniform: their differences from it."""
    made = []
    for network, fraction in itertools.product(cells.networks, dict.fromkeys(fraction for fraction, _ in cells.rows)):
        here = {method: key for key in _present(cells) for method in [key[1]] if key == (fraction, method, network)}
        against = {method: pair for method, key in here.items() if (pair := cells.minus_uniform(key)) is not None}
        if against:
            base = statistics.fmean(cells.there[here["Uniform"]].final)
            made.append(panel(f"{network}, {100 * fraction:.4g}%\nUniform {base:.1f}%", against))
    return made


def _cells(found: Found) -> Cells:
    published = tables.read_published()
    there: dict[Key, dict[int, dict]] = defaultdict(dict)
    wanted: dict[Key, set[int]] = defaultdict(set)
    for config, record in zip(found.configs, found.records, strict=True):
        key = (config["fraction"], config["selection"], config["test_model"])
        wanted[key].add(config["seed"])
        if record is not None:
            there[key][record["seed"]] = record
    return Cells({key: tables.cell_of(here, published) for key, here in there.items()}, wanted)


def _grid(cells: Cells, shown: tables.Shown) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of final accuracies; shown: called with a cell's text and its rank."""
    marks, rows = cells.marks(), []
    for fraction, method in cells.rows:
        row = [f"{100 * fraction:.4g}%", method]
        for network in cells.networks:
            key = (fraction, method, network)
            absent = "missing" if key in cells.wanted else "–"
            row.append(shown(mean_and_std(cells.there[key].final), marks.get(key)) if key in cells.there else absent)
        rows.append(row)
    return ["Fraction", "Method", *cells.networks], rows


def _present(cells: Cells) -> list[Key]:
    """Return the keys of the cells that are there, by row and column."""
    every = [(*row, network) for row, network in itertools.product(cells.rows, cells.networks)]
    return [key for key in every if key in cells.there]


def _markdown(cells: Cells, first: dict) -> str:
    beside = []
    for key in _present(cells):
        cell, figure = cells.there[key], cells.there[key].published
        said = "" if figure is None else f"{figure.mean:.2f}"
        row = [f"{100 * key[0]:.4g}%", *key[1:], f"{len(cell.by_seed)} of {len(cells.wanted[key])}"]
        beside.append(
            [*row, mean_and_std(cell.final), mean_and_std(cell.best), in_words(cells.minus_uniform(key)), said]
        )
    columns = ["Fraction", "Method", "Network", "Seeds", "Final", "Best", "Final − Uniform", "Published"]
    return (
        f"Subsets of {first['dataset']} ({first['selection_model']} where a network selected); test accuracy (%) after "
        f"the last epoch of "
        f"each network trained on the same subsets, mean ± standard deviation over seeds. Best of a column and "
        f"fraction in bold, second underlined.\n\n{markdown(*_grid(cells, emphasised))}\n"
        "Each cell: final and best accuracy, the difference from Uniform seed by seed (95% interval), and the "
        f"published accuracy{_said_of(cell.published for cell in cells.there.values())}.\n\n{markdown(columns, beside)}"
    )


def _csv(cells: Cells) -> str:
    rows = []
    for key in _present(cells):
        cell, figure, against = cells.there[key], cells.there[key].published, cells.minus_uniform(key)
        rows.append([*key, len(cell.final), *tables.mean_std(cell.final), *tables.mean_std(cell.best)])
        rows[-1] += [against and against.mean, against and against.half, figure and figure.mean]
    names = ["fraction", "method", "network", "n", "final_mean", "final_std", "best_mean", "best_std"]
    return csv_text([*names, "minus_uniform", "minus_uniform_95", "published_mean"], rows)


def _said_of(published: Iterable[tables.Published | None]) -> str:
    """Say which of an epoch's accuracies published figures are, if there are any."""
    kinds = {figure.last for figure in published if figure is not None}
    words = {True: "after the last epoch", False: "best over all epochs"}
    return "".join(f" ({words[kind]})" for kind in kinds) if len(kinds) == 1 else ""
