"""Tables and the figure of continual learning, from records."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lcmat.figures import COLOURS, MARKERS, save_figure
from lcmat.table_text import emphasised, markdown, spread
from lcmat.tables import mean_std


def steps_of(records: list[dict]) -> dict[str, list[list[float]]]:
    """Return by method the accuracies after each step: of every network of every class order."""
    cells: dict[str, list[list[float]]] = {}
    for record in records:
        steps = cells.setdefault(record["selection"], [[] for _ in record["steps"]])
        for values, step in zip(steps, record["steps"], strict=True):
            values.extend(step["each"])
    return cells


def seen(record: dict) -> list[int]:
    """Return how many classes were seen after each step."""
    return np.cumsum([len(classes) for classes in record["class_order"]]).tolist()


def continual_markdown(records: list[dict]) -> str:
    """Return a table for each setting: accuracy on the classes seen after each step, the best in bold."""
    parts = []
    for group in _groups(records):
        cells, first = steps_of(group), group[0]
        means = {method: [mean_std(values)[0] for values in steps] for method, steps in cells.items()}
        body = []
        for method, steps in cells.items():
            marks = [_rank(means, method, number) for number in range(len(steps))]
            body.append([method, *(emphasised(spread(tuple(v)), mark) for v, mark in zip(steps, marks, strict=True))])
        header = ["Method", *(f"{count} classes" for count in seen(first))]
        parts.append(f"## {first['dataset']}, {first['test_model']}\n\n{_caption(group)}\n\n{markdown(header, body)}")
    return "\n".join(parts)


def _groups(records: list[dict]) -> list[list[dict]]:
    groups = defaultdict(list)
    for record in records:
        config = record["config"]
        groups[record["dataset"], record["test_model"], str(config["training"]), str(seen(record)),
               config["memory_per_class"]].append(record)  # fmt: skip
    return list(groups.values())


def _rank(means: dict[str, list[float]], method: str, number: int) -> int | None:
    if len(means) < 3:
        return None
    order = sorted((m[number] for m in means.values()), reverse=True)
    return order.index(means[method][number]) + 1


def _caption(group: list[dict]) -> str:
    config, orders = group[0]["config"], len({record["seed"] for record in group})
    networks, training = config.get("evaluations", 1), config["training"]
    each = f"{networks} networks for each of " if networks > 1 else ""
    how = ", ".join(f"{name} {training[name]}" for name in ("optimizer", "lr", "batch", "augmentation"))
    return (
        f"Test accuracy (%) on all classes seen, after each of {config['steps']} steps; a memory of "
        f"{config['memory_per_class']} images a class. Mean ± standard deviation of {each}{orders} class orders. "
        f"A fresh {group[0]['test_model']} at each step, {training['epochs']} epochs on the memory alone ({how}, "
        f"{config['precision']})."
    )


def continual_csv(records: list[dict]) -> str:
    """Return a line for each method and step: mean, standard deviation and how many trainings."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["dataset", "test_model", "method", "classes", "mean", "std", "trainings"])
    for group in _groups(records):
        for method, steps in steps_of(group).items():
            for count, values in zip(seen(group[0]), steps, strict=True):
                mean, std = mean_std(tuple(values))
                std = "" if std is None else f"{std:.3f}"
                row = [group[0]["dataset"], group[0]["test_model"], method, count, f"{mean:.3f}", std, len(values)]
                writer.writerow(row)
    return text.getvalue()


def continual_figure(
    records: list[dict], makes_images: Callable[[str], bool], title: str, folder: Path, name: str
) -> list[Path]:
    """Draw Fig. 5: accuracy against classes seen, methods that select on the left and that condense on the right."""
    cells, x = steps_of(records), seen(records[0])
    panels = [
        [method for method in cells if not makes_images(method)],
        [method for method in cells if makes_images(method)],
    ]
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), sharey=True, layout="constrained")
    for panel, methods, heading in zip(axes, panels, ("(a) selection", "(b) condensation"), strict=True):
        for number, method in enumerate(methods):
            mean, std = zip(*(mean_std(tuple(values)) for values in cells[method]), strict=True)
            style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number // len(COLOURS) % len(MARKERS)]}
            if method == "LCMat-S" or method == "LCMat-C":
                style |= {"linewidth": 2.4, "color": "black"}
            panel.plot(x, mean, markersize=4, label=method, **style)
            if len(methods) <= 8:
                low, high = (np.array(mean) + sign * np.nan_to_num(np.array(std, float)) for sign in (-1, 1))
                panel.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
        panel.set_xticks(x)
        panel.set_xlabel("classes seen")
        panel.set_title(heading, fontsize=10)
        panel.grid(alpha=0.3)
        if methods:
            panel.legend(fontsize=6 if len(methods) > 8 else 8, ncols=2 if len(methods) > 8 else 1)
    axes[0].set_ylabel("test accuracy on them (%)")
    figure.suptitle(title, fontsize=10)
    return save_figure(figure, folder, name)
