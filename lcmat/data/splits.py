"""A dataset in memory: images as one uint8 tensor on the training device. Or, where that does not fit, as files."""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from lcmat import seeds
from lcmat.data.depth import EIGHT_BITS, Depth
from lcmat.errors import UserError
from lcmat.hardware import cores

Batch = tuple[Tensor, Tensor, Tensor]  # uint8 images (b, c, h, w), labels (b,), positions in the split (b,)


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """Images (n, c, h, w) uint8 and labels (n,) int64, on one device.

    files: a hash of the image files that they were read from, paths: these files, and root: the folder that their
    names count from; None for other sources.
    """

    images: Tensor
    labels: Tensor
    files: str | None = None
    paths: Sequence[Path] | None = None
    root: Path | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return tuple(self.images.shape[1:])

    def to(self, device: torch.device) -> TensorSplit:
        """Return the split on `device`; on the host still if the device's memory cannot hold it."""
        if device.type == "cuda" and self.images.nbytes > 0.5 * torch.cuda.mem_get_info(device)[0]:
            return self
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def take(self, index: Tensor) -> TensorSplit:
        """Return the split of the samples in `index`."""
        index = torch.as_tensor(index, device=self.labels.device)
        paths = None if self.paths is None else [self.paths[i] for i in index.tolist()]
        return TensorSplit(self.images[index], self.labels[index], paths=paths, root=self.root)

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Batch]:
        """Yield images, labels and positions for each part, a tensor of positions."""
        for part in parts:
            index = part.to(self.labels.device)
            yield self.images[index], self.labels[index], part

    def sample(self, count: int) -> Tensor:
        """Return up to `count` images from all over the split: what mean and standard deviation are taken from."""
        return self.images[:: -(-len(self) // count)]

    def fingerprint(self) -> str:
        """Return a hash of all pixels and labels, or of the image files that they were read from."""
        if self.files is not None:
            return self.files
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        digest.update(self.labels.contiguous().cpu().numpy())
        digest.update(self.images.contiguous().cpu().numpy())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class FileSplit:
    """Image files and labels (n,) int64 that are read as they are needed, by a DataLoader's worker processes.

    For folders that do not fit into memory. `decode` maps a path to a uint8 tensor (c, h, w), on the scale `depth`.
    """

    paths: Sequence[Path]
    labels: Tensor
    decode: Callable[[Path], Tensor]
    image_shape: tuple[int, int, int]
    root: Path
    depth: Depth = EIGHT_BITS
    workers: int = field(default_factory=lambda: min(4, cores()))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, int]:
        """Return one image, its label and its position; this is what the DataLoader calls."""
        return self.decode(self.paths[position]), self.labels[position], position

    def to(self, device: torch.device) -> FileSplit:
        """Return itself: batches are moved as they come."""
        return self

    def take(self, index: Tensor) -> FileSplit:
        """Return the split of the samples in `index`."""
        index = torch.as_tensor(index)
        return replace(self, paths=[self.paths[i] for i in index.tolist()], labels=self.labels[index.cpu()])

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Batch]:
        """Yield images, labels and positions for each part, a tensor of positions."""
        loader = DataLoader(
            self,
            batch_sampler=[part.tolist() for part in parts],
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
        )
        try:
            yield from loader
        except UserError as error:
            # A worker's error comes back with its traceback around the one line that matters. Its frames and itself
            # refer to each other, which would keep the workers alive, and torch waits 5 seconds for each at the end.
            message = str(error).strip().splitlines()[-1].split("UserError: ")[-1]
            traceback.clear_frames(error.__traceback__)
            raise UserError(message) from None

    def sample(self, count: int) -> Tensor:
        """Return up to `count` images from all over the split."""
        return torch.stack([self.decode(path) for path in self.paths[:: -(-len(self) // count)]])

    def fingerprint(self) -> str:
        """Return the same as `fingerprint_of_files`."""
        return fingerprint_of_files(self.paths, self.labels, self.image_shape, self.root, self.depth)


Split = TensorSplit | FileSplit


def fingerprint_of_files(
    paths: Sequence[Path], labels: Tensor, image_shape: tuple[int, ...], root: Path, depth: Depth = EIGHT_BITS
) -> str:
    """Return a hash of the labels and of every file's name below `root`, size, first and last 4 KiB, and the depth.

    The same whether the images are then held in memory or not; whole files would be too much to read at every start.
    """
    digest = hashlib.sha256(repr(image_shape).encode())
    if depth != EIGHT_BITS:
        digest.update(repr(depth).encode())
    digest.update(labels.contiguous().numpy())
    for path in paths:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(f"{path.relative_to(root)} {size}\n".encode(errors="surrogateescape"))  # any name there is
            for start in sorted({0, max(0, size - 4096)}):
                file.seek(start)
                digest.update(file.read(4096))
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split with what training needs to know of them.

    mean, std: for each channel, of pixel values in [0, 1]. augmentation: a name of `lcmat.augmentation.images`.
    variant: what makes it another dataset than its source: the names of `lcmat.data.variants`, and config_name.
    measured: whether mean and std are those of the training images here, none being published.
    own_name: what a dataset of one's own is called in headings and paths, None of one that `name` says all of.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: str = "none"
    variant: dict[str, float | str | list[float]] = field(default_factory=dict)
    measured: bool = False
    own_name: str | None = None

    def __post_init__(self) -> None:
        for part, split in (("training", self.train), ("test", self.test)):
            if len(split) == 0:
                raise UserError(f"the {part} split of {self.name} is empty")
            lowest, highest = int(split.labels.min()), int(split.labels.max())
            if lowest < 0 or highest >= len(self.classes):
                raise UserError(
                    f"the {part} split of {self.name} has labels {lowest} to {highest}, "
                    f"but there are {len(self.classes)} classes"
                )

    @property
    def train_files(self) -> Sequence[Path] | None:
        """The files of the training images, where each has one."""
        return self.train.paths

    @property
    def train_names(self) -> list[Path] | None:
        """The names of these files below the folder of the training images: CLASS/…"""
        if self.train.paths is None:
            return None
        return [Path(*path.relative_to(self.train.root).parts[1:]) for path in self.train.paths]

    @property
    def title(self) -> str:
        """What people know it by."""
        return self.own_name or self.name

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.train.image_shape

    @property
    def image_size(self) -> int | tuple[int, int]:
        """The side of square images, else (height, width)."""
        _, height, width = self.image_shape
        return height if height == width else (height, width)

    @property
    def size_in_words(self) -> int | str:
        """The side of square images, else HEIGHTxWIDTH: how configurations say it."""
        return self.image_size if isinstance(self.image_size, int) else "x".join(map(str, self.image_size))

    def to(self, device: torch.device) -> Dataset:
        """Return the dataset with its images on `device`."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def fingerprint(self) -> str:
        """Return a hash of both splits: what a cached network or a record belongs to, wherever the files lie."""
        digest = hashlib.sha256()
        for part in (self.train.fingerprint(), self.test.fingerprint(), repr(self.classes)):
            digest.update(part.encode())
        return digest.hexdigest()[:16]


def held_out(labels: Tensor, ratio: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split the positions of `labels` (n,) into those kept and those held out, stratified and seeded, each sorted.

    Raises UserError if a class is too small to be split.
    """
    from sklearn.model_selection import train_test_split  # costs seconds and 120 MB, which few runs need

    positions = torch.arange(len(labels)).numpy()
    try:
        keep, out = train_test_split(
            positions,
            test_size=ratio,
            stratify=labels.cpu().numpy(),
            random_state=seeds.derive(seed, "validation") % 2**32,
        )
    except ValueError as error:
        classes = len(labels.unique())
        raise UserError(
            f"cannot hold out {ratio:g} of the training set for validation: both parts need samples of each of the "
            f"{classes:,} classes, of {len(labels):,} in all; give another --val_ratio, or more samples"
        ) from error
    return torch.from_numpy(keep).sort().values, torch.from_numpy(out).sort().values


def resized(split: Split, size: int) -> Split:
    """Return the split with square images of `size` pixels (bilinear, antialiased); files are decoded to it already."""
    if isinstance(split, FileSplit) or split.image_shape[1:] == (size, size):
        return split
    try:
        images = torch.cat(_interpolated(split.images, size))
    except (RuntimeError, MemoryError) as error:
        raise UserError(f"images of {size} pixels do not fit into memory; give a smaller image size") from error
    return TensorSplit(images, split.labels)


def _interpolated(images: Tensor, size: int) -> list[Tensor]:
    return [
        F.interpolate(part.float(), size=(size, size), mode="bilinear", antialias=True).round().clamp(0, 255).byte()
        for part in images.split(1024)
    ]


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of uint8 images (n, c, h, w), in [0, 1], rounded to 1e-4."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        share = torch.bincount(images[:, channel].flatten().cpu(), minlength=256).double()
        share /= share.sum()
        mean = (share * levels).sum()
        std = (share * (levels - mean).square()).sum().sqrt()
        means.append(round(float(mean), 4))
        stds.append(max(round(float(std), 4), 1e-4))  # a constant channel must not divide by zero
    return tuple(means), tuple(stds)


def to_pixels(image: Image.Image, mode: str, size: int | None, depth: Depth = EIGHT_BITS) -> Tensor:
    """Return a PIL image as uint8 (c, h, w); with a size, scaled so that it fills a square and cut to its middle.

    depth: the dataset's scale, if it has images of more than 8 bits a channel.
    """
    image = depth.eight_bit(image).convert(mode)
    if size is not None and image.size != (size, size):
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, -1).permute(2, 0, 1).contiguous()
