"""Names as --help lists them, grouped: methods, networks and datasets cannot be asked for theirs without PyTorch.

A test compares these with those that there are.
"""

from __future__ import annotations

SELECTION = {
    "no network read": "Uniform FirstInOrder Full",
    "uncertainty": "LeastConfidence Entropy Margin",
    "geometry": "Herding kCenterGreedy ContextualDiversity Moderate KMedoids",
    "coverage": "LCMat-S Craig AdaCore FacilityLocation GraphCut LogDeterminant",
    "gradient matching": "GradMatch GradMatch-Val Glister Glister-Val Influential",
    "the boundary": "CAL DeepFool",
    "training dynamics": "Forgetting CCS DUAL Dyn-Unc TDDS EVA",
    "early scores": "GraNd EL2N",
    "graphs and planes": "D2 ZCore",
    "bilevel": "LBCS Probabilistic",
}
CONDENSATION = "LCMat-C DC DSA DM KIP RandomReal"
SAMPLERS = "RS2 InfoBatch RCAP Shortened"
NETWORKS = {
    "residual": "ResNet18 ResNet10 ResNet50 WRN-16-8",
    "other deep ones": "VGG16 InceptionV3 DenseNet121 MobileNetV3 AlexNet",
    "small": "LeNet MLP ConvNet3",
    "of LBCS": "SVHN-CNN SVHN-CNN-small CIFAR-CNN-small",
}
DATASETS = {
    "no download": "digits",
    "downloaded": "MNIST FashionMNIST SVHN CIFAR10 CIFAR100 TinyImageNet",
    "your own": "ImageFolder hf:NAME_OR_PATH",
}


def names() -> str:
    """Return all of them as lines of up to 120 columns."""
    condensing = {"condensation": CONDENSATION, "anew each epoch (--protocol dynamic)": SAMPLERS}
    groups = {
        "methods (--selection); all: every one but condensation's and those that draw anew": SELECTION | condensing,
        "networks (--model, --cross)": NETWORKS,
        "datasets (--dataset)": DATASETS,
    }
    lines = []
    for title, parts in groups.items():
        width = max(map(len, parts))
        lines += [f"{title}:", *(f"  {kind:<{width}}  {listed}" for kind, listed in parts.items()), ""]
    return "\n".join(lines)
