"""What methods chose or made, as sheets of images."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lcmat.condensation import Synthetic
from lcmat.data import Dataset
from lcmat.errors import UserError
from lcmat.reports import Found, save_figure
from lcmat.runs import Job
from lcmat.selection import Subset

Pictures = tuple[torch.Tensor, np.ndarray]  # uint8 (m, c, h, w) and labels (m,)


def images(found: Found, jobs: list[Job], fraction: float | None = None, seed: int | None = None) -> list[Path]:
    """Draw a contact sheet of what each method chose or made, one row for each class (Figure 7).

    Of the jobs of one fraction and seed; of the first that is recorded, if none is named.
    """
    there = [(job, record) for job, record in zip(jobs, found.records, strict=True) if record is not None]
    fraction = there[0][1]["fraction"] if fraction is None else fraction
    seed = there[0][1]["seed"] if seed is None else seed
    here = {r["selection"]: job for job, r in there if (r["fraction"], r["seed"]) == (fraction, seed)}
    if not here:
        raise UserError(f"{found.name}: no run of fraction {fraction:g} and seed {seed} is recorded")
    dataset = next(iter(here.values())).setup.dataset
    pictures = {name: _pictures(job) for name, job in here.items()}
    title = f"{dataset.title}, {100 * fraction:.4g}%, seed {seed}"
    name = found.name + "-images" * (not found.alone)
    return contact_sheet(pictures, dataset.num_classes, title, name, found.figures)


def _pictures(job: Job) -> Pictures:
    """Return the images that a recorded run chose or made, and their labels."""
    path = job.path
    if "condensing" in job.config:
        made = Synthetic.load(path.with_suffix(".pt"))
        return made.images.clamp(0, 1).mul(255).round().byte(), made.labels.numpy()
    subset = Subset.load(path.with_suffix(".npz"))
    return pictures_of(job.setup.dataset, subset), subset.classes


def contact_sheet(pictures: dict[str, Pictures], classes: int, title: str, name: str, folder: Path) -> list[Path]:
    """Draw each method's images: a panel for each method, a row for each class, in their order.

    Where all have one image of each class, methods are rows and classes columns.
    """
    single = all(sorted(labels.tolist()) == list(range(classes)) for _, labels in pictures.values())
    return save_figure((_one_of_each if single else _panels)(pictures, classes, title), folder, name)


# Inches of a figure's width; the least and greatest side of an image in it.
WIDTH, SIDES = 9.0, (0.22, 0.42)


def _one_of_each(pictures: dict[str, Pictures], classes: int, title: str) -> plt.Figure:
    rows = np.concatenate([np.full(len(labels), row) for row, (_, labels) in enumerate(pictures.values())])
    images = torch.cat([images[np.argsort(labels)] for images, labels in pictures.values()])
    side = min(0.6, WIDTH / (classes + 3))
    size = (side * classes + 0.09 * max(map(len, pictures)) + 0.5, side * len(pictures) + 0.5)
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    sheet = sheet_of(images, rows, len(pictures), classes)
    _show(axes, sheet)
    step = sheet.shape[0] / len(pictures)
    axes.set_yticks([step * (row + 0.5) for row in range(len(pictures))], list(pictures), fontsize=9)
    figure.suptitle(f"{title}: a column for each class", fontsize=9)
    return figure


def _panels(pictures: dict[str, Pictures], classes: int, title: str) -> plt.Figure:
    longest = max(int(np.bincount(labels).max()) for _, labels in pictures.values())
    across = max(1, min(len(pictures), 24 // longest))
    down = math.ceil(len(pictures) / across)
    side = min(SIDES[1], max(SIDES[0], WIDTH / (across * (longest + 0.7))))
    size = (side * (longest + 0.7) * across, (side * classes + 0.35) * down + 0.4)
    figure, panels = plt.subplots(down, across, figsize=size, layout="constrained", squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for axes, (method, (images, labels)) in zip(panels.flat, pictures.items(), strict=False):
        _show(axes, sheet_of(images, labels, classes, longest))
        axes.set_title(method, fontsize=9, pad=2)
    figure.suptitle(f"{title}: a row for each class, in the order chosen", fontsize=9)
    return figure


def _show(axes: plt.Axes, sheet: np.ndarray) -> None:
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.tick_params(length=0)


def pictures_of(dataset: Dataset, subset: Subset) -> torch.Tensor:
    """Return the chosen images, in the subset's order."""
    chosen = dataset.train.take(torch.from_numpy(subset.indices))
    return torch.cat([images.cpu() for images, _, _ in chosen.batches(torch.arange(len(chosen)).split(256))])


def sheet_of(images: torch.Tensor, labels: np.ndarray, classes: int, columns: int, gap: int = 1) -> np.ndarray:
    """Return images in rows by class, (h, w, 3) or (h, w), on white."""
    channels, height, width = images.shape[1:]
    sheet = torch.full((channels, classes * (height + gap), columns * (width + gap)), 255, dtype=torch.uint8)
    for position, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        column = int((labels[:position] == label).sum())
        top, left = label * (height + gap), column * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet[0].numpy() if channels == 1 else sheet.permute(1, 2, 0).numpy()
