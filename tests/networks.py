"""One small network for the tests that train or read one."""

import torch
from torch import Tensor, nn


class TinyNet(nn.Module):
    """A hidden layer on images of 8×8 pixels, and a head; with `extra` what can make two trainings differ, too."""

    def __init__(self, seed: int | None = None, extra: bool = False) -> None:
        """Draw weights from the seed, or without one from the global generator. extra: BatchNorm and dropout."""
        super().__init__()
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            more = [nn.BatchNorm1d(16), nn.Dropout(0.3)] if extra else []
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *more, nn.ReLU())
            self.head = nn.Linear(16, 10)

    def embed(self, x: Tensor) -> Tensor:
        """Return the input of the head, (n, 16)."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (n, 10)."""
        return self.head(self.embed(x))
