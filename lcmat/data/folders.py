"""One's own images: a folder with train/ and test/, each with a folder of images per class."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from lcmat.data.depth import DEEP, EIGHT_BITS, Depth, depth_of, extremes
from lcmat.data.listing import listed
from lcmat.data.progress import decode_all, in_threads
from lcmat.data.sources import IMAGE_ERRORS
from lcmat.data.splits import FileSplit, Split, TensorSplit, fingerprint_of_files, to_pixels
from lcmat.errors import UserError

# Formats whose files need not be opened to know that they have 8 bits a channel and one picture.
EIGHT_BIT_FORMATS = (".jpg", ".jpeg", ".bmp")
# Where images differ in size and the user names none.
DEFAULT_SIZE = 64


@dataclass(frozen=True)
class Decoder:
    """Reads an image file as uint8 (3, h, w); an object, so that worker processes can be sent it."""

    size: int | None
    depth: Depth = EIGHT_BITS

    def __call__(self, path: Path) -> Tensor:
        """Return the pixels. Raises UserError that names a damaged file."""
        with readable(path), Image.open(path) as image:
            return to_pixels(image, "RGB", self.size, self.depth)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what Pillow raises for a damaged image into one line that names the file."""
    try:
        yield
    except IMAGE_ERRORS as error:
        raise UserError(f"cannot read image {path}; replace or remove it") from error


def image_folder(folder: Path, image_size: int | None, memory: int, workers: int | None) -> tuple[Split, Split, tuple]:
    """Return the training and test split of an image folder as `listing` finds them, and the names of the classes.

    Held in memory if both fit into `memory` bytes, else read as needed by `workers` processes.
    """
    classes, *parts = listed(folder)
    size, depth = _scan([path for part in parts for path in part.paths], image_size, folder)
    decode = Decoder(image_size if image_size else size if isinstance(size, int) else None, depth)
    shape = (3, size, size) if isinstance(size, int) else (3, *size)
    in_memory = math.prod(shape) * sum(len(part.paths) for part in parts) <= memory
    more = {} if workers is None else {"workers": workers}
    splits = []
    for part in parts:
        if in_memory:
            pixels = decode_all(decode, part.paths, f"{part.root.name} images")
            known_by = fingerprint_of_files(part.paths, part.labels, shape, folder, depth)
            splits.append(TensorSplit(pixels, part.labels, known_by, part.paths, folder))
        else:
            splits.append(FileSplit(part.paths, part.labels, decode, shape, folder, depth, **more))
    return *splits, classes


def _scan(paths: list[Path], image_size: int | None, origin: Path) -> tuple[tuple[int, int] | int, Depth]:
    """Return the size to decode to, and the depth: the common (height, width) if all agree, else DEFAULT_SIZE."""
    sizes, deep, several = set(), [], 0
    for path in paths:
        if (image_size or len(sizes) > 1) and path.suffix.lower() in EIGHT_BIT_FORMATS:
            continue
        with readable(path), Image.open(path) as image:
            sizes.add((image.height, image.width))
            several += holds_several(image)
            if image.mode in DEEP:
                deep.append(path)
    say_several(several, str(origin))
    size = image_size or (sizes.pop() if len(sizes) == 1 else DEFAULT_SIZE)
    return size, depth_of(in_threads(_extremes, deep, "measuring images"), str(origin))


def _extremes(path: Path) -> tuple[bool, float, float]:
    with readable(path), Image.open(path) as image:
        return extremes(image)


def holds_several(image: Image.Image) -> bool:
    """Tell whether a file holds more pictures than the one that is read, as TIFF, GIF and WebP may."""
    return image.format != "MPO" and getattr(image, "n_frames", 1) > 1  # MPO: a camera's JPEG with previews


def say_several(count: int, origin: str) -> None:
    """Say how many files hold several pictures."""
    if count:
        warnings.warn(f"{origin}: {count:,} files hold several pictures, of which the first is used", stacklevel=3)


def available_memory() -> int:
    """Return the bytes of memory that can be had without swapping, as the system estimates them."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
