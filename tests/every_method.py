"""A problem that holds everything any selection method reads, and what must hold of every subset."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lcmat import Signals, Subset
from lcmat.data.splits import TensorSplit
from lcmat.selection.context import Context
from lcmat.training import Compute, Recipe
from methods import get, names, select
from tests.problems import Problem

METHODS = names()
every_method = pytest.mark.parametrize("method", METHODS)
both = pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
DYNAMICS = ("correctness", "margin", "error_norm", "probability_margin", "loss", "change")
# Whatever trains networks trains few of them here.
CHEAP = {"outer_steps": 2, "inner_epochs": 1, "trials": 3, "inner_steps": 1}
RECIPE = Recipe(epochs=1, batch=8, lr=0.01, scheduler="constant")
COMPUTE = Compute(torch.device("cpu"), torch.float32, (0.5,), (0.25,))
PIXELS = (1, 2, 3)


class LinearNet(nn.Module):
    """One linear layer on pixels."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        # Made without torch's own initialisation, which would draw from the global generator.
        self.head = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)

    def embed(self, x: Tensor) -> Tensor:
        """The input of the head."""
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.embed(x))


def random_net(seed: int, classes: int) -> LinearNet:
    """A network of its own for each seed."""
    draw = torch.Generator().manual_seed(seed)
    width = int(np.prod(PIXELS))
    return LinearNet(0.3 * torch.randn(classes, width, generator=draw), 0.3 * torch.randn(classes, generator=draw))


@dataclass(frozen=True)
class FullProblem(Problem):
    """Arrays of everything that any method reads."""

    correctness: np.ndarray
    margin: np.ndarray
    error_norm: np.ndarray
    probability_margin: np.ndarray
    images: np.ndarray
    validation: tuple[np.ndarray, np.ndarray, np.ndarray]
    network: LinearNet
    loss: np.ndarray
    change: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def signals(self) -> Signals:
        """Signals with everything, as arrays."""
        return self.signals_as()

    @property
    def by_name(self) -> dict[str, np.ndarray]:
        """All arrays by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("validation", "network")}

    def signals_as(self, convert: Callable = lambda array: array, **changed: object) -> Signals:
        """Signals with everything, floats and labels passed through `convert`; then some fields exchanged."""
        features, logits, labels = map(convert, (self.features, self.logits, self.labels))
        flipped = [convert(array[:, ::-1].copy()) for array in (self.features, self.logits)]
        held_out = dict(zip(("features", "logits", "labels"), map(convert, self.validation), strict=True))
        given = {
            "features": features,
            "logits": logits,
            "labels": labels,
            "dynamics": {name: convert(getattr(self, name)) for name in DYNAMICS},
            "validation": Signals(**held_out),
            "initialisations": [
                Signals(features=features, logits=logits, labels=labels),
                Signals(features=flipped[0], logits=flipped[1], labels=labels),
            ],
        }
        return Signals(**(given | changed))

    @property
    def context(self) -> Context:
        """The images, a trained network and how to train more."""
        classes = self.logits.shape[1]
        return Context(
            split=TensorSplit(torch.from_numpy(self.images), torch.from_numpy(self.labels).long()),
            compute=COMPUTE,
            network=self.network,
            fresh_network=lambda number: random_net(1000 + number, classes),
            recipe=RECIPE,
        )

    def take(self, index: np.ndarray) -> "FullProblem":
        """The samples in `index`, in that order; the validation split stays."""
        return replace(self, **{k: v[:, index] if k in DYNAMICS else v[index] for k, v in self.by_name.items()})


def make(sizes: list[int], seed: int = 0, d: int = 4, scale: float = 1.0) -> FullProblem:
    """Continuous random data with so many samples in each class (0: a label that nobody has), in random order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    n, C = len(labels), len(sizes)
    known = np.concatenate([np.unique(labels), rng.choice(labels, 5)])
    return FullProblem(
        features=rng.normal(size=(n, d)),
        logits=scale * rng.normal(size=(n, C)),
        labels=labels,
        correctness=rng.random((3, n)) < 0.5,
        margin=rng.normal(size=(3, n)),
        error_norm=rng.random((3, n)),
        images=rng.integers(0, 256, (n, *PIXELS), dtype=np.uint8),
        validation=(rng.normal(size=(len(known), d)), scale * rng.normal(size=(len(known), C)), known),
        network=random_net(seed, C),
        probability_margin=rng.uniform(-1, 1, size=(3, n)),
        loss=rng.exponential(size=(3, n)),
        change=rng.exponential(size=(3, n)),
    )


def options_of(method: str, **options: object) -> dict[str, object]:
    """The cheap settings that a method knows, and further ones."""
    return {k: v for k, v in CHEAP.items() if k in get(method).options} | options


def chosen(method: str, problem: FullProblem, signals: Signals | None = None, **options: object) -> Subset:
    """Select from a problem, with a context for those methods that need one."""
    if get(method).needs_context:
        options.setdefault("context", problem.context)
    return select(problem.signals if signals is None else signals, method, **options_of(method, **options))


def wanted(problem: FullProblem, balanced: bool, fraction: float) -> list[int]:
    """How many samples of each class a fraction takes, or in all."""
    sizes = np.bincount(problem.labels, minlength=problem.logits.shape[1]).tolist() if balanced else [len(problem)]
    return [max(1, round(fraction * size)) if size else 0 for size in sizes]


def check_counts(subset: Subset, problem: FullProblem, balanced: bool, size: dict[str, float]) -> None:
    """Assert that a subset holds as many samples as asked for, unless that is the method's to say."""
    if get(subset.method).chooses_size:
        assert 0 < len(subset) <= len(problem)
    elif get(subset.method).ignores_budget:
        assert len(subset) == len(problem)
    elif "budget" in size:
        assert len(subset) == size["budget"]
        if balanced:
            assert set(subset.classes.tolist()) == set(problem.labels.tolist())
    elif balanced:
        counts = np.bincount(subset.classes, minlength=problem.logits.shape[1])
        assert counts.tolist() == wanted(problem, True, size["fraction"])
    else:
        assert [len(subset)] == wanted(problem, False, size["fraction"])
