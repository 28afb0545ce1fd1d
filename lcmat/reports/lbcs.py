"""The table of LBCS's experiments: methods at the same size k, and the size that LBCS ends at, beside the published."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass

from lcmat.reports.table_text import csv_text, emphasised, markdown, mean_and_std
from lcmat.reports.tables import PUBLISHED, Cell, by_setting, cell_of, first_and_second, mean_std, row_order

ACCURACY, SIZE = "test accuracy %", "optimised size"


# What all rows of a table share.
SHARED = ("dataset", "dataset_fingerprint", "image_size", "test_model", "training", "test_interval", "precision")
# Networks as the LBCS paper's tables call them.
PUBLISHED_NAMES = {"SVHN-CNN": "CNN"}


@dataclass(frozen=True)
class Row:
    """A method at one k: accuracies, how many samples its subsets have, and what was published of both, if anything.

    k: as the run was asked for it, a number of samples or a share of them.
    """

    method: str
    k: str
    cell: Cell
    sizes: tuple[int, ...]
    published: tuple[float, float] | None
    published_size: tuple[float, float] | None


def read_published(table: str = "LBCS 2") -> dict[tuple[str, str, str, int, str], tuple[float, float]]:
    """Return mean and standard deviation by (dataset, test model, method, k, metric) of a table of the LBCS paper."""
    with open(PUBLISHED, encoding="utf-8", newline="") as file:
        return {
            (row["dataset"], row["test_model"], row["method"], int(row["fraction"].split()[0]), row["metric"]): (
                float(row["mean"]),
                float(row["std"]),
            )
            for row in csv.DictReader(file)
            if row["table"] == table and row["fraction"].endswith(" samples")
        }


def rows_of(records: list[dict]) -> list[Row]:
    """Return a row for each k and method, each set of a method's options by itself; Uniform first, LBCS last."""
    found: dict[tuple[float, str, str], dict[int, dict]] = defaultdict(dict)
    differing = _differing(records)
    for record in records:
        options = record["config"].get("options", {})
        own = ", ".join(f"{name} {options.get(name)}" for name in differing[record["selection"]])
        name = record["selection"] + (f" ({own})" if own else "")
        found[record["fraction"], _asked_for(record), name][record["seed"]] = record
    published, rows = read_published(), []
    for (_, k, name), by_seed in sorted(found.items(), key=lambda item: (*item[0][:2], *_order(item[0][2]))):
        first = next(iter(by_seed.values()))
        place = (first["dataset"], PUBLISHED_NAMES.get(first["test_model"], first["test_model"]), first["selection"])
        # What was published of LBCS is of its random start.
        usual = first["config"].get("options", {}).get("init_selection", "Uniform") == "Uniform"
        figures = [
            published.get((*place, first["config"]["budget"], what)) if usual else None for what in (ACCURACY, SIZE)
        ]
        sizes = tuple(record["subset_size"] for _, record in sorted(by_seed.items()))
        rows.append(Row(name, k, cell_of(by_seed), sizes, *figures))
    return rows


def _asked_for(record: dict) -> str:
    budget = record["config"].get("budget")
    return f"{100 * record['fraction']:.4g}%" if budget is None else f"{budget:,}"


def _differing(records: list[dict]) -> dict[str, list[str]]:
    """Return for each method the options that its records do not share."""
    several = defaultdict(list)
    for record in records:
        several[record["selection"]].append(record["config"].get("options", {}))
    return {
        method: [name for name in sets[0] if len({str(options.get(name)) for options in sets}) > 1]
        for method, sets in several.items()
    }


def _order(name: str) -> tuple:
    return name.startswith("LBCS"), *row_order(name)


def lbcs_markdown(records: list[dict]) -> str:
    """Return the table: best accuracy over the epochs, the last one's, sizes, and the published figures."""
    return "\n".join(_table(group) for group in by_setting(records, SHARED))


def _table(records: list[dict]) -> str:
    rows, body = rows_of(records), []
    marks = {}
    for k in dict.fromkeys(row.k for row in rows):
        # The paper takes the largest accuracy over the epochs, so the rank is by that one, too.
        best = {row.method: Cell(row.cell.best, row.cell.best, None) for row in rows if row.k == k}
        marks |= {(k, method): rank for method, rank in first_and_second(best).items()}
    for row in rows:
        mean = mean_std(row.cell.best)[0]
        body.append([row.k, row.method, str(len(row.cell.best))])
        body[-1] += [
            emphasised(mean_and_std(row.cell.best), marks.get((row.k, row.method))),
            mean_and_std(row.cell.final),
        ]
        body[-1] += [_size(row.sizes), _figure(row.published), ""]
        if row.published:
            body[-1][-1] = f"{mean - row.published[0]:+.2f}"
        body[-1].append(_figure(row.published_size))
    header = ["k", "Method", "n", "Best", "Final", "Size", "Published best", "Best − published", "Published size"]
    return f"{_caption(records)}\n\n{markdown(header, body)}"


def lbcs_csv(records: list[dict]) -> str:
    """Return the same in full precision."""
    names = [
        "dataset",
        "test_model",
        "k",
        "method",
        "n",
        "best_mean",
        "best_std",
        "final_mean",
        "final_std",
        "size_mean",
        "size_std",
    ]
    names += ["published_mean", "published_std", "published_size_mean", "published_size_std"]
    rows = []
    for group, row in [(some, row) for some in by_setting(records, SHARED) for row in rows_of(some)]:
        values = [group[0]["dataset"], group[0]["test_model"], row.k.replace(",", ""), row.method, len(row.cell.best)]
        for several in (row.cell.best, row.cell.final, row.sizes):
            values += mean_std(several)
        rows.append([*values, *(row.published or ("", "")), *(row.published_size or ("", ""))])
    return csv_text(names, rows)


def _size(sizes: tuple[int, ...]) -> str:
    """Return sizes in words: one where all agree."""
    if len(set(sizes)) == 1:
        return f"{sizes[0]:,}"
    mean, std = mean_std(sizes)
    return f"{mean:,.1f} ± {std:.1f}"


def _figure(figure: tuple[float, float] | None) -> str:
    return "" if figure is None else f"{figure[0]:,.1f} ± {figure[1]:.1f}"


def _caption(records: list[dict]) -> str:
    first = records[0]
    training = first["config"]["training"]
    how = ", ".join(f"{name} {training[name]}" for name in ("optimizer", "lr", "batch", "augmentation"))
    interval = first["test_interval"]
    tested = (
        "every epoch" if interval == 1 else f"every {interval} epochs and the last" if interval else "the last alone"
    )
    return (
        f"{first['dataset']}, {first['test_model']} trained {training['epochs']} epochs ({how}, "
        f"{first['config']['precision']}), tested after {tested}. k: the size of a method's subset, and where LBCS "
        "starts. Best and final test accuracy (%), mean ± standard deviation over seeds; the best mean of a k in bold, "
        "the second underlined. Published: the largest accuracy over the epochs, ten runs (LBCS, Table 2)."
    )
