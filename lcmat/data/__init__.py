"""Datasets by name, each found locally before anything is downloaded.

To add one: a function (folder, image_size) -> (train, test, class names), and a line in the table below.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from lcmat.augmentation.images import AUGMENTATIONS
from lcmat.data import archives
from lcmat.data.folders import available_memory, image_folder
from lcmat.data.hub import Columns, hub, parquet
from lcmat.data.own_names import own_name
from lcmat.data.splits import Dataset, FileSplit, Split, TensorSplit, channel_statistics, held_out, resized
from lcmat.data.stand_in import SHAPES, stand_in
from lcmat.data.tiny_imagenet import tiny_imagenet
from lcmat.data.variants import scaled_by, varied
from lcmat.errors import UserError, lookup

__all__ = [
    "Dataset", "FileSplit", "Split", "TensorSplit", "held_out", "load", "names", "resolve", "scaled_by",
    "without_images",
]  # fmt: skip


@dataclass(frozen=True)
class _Source:
    """How to load a dataset, and what the literature normalises it by."""

    load: object
    augmentation: str = "none"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


_SOURCES = {
    "digits": _Source(archives.digits),
    "MNIST": _Source(archives.mnist("MNIST"), "none", (0.1307,), (0.3081,)),
    "FashionMNIST": _Source(archives.mnist("FashionMNIST"), "none", (0.2861,), (0.3530,)),
    "SVHN": _Source(archives.svhn, "none", (0.4377, 0.4438, 0.4728), (0.198, 0.201, 0.197)),
    "CIFAR10": _Source(archives.cifar("CIFAR10"), "crop_flip", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR100": _Source(archives.cifar("CIFAR100"), "crop_flip", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    # The released code augments CIFAR alone.
    "TinyImageNet": _Source(tiny_imagenet, "none", (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)),
}


def names() -> list[str]:
    """Return the names that `load` knows; `hf:` is followed by a name or path."""
    return [*_SOURCES, "ImageFolder", "hf:NAME_OR_PATH"]


def resolve(name: str) -> str:
    """Return the canonical spelling of a dataset's name; raise UserError that names the nearest known one."""
    if name.startswith("hf:") and len(name) > 3:
        return name
    return lookup("dataset", name, names())


def load(
    name: str,
    data_path: Path | str = "data",
    *,
    image_size: int | None = None,
    augmentation: str | None = None,
    columns: Columns | None = None,
    memory: int | None = None,
    workers: int | None = None,
    label_noise: float | None = None,
    long_tail: float | None = None,
    file_order: str | None = None,
    dataset_name: str | None = None,
) -> Dataset:
    """Load a dataset by name.

    data_path: the folder that holds it, or is to (for ImageFolder: that holds train/ and test/).
    image_size: scale images to this many pixels a side. augmentation: instead of the dataset's own.
    columns: for `hf:`, image_column, label_column, train_split, test_split, config_name.
    memory: an image folder that needs more bytes is read as it is needed (default: half of what is available), by this
    many `workers`.
    label_noise, long_tail: change the training split, as `lcmat.data.variants` says.
    file_order: "original" refuses data that are not read from the files they were published as, in their order.
    dataset_name: what data of one's own are called (default: their folder's name).
    Raises UserError if the name is unknown, or if data are absent and cannot be downloaded, or damaged.
    """
    name, folder = resolve(name), Path(data_path)
    if augmentation is not None:
        augmentation = lookup("augmentation", augmentation, AUGMENTATIONS)
    own = own_name(name, folder, dataset_name, names())
    source, configuration = _SOURCES.get(name, _Source(None, "crop_flip")), (columns or {}).get("config_name")
    if configuration is not None and not name.startswith("hf:"):
        raise UserError(f"--config_name is for hf: datasets, of which {name} is none; leave it out")
    if file_order is not None:
        _check_order(name, folder, lookup("file order", file_order, ("original",)))
    if name == "ImageFolder":
        limit = available_memory() // 2 if memory is None else memory
        train, test, classes = image_folder(folder, image_size, limit, workers)
    elif name.startswith("hf:"):
        train, test, classes = hub(name[3:], image_size, columns or {})
    elif _only_parquet(folder, name):
        train, test, classes = parquet(folder / name, image_size)
    else:
        train, test, classes = source.load(folder, image_size)
    if image_size is not None:
        train, test = resized(train, image_size), resized(test, image_size)
    mean, std = (source.mean, source.std) if source.mean else channel_statistics(train.sample(2000))
    if len(mean) != train.image_shape[0]:
        raise UserError(f"{name} should have {len(mean)} channels, but its images have {train.image_shape[0]}")
    how = augmentation or source.augmentation
    if len(classes) == 1:
        warnings.warn(f"{name} has one class, {classes[0]}: there is nothing to tell apart", stacklevel=2)
    dataset = Dataset(_public_name(name), train, test, classes, mean, std, how, measured=not source.mean)
    if configuration is not None:
        named = f"{dataset.name}:{configuration}"
        dataset = replace(dataset, name=named, variant={"config_name": configuration})
    return varied(replace(dataset, own_name=own), label_noise, long_tail)


def without_images(
    name: str, image_size: int | None, augmentation: str | None, **variants: float | None
) -> Dataset | None:
    """Return what a plan needs to know of a published dataset that is not here, None of one that is not known.

    variants: label_noise, long_tail, as `load` takes them.
    """
    name = resolve(name)
    if name not in SHAPES:
        return None
    source = _SOURCES[name]
    how = lookup("augmentation", augmentation, AUGMENTATIONS) if augmentation else source.augmentation
    return stand_in(name, image_size, (source.mean, source.std), how, variants)


def _check_order(name: str, folder: Path, order: str) -> None:
    """Raise UserError unless the data are read from the files that they were published as.

    CIFAR's classes come mixed there, and every copy may have its rows in another order: what takes the first of each
    class, or batches of one class, comes to something else then.
    """
    if name == "digits" or name not in _SOURCES:
        raise UserError(f"--file_order {order}: {name} has no archive whose order could be kept; leave it out")
    if _only_parquet(folder, name):
        raise UserError(
            f"--file_order {order}: {folder / name} holds Parquet files, whose rows stand in another order than in the "
            f"original archive; put that there, or leave --file_order out"
        )


def _only_parquet(folder: Path, name: str) -> bool:
    originals = {
        "CIFAR10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
        "CIFAR100": ("cifar-100-python", "cifar-100-python.tar.gz"),
        "TinyImageNet": ("tiny-imagenet-200", "tiny-imagenet-200.zip"),
    }
    if any((place / file).exists() for place in (folder, folder / name) for file in originals.get(name, ())):
        return False
    return name in _SOURCES and any((folder / name).glob("train-*.parquet"))


def _public_name(name: str) -> str:
    """Return the name that records show: of a local path only its last part."""
    if name.startswith("hf:") and Path(name[3:]).exists():
        return f"hf:{Path(name[3:]).resolve().name.encode(errors='backslashreplace').decode()}"
    return name
