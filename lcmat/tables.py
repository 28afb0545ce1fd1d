"""Tables of accuracy, from records alone: mean ± standard deviation over seeds, beside the published figures."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from lcmat.files import write_text
from lcmat.records import read_records

PUBLISHED = Path(__file__).with_name("published.csv")
# What of a configuration all cells of one table share; the selection network is handled beside it.
SHARED = (
    "dataset", "dataset_fingerprint", "image_size", "validation_ratio", "balance", "test_model", "training",
    "test_interval", "test_fraction", "precision",
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A figure of the paper, in per cent."""

    table: str
    mean: float
    std: float | None


@dataclass(frozen=True)
class Cell:
    """The test accuracies of one method at one fraction over seeds, in per cent, and the published figure if any."""

    final: tuple[float, ...]
    best: tuple[float, ...]
    published: Published | None

    @property
    def difference(self) -> float | None:
        """Mean best accuracy minus the published one, which is a best accuracy, too."""
        return None if self.published is None else statistics.fmean(self.best) - self.published.mean


@dataclass(frozen=True)
class Table:
    """Cells by method and fraction, of runs that differ in nothing else but the seed."""

    title: str
    caption: str
    slug: str
    test_interval: int
    cells: dict[tuple[str, float], Cell]

    @property
    def methods(self) -> list[str]:
        """Row names, in order."""
        return sorted({method for method, _ in self.cells}, key=lambda name: (name != "Uniform", name == "Full", name))

    @property
    def fractions(self) -> list[float]:
        """Columns, in order."""
        return sorted({fraction for _, fraction in self.cells})

    @property
    def trainings(self) -> str:
        """What a cell stands for, in words."""
        counts = sorted({len(cell.final) for cell in self.cells.values()})
        number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return "1 training" if number == "1" else f"mean ± standard deviation of {number} trainings"


def accuracy_tables(records: Iterable[dict]) -> list[Table]:
    """Group records into tables: one for each setting of training and each way to obtain the selection network.

    A method that needs no such network (Uniform) stands in the table of each one. Methods run with several options
    have a row for each.
    """
    groups = defaultdict(list)
    for record in records:
        shared = {"selection_model": record["selection_model"], **{k: record["config"].get(k) for k in SHARED}}
        groups[json.dumps(shared, sort_keys=True)].append(record)
    published = read_published()
    tables = []
    for shared in sorted(groups):
        networks = sorted({_network(r) for r in groups[shared]} - {""}) or [""]
        tables += [_table([r for r in groups[shared] if _network(r) in ("", n)], published) for n in networks]
    return tables


def read_published() -> dict[tuple[str, str, str, str, float], Published]:
    """Return the paper's test accuracies by (dataset, selection model, test model, method, fraction).

    Where two tables of the paper give the same cell, the first stands. Full has no selection model.
    """
    figures: dict[tuple, Published] = {}
    with open(PUBLISHED, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["metric"] != "test accuracy %" or row["table"].startswith("LBCS"):
                continue
            key = (row["dataset"], row["selection_model"], row["test_model"], row["method"], float(row["fraction"]))
            std = float(row["std"]) if row["std"] else None
            figures.setdefault(key, Published(row["table"], float(row["mean"]), std))
    return figures


def _network(record: dict) -> str:
    """Return what determines the record's selection network but for the seed; "" if its method reads no signals."""
    network = record["config"].get("selection_network")
    if network is None:
        return ""
    return json.dumps({k: v for k, v in network.items() if k != "seed"}, sort_keys=True)


def _table(records: list[dict], published: dict) -> Table:
    option_sets = defaultdict(set)
    for record in records:
        option_sets[record["selection"]].add(json.dumps(record["config"].get("options", {}), sort_keys=True))
    runs = defaultdict(dict)
    # One run for each seed: a budget that comes to the same fraction is no second training.
    for record in sorted(records, key=lambda r: (r["seed"], r["config"].get("budget") is None)):
        several = len(option_sets[record["selection"]]) > 1
        runs[_row_name(record, several), record["fraction"]][record["seed"]] = record
    cells = {
        (row, fraction): Cell(
            tuple(r["test_accuracy"] for r in found.values()),
            tuple(r["best_test_accuracy"] for r in found.values()),
            _published(published, next(iter(found.values()))),
        )
        for (row, fraction), found in runs.items()
    }
    # A method with signals knows more about the setting than Uniform does.
    first = next((r for r in records if _network(r)), records[0])
    crossed = f", tested on {first['test_model']}" if first["test_model"] != first["selection_model"] else ""
    slug = f"{first['dataset'].replace(':', '-').replace('/', '-')}-{first['selection_model']}" + (
        f"-{first['test_model']}" if crossed else ""
    )
    title = f"{first['dataset']}, {first['selection_model']}{crossed}"
    return Table(title, _caption(first, records, option_sets), slug, first["test_interval"], cells)


def _row_name(record: dict, several: bool) -> str:
    if not several:
        return record["selection"]
    return f"{record['selection']} ({_named(record['config'].get('options', {}))})"


def _named(options: dict) -> str:
    return ", ".join(f"{'ρ' if name == 'rho' else name} = {value}" for name, value in options.items())


def _published(figures: dict, record: dict) -> Published | None:
    model = "" if record["selection"] == "Full" else record["selection_model"]
    return figures.get((record["dataset"], model, record["test_model"], record["selection"], record["fraction"]))


def _caption(first: dict, records: list[dict], option_sets: dict) -> str:
    """Say what the cells share, as far as the records tell (others' may hold less than ours)."""
    config, interval = first["config"], first["test_interval"]
    training = config.get("training", {})
    words = ("optimizer", "lr", "scheduler", "batch", "augmentation")
    details = [f"{name} {training[name]}" for name in words if name in training]
    details += [str(config["precision"])] if "precision" in config else []
    trained = f"trained {training['epochs']} epochs ({', '.join(details)})" if "epochs" in training else "trained"
    parts = [
        *_source(first, len({r["seed"] for r in records})),
        f"{trained}, "
        + (f"tested every {interval} epochs and after the last" if interval else "tested after the last"),
        *(
            f"{name}: {_named(json.loads(options))}"
            for name, sets in sorted(option_sets.items())
            for options in sets
            if len(sets) == 1 and options != "{}"
        ),
    ]
    if not config.get("balance", True):
        parts.append("selected over all classes together")
    if config.get("validation_ratio") is not None:
        parts.append(f"{config['validation_ratio']:g} held out for validation")
    if config.get("test_fraction", 1) != 1:
        parts.append(f"{config['test_fraction']:g} of the test images")
    return "; ".join(parts)


def _source(record: dict, seeds: int) -> list[str]:
    """Say where the network comes from that selects, if there is one."""
    network, facts = record["config"].get("selection_network"), record.get("selection_network") or {}
    if not network:
        return []
    if "pretrained_sha256" in network:
        return [f"one f_T, {seeds} training{'s' * (seeds != 1)} (given network `{facts.get('given')}`)"]
    details = [f"{name} {network[name]}" for name in ("optimizer", "lr", "batch") if name in network]
    return [f"a network f_T of its own for each seed, pretrained {network.get('epochs')} epochs ({', '.join(details)})"]


def accuracy_markdown(tables: list[Table]) -> str:
    """Return the tables as Markdown: accuracy by method and fraction, then the comparison with published figures."""
    return "\n".join(part for table in tables for part in (_main_part(table), _published_part(table)) if part)


def _main_part(table: Table) -> str:
    header = ["Method", *(f"{100 * fraction:.4g}%" for fraction in table.fractions)]
    rows = [
        [method, *(_mean_std(table.cells.get((method, fraction))) for fraction in table.fractions)]
        for method in table.methods
    ]
    return (
        f"## {table.title}\n\nTest accuracy (%) after the last epoch, {table.trainings}. "
        f"{table.caption[0].upper()}{table.caption[1:]}.\n\n{_markdown(header, rows)}"
    )


def _published_part(table: Table) -> str:
    header = ["Method", "Fraction", "n", "Final", "Best", "Published", "Best − published"]
    rows = []
    for method in table.methods:
        for fraction in table.fractions:
            cell = table.cells.get((method, fraction))
            if cell is None or cell.published is None:
                continue
            figure = cell.published
            std = "" if figure.std is None else f" ± {figure.std:.1f}"
            rows.append([
                method, f"{100 * fraction:.4g}%", str(len(cell.final)), _mean_std(cell), _spread(cell.best),
                f"{figure.mean:.2f}{std} (Table {figure.table})", f"{cell.difference:+.2f}",
            ])  # fmt: skip
    if not rows:
        return ""
    interval = f"every {table.test_interval} epochs" if table.test_interval else "once, after the last epoch"
    return (
        f"Beside the published figures, which are the best test accuracy over all epochs, tested after each: the "
        f"difference takes our best, tested {interval}.\n\n{_markdown(header, rows)}"
    )


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    columns = list(zip(header, *rows, strict=True))
    widths = [max(len(word) for word in column) for column in columns]

    def line(words: list[str]) -> str:
        return "| " + " | ".join(word.ljust(width) for word, width in zip(words, widths, strict=True)) + " |"

    return "\n".join([line(header), "|" + "|".join("-" * (w + 2) for w in widths) + "|", *map(line, rows)]) + "\n"


def _mean_std(cell: Cell | None) -> str:
    return "–" if cell is None else _spread(cell.final)


def _spread(values: tuple[float, ...]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"


def accuracy_csv(tables: list[Table]) -> str:
    """Return one row for each cell, numbers unrounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([
        "table", "method", "fraction", "n", "final_mean", "final_std", "best_mean", "best_std", "test_interval",
        "published_table", "published_mean", "published_std", "best_minus_published", "setting",
    ])  # fmt: skip
    for table in tables:
        for method in table.methods:
            for fraction in table.fractions:
                cell = table.cells.get((method, fraction))
                if cell is None:
                    continue
                figure = cell.published
                writer.writerow([
                    table.title, method, fraction, len(cell.final), *_statistics(cell.final), *_statistics(cell.best),
                    table.test_interval, figure and figure.table, figure and figure.mean, figure and figure.std,
                    cell.difference, table.caption,
                ])  # fmt: skip
    return out.getvalue()


def _statistics(values: tuple[float, ...]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def write_tables(save_path: Path) -> tuple[list[Table], list[Path]]:
    """Write SAVE_PATH/tables/accuracy.md and .csv from all records below SAVE_PATH.

    Returns the tables and the files that look like records but are damaged, which are left alone. A lock makes the
    last of several processes see the records of all.
    """
    folder = Path(save_path) / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        records, damaged = read_records(save_path)
        tables = accuracy_tables(records)
        write_text(folder / "accuracy.md", "# Test accuracy\n\n" + accuracy_markdown(tables))
        write_text(folder / "accuracy.csv", accuracy_csv(tables))
    return tables, damaged
