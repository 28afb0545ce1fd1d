"""What is measured against: a plain training loop, as such code is usually written."""

import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms


class Images(Dataset):
    """Images one by one, each through torchvision's transforms."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, train: bool, mean: tuple, std: tuple) -> None:
        """Take uint8 images (n, c, h, w)."""
        self.images = [transforms.functional.to_pil_image(image) for image in images]
        self.labels = labels.tolist()
        usual = [transforms.ToTensor(), transforms.Normalize(mean, std)]
        augmented = [transforms.RandomCrop(32, padding=4, padding_mode="reflect"), transforms.RandomHorizontalFlip()]
        self.transform = transforms.Compose(augmented * train + usual)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Return an image and its label."""
        return self.transform(self.images[index]), self.labels[index]


def train(network: nn.Module, images: Images, epochs: int, batch: int, test: Images | None = None) -> float:
    """Train in float32 with NCHW tensors from a DataLoader, test at the end; return the seconds."""
    loader = DataLoader(images, batch, shuffle=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    started = time.perf_counter()
    network.train()
    for _ in range(epochs):
        for inputs, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(network(inputs), labels).backward()
            optimizer.step()
    if test is not None:
        evaluate(network, test)
    return time.perf_counter() - started


def trial(network: nn.Module, images: Images, chosen: list[int], steps: int, lr: float) -> float:
    """Take full-batch steps of Adam on the chosen images; return the mean loss on all, both from a DataLoader."""
    inputs, labels = next(iter(DataLoader(Subset(images, chosen), len(chosen))))
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        total = sum(float(F.cross_entropy(network(x), y, reduction="sum")) for x, y in DataLoader(images, 128))
    return total / len(images)


@torch.no_grad()
def evaluate(network: nn.Module, images: Images) -> float:
    """Return the accuracy in per cent."""
    network.eval()
    correct = sum(int((network(x).argmax(1) == y).sum()) for x, y in DataLoader(images, 128))
    return 100 * correct / len(images)
