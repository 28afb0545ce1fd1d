"""Inception-v3 for small images as LCMat's released code has it, in the arrangement of DeepCore's.

It differs from the original (Szegedy et al. 2016): the stem has no strides and no pooling; there is no auxiliary head;
the pool branch of the first three blocks convolves 3×3 in place of 1×1; the last reduction averages in place of taking
the maximum; batch norm has ε = 1e-5.
"""

import torch
from torch import Tensor, nn

from nets.base import Network, Size, first_padding

Layer = tuple[int, int | tuple[int, int]] | tuple[int, int | tuple[int, int], int]


class Branches(nn.ModuleList):
    """Modules side by side: each maps the same input, and their outputs are joined along the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, width_in, h, w) to (n, widths of all branches, h', w')."""
        return torch.cat([branch(x) for branch in self], 1)


def _convolution(
    width_in: int, width: int, kernel: int | tuple[int, int], stride: int, padding: int | tuple[int, int]
) -> nn.Sequential:
    convolution = nn.Conv2d(width_in, width, kernel, stride, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _chain(width_in: int, *layers: Layer) -> nn.Sequential:
    """Return convolutions (width, kernel) that keep the size, or (width, kernel, stride) without padding."""
    made = []
    for width, kernel, *stride in layers:
        made.append(_convolution(width_in, width, kernel, *(stride or [1]), 0 if stride else "same"))
        width_in = width
    return nn.Sequential(*made)


def _pooled(width_in: int, width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), _chain(width_in, (width, kernel)))


def _block_a(width_in: int, pooled: int) -> Branches:
    return Branches([
        _chain(width_in, (64, 1)),
        _chain(width_in, (48, 1), (64, 5)),
        _chain(width_in, (64, 1), (96, 3), (96, 3)),
        _pooled(width_in, pooled, 3),
    ])  # fmt: skip


def _block_b(width_in: int) -> Branches:
    return Branches([
        _chain(width_in, (384, 3, 2)),
        _chain(width_in, (64, 1), (96, 3), (96, 3, 2)),
        nn.MaxPool2d(3, 2),
    ])  # fmt: skip


def _block_c(width_in: int, width: int) -> Branches:
    """Return the block whose 7×7 convolutions are pairs, down (7×1) and then across (1×7)."""
    down, across = (7, 1), (1, 7)
    return Branches([
        _chain(width_in, (192, 1)),
        _chain(width_in, (width, 1), (width, down), (192, across)),
        _chain(width_in, (width, 1), (width, down), (width, across), (width, down), (192, across)),
        _pooled(width_in, 192, 1),
    ])  # fmt: skip


def _block_d(width_in: int) -> Branches:
    return Branches([
        _chain(width_in, (192, 1), (320, 3, 2)),
        _chain(width_in, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)),
        nn.AvgPool2d(3, 2),
    ])  # fmt: skip


def _block_e(width_in: int) -> Branches:
    def split() -> Branches:
        return Branches([_chain(384, (384, (1, 3))), _chain(384, (384, (3, 1)))])

    return Branches([
        _chain(width_in, (320, 1)),
        nn.Sequential(_chain(width_in, (384, 1)), split()),
        nn.Sequential(_chain(width_in, (448, 1), (384, 3)), split()),
        _pooled(width_in, 192, 1),
    ])  # fmt: skip


def inception_v3(num_classes: int, channels: int = 3, image_size: Size = 32) -> Network:
    """Inception-v3: 22,133,738 parameters for 3 channels and 10 classes."""
    body = nn.Sequential(
        _convolution(channels, 32, 3, 1, first_padding(channels, image_size)),
        _chain(32, (32, 3), (64, 3), (80, 1), (192, 3, 1)),
        _block_a(192, 32), _block_a(256, 64), _block_a(288, 64),
        _block_b(288),
        _block_c(768, 128), _block_c(768, 160), _block_c(768, 160), _block_c(768, 192),
        _block_d(768),
        _block_e(1280), _block_e(2048),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(),
    )  # fmt: skip
    return Network("InceptionV3", body, num_classes, channels, image_size, least=16)
