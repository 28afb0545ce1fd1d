"""DenseNet-121 and MobileNetV3 from torchvision's blocks, with stems for small images."""

from torch import nn

from nets.base import Network, Size


def densenet121(num_classes: int, channels: int = 3, image_size: Size = 32) -> Network:
    """DenseNet-121's blocks (6, 12, 24, 16) with growth 12, the small-image variant; 1.0 million parameters."""
    from torchvision.models import DenseNet  # here and below: it takes as long to import as PyTorch

    layers = DenseNet(growth_rate=12, block_config=(6, 12, 24, 16), num_init_features=24).features
    blocks = [layer for name, layer in layers.named_children() if not name.endswith("0")]  # the stem's names end in 0
    stem = nn.Conv2d(channels, 24, 3, padding=1, bias=False)
    body = nn.Sequential(stem, *blocks, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network("DenseNet121", body, num_classes, channels, image_size, least=8)


def mobilenet_v3(num_classes: int, channels: int = 3, image_size: Size = 32) -> Network:
    """MobileNetV3-Large (Howard et al. 2019), its first convolution without a stride."""
    from torchvision.models import mobilenet_v3_large

    whole = mobilenet_v3_large(weights=None)
    whole.features[0][0] = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
    body = nn.Sequential(whole.features, whole.avgpool, nn.Flatten(), *whole.classifier[:-1])
    return Network("MobileNetV3", body, num_classes, channels, image_size, least=32)
