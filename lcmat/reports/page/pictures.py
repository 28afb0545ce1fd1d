"""Images inside the page: sheets of many small ones, and the figures that lie beside the records."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

# Training images (n, c, h, w) uint8 of a dataset, by its fingerprint.
Pictures = Mapping[str, np.ndarray]
# Figures are as wide as a page at most; as lossy WebP a tenth of their PNG.
WIDEST = 1500
QUALITY = 80


@dataclass(frozen=True)
class Sheet:
    """Images side by side, `across` in each row, each `width` × `height` pixels; as a data URI."""

    uri: str
    across: int
    width: int
    height: int

    def described(self) -> dict[str, object]:
        """Return it as the page's script reads it."""
        return {"u": self.uri, "x": self.across, "w": self.width, "h": self.height}


def sheet(images: np.ndarray, lossy: bool = False) -> Sheet:
    """Return images (n, c, h, w) uint8 of one or three channels as one sheet; without loss, or a quarter as large."""
    count, channels, height, width = images.shape
    across = max(1, math.ceil(math.sqrt(count)))
    down = math.ceil(count / across)
    pixels = np.zeros((across * down, height, width, channels), np.uint8)
    pixels[:count] = images.transpose(0, 2, 3, 1)
    pixels = pixels.reshape(down, across, height, width, channels).swapaxes(1, 2)
    pixels = pixels.reshape(down * height, across * width, channels)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels[..., :3])
    uri = _uri(image, "WEBP", quality=QUALITY, method=4) if lossy else _uri(image, "PNG", optimize=True)
    return Sheet(uri, across, width, height)


def figure(path: Path) -> tuple[str, int, int]:
    """Return a picture's file as a data URI of no more than a page's width, with its width and height there."""
    with Image.open(path) as image:
        small = image.convert("RGB")
    if small.width > WIDEST:
        small = small.resize((WIDEST, round(small.height * WIDEST / small.width)), Image.Resampling.LANCZOS)
    return _uri(small, "WEBP", quality=QUALITY, method=4), small.width, small.height


def _uri(image: Image.Image, kind: str, **options: object) -> str:
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
