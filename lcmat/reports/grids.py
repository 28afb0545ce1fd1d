"""What comes of a grid: tables as Markdown, CSV and LaTeX, figures as PNG and PDF, from records alone.

Each report is a function of a Found; its keyword arguments are the options that a grid's file may give.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lcmat.command_line.grids import Grid
from lcmat.command_line.planning import Job
from lcmat.condensation.synthetic import Synthetic
from lcmat.errors import UserError
from lcmat.files import write_text
from lcmat.records.record import read_record
from lcmat.reports import grid_figures, tables
from lcmat.reports.continual import continual_csv, continual_figure, continual_markdown
from lcmat.reports.figures import accuracy_figure
from lcmat.reports.lbcs import lbcs_csv, lbcs_markdown
from lcmat.reports.table_text import (
    accuracy_csv,
    accuracy_latex,
    accuracy_markdown,
    emphasised,
    in_words,
    latex,
    latex_cell,
    markdown,
    spread,
)
from lcmat.runs.condensation import is_condensation
from lcmat.runs.queue import record_paths
from lcmat.selection.select import Subset


@dataclass(frozen=True)
class Found:
    """A grid's jobs, with the record of each (None where there is none), and the folder that reports go to."""

    grid: Grid
    jobs: list[Job]
    records: list[dict | None]
    save_path: Path

    @property
    def there(self) -> list[dict]:
        """The records that are there."""
        return [record for record in self.records if record is not None]

    @property
    def missing(self) -> int:
        """How many are not."""
        return len(self.records) - len(self.there)

    def path(self, suffix: str, name: str = "") -> Path:
        """Return where a table goes."""
        return self.save_path / "tables" / f"{self.grid.name}{name}{suffix}"

    @property
    def figures(self) -> Path:
        """The folder of figures."""
        return self.save_path / "figures"

    def heading(self) -> str:
        """Return the title, and what is missing."""
        lacking = f"\n\n{self.missing} of {len(self.records)} runs are missing." if self.missing else ""
        return f"# {self.grid.title}{lacking}\n\n"


def write(grid: Grid, planned: list[Job], save_path: Path) -> list[Path]:
    """Write all reports of a grid and return the files. Raises UserError if none of its runs is recorded."""
    found = Found(grid, planned, [read_record(path) for path in record_paths(planned)], save_path)
    if not found.there:
        raise UserError(f"none of the {len(planned)} runs of {grid.name} is recorded below {save_path}; run it first")
    return [path for name, details in grid.reports.items() for path in REPORTS[name](found, **details)]


def accuracy(found: Found) -> list[Path]:
    """Accuracy by method and fraction, beside the published figures, and a figure of it."""
    made = _with_missing(tables.accuracy_tables(found.there), found)
    paths = [found.path(suffix) for suffix in (".md", ".csv", ".tex")]
    write_text(paths[0], found.heading() + accuracy_markdown(made))
    write_text(paths[1], accuracy_csv(made))
    write_text(paths[2], accuracy_latex(made))
    for number, table in enumerate(table for table in made if len(table.fractions) > 1):
        slug = found.grid.name + (f"-{number + 1}" if number else "")
        paths += accuracy_figure(replace(table, slug=slug), found.figures)
    return paths


def _with_missing(made: list[tables.Table], found: Found) -> list[tables.Table]:
    """Note in each table which cells the grid has, so that missing ones show as missing."""
    if len(made) != 1:  # which of several tables a missing run belongs to is not known from records alone
        return made
    wanted: dict[tuple[str, float], set[int]] = defaultdict(set)
    planned = [
        {"selection": job.run.method.name, "fraction": job.config["fraction"], "config": job.config}
        for job in found.jobs
    ]
    options = tables.options_by_fraction(planned)
    for job, record in zip(found.jobs, planned, strict=True):
        row = tables.row_name(record, tables.are_several(options[record["selection"]]))
        wanted[row, job.config["fraction"]].add(job.run.seed)
    return [replace(made[0], wanted={key: len(seeds) for key, seeds in wanted.items()})]


def cross(found: Found) -> list[Path]:
    """Accuracy by fraction and method (rows) and by the network that was trained on the subset (Table 2)."""
    published = tables.read_published()
    there: dict[tuple, dict[int, dict]] = defaultdict(dict)
    wanted: dict[tuple, set[int]] = defaultdict(set)
    for job, record in zip(found.jobs, found.records, strict=True):
        key = (job.config["fraction"], job.run.method.name, job.config["test_model"])
        wanted[key].add(job.run.seed)
        if record is not None:
            there[key][record["seed"]] = record
    cells = {key: tables.cell_of(here, published) for key, here in there.items()}
    fractions = sorted({key[0] for key in wanted})
    methods, networks = (list(dict.fromkeys(key[place] for key in wanted)) for place in (1, 2))
    marks = {}
    for fraction, network in itertools.product(fractions, networks):
        marks |= tables.first_and_second(
            {key: c for key, c in cells.items() if (key[0], key[2]) == (fraction, network)}
        )
    header = ["Fraction", "Method", *networks]
    shown, typeset, beside, numbers = [], [], [], []
    for fraction, method in itertools.product(fractions, methods):
        keys = [(fraction, method, network) for network in networks]
        row = [(cells.get(key), marks.get(key), "missing" if key in wanted else "–") for key in keys]
        lead = [f"{100 * fraction:.4g}%", method]
        shown.append([*lead, *(emphasised(spread(c.final), rank) if c else absent for c, rank, absent in row)])
        typeset.append([*lead, *(latex_cell(spread(c.final), rank) if c else absent for c, rank, absent in row)])
        for network, (cell, _, _) in zip(networks, row, strict=True):
            if cell is None:
                continue
            other, figure = cells.get((fraction, "Uniform", network)), cell.published
            against = None if method == "Uniform" or other is None else tables.paired(cell, other)
            said = "" if figure is None else f"{figure.mean:.2f}"
            beside.append([*lead, network, f"{len(cell.by_seed)} of {len(wanted[fraction, method, network])}"])
            beside[-1] += [spread(cell.final), spread(cell.best), in_words(against), said]
            numbers.append([fraction, method, network, len(cell.final)])
            numbers[-1] += [*tables.mean_std(cell.final), *tables.mean_std(cell.best)]
            numbers[-1] += [against and against.mean, against and against.half, figure and figure.mean]
    first = found.there[0]
    text = (
        f"Subsets of {first['dataset']} ({first['selection_model']} where a network selected); test accuracy (%) after "
        f"the last epoch of "
        f"each network trained on the same subsets, mean ± standard deviation over seeds. Best of a column and "
        f"fraction in bold, second underlined.\n\n{markdown(header, shown)}\n"
        "Each cell: final and best accuracy, the difference from Uniform seed by seed (95% interval), and the "
        f"published accuracy{said_of(c.published for c in cells.values() if c)}.\n\n"
    )
    columns = ["Fraction", "Method", "Network", "Seeds", "Final", "Best", "Final − Uniform", "Published"]
    names = ["fraction", "method", "network", "n", "final_mean", "final_std", "best_mean", "best_std"]
    names += ["minus_uniform", "minus_uniform_95", "published_mean"]
    paths = [found.path(suffix) for suffix in (".md", ".csv", ".tex")]
    write_text(paths[0], found.heading() + text + markdown(columns, beside))
    write_text(paths[1], _csv(names, numbers))
    write_text(paths[2], latex(header, typeset, texts=2))
    return paths


def said_of(published: Iterable[tables.Published | None]) -> str:
    """Say which of an epoch's accuracies published figures are, if there are any."""
    kinds = {figure.last for figure in published if figure is not None}
    words = {True: "after the last epoch", False: "best over all epochs"}
    return "".join(f" ({words[kind]})" for kind in kinds) if len(kinds) == 1 else ""


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
    methods = list(dict.fromkeys(job.run.method.name for job in found.jobs))
    wins, margins, counts = _wins(list(cases.values()), methods)
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
    write_text(paths[1], _csv(header, numbers))
    return paths + grid_figures.heatmap(methods, wins, margins, counts, found.grid, found.figures)


def _wins(cases: list[dict[str, float]], methods: list[str]) -> tuple[dict, dict, dict]:
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
                row.append("missing" if cell is None else spread(cell.final))
                if cell is not None:
                    numbers.append([method, fraction, value, len(cell.final), *tables.mean_std(cell.final),
                                    against and against.mean, against and against.half])  # fmt: skip
            rows.append(row)
    text = (
        f"Test accuracy (%) after the last epoch, mean ± standard deviation over seeds, by {symbol}.\n\n"
        f"{markdown(['Method', 'Fraction', *(f'{symbol} = {value:g}' for value in values)], rows)}"
    )
    for (method, fraction), here in sorted(others.items()):
        text += f"\n{method} at {100 * fraction:.4g}%: {spread(tables.cell_of(here).final)}.\n"
    paths = [found.path(".md"), found.path(".csv")]
    write_text(paths[0], found.heading() + text)
    header = ["method", "fraction", option, "n", "final_mean", "final_std", f"minus_{values[0]:g}", "95"]
    write_text(paths[1], _csv(header, numbers))
    lines = {key: tables.cell_of(here) for key, here in cells.items()}
    beside = {key: tables.cell_of(here) for key, here in others.items()}
    return paths + grid_figures.sensitivity(lines, beside, symbol, found.grid, found.figures)


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
    write_text(paths[1], _csv(header, numbers))
    drawn = any(row[1] < 1 for row in numbers)
    return paths + (grid_figures.wallclock(numbers, found.grid, found.figures) if drawn else [])


def images(found: Found, fraction: float | None = None, seed: int | None = None) -> list[Path]:
    """A contact sheet of what each method chose or made, one row for each class (Figure 7); of the first cell, if none
    is named.
    """
    there = [(job, r) for job, r in zip(found.jobs, found.records, strict=True) if r is not None]
    if not there:
        raise UserError(f"{found.grid.name}: no run is recorded")
    fraction = there[0][1]["fraction"] if fraction is None else fraction
    seed = there[0][1]["seed"] if seed is None else seed
    here = {r["selection"]: (job, r) for job, r in there if (r["fraction"], r["seed"]) == (fraction, seed)}
    if not here:
        raise UserError(f"{found.grid.name}: no run of fraction {fraction:g} and seed {seed} is recorded")
    paths = record_paths([job for job, _ in here.values()])
    dataset = next(iter(here.values()))[0].bench.dataset
    pictures = {}
    for (name, (_, record)), path in zip(here.items(), paths, strict=True):
        if "indices" in record:
            subset = Subset.load(path.with_suffix(".npz"))
            pictures[name] = grid_figures.pictures_of(dataset, subset), subset.classes
        else:
            made = Synthetic.load(path.with_suffix(".pt"))
            pictures[name] = made.images.clamp(0, 1).mul(255).round().byte(), made.labels.numpy()
    title = f"{dataset.name}, {100 * fraction:.4g}%, seed {seed}"
    name = found.grid.name + "-images" * (len(found.grid.reports) > 1)
    return grid_figures.contact_sheet(pictures, dataset.num_classes, title, name, found.figures)


def _csv(header: list[str], rows: list[list]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([header, *rows])
    return out.getvalue()


def continual(found: Found) -> list[Path]:
    """Fig. 5: accuracy on the classes seen, after each step; a panel for selection and one for condensation."""
    paths = [found.path(suffix) for suffix in (".md", ".csv")]
    write_text(paths[0], found.heading() + continual_markdown(found.there))
    write_text(paths[1], continual_csv(found.there))
    condensing = {job.run.method.name for job in found.jobs if is_condensation(job.run)}
    title = f"{found.grid.title}: mean ± standard deviation"
    paths += continual_figure(found.there, lambda name: name in condensing, title, found.figures, found.grid.name)
    return paths


def lbcs(found: Found) -> list[Path]:
    """Best accuracy and size at each k, beside the published figures of the LBCS paper."""
    paths = [found.path(suffix) for suffix in (".md", ".csv")]
    write_text(paths[0], found.heading() + lbcs_markdown(found.there))
    write_text(paths[1], lbcs_csv(found.there))
    return paths


REPORTS: dict[str, Callable[..., list[Path]]] = {
    "accuracy": accuracy,
    "cross": cross,
    "heatmap": heatmap,
    "sensitivity": sensitivity,
    "wallclock": wallclock,
    "images": images,
    "continual": continual,
    "lbcs": lbcs,
}
