"""Signals as the code released with LCMat takes them: two switches, both off by default.

Its LCMat-S and AdaCore alone lack the `eval()` before the pass (submodular.py, lines 90-133: `calc_gradient_and_hess`),
so that BatchNorm works with the statistics of batches of one class; and where it forms gradients, the loss is the mean
of a batch, so that gradients and Hessians are divided by its size. Lines are those of github.com/SJShin-AI/LCMat at
3d74891, LCMat_main/deepcore/methods/; methods/README.md has all switches in one table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lcmat.data import Split
from lcmat.errors import UserError, lookup
from lcmat.signals.networks import capture
from lcmat.signals.signals import Signals
from lcmat.training import Compute
from lcmat.training.compute import evaluation_mode
from lcmat.training.recipe import chunks

MODES, SCALES = ("eval", "train"), ("sample", "batch")


@dataclass(frozen=True)
class Taking:
    """How signals are taken: the BatchNorm mode, what gradients are divided by, and the images of a batch for these.

    mode: "eval", or "train" (`take_in_training_mode`). scale: "sample", or "batch" (`batch_scale`).
    """

    mode: str = "eval"
    scale: str = "sample"
    batch: int = 128

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", lookup("signals mode", self.mode, MODES))
        object.__setattr__(self, "scale", lookup("gradient scale", self.scale, SCALES))

    @property
    def described(self) -> dict[str, object]:
        """What a configuration says of it: nothing of what is usual."""
        parts = {"signals_mode": self.mode if self.mode != "eval" else None}
        parts |= {"gradient_scale": self.scale if self.scale != "sample" else None}
        said = {name: value for name, value in parts.items() if value is not None}
        return said | {"signals_batch": self.batch} if said else {}

    @property
    def suffix(self) -> str:
        """What tells the cached pass from that in evaluation mode; gradients are scaled when they are formed."""
        return "" if self.mode == "eval" else f"-train{self.batch}"


def class_batches(labels: Tensor, size: int) -> list[Tensor]:
    """Return the positions of labels (n,) class by class, in order, `size` a batch; the last of a class may be smaller.

    As the released loader comes by them (submodular.py, lines 96-99 and 145), which does not shuffle; but a last batch
    of one joins the one before it, since BatchNorm has no statistics of one image where its features are 1×1.
    """
    return [part for label in labels.unique() for part in chunks((labels == label).nonzero()[:, 0], size)]


def batch_scale(labels: Tensor, size: int, by_class: bool = True) -> Tensor:
    """Return 1 / the size of the batch that each sample came in, (n,) in float64.

    by_class: batches are of one class each (`class_batches`), else of all samples in order (grand.py, line 38).
    """
    everything = torch.arange(len(labels), device=labels.device)
    scale = torch.empty(len(labels), dtype=torch.float64, device=labels.device)
    for part in class_batches(labels, size) if by_class else chunks(everything, size):
        scale[part] = 1 / len(part)
    return scale


def with_softmax_twice(signals: Signals, twice: bool = True) -> Signals:
    """Return signals whose gradients are those of a softmax too many, validation and initialisations among them.

    As in craig.py 60, gradmatch.py 210, glister.py 52, grand.py 45 and submodular.py 74; unchanged if not `twice`.
    """
    if not twice:
        return signals
    others = signals.initialisations
    return replace(
        signals,
        softmax_twice=True,
        validation=None if signals.validation is None else with_softmax_twice(signals.validation),
        initialisations=None if others is None else [with_softmax_twice(one) for one in others],
    )


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Let BatchNorm work with the statistics of each batch, its running ones untouched; all else is in evaluation mode.

    The released code leaves dropout on, too; here it is off, since what it would draw is noise.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    kept = [(layer.running_mean, layer.running_var) for layer in layers]
    with evaluation_mode(network):
        try:
            for layer in layers:
                layer.running_mean = layer.running_var = None
            yield
        finally:
            for layer, (mean, variance) in zip(layers, kept, strict=True):
                layer.running_mean, layer.running_var = mean, variance


@torch.no_grad()
def take_in_training_mode(network: nn.Module, split: Split, compute: Compute, batch: int) -> Signals:
    """Return features, logits and labels of all samples, in the split's order, from batches of one class each.

    BatchNorm uses the statistics of the batch. Raises UserError where a batch is too small for it to have any.
    """
    parts = class_batches(split.labels.cpu(), batch)
    network.to(compute.device, memory_format=torch.channels_last)

    def outputs() -> Iterator[tuple[Tensor, Tensor]]:
        with batch_statistics(network):
            for images, labels, _ in split.batches(parts):
                with compute.autocast():
                    yield _output(network, compute.inputs(images)), labels.to(compute.device)

    return capture(network, outputs())[torch.cat(parts).argsort().to(compute.device)]


def _output(network: nn.Module, inputs: Tensor) -> Tensor:
    try:
        return network(inputs)
    except ValueError as error:  # "Expected more than 1 value per channel when training"
        raise UserError(
            f"a class of {len(inputs)} image has no statistics for BatchNorm; leave --signals_mode train out"
        ) from error
