"""Variants of any dataset: labels made wrong, classes thinned out to a long tail, pixels scaled in another way.

What is drawn is drawn by seeds that do not depend on the run's, so that all runs and methods see the same training set.
Labels and images of the test split stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lcmat import seeds
from lcmat.data.splits import Dataset, Split, TensorSplit
from lcmat.errors import UserError

SHORT = {"long_tail": "longtail", "label_noise": "noise"}  # in the name of a dataset


def varied(dataset: Dataset, label_noise: float | None = None, long_tail: float | None = None) -> Dataset:
    """Return the dataset with a long tail and then label noise in its training split, and both in its name.

    None: left as it is. Pixel statistics stay those of the whole. Raises UserError for values that cannot be.
    """
    if long_tail is not None:
        positions = long_tailed(dataset.train.labels, dataset.num_classes, long_tail)
        dataset = _marked(dataset, dataset.train.take(positions), "long_tail", long_tail)
    if label_noise is not None:
        labels = mislabelled(dataset.train.labels, dataset.num_classes, label_noise)
        dataset = _marked(dataset, _labelled(dataset.train, labels), "label_noise", label_noise)
    return dataset


def scaled_by(dataset: Dataset, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> Dataset:
    """Return the dataset with other pixel statistics: inputs are (x − mean) / std of pixel values x in [0, 1].

    mean, std: one value, or one for each channel; None: the dataset's own. (0, 1) leaves pixels as they are.
    Raises UserError for another number of values, or ones that cannot be.
    """
    given = {"pixel_mean": mean, "pixel_std": std}
    new = {name: _by_channel(name, values, dataset.image_shape[0]) for name, values in given.items() if values}
    if not new:
        return dataset
    return replace(
        dataset,
        mean=tuple(new.get("pixel_mean", dataset.mean)),
        std=tuple(new.get("pixel_std", dataset.std)),
        variant={**dataset.variant, **new},
        measured=False,
    )


def _by_channel(name: str, values: Sequence[float], channels: int) -> list[float]:
    if len(values) not in (1, channels):
        each = "" if channels == 1 else f", or one for each of {channels} channels"
        raise UserError(f"{name} takes one value{each}, not {len(values)}")
    for value in values:
        if not math.isfinite(value) or (name == "pixel_std" and value <= 0):
            raise UserError(f"{name} must be {'above 0 and ' * (name == 'pixel_std')}finite, not {value:g}")
    return [float(value) for value in values] * (channels if len(values) == 1 else 1)


def mislabelled(labels: Tensor, classes: int, rate: float) -> Tensor:
    """Return labels (n,) of which round(rate · n), drawn at random, are wrong: another class, each equally likely.

    Symmetric noise as in LBCS. Its released code draws for each label by itself whether it is to be wrong.
    """
    if not 0 < rate < 1:
        raise UserError(f"label noise must lie between 0 and 1, not {rate:g}")
    _check_classes(classes)
    draw = seeds.generator(0, "label noise")
    wrong = torch.randperm(len(labels), generator=draw)[: round(rate * len(labels))]
    noisy = labels.clone()
    shift = torch.randint(1, classes, (len(wrong),), generator=draw).to(labels.device)
    noisy[wrong] = (labels[wrong] + shift) % classes
    return noisy


def long_tailed(labels: Tensor, classes: int, factor: float) -> Tensor:
    """Return the positions, sorted, of a set of which class c has ⌊n₀ · factor^(−c/(C−1))⌋ samples, at least 1.

    The exponential profile of Cui et al. (CVPR 2019), drawn at random in each class. n₀, the number of the first class,
    is as large as all classes can fill; where they are of equal size, that size. A class without samples stays so.
    """
    if not 1 <= factor < math.inf:
        raise UserError(f"the imbalance factor of a long tail must be at least 1 and finite, not {factor:g}")
    _check_classes(classes)
    sizes = torch.bincount(labels.cpu(), minlength=classes).tolist()
    profile = [factor ** (-c / (classes - 1)) for c in range(classes)]
    first = min(size / share for size, share in zip(sizes, profile, strict=True) if size)
    kept = []
    for c, share in enumerate(profile):
        own = (labels.cpu() == c).nonzero()[:, 0]
        order = torch.randperm(len(own), generator=seeds.generator(0, "long tail", c))
        kept.append(own[order[: max(1, math.floor(first * share + 1e-9))]])  # 1e-9: 60 may come as 59.999…
    return torch.cat(kept).sort().values


def _check_classes(classes: int) -> None:
    if classes < 2:
        raise UserError("label noise and long tails need a dataset of at least two classes")


def _labelled(split: Split, labels: Tensor) -> Split:
    # A tensor split that was read from files is no longer what these hold, so it is known by its pixels and labels.
    return replace(split, labels=labels, **({"files": None} if isinstance(split, TensorSplit) else {}))


def _marked(dataset: Dataset, train: Split, name: str, value: float) -> Dataset:
    variant, mark = {**dataset.variant, name: float(value)}, f"-{SHORT[name]}{value:g}"
    own = None if dataset.own_name is None else dataset.own_name + mark
    return replace(dataset, name=dataset.name + mark, own_name=own, train=train, variant=variant)
