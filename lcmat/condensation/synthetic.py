"""Synthetic images: what condensation returns, how it begins, how several images are stored in one, and files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lcmat.data import Split, TensorSplit
from lcmat.errors import UserError, lookup
from lcmat.expected import Expected, array, both, fields, optional, real, whole
from lcmat.files import load_tensors, save_tensors, write_atomically

INITIALISATIONS = ("noise", "real", "mixed")


def _as_many(values: dict) -> str | None:
    images, labels = values["images"], values["labels"]
    return None if len(images) == len(labels) else f"holds {len(images)} images for {len(labels)} labels"


# What a file of synthetic images holds.
STORED = both(
    fields(
        {"images": array(None, None, None, None, kinds="F"), "labels": array(None, kinds="i"), "factor": whole(1)},
        {"curve": optional(array(None, 2, kinds="f")), "seconds": real(0)},
    ),
    _as_many,
)


@dataclass(frozen=True, eq=False)
class Synthetic:
    """Learned images with hard labels, class by class.

    images: (m, c, h, w) float32 on the scale of pixels, 0 for black and 1 for white, whatever space they were learned
    in; those learned in normalised space may lie outside [0, 1], and are kept so. labels: (m,) int64.
    factor: each stored image holds factor² images (`decoded`), each of the whole one's label. curve: (p, 2) float64,
    iterations and the mean matching loss up to each since the one before; seconds: of learning.
    """

    images: Tensor
    labels: Tensor
    factor: int = 1
    curve: Tensor | None = None
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.labels)

    def split(self) -> TensorSplit:
        """Return the images to train on, decoded: (m · factor², c, h, w) float32 on the scale of pixels."""
        return TensorSplit(decoded(self.images, self.factor), self.labels.repeat(self.factor**2))

    def save(self, path: Path) -> None:
        """Write tensors and numbers to a .pt file, atomically."""
        save_tensors(Path(path), {name: getattr(self, name) for name in self.__dataclass_fields__})

    @staticmethod
    def load(path: Path, expected: Expected | None = None) -> Synthetic:
        """Read what `save` wrote, which `expected` may narrow; raise UserError for anything else."""
        values = load_tensors(Path(path), STORED if expected is None else both(STORED, expected))
        images, labels = values["images"], values["labels"]
        return Synthetic(
            images.float(), labels.long(), values["factor"], values.get("curve"), values.get("seconds", 0.0)
        )

    def save_grid(self, path: Path) -> None:
        """Write a PNG with a row for each class, small images enlarged; values beyond black and white are cut off."""
        rows = [self.images[self.labels == label] for label in self.labels.unique(sorted=True)]
        columns, (channels, height, width) = max(len(row) for row in rows), self.images.shape[1:]
        sheet = torch.ones(channels, len(rows) * (height + 1) + 1, columns * (width + 1) + 1)
        for r, row in enumerate(rows):
            for c, image in enumerate(row):
                top, left = r * (height + 1) + 1, c * (width + 1) + 1
                sheet[:, top : top + height, left : left + width] = image.cpu().clamp(0, 1)
        times = max(1, 32 // height)
        pixels = sheet.mul(255).round().byte().repeat_interleave(times, 1).repeat_interleave(times, 2)
        array = pixels.permute(1, 2, 0).numpy() if channels == 3 else pixels.float().mean(0).numpy().astype(np.uint8)
        write_atomically(Path(path), lambda file: Image.fromarray(array).save(file, format="PNG"))


def decoded(images: Tensor, factor: int) -> Tensor:
    """Return the factor² images that each of `images` (m, c, h, w) holds, (m · factor², c, h, w).

    IDC (Kim et al., ICML 2022): cut into factor × factor patches, each upsampled bilinearly to the whole size, all
    first patches before all second ones; a size that factor does not divide is padded with grey, so that images must be
    on the scale of pixels. As products with
    matrices: on a GPU the gradient of torch's interpolation is summed in any order.
    """
    if factor == 1:
        return images
    height, width = images.shape[2:]
    images = F.pad(images, (0, -width % factor, 0, -height % factor), value=0.5)
    patches = [part for row in images.chunk(factor, 2) for part in row.chunk(factor, 3)]
    down, across = (_upsampling(patches[0].shape[axis], size, images) for axis, size in ((2, height), (3, width)))
    return down @ torch.cat(patches) @ across.T


def _upsampling(size: int, target: int, like: Tensor) -> Tensor:
    """Return the matrix (target, size) of linear interpolation along an axis."""
    unit = torch.eye(size, dtype=like.dtype, device=like.device)
    return F.interpolate(unit[None], size=target, mode="linear", align_corners=False)[0].T


def initial(
    split: Split,
    sizes: list[int],
    kind: str,
    factor: int,
    generator: torch.Generator,
    statistics: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Return images (m, c, h, w) on the scale of pixels to begin with, sizes[c] of class c, and labels (m,).

    noise: N(0, 1) in normalised space. real: images of the split, drawn without replacement. mixed: each is factor²
    such images, downsampled, side by side. statistics: mean and standard deviation of each channel's pixels, (c,).
    Raises UserError if a class has too few images.
    """
    lookup("init", kind, INITIALISATIONS)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    shape, (mean, std) = split.image_shape, statistics
    if kind == "noise":
        noise = torch.randn(len(labels), *shape, generator=generator)
        return noise * std.cpu()[:, None, None] + mean.cpu()[:, None, None], labels
    copies = factor**2 if kind == "mixed" else 1
    positions = class_positions(split.labels, len(sizes))
    index = drawn_from_classes(positions, [copies * size for size in sizes], generator)
    images = read(split, torch.cat(index)).cpu()
    if copies > 1:
        images = torch.cat([_side_by_side(part, factor) for part in images.split([copies * size for size in sizes])])
    return images, labels


def _side_by_side(images: Tensor, factor: int) -> Tensor:
    """Return (n, c, h, w) images that each hold factor² of `images` (n · factor², c, h, w), as `decoded` finds them."""
    height, width = images.shape[2:]
    size = (-(-height // factor), -(-width // factor))
    small = F.interpolate(images, size=size, mode="bilinear", antialias=True).chunk(factor**2)
    rows = [torch.cat(small[r * factor : (r + 1) * factor], 3) for r in range(factor)]
    return torch.cat(rows, 2)[:, :, :height, :width]


def class_positions(labels: Tensor, classes: int) -> list[Tensor]:
    """Return the positions of each class's samples, on the CPU."""
    labels = labels.cpu()
    return [(labels == label).nonzero()[:, 0] for label in range(classes)]


def drawn_from_classes(positions: list[Tensor], sizes: list[int], generator: torch.Generator) -> list[Tensor]:
    """Return sizes[c] random positions of class c for each class, without replacement; UserError if there are fewer."""
    result = []
    for label, (own, size) in enumerate(zip(positions, sizes, strict=True)):
        if size > len(own):
            raise UserError(f"class {label} has {len(own)} images, of which {size} are needed; ask for fewer")
        result.append(own[torch.randperm(len(own), generator=generator)[:size]])
    return result


def read(split: Split, index: Tensor) -> Tensor:
    """Return images of a split on the scale of pixels, float32 (n, c, h, w), where the split is."""
    ((images, _, _),) = split.batches([index])
    return images.float() / 255
