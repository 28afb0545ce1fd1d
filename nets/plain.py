"""Networks without shortcuts: those of the condensation literature (Zhao et al., ICLR 2021), of LBCS, and VGG-16."""

import math

from torch import nn

from nets.base import Network, Size, first_padding, sides


def convnet3(num_classes: int, channels: int = 3, image_size: Size = 32) -> Network:
    """ConvNet-3: 3 × [3×3 convolution of 128 maps, instance norm, ReLU, average pooling].

    320,010 parameters for 3×32×32 images and 10 classes; 317,706 for grey 28×28, which it pads to 32×32.
    """
    layers = []
    for width_in, padding in ((channels, first_padding(channels, image_size)), (128, 1), (128, 1)):
        layers += [nn.Conv2d(width_in, 128, 3, padding=padding), nn.GroupNorm(128, 128), nn.ReLU(), nn.AvgPool2d(2)]
    return Network("ConvNet3", nn.Sequential(*layers, nn.Flatten()), num_classes, channels, image_size, least=8)


def mlp(num_classes: int, channels: int = 3, image_size: Size = 32) -> Network:
    """Two hidden layers of 128."""
    inputs = channels * math.prod(sides(image_size))
    layers = [nn.Flatten(), nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()]
    return Network("MLP", nn.Sequential(*layers), num_classes, channels, image_size)


def lenet(num_classes: int, channels: int = 3, image_size: Size = 32) -> Network:
    """LeNet-5 with ReLU and average pooling, as LBCS takes it: 61,706 parameters for 28×28 grey images.

    The original averages, too (LeCun et al. 1998), with weights and a sigmoid. Condensation code takes the maximum.
    """
    body = nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2 if channels == 1 else 0), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.LazyLinear(120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
    )  # fmt: skip
    return Network("LeNet", body, num_classes, channels, image_size, least=16)


def _convolutions(channels: int, widths: tuple[int | None, ...]) -> list[nn.Module]:
    """Return 3×3 convolutions of these widths, each with ReLU; None stands for max-pooling."""
    layers = []
    for width in widths:
        if width is None:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return layers


def svhn_cnn_small(num_classes: int, channels: int = 3, image_size: Size = 32) -> Network:
    """LBCS's inner network for SVHN: 3×3 convolutions 32, 64, pool, 128, pool, then 1024-256; 8,747,850 parameters."""
    layers = _convolutions(channels, (32, 64, None, 128, None))
    layers += [nn.Flatten(), nn.LazyLinear(1024), nn.ReLU(), nn.Linear(1024, 256), nn.ReLU()]
    return Network("SVHN-CNN-small", nn.Sequential(*layers), num_classes, channels, image_size, least=4)


def svhn_cnn(num_classes: int, channels: int = 3, image_size: Size = 32) -> Network:
    """LBCS's network for SVHN: 32, 64, pool, 128, 128, pool, 256, 256, pool, then 1024-512; 5,851,338 parameters."""
    layers = _convolutions(channels, (32, 64, None, 128, 128, None, 256, 256, None))
    layers += [nn.Flatten(), nn.LazyLinear(1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU()]
    return Network("SVHN-CNN", nn.Sequential(*layers), num_classes, channels, image_size, least=8)


def cifar_cnn_small(num_classes: int, channels: int = 3, image_size: Size = 32) -> Network:
    """LBCS's inner network for CIFAR-10: 5×5 32, pool, 3×3 64, pool, 3×3 128, pool, then 64; 128,266 parameters."""
    layers, width_in = [], channels
    for width, size in ((32, 5), (64, 3), (128, 3)):
        layers += [nn.Conv2d(width_in, width, size), nn.ReLU(), nn.MaxPool2d(2)]
        width_in = width
    layers += [nn.Flatten(), nn.LazyLinear(64), nn.ReLU()]
    return Network("CIFAR-CNN-small", nn.Sequential(*layers), num_classes, channels, image_size, least=24)


def alexnet(num_classes: int, channels: int = 3, image_size: Size = 32) -> Network:
    """AlexNet for small images, as in the condensation literature: five convolutions, one linear layer."""
    body = nn.Sequential(
        nn.Conv2d(channels, 128, 5, padding=4 if channels == 1 else 2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(128, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(192, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 192, 3, padding=1), nn.ReLU(),
        nn.Conv2d(192, 192, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(),
    )  # fmt: skip
    return Network("AlexNet", body, num_classes, channels, image_size, least=8)


def vgg16(num_classes: int, channels: int = 3, image_size: Size = 32) -> Network:
    """VGG-16 with batch norm, global average pooling, one linear layer: 14,728,266 parameters for 10 classes."""
    from torchvision.models.vgg import cfgs, make_layers  # it takes as long to import as PyTorch, which few pay for

    layers = make_layers(cfgs["D"], batch_norm=True)
    if channels != 3:
        layers[0] = nn.Conv2d(channels, 64, 3, padding=1)
    body = nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network("VGG16", body, num_classes, channels, image_size, least=32)
