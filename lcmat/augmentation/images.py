"""Augmentation of whole batches of uint8 images by tensor operations, on the device where they are."""

import torch
from torch import Tensor

from lcmat.augmentation import siamese

AUGMENTATIONS = ("none", "crop", "crop_flip", *siamese.TRAINING)
PADDING = 4


def augment(images: Tensor, name: str, generator: torch.Generator, among: tuple[int, slice] | None = None) -> Tensor:
    """Return the batch (b, c, h, w) under the augmentation called `name`, each image with a draw of its own.

    Those of `siamese.TRAINING` follow later, on normalised images: here they do nothing.

    crop: shift by up to 4 pixels in each direction over a border filled by reflection (RandomCrop with padding 4 and
    padding_mode "reflect"); on images below 32 pixels the padding shrinks in proportion, to 1 at 8.
    crop_flip: the same, and mirrored with probability ½. Draws come from the CPU `generator`: equal on all devices.
    among: how many images the whole batch has, for all of which is drawn, and which of them these are.
    """
    if name not in ("crop", "crop_flip"):
        return images
    _, _, height, width = images.shape
    count, own = (len(images), slice(None)) if among is None else among
    rows = _reflected(count, height, generator)
    columns = _reflected(count, width, generator)
    if name == "crop_flip":
        flip = torch.rand(count, generator=generator) < 0.5
        columns = torch.where(flip[:, None], columns.flip(1), columns)
    # One gather does padding, crop and flip, without the padded images.
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    rows, columns = rows[own].to(images.device), columns[own].to(images.device)
    return images.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _reflected(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Return for each image the source index of every target index along one axis, (count, size)."""
    padding = max(1, min(PADDING, size * PADDING // 32))
    offset = torch.randint(-padding, padding + 1, (count, 1), generator=generator)
    index = (torch.arange(size) + offset).abs()  # reflection at 0 …
    return (size - 1) - (size - 1 - index).abs()  # … and at size − 1


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return uint8 images (b, c, h, w) as (x / 255 − mean) / std, with channels last in memory.

    mean, std: (c,) for pixel values in [0, 1]; the result has their type. Images of floats (synthetic ones) are on
    the scale of mean and std already.
    """
    scale = 1 / (std if images.is_floating_point() else 255 * std)
    scaled = images.to(mean.dtype) * scale[:, None, None] - (mean / std)[:, None, None]
    return scaled.contiguous(memory_format=torch.channels_last)
