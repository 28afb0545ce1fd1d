"""Where images are learned: on the scale of pixels, or normalised."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lcmat.condensation.synthetic import decoded


@dataclass(frozen=True, eq=False)
class Space:
    """Where images are learned: "normalised" by mean and standard deviation (c,), or "pixels" from 0 to 1."""

    name: str
    mean: Tensor
    std: Tensor

    def inputs(self, images: Tensor, factor: int = 1) -> Tensor:
        """Return what a network reads: the factor² images that each one holds, decoded on the scale of pixels."""
        if self.name == "normalised" and factor == 1:
            return images
        return self.normalised(decoded(self.pixels(images), factor))

    def pixels(self, images: Tensor) -> Tensor:
        """Return images on the scale of pixels."""
        return images if self.name == "pixels" else images * self.std[:, None, None] + self.mean[:, None, None]

    def normalised(self, pixels: Tensor) -> Tensor:
        """Return images on the scale of pixels as a network reads them."""
        return (pixels - self.mean[:, None, None]) / self.std[:, None, None]

    def begin(self, pixels: Tensor) -> Tensor:
        """Return images to begin with, from such on the scale of pixels."""
        return pixels.clamp(0, 1) if self.name == "pixels" else self.normalised(pixels)
