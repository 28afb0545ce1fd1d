"""Two folders of records side by side: accuracies, differences, and what differs in their configurations."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from lcmat.reports.table_text import in_words, markdown, mean_and_std
from lcmat.reports.tables import Cell, cell_of, paired


@dataclass(frozen=True)
class Pair:
    """A cell of one folder and that of the other (None where it is missing), and the settings that differ."""

    what: tuple[str, ...]
    first: Cell | None
    second: Cell | None
    differing: dict[str, tuple[object, object]]


def compare(first: Iterable[dict], second: Iterable[dict]) -> list[Pair]:
    """Match the cells of two collections of records.

    Cells of the same data, networks, method and fraction belong together. Where a folder has several of these, those
    with equal configurations (but for the seed) do; what is left is matched only if there is one on each side. What
    both have comes first.
    """
    both = [_cells(records) for records in (first, second)]
    pairs = []
    for what in sorted({*both[0], *both[1]}):
        one, other = (dict(cells.get(what, {})) for cells in both)
        for config in [config for config in one if config in other]:
            pairs.append(Pair(what, cell_of(one.pop(config)), cell_of(other.pop(config)), {}))
        if len(one) == len(other) == 1:
            (config, records), (config_2, records_2) = one.popitem(), other.popitem()
            differing = differences(json.loads(config), json.loads(config_2))
            pairs.append(Pair(what, cell_of(records), cell_of(records_2), differing))
        pairs += [Pair(what, cell_of(records), None, {}) for records in one.values()]
        pairs += [Pair(what, None, cell_of(records), {}) for records in other.values()]
    return sorted(pairs, key=lambda pair: None in (pair.first, pair.second))


def _cells(records: Iterable[dict]) -> dict[tuple[str, ...], dict[str, dict[int, dict]]]:
    """Return records by cell, then by configuration without the seed, then by seed."""
    cells: dict = defaultdict(lambda: defaultdict(dict))
    for record in records:
        names = ("dataset", "selection_model", "test_model", "selection")
        what = (*(record[name] for name in names), f"{100 * record['fraction']:.4g}%")
        cells[what][json.dumps(_without_seed(record["config"]), sort_keys=True)][record["seed"]] = record
    return cells


def _without_seed(config: dict) -> dict:
    return {k: _without_seed(v) if isinstance(v, dict) else v for k, v in config.items() if k != "seed"}


def differences(one: dict, other: dict, prefix: str = "") -> dict[str, tuple[object, object]]:
    """Return the dotted names of the values that differ between two nested mappings, with both values."""
    found = {}
    for key in dict.fromkeys((*one, *other)):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found[f"{prefix}{key}"] = (a, b)
    return found


def comparison_markdown(pairs: list[Pair], names: tuple[str, str]) -> str:
    """Return the pairs as a Markdown table, with the settings that differ numbered below it."""
    notes: dict[str, int] = {}
    rows = []
    for pair in pairs:
        data, model, trained, method, fraction = pair.what
        networks = model if model == trained else f"{model} → {trained}"
        row = [data, networks, method, fraction, *(_shown(cell) for cell in (pair.first, pair.second))]
        difference = None if None in (pair.first, pair.second) else paired(pair.second, pair.first)
        note = "; ".join(f"{name}: {a} / {b}" for name, (a, b) in pair.differing.items())
        number = str(notes.setdefault(note, len(notes) + 1)) if note else ""
        rows.append([*row, in_words(difference), number])
    header = ["Dataset", "Network", "Method", "Fraction", *names, "Difference (95%)", "Settings"]
    below = "".join(f"\n{number}. {note}" for note, number in notes.items())
    return (
        f"Test accuracy (%) after the last epoch, mean ± standard deviation over seeds (how many). Difference: "
        f"{names[1]} minus the other, seed by seed over the common seeds, with a 95% confidence interval.\n\n"
        + markdown(header, rows)
        + (f"\nSettings that differ, {names[0]} / {names[1]}:\n{below}\n" if below else "")
    )


def _shown(cell: Cell | None) -> str:
    return "missing" if cell is None else f"{mean_and_std(cell.final)} ({len(cell.final)})"
