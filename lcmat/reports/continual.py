"""Tables and the figure of continual learning, from records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lcmat.files import write_text
from lcmat.records import read_records
from lcmat.reports.accuracy_figures import FEW
from lcmat.reports.difference import BASELINE, words_of
from lcmat.reports.dots import Panel, dots_figure, panel
from lcmat.reports.figures import band, save_figure, styles
from lcmat.reports.table_text import csv_text, emphasised, markdown, mean_and_std
from lcmat.reports.tables import (
    by_network,
    by_setting,
    cell_of,
    mean_std,
    network_of,
    options_by_fraction,
    options_said,
    paired,
    row_names,
    row_order,
    source,
)


def steps_of(records: list[dict]) -> dict[str, list[list[float]]]:
    """Return by row the accuracies after each step: of every network of every class order.

    A row is a method, or one of the sets of options that it was run with.
    """
    cells: dict[str, dict[int, list[list[float]]]] = defaultdict(dict)
    for record, row in zip(records, row_names(records), strict=True):
        cells[row][record["seed"]] = [step["each"] for step in record["steps"]]
    return {
        row: [
            [value for each in step for value in each]
            for step in zip(*dict(sorted(seeds.items())).values(), strict=True)
        ]
        for row, seeds in sorted(cells.items(), key=lambda item: row_order(item[0]))
    }


def seen(record: dict) -> list[int]:
    """Return how many classes were seen after each step."""
    return np.cumsum([len(classes) for classes in record["class_order"]]).tolist()


def continual_markdown(records: list[dict]) -> str:
    """Return a table for each setting: accuracy on the classes seen after each step, the best in bold.

    Full, whose memory is everything, is not ranked among the others.
    """
    parts = []
    for group in settings_in(records):
        cells, first, images = steps_of(group), group[0], _images(group)
        ranked = [row for row in cells if row != "Full"] if len(cells) > 1 else list(cells)
        means = {row: [mean_std(values)[0] for values in cells[row]] for row in ranked}
        body = []
        for row, steps in cells.items():
            marks = [_rank(means, row, number) for number in range(len(steps))]
            values = (emphasised(mean_and_std(tuple(v)), mark) for v, mark in zip(steps, marks, strict=True))
            body.append([row, images[row], *values])
        header = ["Method", "Images", *(f"{count} classes" for count in seen(first))]
        parts.append(f"## {first['dataset']}, {first['test_model']}\n\n{caption(group)}\n\n{markdown(header, body)}")
    return "\n".join(parts)


def _images(group: list[dict]) -> dict[str, str]:
    """Return how many images the memory of each row holds in the end, over the class orders."""
    counts: dict[str, set[int]] = defaultdict(set)
    for record, row in zip(group, row_names(group), strict=True):
        counts[row].add(record["subset_size"])
    return {row: " to ".join(f"{n:,}" for n in sorted({min(some), max(some)})) for row, some in counts.items()}


# What all cells of a table share, beside the selection network.
SHARED = (
    "dataset", "dataset_fingerprint", "image_size", "pixel_mean", "pixel_std", "test_model", "test_model_revision",
    "training", "test_interval", "test_fraction", "precision", "steps", "memory_per_class", "evaluations",
)  # fmt: skip


def settings_in(records: list[dict]) -> list[list[dict]]:
    """Return the records of each setting; methods that read no selection network stand beside each such network."""
    return [one for group in by_setting(records, SHARED) for one in by_network(group)]


def _rank(means: dict[str, list[float]], row: str, number: int) -> int | None:
    if len(means) < 3 or row not in means:
        return None
    order = sorted((m[number] for m in means.values()), reverse=True)
    return order.index(means[row][number]) + 1


def caption(group: list[dict]) -> str:
    """Say what the cells of a setting share."""
    config, orders = group[0]["config"], len({record["seed"] for record in group})
    networks, training = config.get("evaluations", 1), config["training"]
    each = f"{networks} networks for each of " if networks > 1 else ""
    how = ", ".join(f"{name} {training[name]}" for name in ("optimizer", "lr", "batch", "augmentation"))
    first = next((record for record in group if network_of(record)), group[0])
    return "; ".join(
        [
            f"Test accuracy (%) on all classes seen, after each of {config['steps']} steps; a memory of "
            f"{config['memory_per_class']} images a class, as large in the end as the column says. Mean ± standard "
            f"deviation of {each}{orders} class orders. A fresh {group[0]['test_model']} at each step, "
            f"{training['epochs']} epochs on the memory alone ({how}, {config['precision']})",
            *(part.replace("a network f_T of its own for each seed", "a network f_T for each seed and step")
              for part in source(first, orders)),
            *(said for name, sets in sorted(options_by_fraction(group).items()) if (said := options_said(name, sets))),
        ]
    ) + "."  # fmt: skip


def write_continual(folder: Path) -> tuple[str, list[Path]]:
    """Write the tables of all records of continual learning below a folder; return them and what is damaged."""
    records, damaged = read_records(folder, "continual")
    if not records:
        return "", damaged
    text = "# Continual learning\n\n" + continual_markdown(records)
    write_text(folder / "tables" / "continual.md", text)
    write_text(folder / "tables" / "continual.csv", continual_csv(records))
    return text, damaged


def continual_csv(records: list[dict]) -> str:
    """Return a line for each method and step: mean, standard deviation and how many trainings."""
    rows = []
    names = ["dataset", "test_model", "steps", "memory_per_class", "method", "classes", "mean", "std", "trainings"]
    for group in settings_in(records):
        for method, steps in steps_of(group).items():
            for count, values in zip(seen(group[0]), steps, strict=True):
                mean, std = mean_std(tuple(values))
                std = "" if std is None else f"{std:.3f}"
                first, config = group[0], group[0]["config"]
                what = [first["dataset"], first["test_model"], config["steps"], config["memory_per_class"]]
                rows.append([*what, method, count, f"{mean:.3f}", std, len(values)])
    return csv_text(names, rows)


def continual_figure(
    records: list[dict], makes_images: Callable[[str], bool], title: str, folder: Path, name: str
) -> list[Path]:
    """Draw Fig. 5: accuracy against classes seen, methods that select on the left and that condense on the right.

    More methods of a kind than lines that can be followed are dots, minus Uniform's accuracy, a panel for each step.
    One figure for each setting, numbered from the second on.
    """
    paths = []
    for number, group in enumerate(settings_in(records), 1):
        config = group[0]["config"]
        which = f"{group[0]['dataset']}, {config['steps']} steps, {config['memory_per_class']} images a class"
        words, stem = (title, name) if number == 1 else (f"{title}: {which}", f"{name}-{number}")
        kinds = _kinds(group, makes_images)
        panels = step_panels(group) if max(map(len, kinds.values())) > FEW else []
        if panels:
            said = f"{words}\n{words_of(BASELINE, [len({record['seed'] for record in group})], 'class orders')}"
            paths += dots_figure(panels, said, f"test accuracy minus {BASELINE}'s (points)", folder, stem)
        else:
            figure = _lines(steps_of(group), kinds, seen(group[0]), f"{words}: mean ± standard deviation")
            paths += save_figure(figure, folder, stem)
    return paths


def _kinds(records: list[dict], makes_images: Callable[[str], bool]) -> dict[str, list[str]]:
    """Return the rows of the methods that select and of those that condense, as far as there are any."""
    condensed = {record["selection"] for record in records if makes_images(record["selection"])}
    kinds: dict[str, list[str]] = {"selection": [], "condensation": []}
    for row in steps_of(records):
        kinds["condensation" if row.partition(" (")[0] in condensed else "selection"].append(row)
    return {kind: rows for kind, rows in kinds.items() if rows}


def step_panels(records: list[dict]) -> list[Panel]:
    """Return for each step the differences from Uniform by row, over class orders; none without Uniform.

    Full, whose memory is everything, is told in the heading and is no row.
    """
    cells: dict[tuple[str, int], dict[int, dict]] = defaultdict(dict)
    for record, row in zip(records, row_names(records), strict=True):
        for number, step in enumerate(record["steps"]):
            each = [{"test_accuracy": value, "best_test_accuracy": value} for value in step["each"]]
            cells[row, number][record["seed"]] = record | {"evaluations": each}
    made = {key: cell_of(by_seed) for key, by_seed in cells.items()}
    panels = []
    for number, classes in enumerate(seen(records[0])):
        here = {row: cell for (row, step), cell in made.items() if step == number}
        known = [f"{row} {mean_std(here[row].final)[0]:.1f}%" for row in (BASELINE, "Full") if row in here]
        if BASELINE in here:
            others = {row: paired(cell, here[BASELINE]) for row, cell in here.items() if row not in (BASELINE, "Full")}
            found = {row: one for row, one in others.items() if one is not None}
            panels.append(panel(f"{classes} classes\n{', '.join(known)}", found))
    return [one for one in panels if one.dots]


def _lines(cells: dict[str, list[list[float]]], kinds: dict[str, list[str]], x: list[int], title: str) -> plt.Figure:
    size = {"figsize": (4.2 * len(kinds) + 1.6, 4.2), "sharey": True, "squeeze": False}
    figure, (axes,) = plt.subplots(1, len(kinds), **size, layout="constrained")
    for place, (what, rows), letter in zip(axes, kinds.items(), "ab", strict=False):
        for row, style in styles(rows).items():
            mean, std = zip(*(mean_std(tuple(values)) for values in cells[row]), strict=True)
            place.plot(x, mean, markersize=5, label=row, **style)
            if len(rows) <= FEW:
                place.fill_between(x, *band(mean, std), color=style["color"], alpha=0.15, linewidth=0)
        place.set_xticks(x)
        place.set_xlabel("classes seen")
        place.set_title(f"({letter}) {what}" if len(kinds) > 1 else what, fontsize=10)
        place.grid(alpha=0.3)
    axes[0].set_ylabel("test accuracy on them (%)")
    drawn = [pair for one in axes for pair in zip(*one.get_legend_handles_labels(), strict=True)]
    figure.legend(*zip(*drawn, strict=True), loc="outside right upper", fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure
