"""What comes of a grid: tables as Markdown, CSV and LaTeX, figures as PNG and PDF, from records alone.

Each report is a function of a Found; its keyword arguments are the options that a grid's file may give.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from lcmat.files import write_text
from lcmat.reports import grid_figures, tables
from lcmat.reports.accuracy_figures import accuracy_figure, is_drawn
from lcmat.reports.continual import continual_csv, continual_figure, continual_markdown
from lcmat.reports.cross import cross
from lcmat.reports.difference import difference
from lcmat.reports.found import Found, Report
from lcmat.reports.lbcs import lbcs_csv, lbcs_markdown
from lcmat.reports.table_text import (
    accuracy_csv,
    accuracy_latex,
    accuracy_markdown,
    csv_text,
    markdown,
    mean_and_std,
)
from lcmat.reports.time_to_accuracy import time_to_accuracy
from lcmat.reports.tuning import tuning


def accuracy(found: Found, published: str = "") -> list[Path]:
    """Accuracy by method and fraction, beside the published figures; and a figure, of many methods minus Uniform.

    published: whose figures stand first where several sources have one, as the beginning of their name.
    """
    made = _with_missing(tables.accuracy_tables(found.there, published), found)
    paths = [found.path(suffix) for suffix in (".md", ".csv", ".tex")]
    write_text(paths[0], found.heading() + accuracy_markdown(made))
    write_text(paths[1], accuracy_csv(made))
    write_text(paths[2], accuracy_latex(made))
    drawn = [table for table in made if is_drawn(table)]
    more = tables.told_apart([(table.title, table) for table in drawn])
    for number, table in enumerate(drawn):
        title, suffix = found.titled(f"{table.title}{more[number]}"), f"-{number + 1}" if number else ""
        paths += accuracy_figure(replace(table, slug=found.name), title, found.figures, suffix)
    return paths


def _with_missing(made: list[tables.Table], found: Found) -> list[tables.Table]:
    """Note in each table which cells the grid has, so that missing ones show as missing."""
    if len(made) != 1:  # which of several tables a missing run belongs to is not known from records alone
        return made
    wanted: dict[tuple[str, float], set[int]] = defaultdict(set)
    planned = [
        {"selection": config["selection"], "fraction": config["fraction"], "config": config} for config in found.configs
    ]
    for config, row in zip(found.configs, tables.row_names(planned), strict=True):
        wanted[row, config["fraction"]].add(config["seed"])
    return [replace(made[0], wanted={key: len(seeds) for key, seeds in wanted.items()})]


def heatmap(found: Found) -> list[Path]:
    """How often each method beats each other over all networks f_T, and by how much (Figure 3).

    A case is one network that selects (its recipe and seed) and one fraction. Uniform, which reads no network, stands
    beside every network of its seed.
    """
    cases: dict[tuple, dict[str, float]] = defaultdict(dict)
    free: dict[tuple, dict[str, float]] = defaultdict(dict)
    for record in found.there:
        network = record["config"].get("selection_network")
        place = (record["fraction"], record["seed"])
        if network is None:
            free[place][record["selection"]] = record["test_accuracy"]
        else:
            recipe = json.dumps({k: v for k, v in network.items() if k != "seed"}, sort_keys=True)
            cases[(recipe, *place)][record["selection"]] = record["test_accuracy"]
    for (_, *place), case in cases.items():
        case |= free.get(tuple(place), {})
    methods = list(dict.fromkeys(config["selection"] for config in found.configs))
    wins, margins, counts = wins_and_margins(list(cases.values()), methods)
    rows = [
        [a, *("" if a == b else f"{wins[a, b]:g} of {counts[a, b]} ({margins[a, b]:+.1f})" for b in methods)]
        for a in methods
    ]
    text = (
        f"How many times the method of a row beats that of a column (equal accuracies count half), of how many cases, "
        f"and its mean margin in percentage points, over {len(cases)} cases: networks f_T of different recipes and "
        f"seeds, by fraction. Test accuracy after the last epoch.\n\n{markdown(['', *methods], rows)}"
    )
    paths = [found.path(".md"), found.path(".csv")]
    write_text(paths[0], found.heading() + text)
    header = ["method", "other", "wins", "cases", "mean_margin"]
    numbers = [[a, b, wins[a, b], counts[a, b], margins[a, b]] for a in methods for b in methods if a != b]
    write_text(paths[1], csv_text(header, numbers))
    return paths + grid_figures.heatmap(methods, wins, margins, counts, (found.name, found.title), found.figures)


def wins_and_margins(cases: list[dict[str, float]], methods: list[str]) -> tuple[dict, dict, dict]:
    """Return for each pair of methods the wins of the first (a draw is half a win), its mean margin, and the cases."""
    wins, margins, counts = {}, {}, {}
    for a, b in itertools.permutations(methods, 2):
        differences = [case[a] - case[b] for case in cases if a in case and b in case]
        wins[a, b] = sum(1.0 if d > 0 else 0.5 if d == 0 else 0.0 for d in differences)
        margins[a, b] = statistics.fmean(differences) if differences else 0.0
        counts[a, b] = len(differences)
    return wins, margins, counts


def sensitivity(found: Found, option: str = "rho") -> list[Path]:
    """Accuracy against an option of a method, a panel for each fraction (Figure 4)."""
    cells: dict[tuple[str, float, float], dict[int, dict]] = defaultdict(dict)
    others: dict[tuple[str, float], dict[int, dict]] = defaultdict(dict)
    for record in found.there:
        value = record["config"]["options"].get(option)
        if value is None:
            others[record["selection"], record["fraction"]][record["seed"]] = record
        else:
            cells[record["selection"], record["fraction"], float(value)][record["seed"]] = record
    values = sorted({value for _, _, value in cells})
    fractions = sorted({fraction for _, fraction, _ in cells})
    symbol = "ρ" if option == "rho" else option
    rows, numbers = [], []
    for method in dict.fromkeys(name for name, _, _ in cells):
        for fraction in fractions:
            row = [method, f"{100 * fraction:.4g}%"]
            base = tables.cell_of(cells.get((method, fraction, values[0]), {}))
            for value in values:
                cell = tables.cell_of(cells.get((method, fraction, value), {}))
                against = None if cell is None or base is None or value == values[0] else tables.paired(cell, base)
                row.append("missing" if cell is None else mean_and_std(cell.final))
                if cell is not None:
                    numbers.append([method, fraction, value, len(cell.final), *tables.mean_std(cell.final),
                                    against and against.mean, against and against.half])  # fmt: skip
            rows.append(row)
    text = (
        f"Test accuracy (%) after the last epoch, mean ± standard deviation over seeds, by {symbol}.\n\n"
        f"{markdown(['Method', 'Fraction', *(f'{symbol} = {value:g}' for value in values)], rows)}"
    )
    for (method, fraction), here in sorted(others.items()):
        text += f"\n{method} at {100 * fraction:.4g}%: {mean_and_std(tables.cell_of(here).final)}.\n"
    paths = [found.path(".md"), found.path(".csv")]
    write_text(paths[0], found.heading() + text)
    header = ["method", "fraction", option, "n", "final_mean", "final_std", f"minus_{values[0]:g}", "95"]
    write_text(paths[1], csv_text(header, numbers))
    lines = {key: tables.cell_of(here) for key, here in cells.items()}
    beside = {key: tables.cell_of(here) for key, here in others.items()}
    return paths + grid_figures.sensitivity(lines, beside, symbol, (found.name, found.title), found.figures)


def wallclock(found: Found) -> list[Path]:
    """Seconds of pretraining, signals and selection by method and fraction, beside the published ones (D.2)."""
    published = tables.read_published("seconds, pretraining and selection")
    cells: dict[tuple[str, float], list[dict]] = defaultdict(list)
    for record in found.there:
        cells[record["selection"], record["fraction"]].append(record)
    rows, numbers = [], []
    for method, fraction in sorted(cells, key=lambda key: (tables.row_order(key[0]), key[1])):
        here = cells[method, fraction]
        parts = [
            statistics.median(r["seconds"].get(name, 0.0) for r in here) for name in ("pretrain", "signals", "select")
        ]
        figure = published.get((here[0]["dataset"], here[0]["selection_model"], "", method, fraction))
        said = "" if figure is None else f"{figure.mean:.2f}"
        rows.append([method, f"{100 * fraction:.4g}%", *(f"{part:.2f}" for part in parts), f"{sum(parts):.2f}", said])
        numbers.append([method, fraction, len(here), *parts, sum(parts), figure and figure.mean])
    machines = sorted(
        {f"{r['environment']['processor']}, {r['environment']['threads']} thread(s)" for r in found.there}
    )
    text = (
        f"Median seconds over seeds, on {'; '.join(machines)}. Pretraining counts once for each network, though the "
        f"methods of a seed share it. The paper's figures: pretraining and selection, on its GPU.\n\n"
        + markdown(["Method", "Fraction", "Pretraining", "Signals", "Selection", "Sum", "Published sum"], rows)
    )
    paths = [found.path(".md", "-seconds"), found.path(".csv", "-seconds")]
    write_text(paths[0], found.heading() + text)
    header = ["method", "fraction", "n", "pretrain", "signals", "select", "sum", "published"]
    write_text(paths[1], csv_text(header, numbers))
    drawn = any(row[1] < 1 for row in numbers)
    return paths + (grid_figures.wallclock(numbers, (found.name, found.title), found.figures) if drawn else [])


def continual(found: Found) -> list[Path]:
    """Fig. 5: accuracy on the classes seen, after each step; a panel for selection and one for condensation."""
    paths = [found.path(suffix) for suffix in (".md", ".csv")]
    write_text(paths[0], found.heading() + continual_markdown(found.there))
    write_text(paths[1], continual_csv(found.there))
    condensing = {config["selection"] for config in found.configs if "condensing" in config}
    paths += continual_figure(found.there, lambda name: name in condensing, found.title, found.figures, found.name)
    return paths


def lbcs(found: Found) -> list[Path]:
    """Best accuracy and size at each k, beside the published figures of the LBCS paper."""
    paths = [found.path(suffix) for suffix in (".md", ".csv")]
    write_text(paths[0], found.heading() + lbcs_markdown(found.there))
    write_text(paths[1], lbcs_csv(found.there))
    return paths


REPORTS: dict[str, Report] = {
    "accuracy": accuracy,
    "cross": cross,
    "difference": difference,
    "heatmap": heatmap,
    "sensitivity": sensitivity,
    "time_to_accuracy": time_to_accuracy,
    "tuning": tuning,
    "wallclock": wallclock,
    "continual": continual,
    "lbcs": lbcs,
}
