"""Networks by name. Each offers `embed(x)` and `head`, its last nn.Linear, with forward(x) == head(embed(x)).

To add one: write its file with a factory (num_classes, channels, image_size) -> nn.Module, and name it below.
"""

from torch import nn

from nets.resnet import resnet18

_NETWORKS = {"ResNet18": resnet18}


def names() -> list[str]:
    """Return the canonical names of all networks."""
    return list(_NETWORKS)


def build(name: str, num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """Return a freshly initialised network for images of shape (channels, image_size, image_size).

    Raises KeyError for a name that is not in `names()`.
    """
    return _NETWORKS[name](num_classes, channels, image_size)
