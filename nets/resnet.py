"""Residual networks for small images (He et al. 2016): a 3×3 stem, no max-pooling. Parameter names as released."""

import torch.nn.functional as F
from torch import Tensor, nn

from nets.base import Size


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, width_in, h, w) to (n, width, h / stride, w / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 1×1, a 3×3 and a 1×1 convolution that quadruples the width, beside a shortcut."""

    expansion = 4

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = nn.Sequential()
        if stride != 1 or width_in != 4 * width:
            convolution = nn.Conv2d(width_in, 4 * width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, width_in, h, w) to (n, 4 · width, h / stride, w / stride)."""
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Four stages of blocks, global average pooling, a linear head."""

    def __init__(
        self,
        blocks: tuple[int, ...],
        num_classes: int,
        channels: int = 3,
        width: int = 64,
        block: type[BasicBlock | Bottleneck] = BasicBlock,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        width_in = width
        for stage, count in enumerate(blocks):
            width_out = width * 2**stage
            strides = [1 if stage == 0 else 2] + [1] * (count - 1)
            layer = []
            for stride in strides:
                layer.append(block(width_in, width_out, stride))
                width_in = block.expansion * width_out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layer))
        self.linear = nn.Linear(width_in, num_classes)

    @property
    def head(self) -> nn.Linear:
        """The last linear layer."""
        return self.linear

    def embed(self, x: Tensor) -> Tensor:
        """Map images (n, channels, h, w) to features (n, d)."""
        out = F.relu(self.bn1(self.conv1(x)))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = layer(out)
        return F.adaptive_avg_pool2d(out, 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, h, w) to logits (n, num_classes)."""
        return self.head(self.embed(x))


def resnet18(num_classes: int, channels: int = 3, image_size: Size = 32) -> ResNet:
    """ResNet-18: 11.17 million parameters for 3 channels and 10 classes; works from 8×8 images on."""
    return ResNet((2, 2, 2, 2), num_classes, channels)


def resnet10(num_classes: int, channels: int = 3, image_size: Size = 32) -> ResNet:
    """ResNet-10 of the condensation literature: one block a stage, half as wide as ResNet-18."""
    return ResNet((1, 1, 1, 1), num_classes, channels, width=32)


def resnet50(num_classes: int, channels: int = 3, image_size: Size = 32) -> ResNet:
    """ResNet-50: 23,520,842 parameters for 3 channels and 10 classes."""
    return ResNet((3, 4, 6, 3), num_classes, channels, block=Bottleneck)
