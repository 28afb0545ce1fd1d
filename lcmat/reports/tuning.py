"""What an option gains by being tuned on the test set: beside the value that samples held out of training would choose.

LCMat's paper tunes ρ for each cell of its tables and reports the test accuracy that is best. A value chosen so knows
the test set; of several values that are equally good in truth it takes the luckiest.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lcmat.errors import UserError
from lcmat.files import write_text
from lcmat.reports import tables
from lcmat.reports.found import Found
from lcmat.reports.table_text import csv_text, in_words, markdown
from lcmat.reports.tables import Paired

Accuracies = dict[
    tuple[float, int], tuple[float, float]
]  # value and seed ↦ accuracy on what is held out, and on the test set


@dataclass(frozen=True)
class Tuned:
    """One cell: the value chosen by each accuracy (the mean over seeds), and the test accuracy that it comes to.

    bonus: test accuracy at the value that the test set chooses minus that at the one that held-out samples choose.
    by_seed: the same where each seed chooses for itself.
    """

    values: tuple[float, ...]
    seeds: tuple[int, ...]
    held_out: tuple[float, float]
    test: tuple[float, float]
    by_seed: Paired

    @property
    def bonus(self) -> float:
        """What tuning on the test set adds."""
        return self.test[1] - self.held_out[1]


def tuned(accuracies: Accuracies) -> Tuned | None:
    """Return a cell from the accuracies of its runs; None without a seed that has two values.

    Seeds that lack one of the values do not count. Of equally good values the smallest is chosen.
    """
    values = tuple(sorted({value for value, _ in accuracies}))
    seeds = tuple(
        seed for seed in sorted({seed for _, seed in accuracies}) if all((v, seed) in accuracies for v in values)
    )
    if len(values) < 2 or not seeds:
        return None

    def mean(value: float, of: tuple[int, ...], which: int) -> float:
        return statistics.fmean(accuracies[value, seed][which] for seed in of)

    def chosen(which: int, of: tuple[int, ...]) -> tuple[float, float]:
        best = max(values, key=lambda value: mean(value, of, which))  # the first of equals
        return best, mean(best, of, 1)

    each = [tuple(chosen(which, (seed,))[1] for seed in seeds) for which in (0, 1)]
    cells = [tables.Cell(one, one, None, seeds) for one in each]
    return Tuned(values, seeds, chosen(0, seeds), chosen(1, seeds), tables.paired(cells[1], cells[0]))


def tuning(found: Found, option: str = "rho") -> list[Path]:
    """For each method and fraction, the value of an option that held-out samples choose, and that the test set does.

    Needs records of --val, which test each network on what is held out, too.
    """
    cells = {key: one for key, of in _cells(found.there, option).items() if (one := tuned(of)) is not None}
    if not cells:
        raise UserError(
            f"report tuning: no runs of several {option} that were tested on held-out samples; run with --val"
        )
    paths = [found.path(suffix, "-tuning") for suffix in (".md", ".csv")]
    write_text(paths[0], found.heading() + _markdown(cells, "ρ" if option == "rho" else option))
    write_text(paths[1], _csv(cells, option))
    return paths


def _markdown(cells: dict[tuple[str, float], Tuned], symbol: str) -> str:
    rows = []
    for (method, fraction), cell in cells.items():
        shown = [f"{value:g}: {accuracy:.2f}" for value, accuracy in (cell.held_out, cell.test)]
        bonus = [f"{cell.bonus:+.2f}", in_words(cell.by_seed)]
        rows.append([method, f"{100 * fraction:.4g}%", *shown, *bonus, str(len(cell.seeds))])
    chosen = [f"{symbol} by held-out", f"{symbol} by test set"]
    header = ["Method", "Fraction", *chosen, "Bonus", "Bonus, seed by seed", "Seeds"]
    values = sorted({value for cell in cells.values() for value in cell.values})
    return (
        f"{symbol} of {', '.join(f'{value:g}' for value in values)}, chosen for each cell by the accuracy on samples "
        f"held out of the training set, and by that on the test set as the paper does: the value, and the test "
        f"accuracy (%) that it comes to, mean over seeds. Bonus: the second minus the first, in percentage points; it "
        f"cannot be negative. Seed by seed: where each seed chooses for itself, with a 95% interval.\n\n"
        f"{markdown(header, rows)}"
    )


def _csv(cells: dict[tuple[str, float], Tuned], option: str) -> str:
    rows = [
        [*key, len(c.seeds), *c.held_out, *c.test, c.bonus, c.by_seed.mean, c.by_seed.half] for key, c in cells.items()
    ]
    names = ["method", "fraction", "seeds", f"{option}_by_held_out", "test_accuracy", f"{option}_by_test"]
    return csv_text([*names, "test_accuracy_by_test", "bonus", "bonus_by_seed", "95"], rows)


def _cells(records: Iterable[dict], option: str) -> dict[tuple[str, float], Accuracies]:
    """Return the accuracies of each method, told apart by whatever else differs, and fraction."""
    mine = [r for r in records if option in r["config"]["options"] and "held_out_accuracy" in r]
    others = [{**r, "config": r["config"] | {"options": _without(r["config"]["options"], option)}} for r in mine]
    cells: dict[tuple[str, float], Accuracies] = {}
    for record, name in zip(mine, tables.row_names(others), strict=True):
        where = (float(record["config"]["options"][option]), record["seed"])
        both = (record["held_out_accuracy"], record["test_accuracy"])
        cells.setdefault((name, record["fraction"]), {})[where] = both
    return cells


def _without(options: dict, option: str) -> dict:
    return {name: value for name, value in options.items() if name != option}
