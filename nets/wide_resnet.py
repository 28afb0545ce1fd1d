"""Wide residual networks for small images (Zagoruyko & Komodakis, BMVC 2016): batch norm before each convolution."""

import torch.nn.functional as F
from torch import Tensor, nn

from nets.base import Network, Size, first_padding


class WideBlock(nn.Module):
    """Two 3×3 convolutions, each after batch norm and ReLU, beside a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = None if width_in == width else nn.Conv2d(width_in, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, width_in, h, w) to (n, width, h / stride, w / stride)."""
        active = F.relu(self.bn1(x))
        beside = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(F.relu(self.bn2(self.conv1(active)))) + beside


def wrn_16_8(num_classes: int, channels: int = 3, image_size: Size = 32) -> Network:
    """WRN-16-8: three groups of two blocks, 8 times as wide as a ResNet; 10,961,370 parameters for 10 classes.

    Convolutions begin with normal variates of variance 2 / fan-out (He et al. 2015), as in DeepCore's and the original.
    """
    blocks, width_in = [], 16
    for stage, width in enumerate((128, 256, 512)):
        for block in range(2):
            blocks.append(WideBlock(width_in, width, stride=2 if stage and not block else 1))
            width_in = width
    stem = nn.Conv2d(channels, 16, 3, padding=first_padding(channels, image_size), bias=False)
    end = (nn.BatchNorm2d(width_in), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = Network("WRN-16-8", nn.Sequential(stem, *blocks, *end), num_classes, channels, image_size)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(network.head.bias)
    return network
