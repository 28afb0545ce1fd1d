"""Images of more than 8 bits a channel, brought to 8 by one scale for a whole dataset."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lcmat.errors import UserError

# Pillow's modes; of colour images with 16 bits a channel it reads the upper 8 by itself.
INTEGERS = ("I", "I;16", "I;16L", "I;16B", "I;16N")
DEEP = (*INTEGERS, "F")
# What may stand for white: the range of a type, or of floats 1 and the ranges that they may have come from.
RANGES = (255, 65_535, 2**31 - 1)
ROUNDING = 1e-3
FEW = 32


@dataclass(frozen=True)
class Depth:
    """Which value is white in images of integers, and in such of floats; None where the dataset has none."""

    integers: int | None = None
    floats: int | None = None

    def eight_bit(self, image: Image.Image) -> Image.Image:
        """Return the image with 8 bits a channel: 0 stays black, the white value becomes 255, rounded."""
        if image.mode not in DEEP:
            return image
        white = self.floats if image.mode == "F" else self.integers
        if white is None:
            raise ValueError("an image of more than 8 bits a channel, which its name does not suggest")
        scaled = np.asarray(image).astype(np.float64) * (255 / white)
        return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))


EIGHT_BITS = Depth()


def extremes(image: Image.Image) -> tuple[bool, float, float]:
    """Return whether a deep image is one of floats, its least and its largest value; ValueError if not finite."""
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise ValueError("a value that is not finite")
    return image.mode == "F", float(values.min()), float(values.max())


def depth_of(found: Iterable[tuple[bool, float, float]], origin: str) -> Depth:
    """Return the depth of a dataset by what `extremes` found in its deep images, and say it in a line each.

    Integers: the least range of a type (8, 16, 32 bits) that holds all of them. Floats: 1 if none is larger, else the
    least such range that holds all. Raises UserError for values below 0 or on no such scale.
    """
    found = list(found)
    white = {}
    for floats in (False, True):
        lows, highs = [f[1] for f in found if f[0] == floats], [f[2] for f in found if f[0] == floats]
        if highs:
            white[floats] = _white(floats, min(lows), max(highs), origin)
            kind = "floats" if floats else "integers of more than 8 bits"
            levels = round(255 * max(highs) / white[floats])
            few = f", which leaves {levels + 1} levels of grey" if levels < FEW else ""
            warnings.warn(
                f"{origin}: images of {kind}: {len(highs):,}, the largest value {max(highs):,.6g}; scaled so that "
                f"{white[floats]:,} is white{few}",
                stacklevel=2,
            )
    return Depth(white.get(False), white.get(True))


def _white(floats: bool, low: float, high: float, origin: str) -> int:
    ranges = (1, *RANGES[:2]) if floats else RANGES
    white = next((r for r in ranges if high <= r * (1 + ROUNDING * floats)), None)
    overshot = floats and 1 + ROUNDING < high < 2  # such as resampling leaves behind
    if white is None or overshot or low < -ROUNDING * white:
        scales = "from 0 to 1, 255 or 65535" if floats else "of at least 0"
        raise UserError(f"{origin}: images hold values from {low:,.6g} to {high:,.6g}; give values {scales}")
    return white
