"""Differentiable siamese augmentation: operations on batches of float images under draws that batches share.

A draw holds the names of operations and numbers in [0, 1), whatever the images' size: applied to real and to synthetic
images it does the same to both (Zhao & Bilen, ICML 2021), and gradients flow through it. With one row of numbers a
batch shares them; with a row for each image each has its own. Numbers come from an explicit CPU generator: equal on
all devices. Images (b, c, h, w) are normalised, as the published strengths assume; borders are filled with 0, the mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
# Datasets of characters, of which some are others when mirrored.
UNMIRRORED = ("digits", "MNIST", "SVHN")


@dataclass(frozen=True)
class Strength:
    """How far each operation may go; the defaults are those of Zhao & Bilen, and the identity lies at `NOTHING`.

    brightness: x + (u − ½) · brightness. saturation: distances from the grey image times 1 + (u − ½) · saturation.
    contrast: distances from the image's mean times 1 + (2u − 1) · contrast. crop: shifts of up to this share of the
    size. cutout: side of the square set to 0. flip: the probability. scale: factors between 1/scale and scale.
    rotate: degrees to either side.
    """

    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5
    crop: float = 0.125
    cutout: float = 0.5
    flip: float = 0.5
    scale: float = 1.2
    rotate: float = 15.0


NOTHING = Strength(0, 0, 0, 0, 0, 0, 1, 0)
USUAL = Strength()


@dataclass(frozen=True)
class Strategy:
    """Which operations: all of `first`, then one of `one_of` at random, then all of `last`.

    cutmix: the probability that a training batch is mixed (`cutmix`), which matching does not use.
    """

    first: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    cutmix: float = 0.0

    def without(self, name: str) -> Strategy:
        """Return the strategy without one of the operations."""
        kept = {part: tuple(n for n in getattr(self, part) if n != name) for part in ("first", "one_of", "last")}
        return replace(self, **kept)


NONE = Strategy()
DSA = Strategy(one_of=OPERATIONS)  # Zhao & Bilen: for matching, and for training on synthetic images
IDC_MATCHING = Strategy(("color",), ("crop",), ("cutout",))  # Kim et al. 2022 and LCMat's appendix D.1
IDC_NETWORK = Strategy(("color",), ("crop",), cutmix=0.5)  # the same, CutMix in place of cutout
IDC_TRAINING = Strategy(("flip", "color"), ("crop", "scale", "rotate"), cutmix=0.5)
# Augmentations of training: names for `Recipe.augmentation`.
TRAINING = {
    "dsa": DSA,
    "dsa_unmirrored": DSA.without("flip"),
    "idc": IDC_TRAINING,
    "idc_unmirrored": IDC_TRAINING.without("flip"),
}


@dataclass(frozen=True)
class Draw:
    """Operations in their order, each with its numbers (1 or b, 3) in [0, 1)."""

    operations: tuple[tuple[str, Tensor], ...] = ()


def drawn(strategy: Strategy, generator: torch.Generator, count: int = 1) -> Draw:
    """Draw what a strategy leaves open: one for a batch, or with a count one for each of so many images.

    Which of `one_of` it is holds for the whole batch either way, as in the published code.
    """
    chosen = ()
    if strategy.one_of:
        chosen = (strategy.one_of[int(torch.randint(len(strategy.one_of), (), generator=generator))],)
    names = (*strategy.first, *chosen, *strategy.last)
    return Draw(tuple((name, torch.rand(count, 3, generator=generator)) for name in names))


def applied(images: Tensor, draw: Draw, strength: Strength = USUAL) -> Tensor:
    """Return images (b, c, h, w) under a draw for the batch or for each of them."""
    for name, numbers in draw.operations:
        numbers = numbers.to(images.device, images.dtype)
        images = _FUNCTIONS[name](images, numbers, strength)
    return images


def training_batch(images: Tensor, name: str, generator: torch.Generator) -> tuple[Tensor, Mix | None]:
    """Return a training batch under the augmentation called `name`, and how it was mixed; others leave it as it is."""
    if name not in TRAINING:
        return images, None
    return varied(images, TRAINING[name], generator)


def varied(images: Tensor, strategy: Strategy, generator: torch.Generator) -> tuple[Tensor, Mix | None]:
    """Return images, each under a draw of its own, and how they were mixed if they were."""
    images = applied(images, drawn(strategy, generator, len(images)))
    if strategy.cutmix and float(torch.rand((), generator=generator)) < strategy.cutmix:
        return cutmix(images, generator)
    return images, None


@dataclass(frozen=True)
class Mix:
    """Image i shows `share` of itself, and for the rest image partner[i]; the loss is shared out alike."""

    partner: Tensor
    share: float


def cutmix(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Mix]:
    """Return images with one rectangle of each replaced by that of another of the batch (Yun et al., ICCV 2019).

    Its share of the area is 1 − λ, λ ~ U(0, 1) (that is Beta(1, 1)), where it is not cut off at the border.
    """
    height, width = images.shape[2:]
    area, across, down = torch.rand(3, generator=generator).tolist()
    side = math.sqrt(area)
    rows = _interval(down * height, side * height, height)
    columns = _interval(across * width, side * width, width)
    partner = torch.randperm(len(images), generator=generator).to(images.device)
    mask = torch.zeros(height, width, dtype=torch.bool, device=images.device)
    mask[rows, columns] = True
    share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return torch.where(mask, images[partner], images), Mix(partner, share)


def _interval(centre: float, length: float, size: int) -> slice:
    half = int(length) // 2
    return slice(max(0, int(centre) - half), min(size, int(centre) + half))


def strategy_for(dataset: str, strategy: Strategy) -> Strategy:
    """Return the strategy as it suits a dataset: characters are not mirrored."""
    return strategy.without("flip") if dataset in UNMIRRORED else strategy


def training_name(name: str, dataset: str) -> str:
    """Return the name of a training augmentation as it suits a dataset: characters are not mirrored."""
    plain = f"{name}_unmirrored"
    return plain if dataset in UNMIRRORED and plain in TRAINING else name


def _column(numbers: Tensor, index: int) -> Tensor:
    return numbers[:, index, None, None, None]


def _color(x: Tensor, u: Tensor, strength: Strength) -> Tensor:
    x = x + (_column(u, 0) - 0.5) * strength.brightness
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (1 + (_column(u, 1) - 0.5) * strength.saturation)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (1 + (2 * _column(u, 2) - 1) * strength.contrast)


def _crop(x: Tensor, u: Tensor, strength: Strength) -> Tensor:
    """Shift by whole pixels; what comes in from beyond the border is 0."""
    height, width = x.shape[2:]
    down, across = _shift(height, u[:, 0], strength.crop), _shift(width, u[:, 1], strength.crop)
    if len(u) == 1:
        down, across = int(down), int(across)
        return F.pad(x, (-across, across, -down, down))
    rows = torch.arange(height, device=x.device) + down[:, None]
    columns = torch.arange(width, device=x.device) + across[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    moved = x.gather(2, rows.clamp(0, height - 1)[:, None, :, None].expand(x.shape))
    moved = moved.gather(3, columns.clamp(0, width - 1)[:, None, None, :].expand(x.shape))
    return moved * inside[:, None]


def _shift(size: int, u: Tensor, share: float) -> Tensor:
    """Return by how many pixels to move, (1 or b,), each of the possible shifts equally likely."""
    most = int(size * share + 0.5)
    return (u * (2 * most + 1)).long().clamp(max=2 * most) - most


def _cutout(x: Tensor, u: Tensor, strength: Strength) -> Tensor:
    kept = ~(
        _cut(x.shape[2], u[:, 0], strength.cutout)[:, :, None] & _cut(x.shape[3], u[:, 1], strength.cutout)[:, None]
    )
    return x * kept[:, None]


def _cut(size: int, u: Tensor, share: float) -> Tensor:
    """Tell for every index along an axis whether it is cut out, (1 or b, size); centres lie anywhere in the image."""
    side = int(size * share + 0.5)
    places = size + 1 - side % 2
    start = (u * places).long().clamp(max=places - 1)[:, None] - side // 2
    index = torch.arange(size, device=u.device)
    return (index >= start) & (index < start + side)


def _flip(x: Tensor, u: Tensor, strength: Strength) -> Tensor:
    return torch.where(_column(u, 0) < strength.flip, x.flip(3), x)


def _scale(x: Tensor, u: Tensor, strength: Strength) -> Tensor:
    factors = 1 / strength.scale + u[:, :2] * (strength.scale - 1 / strength.scale)
    return _warped(x, torch.diag_embed(factors))


def _rotate(x: Tensor, u: Tensor, strength: Strength) -> Tensor:
    angle = (2 * u[:, 0] - 1) * math.radians(strength.rotate)
    cos, sin = angle.cos(), angle.sin()
    return _warped(x, torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2))


def _warped(x: Tensor, matrix: Tensor) -> Tensor:
    """Return images whose point p shows what was at matrix · p, in coordinates of −1 to 1; matrix (1 or b, 2, 2)."""
    theta = F.pad(matrix, (0, 1))
    grid = F.affine_grid(theta, [len(matrix), *x.shape[1:]], align_corners=False)
    if len(matrix) == 1:
        return _sampled(x, grid[0])
    return F.grid_sample(x, grid, align_corners=False)


def _sampled(x: Tensor, grid: Tensor) -> Tensor:
    """Return the same as F.grid_sample with one grid (h, w, 2) for all images, and a gradient that repeats on a GPU.

    Bilinear, 0 beyond the border. The gradient of grid_sample is summed by atomic operations, in any order.
    """
    height, width = x.shape[2:]
    across, down = ((grid[..., 0] + 1) * width - 1) / 2, ((grid[..., 1] + 1) * height - 1) / 2
    left, top = across.floor(), down.floor()
    pixels, result = x.flatten(2), 0
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - (across - column).abs()) * (1 - (down - row).abs())
        weight = weight * ((column >= 0) & (column < width) & (row >= 0) & (row < height))
        index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        result = result + pixels[:, :, index.flatten()] * weight.flatten()
    return result.view(x.shape)


_FUNCTIONS = {"color": _color, "crop": _crop, "cutout": _cutout, "flip": _flip, "scale": _scale, "rotate": _rotate}
