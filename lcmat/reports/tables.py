"""Tables of accuracy, from records alone: cells over seeds, beside the published figures. `table_text` writes them."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lcmat.records import slug
from lcmat.records.record import OWN

# A cell's text and its rank (1: best, 2: second) ↦ how it is shown.
Shown = Callable[[str, int | None], str]
# Of figures that are not of LCMat's paper: those that are the best accuracies of all epochs.
BEST_ELSEWHERE = "DeepCore re-run"
PUBLISHED = Path(__file__).with_name("published.csv")
# The most settings that are said to tell tables of one title apart.
MOST_SAID = 3
# What of a configuration all cells of one table share; the selection network is handled beside it.
SHARED = (
    "dataset", "dataset_fingerprint", "image_size", "pixel_mean", "pixel_std", "validation_ratio", "balance",
    "test_model", "test_model_revision", "training", "test_interval", "test_fraction", "precision",
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A published figure, in per cent; table: of LCMat's paper by its number, or whose it is."""

    table: str
    mean: float
    std: float | None

    @property
    def last(self) -> bool:
        """Whether our final accuracy is compared with it, as condensation's papers give it; else our best one."""
        return self.table in ("4", "5") or (not self.of_lcmat and self.table != BEST_ELSEWHERE)

    @property
    def of_lcmat(self) -> bool:
        """Whether it is of LCMat's paper."""
        return self.table[0].isdigit() or self.table == "D.2"

    @property
    def read_off(self) -> bool:
        """Whether it was read off a figure, to within 0.3."""
        return self.table.endswith("figure")

    @property
    def in_words(self) -> str:
        """The figure as a table shows it."""
        std = "" if self.std is None else f" ± {self.std:.1f}"
        place = f"Table {self.table}" if self.of_lcmat else self.table
        return f"{'≈ ' * self.read_off}{self.mean:.2f}{std} ({place})"


@dataclass(frozen=True)
class Cell:
    """The test accuracies of one method at one fraction over seeds, in per cent, and the published figure if any.

    seeds: that of each accuracy; several networks may have been trained for a seed. worst: the final accuracies of the
    class that is predicted worst; none where a record does not say, as those of earlier code. records: one a seed.
    """

    final: tuple[float, ...]
    best: tuple[float, ...]
    published: Published | None
    seeds: tuple[int, ...] = ()
    worst: tuple[float, ...] = ()
    records: tuple[dict, ...] = field(default=(), compare=False, repr=False)

    @property
    def difference(self) -> float | None:
        """Mean best accuracy minus the published one, which is a best accuracy, too; of final ones the same."""
        if self.published is None:
            return None
        return statistics.fmean(self.final if self.published.last else self.best) - self.published.mean

    @property
    def by_seed(self) -> dict[int, float]:
        """The mean final accuracy of each seed."""
        values = defaultdict(list)
        for seed, value in zip(self.seeds, self.final, strict=True):
            values[seed].append(value)
        return {seed: statistics.fmean(several) for seed, several in values.items()}


@dataclass(frozen=True)
class Paired:
    """The mean over common seeds of a cell's final accuracy minus another's, and half the width of its 95% interval."""

    mean: float
    half: float | None
    count: int


def paired(cell: Cell, other: Cell) -> Paired | None:
    """Compare two cells seed by seed, by Student's t for the mean of differences; None without a common seed."""
    values, others = cell.by_seed, other.by_seed
    differences = [values[seed] - others[seed] for seed in values if seed in others]
    n = len(differences)
    if not n:
        return None
    return Paired(statistics.fmean(differences), half_width(differences), n)


def half_width(values: Sequence[float]) -> float | None:
    """Return half the width of the 95% interval of a mean, by Student's t; None of a single value."""
    n = len(values)
    if n < 2:
        return None
    import scipy.stats  # costs a second, which tables alone need

    return float(scipy.stats.t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)


@dataclass(frozen=True)
class Table:
    """Cells by method and fraction, of runs that differ in nothing else but the seed.

    wanted: how many seeds a cell should have, by method and fraction, where that is known (a grid's cells).
    """

    title: str
    caption: str
    slug: str
    test_interval: int
    cells: dict[tuple[str, float], Cell]
    wanted: dict[tuple[str, float], int] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """Row names, in order."""
        names = {method for method, _ in {**self.cells, **self.wanted} if not (self.full and method == "Full")}
        return sorted(names, key=row_order)

    @property
    def ordered(self) -> list[tuple[tuple[str, float], Cell]]:
        """All cells, by row and column."""
        return sorted(self.cells.items(), key=lambda item: (row_order(item[0][0]), item[0][1]))

    @property
    def fractions(self) -> list[float]:
        """Columns, in order."""
        found = {fraction for _, fraction in {**self.cells, **self.wanted}}
        return sorted(fraction for fraction in found if not self.full or fraction < 1) or [1.0]

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


def told_apart(found: Sequence[tuple[str, Table]]) -> list[str]:
    """Return what to add to titles that tables share: the settings that differ, if they are few, else a number."""
    shared: dict[str, list[dict[str, str]]] = defaultdict(list)
    for title, table in found:
        records = [record for cell in table.cells.values() for record in cell.records]
        shared[title].append(_settings(next((r for r in records if network_of(r)), records[0])["config"]))
    added = {title: iter(_differing(settings)) for title, settings in shared.items()}
    return [next(added[title]) for title, _ in found]


def _differing(settings: list[dict[str, str]]) -> list[str]:
    if len(settings) == 1:
        return [""]
    names = dict.fromkeys(name for one in settings for name in one)
    apart = [name for name in names if len({one.get(name) for one in settings}) > 1]
    said = ["".join(f", {one[name]}" for name in apart if name in one) for one in settings]
    if len(apart) <= MOST_SAID and len(set(said)) == len(said):
        return said
    return [f" ({number} of {len(settings)})" for number in range(1, len(settings) + 1)]


def _settings(config: dict) -> dict[str, str]:
    """Return what of a configuration may tell a table from another, in words, by what it is."""
    network = config.get("selection_network") or {}
    flat = {name: config.get(name) for name in SHARED if name not in ("training", "dataset_fingerprint")}
    training = config.get("training", {})
    flat |= {name: value for name, value in training.items() if name != "epochs" or "total_steps" not in training}
    flat |= {f"f_T {name}": value for name, value in network.items() if name not in (*NOT_OF_TABLE, *HOW_TAKEN)}
    said = {name: f"{name.replace('_', ' ')} {value}" for name, value in flat.items() if value is not None}
    return said | ({"precision": str(flat["precision"])} if flat["precision"] is not None else {})


def ranks(table: Table) -> dict[tuple[str, float], int]:
    """Return which cells are the best (1) and second (2) of their columns by mean final accuracy."""
    found = {}
    for fraction in table.fractions:
        column = {(m, fraction): table.cells[m, fraction] for m in table.methods if (m, fraction) in table.cells}
        found |= first_and_second(column)
    return found


def first_and_second(column: dict[object, Cell]) -> dict[object, int]:
    """Return the best (1) and second (2) of three cells or more by mean final accuracy; ties share a rank."""
    means = {key: round(statistics.fmean(cell.final), 2) for key, cell in column.items()}
    best = sorted(set(means.values()), reverse=True)[:2] if len(means) > 2 else []
    return {key: 1 + best.index(mean) for key, mean in means.items() if mean in best}


def row_order(method: str) -> tuple:
    """Return what rows are sorted by: Uniform first, Full last, the rest by name."""
    return method != "Uniform", method == "Full", method


def accuracy_tables(records: Iterable[dict], prefer: str = "") -> list[Table]:
    """Group records into tables: one for each setting of training and each way to obtain the selection network.

    A method that needs no such network (Uniform) stands in the table of each one; so do methods that train networks of
    their own (GraNd). A method that needs validation samples stands beside those that do not, in the same setting.
    Methods run with several options have a row for each. prefer: as `read_published` takes it.
    """
    groups = defaultdict(list)
    for record in _by_their_names(list(records)):
        groups[_shared(record, record["config"].get("validation_ratio"))].append(record)
    for key in list(groups):
        own = [r for r in groups[key] if "validation" in r.get("needs", ())]
        whole = _shared(own[0], None) if own else key
        if whole != key and whole in groups:
            groups[whole] += own
            if len(own) == len(groups[key]):
                del groups[key]
    published = read_published(prefer=prefer)
    tables = []
    for shared in sorted(groups):
        tables += [_table(group, published) for group in by_network(groups[shared])]
    return _told_apart(tables)


def _has_a_name(record: dict) -> bool:
    return record["dataset"] != record["config"].get("dataset", record["dataset"])


def _by_their_names(records: list[dict]) -> list[dict]:
    """Return the records, those of data of one's own from before these had names by the one name that they have now."""
    names: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if _has_a_name(record):
            names[str(record["config"].get("dataset_fingerprint"))].add(record["dataset"])
    found = []
    for record in records:
        known = names.get(str(record["config"].get("dataset_fingerprint")), set())
        found.append(record if _has_a_name(record) or len(known) != 1 else record | {"dataset": next(iter(known))})
    return found


def _told_apart(tables: list[Table]) -> list[Table]:
    """Let titles that tables of several data of one's own share say which data: the beginning of the fingerprint."""
    data = [next(iter(table.cells.values())).records[0]["config"] for table in tables]
    marks = [str(c.get("dataset_fingerprint")) if str(c.get("dataset")).startswith(OWN) else "" for c in data]
    sharing = {t.title: {m for other, m in zip(tables, marks, strict=True) if other.title == t.title} for t in tables}
    return [
        replace(table, title=f"{table.title} (data {mark[:6]})") if mark and len(sharing[table.title]) > 1 else table
        for table, mark in zip(tables, marks, strict=True)
    ]


def _shared(record: dict, validation_ratio: float | None) -> str:
    """Return what the record's cell shares with all of its table."""
    shared = {"selection_model": record["selection_model"], **{k: record["config"].get(k) for k in SHARED}}
    if _has_a_name(record):
        shared["name"] = record["dataset"]
    return json.dumps({**shared, "validation_ratio": validation_ratio}, sort_keys=True)


def read_published(
    metric: str = "test accuracy %", prefer: str = ""
) -> dict[tuple[str, str, str, str, float], Published]:
    """Return the published figures of a metric by (dataset, selection model, test model, method, fraction).

    Where two sources give the same cell, the first stands; those whose name begins with `prefer` come before all
    others. Full has no selection model.
    """
    figures: dict[tuple, Published] = {}
    with open(PUBLISHED, encoding="utf-8", newline="") as file:
        for row in sorted(csv.DictReader(file), key=lambda row: not (prefer and row["table"].startswith(prefer))):
            if row["metric"] != metric or row["table"].startswith("LBCS"):
                continue
            key = (row["dataset"], row["selection_model"], row["test_model"], row["method"], float(row["fraction"]))
            std = float(row["std"]) if row["std"] else None
            figures.setdefault(key, Published(row["table"], float(row["mean"]), std))
    return figures


def by_setting(records: Iterable[dict], names: Iterable[str]) -> list[list[dict]]:
    """Return the records in groups that agree in these entries of their configurations, and in the network at work."""
    groups = defaultdict(list)
    for record in records:
        shared = {"selection_model": record.get("selection_model"), **{k: record["config"].get(k) for k in names}}
        groups[json.dumps(shared, sort_keys=True)].append(record)
    return list(groups.values())


def by_network(records: list[dict]) -> list[list[dict]]:
    """Return the records of each selection network, whatever its seed, beside those that read none."""
    networks = sorted({network_of(record) for record in records} - {""}) or [""]
    return [[record for record in records if network_of(record) in ("", one)] for one in networks]


def network_of(record: dict) -> str:
    """Return what determines the record's selection network but for the seed; "" if its method reads none."""
    network = record["config"].get("selection_network") or {}
    own = {k: v for k, v in network.items() if k not in (*NOT_OF_TABLE, *HOW_TAKEN)}
    return json.dumps(own, sort_keys=True) if own else ""


# Of a configuration's selection network: what does not tell tables apart; and how signals were taken from it, which
# makes another row, not another table.
NOT_OF_TABLE = ("seed", "initialisations", "training")
HOW_TAKEN = ("signals_mode", "gradient_scale", "signals_batch")


def _choices(record: dict) -> str:
    """Return the options of the record's method, how its signals were taken, and what networks it trained itself."""
    options = dict(record["config"].get("options", {}))
    network = record["config"].get("selection_network") or {}
    options |= {name: network[name] for name in HOW_TAKEN if name in network}
    options |= {name: record["config"][name] for name in ("weights_by",) if name in record["config"]}
    if "per_class" in record["config"]:  # others of this size were shared out in proportion to the classes
        options |= {"of each class": record["config"]["per_class"]}
    several = (record["config"].get("selection_network") or {}).get("initialisations")
    if several:
        options |= {"initialisations": several["count"], "epochs of each": several["epochs"]}
    return json.dumps(options)


def _table(records: list[dict], published: dict) -> Table:
    option_sets = options_by_fraction(records)
    runs = defaultdict(dict)
    # One run for each seed: a budget that comes to the same fraction is no second training.
    ordered = sorted(records, key=lambda r: (r["seed"], r["config"].get("budget") is None))
    for record, row in zip(ordered, row_names(ordered), strict=True):
        runs[row, record["fraction"]][record["seed"]] = record
    cells = {(row, fraction): cell_of(found, published) for (row, fraction), found in runs.items()}
    # A method with signals knows more about the setting than Uniform does.
    first = next((r for r in records if network_of(r)), records[0])
    crossed = f", tested on {first['test_model']}" if first["test_model"] != first["selection_model"] else ""
    name = f"{slug(first['dataset'])}-{first['selection_model']}" + (f"-{first['test_model']}" if crossed else "")
    title = f"{first['dataset']}, {first['selection_model']}{crossed}"
    return Table(title, _caption(first, records, option_sets), name, first["test_interval"], cells)


def cell_of(found: dict[int, dict], published: dict | None = None) -> Cell | None:
    """Return the cell of records by seed, None if there are none; `published` as from `read_published`."""
    if not found:
        return None
    ordered = dict(sorted(found.items()))
    trainings = [(seed, one) for seed, record in ordered.items() for one in record.get("evaluations", [record])]
    return Cell(
        tuple(one["test_accuracy"] for _, one in trainings),
        tuple(one["best_test_accuracy"] for _, one in trainings),
        published_of(published or {}, next(iter(ordered.values()))),
        tuple(seed for seed, _ in trainings),
        _worst([one for _, one in trainings]),
        tuple(ordered.values()),
    )


def _worst(trainings: list[dict]) -> tuple[float, ...]:
    values = [one.get("worst_class_accuracy") for one in trainings]
    return () if None in values else tuple(values)


def mean_std(values: tuple[float, ...]) -> tuple[float, float | None]:
    """Return mean and standard deviation (None of a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def options_by_fraction(records: Iterable[dict]) -> dict[str, dict[float, set[str]]]:
    """Return the sets of options that each method ran with at each fraction (some defaults depend on the size)."""
    found: dict[str, dict[float, set[str]]] = defaultdict(lambda: defaultdict(set))
    for record in records:
        found[record["selection"]][record["fraction"]].add(_choices(record))
    return found


def varied(by_fraction: dict[float, set[str]]) -> list[str]:
    """Return the options that tell a method's rows apart: those that differ between its sets at one fraction."""
    names: dict[str, None] = {}
    for sets in by_fraction.values():
        several = [json.loads(options) for options in sorted(sets)]
        for name in dict.fromkeys(name for options in several for name in options):
            if len({json.dumps(options.get(name)) for options in several}) > 1:
                names[name] = None
    return list(names)


# Options that follow from others in a row's name, as long as they have one value; and values with words of their own.
FOLLOWING = ("K", "signals_batch")
WORDS = {("signals_mode", "train"): "training mode", ("gradient_scale", "batch"): "1/batch", ("ten", True): "c = 10"}


def row_names(records: list[dict]) -> list[str]:
    """Return the name of each record's row, among these records: its method, with the options that tell rows apart."""
    sets = options_by_fraction(records)
    differing = {method: varied(by_fraction) for method, by_fraction in sets.items()}
    everywhere = {method: _everywhere(by_fraction) for method, by_fraction in sets.items()}
    return [_row_name(r, differing[r["selection"]], everywhere[r["selection"]]) for r in records]


def _everywhere(by_fraction: dict[float, set[str]]) -> dict[str, set[str]]:
    """Return the values (as JSON) of the options that all sets of a method hold, None among them not counted."""
    every = [json.loads(options) for sets in by_fraction.values() for options in sets]
    names = set.intersection(*(set(options) for options in every))
    values = {name: {json.dumps(options.get(name)) for options in every} - {"null"} for name in FOLLOWING}
    return {name: {json.dumps(options[name]) for options in every} - {"null"} for name in names} | values


def _row_name(record: dict, differing: list[str], everywhere: dict[str, set[str]]) -> str:
    options, said = json.loads(_choices(record)), []
    for name in (name for name in differing if name in options):
        value = options[name]
        if value is None or (name in FOLLOWING and len(everywhere[name]) == 1):
            continue
        if isinstance(value, bool) and name in everywhere:  # a switch: on is named, off is not
            said += [WORDS.get((name, value), name)] if value else []
        else:
            said.append(WORDS.get((name, value)) or _named({name: value}))
    return f"{record['selection']} ({', '.join(said)})" if said else record["selection"]


def _named(options: dict) -> str:
    return ", ".join(f"{'ρ' if name == 'rho' else name} = {value}" for name, value in options.items())


def published_of(figures: dict, record: dict) -> Published | None:
    """Return the published figure that a record stands beside, from `read_published`."""
    model = "" if record["selection"] == "Full" else record["selection_model"]
    return figures.get((record["dataset"], model, record["test_model"], record["selection"], record["fraction"]))


def _caption(first: dict, records: list[dict], option_sets: dict) -> str:
    """Say what the cells share, as far as the records tell (others' may hold less than ours)."""
    config, interval = first["config"], first["test_interval"]
    training = config.get("training", {})
    words = ("optimizer", "lr", "scheduler", "batch", "augmentation")
    details = [f"{name} {training[name]}" for name in words if name in training]
    details += [str(config["precision"])] if "precision" in config else []
    steps, epochs = training.get("total_steps"), training.get("epochs")
    length = f" {steps:,} steps" if steps else f" {epochs} epochs" if epochs else ""
    trained = f"trained{length} ({', '.join(details)})" if length else "trained"
    parts = [
        *source(first, len({r["seed"] for r in records})),
        f"{trained}, "
        + (f"tested every {interval} epochs and after the last" if interval else "tested after the last"),
        *(options_said(name, by_fraction) for name, by_fraction in sorted(option_sets.items())),
    ]
    for name, word in (("pixel_mean", "mean"), ("pixel_std", "deviation")):
        if name in config:
            parts.append(f"pixels scaled by the {word} {' '.join(f'{value:g}' for value in config[name])}")
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
    return "; ".join(part for part in parts if part)


def options_said(name: str, by_fraction: dict[float, set[str]]) -> str:
    """Say a method's options, and for each fraction those that depend on it; nothing of those that its rows say."""
    several = varied(by_fraction)
    sets = {fraction: json.loads(next(iter(options))) for fraction, options in sorted(by_fraction.items())}
    names = [n for n in dict.fromkeys(option for options in sets.values() for option in options) if n not in several]
    if not names:
        return ""
    changing = [option for option in names if len({json.dumps(options.get(option)) for options in sets.values()}) > 1]
    first = next(iter(sets.values()))
    said = [_named({option: first[option] for option in names if option not in changing and option in first})]
    for fraction, options in sets.items() if changing else ():
        said.append(f"{_named({option: options.get(option) for option in changing})} at {100 * fraction:.4g}%")
    return f"{name}: {', '.join(filter(None, said))}"


def source(record: dict, seeds: int) -> list[str]:
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
