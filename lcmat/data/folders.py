"""One's own images: a folder with train/ and test/, each with a folder of images per class."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lcmat.data.progress import decode_all
from lcmat.data.sources import IMAGE_ERRORS
from lcmat.data.splits import FileSplit, Split, TensorSplit, fingerprint_of_files, to_pixels
from lcmat.errors import UserError

# As torchvision's ImageFolder, which takes seconds to import.
IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# Where images differ in size and the user names none.
DEFAULT_SIZE = 64


@dataclass(frozen=True)
class Decoder:
    """Reads an image file as uint8 (3, h, w); an object, so that worker processes can be sent it."""

    size: int | None

    def __call__(self, path: Path) -> Tensor:
        """Return the pixels. Raises UserError that names a damaged file."""
        try:
            with Image.open(path) as image:
                return to_pixels(image, "RGB", self.size)
        except IMAGE_ERRORS as error:
            raise UserError(f"cannot read image {path}; replace or remove it") from error


def image_folder(folder: Path, image_size: int | None, memory: int, workers: int | None) -> tuple[Split, Split, tuple]:
    """Return train/ and test/ of `folder` (test/ may be called val/), in order of the files' names.

    Held in memory if both fit into `memory` bytes, else read as needed by `workers` processes.
    """
    train_root = folder / "train"
    test_root = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), folder / "test")
    for root in (train_root, test_root):
        if not root.is_dir():
            raise UserError(
                f"{root} is missing; ImageFolder expects {folder}/train/CLASS/*.png and {folder}/test/CLASS/…"
            )
    classes = tuple(sorted(entry.name for entry in train_root.iterdir() if entry.is_dir()))
    unknown = sorted({entry.name for entry in test_root.iterdir() if entry.is_dir()} - set(classes))
    if not classes or unknown:
        what = f"has a class {unknown[0]} that {train_root} lacks" if unknown else "has no class folders"
        raise UserError(f"{test_root if unknown else train_root} {what}; make one folder for each class")
    train, test = (_files(root, classes) for root in (train_root, test_root))
    size = image_size or _common_size([*train[0], *test[0]])
    decode = Decoder(image_size if image_size else size if isinstance(size, int) else None)
    shape = (3, size, size) if isinstance(size, int) else (3, *size)
    bytes_needed = (len(train[0]) + len(test[0])) * shape[0] * shape[1] * shape[2]
    return *(
        TensorSplit(
            decode_all(decode, paths, f"{root.name} images"),
            labels,
            fingerprint_of_files(paths, labels, shape, folder),
            paths,
        )
        if bytes_needed <= memory
        else FileSplit(paths, labels, decode, shape, folder, **({} if workers is None else {"workers": workers}))
        for root, (paths, labels) in ((train_root, train), (test_root, test))
    ), classes


def _files(root: Path, classes: tuple[str, ...]) -> tuple[list[Path], Tensor]:
    paths, labels = [], []
    for number, name in enumerate(classes):
        found = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in IMG_EXTENSIONS)
        paths += found
        labels += [number] * len(found)
        if root.name == "train" and not found:
            raise UserError(f"{root / name} holds no images ({', '.join(IMG_EXTENSIONS)}); add some or remove it")
    if not paths:
        raise UserError(f"{root} holds no images ({', '.join(IMG_EXTENSIONS)})")
    return paths, torch.tensor(labels)


def _common_size(paths: list[Path]) -> tuple[int, int] | int:
    """Return the images' (height, width) if all agree, else DEFAULT_SIZE."""
    sizes = set()
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.add((image.height, image.width))
        except IMAGE_ERRORS as error:
            raise UserError(f"cannot read image {path}; replace or remove it") from error
        if len(sizes) > 1:
            return DEFAULT_SIZE
    return sizes.pop()


def available_memory() -> int:
    """Return the bytes of memory that can be had without swapping, as the system estimates them."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
