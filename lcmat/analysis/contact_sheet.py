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
    title = f"{dataset.name}, {100 * fraction:.4g}%, seed {seed}"
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
    """Draw each method's images: a panel for each method, a row for each class, in their order."""
    longest = max(int(np.bincount(labels).max()) for _, labels in pictures.values())
    across = max(1, min(len(pictures), 24 // longest))
    down = math.ceil(len(pictures) / across)
    height = 0.22 * classes + 0.35
    size = (0.22 * longest * across + 0.3 * across + 0.8, height * down + 0.4)
    figure, panels = plt.subplots(down, across, figsize=size, layout="constrained", squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for axes, (method, (images, labels)) in zip(panels.flat, pictures.items(), strict=False):
        sheet = sheet_of(images, labels, classes, longest)
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(method, fontsize=7, pad=2)
    figure.suptitle(f"{title}: a row for each class, in the order chosen", fontsize=8)
    return save_figure(figure, folder, name)


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
