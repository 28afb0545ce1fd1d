"""Condensation tasks that take a moment: small networks, few steps of everything."""

import pytest
import torch
from torch import Tensor, nn

import methods
from lcmat.condensation.condenser import Task
from lcmat.condensation.synthetic import Synthetic
from lcmat.data.splits import Dataset
from lcmat.training import Compute

NAMES = ["DC", "DSA", "DM", "LCMat-C", "KIP", "RandomReal"]
# Few steps of everything, enough to tell one run from another.
CHEAP = {
    "DC": {"iterations": 2, "steps": 2, "network_epochs": 1, "batch": 4},
    "DSA": {"iterations": 2, "steps": 2, "network_epochs": 1, "batch": 4},
    "DM": {"iterations": 4, "batch": 4},
    "LCMat-C": {"iterations": 2, "steps": 3, "batch": 4, "network_images": 8, "network_batch": 4},
    "KIP": {"iterations": 4, "targets": 40},
    "RandomReal": {},
}
every_method = pytest.mark.parametrize("name", NAMES)


class Narrow(nn.Module):
    """ConvNet-3 with a quarter of its maps: two blocks."""

    def __init__(self, channels: int, size: int, norm: str = "instance", dropout: float = 0.0) -> None:
        super().__init__()
        layers = []
        for width_in in (channels, 16):
            layers += [
                nn.Conv2d(width_in, 16, 3, padding=1),
                nn.BatchNorm2d(16) if norm == "batch" else nn.GroupNorm(16, 16),
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout))
        self.head = nn.Linear(16 * (size // 4) ** 2, 10)

    def embed(self, x: Tensor) -> Tensor:
        """The input of the head."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.embed(x))


def narrow(number: int, **how: object) -> nn.Module:
    """Return a network for 8×8 images, another for each number."""
    with torch.random.fork_rng():
        torch.manual_seed(number)
        return Narrow(1, 8, **how)


def task(digits: Dataset, compute: Compute, ipc: int = 1, **more: object) -> Task:
    """Return the task of learning so many images of each digit."""
    return Task(digits.train, [ipc] * 10, compute, **{"fresh_network": narrow, "dataset": "digits", **more})


def made(name: str, task: Task, **changes: object) -> Synthetic:
    """Return what a method learns in few steps."""
    method = methods.condenser(name)
    return method.condense(task, **method.resolved(task.sizes, {**CHEAP[name], **changes}))


class StoppedError(Exception):
    """Stands for a kill."""
