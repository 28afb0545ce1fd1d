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

    @property
    def last(self) -> bool:
        """Whether it is an accuracy after the last epoch, as the condensation literature gives it; else a best one."""
        return self.table in ("4", "5")


@dataclass(frozen=True)
class Cell:
    """The test accuracies of one method at one fraction over seeds, in per cent, and the published figure if any."""

    final: tuple[float, ...]
    best: tuple[float, ...]
    published: Published | None

    @property
    def difference(self) -> float | None:
        """Mean best accuracy minus the published one, which is a best accuracy, too; of final ones the same."""
        if self.published is None:
            return None
        return statistics.fmean(self.final if self.published.last else self.best) - self.published.mean


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
        names = {method for method, _ in self.cells if not (self.full and method == "Full")}
        return sorted(names, key=_row_order)

    @property
    def ordered(self) -> list[tuple[tuple[str, float], Cell]]:
        """All cells, by row and column."""
        return sorted(self.cells.items(), key=lambda item: (_row_order(item[0][0]), item[0][1]))

    @property
    def fractions(self) -> list[float]:
        """Columns, in order."""
        return sorted({fraction for _, fraction in self.cells if not self.full or fraction < 1}) or [1.0]

    @property
    def full(self) -> Cell | None:
        """The cell of training on everything, unless that is all there is, or another method has one."""
        if {fraction for _, fraction in self.cells} == {1.0}:
            return None
        return self.cells.get(("Full", 1.0)) if all(f < 1 for m, f in self.cells if m != "Full") else None

    @property
    def trainings(self) -> str:
        """What a cell stands for, in words."""
        counts = sorted({len(cell.final) for cell in self.cells.values()})
        number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return "1 training" if number == "1" else f"mean ± standard deviation of {number} trainings"


def _row_order(method: str) -> tuple:
    return method != "Uniform", method == "Full", method


def accuracy_tables(records: Iterable[dict]) -> list[Table]:
    """Group records into tables: one for each setting of training and each way to obtain the selection network.

    A method that needs no such network (Uniform) stands in the table of each one; so do methods that train networks of
    their own (GraNd). A method that needs validation samples stands beside those that do not, in the same setting.
    Methods run with several options have a row for each.
    """
    groups = defaultdict(list)
    for record in records:
        groups[_shared(record, record["config"].get("validation_ratio"))].append(record)
    for key in list(groups):
        own = [r for r in groups[key] if "validation" in r.get("needs", ())]
        whole = _shared(own[0], None) if own else key
        if whole != key and whole in groups:
            groups[whole] += own
            if len(own) == len(groups[key]):
                del groups[key]
    published = read_published()
    tables = []
    for shared in sorted(groups):
        networks = sorted({_network(r) for r in groups[shared]} - {""}) or [""]
        tables += [_table([r for r in groups[shared] if _network(r) in ("", n)], published) for n in networks]
    return tables


def _shared(record: dict, validation_ratio: float | None) -> str:
    """Return what the record's cell shares with all of its table."""
    shared = {"selection_model": record["selection_model"], **{k: record["config"].get(k) for k in SHARED}}
    return json.dumps({**shared, "validation_ratio": validation_ratio}, sort_keys=True)


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
    """Return what determines the record's selection network but for the seed; "" if its method reads none."""
    network = record["config"].get("selection_network") or {}
    own = {k: v for k, v in network.items() if k not in ("seed", "initialisations", "training")}
    return json.dumps(own, sort_keys=True) if own else ""


def _choices(record: dict) -> str:
    """Return the options of the record's method, and how many networks of its own it trained for how long."""
    options = dict(record["config"].get("options", {}))
    several = (record["config"].get("selection_network") or {}).get("initialisations")
    if several:
        options |= {"initialisations": several["count"], "epochs of each": several["epochs"]}
    return json.dumps(options)


def _table(records: list[dict], published: dict) -> Table:
    option_sets = defaultdict(set)
    for record in records:
        option_sets[record["selection"]].add(_choices(record))
    runs = defaultdict(dict)
    # One run for each seed: a budget that comes to the same fraction is no second training.
    for record in sorted(records, key=lambda r: (r["seed"], r["config"].get("budget") is None)):
        several = len(option_sets[record["selection"]]) > 1
        runs[_row_name(record, several), record["fraction"]][record["seed"]] = record
    cells = {
        (row, fraction): Cell(
            *(
                tuple(one[name] for r in found.values() for one in r.get("evaluations", [r]))
                for name in ("test_accuracy", "best_test_accuracy")
            ),
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
    return f"{record['selection']} ({_named(json.loads(_choices(record)))})"


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
    ratios = {r["selection"]: r["config"].get("validation_ratio") for r in records}
    held = sorted({ratio for ratio in ratios.values() if ratio is not None})
    for ratio in held:
        names = sorted(name for name in ratios if ratios[name] == ratio)
        of = "" if len(names) == len(ratios) else f"{', '.join(names)}: "
        parts.append(f"{of}{ratio:g} held out for validation, fractions are of the rest")
    several = sorted({len(r["evaluations"]) for r in records if "evaluations" in r})
    if several:
        parts.append(f"{' to '.join(str(n) for n in dict.fromkeys((several[0], several[-1])))} networks for each seed")
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
    if "epochs" not in network:  # a method that trains its own
        return []
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
    everything = f" Trained on everything: {_mean_std(table.full)}." if table.full else ""
    return (
        f"## {table.title}\n\nTest accuracy (%) after the last epoch, {table.trainings}. "
        f"{table.caption[0].upper()}{table.caption[1:]}.{everything}\n\n{markdown(header, rows)}"
    )


def _published_part(table: Table) -> str:
    rows = []
    for (method, fraction), cell in table.ordered:
        figure = cell.published
        if figure is None:
            continue
        std = "" if figure.std is None else f" ± {figure.std:.1f}"
        rows.append([
            method, f"{100 * fraction:.4g}%", str(len(cell.final)), _mean_std(cell), _spread(cell.best),
            f"{figure.mean:.2f}{std} (Table {figure.table})", f"{cell.difference:+.2f}",
        ])  # fmt: skip
    if not rows:
        return ""
    interval = f"every {table.test_interval} epochs" if table.test_interval else "once, after the last epoch"
    of_best = (
        f"the best test accuracy over all epochs, tested after each: the difference takes our best, tested {interval}"
    )
    of_last = "accuracies after the last epoch: the difference takes our final ones"
    kinds = {cell.published.last for cell in table.cells.values() if cell.published}
    if len(kinds) == 2:
        which, minus = f"{of_best}; those of Tables 4 and 5 are {of_last}", "Ours − published"
    else:
        which, minus = (of_last, "Final − published") if True in kinds else (of_best, "Best − published")
    header = ["Method", "Fraction", "n", "Final", "Best", "Published", minus]
    return f"Beside the published figures, which are {which}.\n\n{markdown(header, rows)}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table with columns of even width."""
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
        "published_table", "published_mean", "published_std", "minus_published", "setting",
    ])  # fmt: skip
    for table in tables:
        for (method, fraction), cell in table.ordered:
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
