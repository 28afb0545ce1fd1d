"""What most networks here share: a body that maps images to features, and a linear head."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = int | tuple[int, int]  # of images: the side of square ones, or (height, width)


def sides(size: Size) -> tuple[int, int]:
    """Return (height, width)."""
    return (size, size) if isinstance(size, int) else size


def first_padding(channels: int, image_size: Size) -> int:
    """Return the padding of a first 3×3 convolution: 3 for grey 28×28 images, which it makes 32×32, else 1.

    The condensation literature and DeepCore write it so for networks made for 32×32. They tell by the single channel,
    for their grey images are all 28×28 (MNIST, Fashion-MNIST); grey images of other sizes are not padded here.
    """
    return 3 if (channels, *sides(image_size)) == (1, 28, 28) else 1


class Network(nn.Module):
    """A body, whose output (n, d) is the features, and a linear head (n, C).

    A body that halves its maps often would shrink a small image to nothing: sides below `least` pixels are enlarged
    to that first (bilinearly), which is said once, in a warning.
    """

    def __init__(
        self, name: str, body: nn.Module, num_classes: int, channels: int, image_size: Size, least: int = 1
    ) -> None:
        """Take the body for images of shape (channels, height, width), as they are once enlarged."""
        super().__init__()
        given = sides(image_size)
        needed = tuple(max(side, least) for side in given)
        self.enlarged = needed if needed != given else None
        if self.enlarged:
            shown = (given[:1], needed[:1]) if given[0] == given[1] else (given, needed)
            before, after = ("×".join(map(str, size)) for size in shown)
            warnings.warn(f"{name} enlarges images of {before} pixels to {after}", stacklevel=3)
        self.body = body
        with torch.no_grad():
            features = body.eval()(torch.zeros(1, channels, *needed)).shape[1]
        body.train()
        self.head = nn.Linear(features, num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """Map images (n, channels, h, w) to features (n, d)."""
        if self.enlarged:
            x = F.interpolate(x, size=self.enlarged, mode="bilinear")
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, h, w) to logits (n, num_classes)."""
        return self.head(self.embed(x))
