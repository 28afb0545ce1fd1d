"""Every cell as a row of the page's table, and what the cells say in one screen."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from lcmat.reports.dots import side
from lcmat.reports.page.settings import BASELINE, Setting
from lcmat.reports.table_text import in_words
from lcmat.reports.tables import Cell, Paired, half_width

# Stages of a run whose seconds a method costs; the rest is training on what it gave.
OF_SELECTION = ("pretrain", "signals", "select")


@dataclass(frozen=True)
class Row:
    """A cell as the page shows it.

    setting: its number. final: mean over seeds in per cent; half: half the width of its 95% interval, or None.
    against: the difference from Uniform; side: 1 above, −1 below, 0 not separable, None not compared.
    seconds: medians over seeds, of selection (with pretraining and signals) and of training; None: not recorded.
    records: (seed, path from the page) of each record behind it.
    memory: the most GiB that a process of these runs held, a GPU's where one computed; None: not recorded.
    """

    setting: int
    method: str
    fraction: float
    count: int
    final: float
    half: float | None
    against: Paired | None
    side: int | None
    cell: Cell
    seconds: tuple[float | None, float | None]
    records: tuple[tuple[int, str], ...]
    memory: float | None

    @property
    def difference(self) -> str:
        """The difference from Uniform in words."""
        return in_words(self.against)


def percent(fraction: float) -> str:
    """Return a fraction as people read it."""
    return f"{100 * fraction:.4g}%"


def rows(settings: list[Setting]) -> list[Row]:
    """Return a row for every cell of every setting."""
    return [_row(number, setting, key) for number, setting in enumerate(settings) for key, _ in setting.table.ordered]


def _row(number: int, setting: Setting, key: tuple[str, float]) -> Row:
    cell, against = setting.table.cells[key], setting.against(*key)
    values = list(cell.by_seed.values())
    compared = None if against is None or against.half is None else side(against)
    seconds = _seconds(cell, OF_SELECTION), _seconds(cell, ("train",))
    records = tuple((record["seed"], record["path"]) for record in cell.records)
    return Row(
        number, *key, len(cell.final), statistics.fmean(values), half_width(values), against, compared, cell, seconds,
        records, _memory(cell),
    )  # fmt: skip


def _seconds(cell: Cell, stages: tuple[str, ...]) -> float | None:
    known = [[r["seconds"][name] for name in stages if name in r["seconds"]] for r in cell.records]
    return statistics.median(map(sum, known)) if all(known) else None


def _memory(cell: Cell) -> float | None:
    held = [r["environment"].get("peak_gpu_memory", r["environment"].get("peak_memory")) for r in cell.records]
    known = [value for value in held if isinstance(value, int)]
    return max(known) / 2**30 if known else None


@dataclass(frozen=True)
class Finding:
    """What one setting says at one fraction: rows told apart from Uniform (the largest difference first), and others.

    best: the row of the largest mean, whether or not it can be told apart; Full, which has every sample, not counted.
    """

    setting: int
    fraction: float
    baseline: Row
    best: Row
    above: list[Row]
    below: list[Row]
    neither: list[Row]


def findings(found: list[Row]) -> list[Finding]:
    """Return what each setting says at each fraction where a method has a difference from Uniform with an interval."""
    return list(_findings(found))


def _findings(found: list[Row]) -> Iterator[Finding]:
    for place in dict.fromkeys((row.setting, row.fraction) for row in found):
        here = [row for row in found if (row.setting, row.fraction) == place and row.method != "Full"]
        told = sorted((row for row in here if row.side is not None), key=lambda row: -row.against.mean)
        if told:
            apart = ([row for row in told if row.side == sign] for sign in (1, -1, 0))
            baseline = next(row for row in here if row.method == BASELINE)
            yield Finding(*place, baseline, max(here, key=lambda row: row.final), *apart)


def tallies(found: list[Row]) -> list[tuple[str, tuple[int, int, int]]]:
    """Return for each method, whatever its options, in how many cells it is above, below, and not separable.

    Those most often above come first, then those least often below.
    """
    counts: dict[str, list[int]] = {}
    for row in found:
        if row.side is not None and row.method != "Full":
            counts.setdefault(row.cell.records[0]["selection"], [0, 0, 0])[(1, -1, 0).index(row.side)] += 1
    told = [(name, (above, below, neither)) for name, (above, below, neither) in counts.items()]
    return sorted(told, key=lambda item: (-item[1][0] / sum(item[1]), item[1][1] / sum(item[1]), item[0]))
