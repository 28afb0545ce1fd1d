"""Seconds until a test accuracy is reached, selection and training together, of runs that are tested on the way."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lcmat.errors import UserError
from lcmat.files import write_text
from lcmat.reports.found import Found
from lcmat.reports.table_text import csv_text, markdown
from lcmat.reports.tables import row_order

# Of the best mean final accuracy: what is asked for where a grid names no accuracies.
SHARES = (0.5, 0.8, 0.9)


def seconds_to(record: dict, accuracy: float) -> float | None:
    """Return the seconds until a test shows this accuracy (%), None if none does; of several networks the first's.

    The selection's stages come first; then each epoch takes as long as any other, tests included.
    """
    epoch = next((epoch for epoch, value in record["tests"] if value >= accuracy), None)
    if epoch is None:
        return None
    seconds = dict(record["seconds"])
    train = seconds.pop("train", 0.0) / len(record.get("evaluations", [record]))
    return sum(seconds.values()) + train * epoch / record["tests"][-1][0]


def time_to_accuracy(found: Found, accuracies: Sequence[float] | None = None) -> list[Path]:
    """Median seconds over seeds to each accuracy (%), by method and fraction, and how many runs reach it."""
    cells: dict[tuple[str, float], list[dict]] = defaultdict(list)
    for record in found.there:
        if record.get("tests"):
            cells[record["selection"], record["fraction"]].append(record)
    if not cells:
        raise UserError("no run of this grid was tested on the way; give it a --test_interval")
    if accuracies is None:
        best = max(statistics.fmean(r["test_accuracy"] for r in here) for here in cells.values())
        accuracies = [round(share * best, 1) for share in SHARES]
    rows, numbers = [], []
    for method, fraction in sorted(cells, key=lambda key: (row_order(key[0]), key[1])):
        here, row = cells[method, fraction], [method, f"{100 * fraction:.4g}%"]
        for accuracy in accuracies:
            took = [seconds for seconds in (seconds_to(record, accuracy) for record in here) if seconds is not None]
            median = statistics.median(took) if took else None
            said = "" if len(took) == len(here) else f" ({len(took)} of {len(here)})"
            row.append("never" if median is None else f"{median:.1f}{said}")
            numbers.append([method, fraction, accuracy, len(here), len(took), median])
        rows.append(row)
    machines = sorted(
        {f"{r['environment']['processor']}, {r['environment']['threads']} thread(s)" for r in found.there}
    )
    text = (
        "Median seconds over seeds until a test shows the accuracy: pretraining, signals, selection and training "
        f"together, on {'; '.join(machines)}. In brackets: how many runs reach it, where not all do. An epoch counts "
        "as its share of the training's seconds; what lies between two tests is not seen.\n\n"
        + markdown(["Method", "Fraction", *(f"{accuracy:g}%" for accuracy in accuracies)], rows)
    )
    paths = [found.path(".md", "-time"), found.path(".csv", "-time")]
    write_text(paths[0], found.heading() + text)
    write_text(paths[1], csv_text(["method", "fraction", "accuracy", "n", "reached", "median_seconds"], numbers))
    return paths
