"""Networks by name. Each offers `embed(x)` and `head`, its last nn.Linear, with forward(x) == head(embed(x)).

To add one: write its file with a factory (num_classes, channels, image_size) -> nn.Module, and name it below. Where a
name comes to stand for another network, raise its number in `revision`, which tells records and caches of both apart.
"""

from torch import nn

from nets.base import Size, sides
from nets.inception import inception_v3
from nets.multi_branch import densenet121, mobilenet_v3
from nets.plain import alexnet, cifar_cnn_small, convnet3, lenet, mlp, svhn_cnn, svhn_cnn_small, vgg16
from nets.resnet import resnet10, resnet18, resnet50
from nets.wide_resnet import wrn_16_8

_NETWORKS = {
    "ResNet18": resnet18,
    "ResNet10": resnet10,
    "ResNet50": resnet50,
    "VGG16": vgg16,
    "InceptionV3": inception_v3,
    "WRN-16-8": wrn_16_8,
    "DenseNet121": densenet121,
    "MobileNetV3": mobilenet_v3,
    "AlexNet": alexnet,
    "LeNet": lenet,
    "MLP": mlp,
    "ConvNet3": convnet3,
    "SVHN-CNN": svhn_cnn,
    "SVHN-CNN-small": svhn_cnn_small,
    "CIFAR-CNN-small": cifar_cnn_small,
}


def names() -> list[str]:
    """Return the canonical names of all networks."""
    return list(_NETWORKS)


def build(name: str, num_classes: int, channels: int = 3, image_size: Size = 32) -> nn.Module:
    """Return a freshly initialised network for images of `image_size`: the side of square ones, or (height, width).

    Raises KeyError for a name that is not in `names()`.
    """
    return _NETWORKS[name](num_classes, channels, image_size)


def revision(name: str, channels: int = 3, image_size: Size = 32) -> int:
    """Return which network of a name this is, counted from 1.

    Before their second ones, InceptionV3 was torchvision's blocks, WRN-16-8 had torch's usual initial weights, and
    ConvNet3 did not pad grey 28×28 images.
    """
    changed = name in ("InceptionV3", "WRN-16-8") or (name, channels, *sides(image_size)) == ("ConvNet3", 1, 28, 28)
    return 2 if changed else 1
