"""Signals: what a selection method may read of a trained network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lcmat.errors import UserError

DYNAMICS = ("correctness", "margin", "error_norm", "probability_margin")


@dataclass(frozen=True, eq=False)
class Signals:
    """The outputs of one network on n labelled samples.

    features: (n, d) inputs of the last linear layer.
    logits: (n, C) its outputs, before softmax.
    labels: (n,) integers in [0, C).
    dynamics: per-epoch records of pretraining, each (E, n): a mapping with some of `correctness`, `margin` (of logits),
    `error_norm` ‖p − onehot(y)‖₂ and `probability_margin`.
    validation: the signals of a held-out split, under the same network.
    initialisations: signals of the same samples, in the same order, under several networks.
    bias: whether the last layer has one; without it gradients have a dimension less for each class.
    scale: (n,) positive numbers that per-sample gradients and Hessians are multiplied by; None: 1.

    NumPy arrays and tensors are taken, of any floating type; half precision is widened to float32. Everything is kept
    on the device of `labels`. Features and logits may be missing for methods that read labels alone.
    Raises UserError when shapes disagree, a label is out of range, or a value is not finite.
    """

    features: Tensor | None = None
    logits: Tensor | None = None
    labels: Tensor | None = None
    dynamics: Mapping[str, Tensor] | None = None
    validation: Signals | None = None
    initialisations: Sequence[Signals] | None = None
    bias: bool = True
    scale: Tensor | None = None

    def __post_init__(self) -> None:
        if self.labels is None:
            raise UserError("signals need labels, one integer per sample")
        labels = _labels(self.labels)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "bias", _flag("bias", self.bias))
        for name in ("features", "logits"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _matrix(name, value, labels))
        if self.logits is not None and len(labels) and int(labels.max()) >= self.logits.shape[1]:
            raise UserError(f"a label is {int(labels.max())}, but logits have {self.logits.shape[1]} columns")
        if self.dynamics is not None:
            object.__setattr__(self, "dynamics", _dynamics(self.dynamics, labels))
        if self.validation is not None:
            _check_validation(self)
        if self.initialisations is not None:
            object.__setattr__(self, "initialisations", _initialisations(self.initialisations, labels))
        if self.scale is not None:
            object.__setattr__(self, "scale", _scale(self.scale, labels))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def matrices(self) -> tuple[Tensor, ...]:
        """Features, logits, labels and scale, those that are there: samples that agree in all are equal."""
        return tuple(m for m in (self.features, self.logits, self.labels, self.scale) if m is not None)

    def __getitem__(self, index: Tensor) -> Signals:
        """Return the signals of the samples in `index` (integers or a mask); the validation split stays whole."""
        index = torch.as_tensor(index, device=self.labels.device)
        return replace(
            self,
            features=None if self.features is None else self.features[index],
            logits=None if self.logits is None else self.logits[index],
            labels=self.labels[index],
            dynamics=None if self.dynamics is None else {k: v[:, index] for k, v in self.dynamics.items()},
            initialisations=None if self.initialisations is None else [s[index] for s in self.initialisations],
            scale=None if self.scale is None else self.scale[index],
        )


def _tensor(value: object) -> Tensor:
    if isinstance(value, np.ndarray) and any(stride < 0 for stride in value.strides):
        value = value.copy()  # torch has no negative strides
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")  # nothing here writes into signals
        return torch.as_tensor(value)


def _labels(value: object) -> Tensor:
    labels = _tensor(value)
    if labels.ndim != 1:
        raise UserError(f"labels must have shape (n,), not {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f"labels must be integers, not {labels.dtype}")
    labels = labels.to(torch.int64)
    if len(labels) and int(labels.min()) < 0:
        raise UserError(f"labels must not be negative; found {int(labels.min())}")
    return labels


def _flag(name: str, value: object) -> bool:
    """Return a truth value, which files hold as an array of no dimensions."""
    if isinstance(value, np.ndarray | np.generic | Tensor) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, bool):
        raise UserError(f"{name} must be true or false, not {value!r}")
    return value


def _matrix(name: str, value: object, labels: Tensor) -> Tensor:
    matrix = _tensor(value).detach().to(labels.device)
    if matrix.is_complex():
        raise UserError(f"{name} must be real numbers, not {matrix.dtype}")
    if matrix.dtype not in (torch.float32, torch.float64):
        matrix = matrix.float()
    if matrix.ndim != 2 or len(matrix) != len(labels):
        raise UserError(f"{name} must have shape ({len(labels)}, …) as there are labels, not {tuple(matrix.shape)}")
    if matrix.shape[1] == 0:
        raise UserError(f"{name} have no columns")
    # A sum is finite only if all its terms are (bar overflow, which the second look settles): no n×d mask is made.
    if not torch.isfinite(matrix.sum()) and not torch.isfinite(matrix).all():
        row = int((~torch.isfinite(matrix)).any(1).nonzero()[0])
        raise UserError(f"{name} hold a value that is not finite, first in sample {row}; retrain or clean them first")
    return matrix


def _scale(value: object, labels: Tensor) -> Tensor:
    scale = _tensor(value).detach().to(labels.device)
    if scale.shape != labels.shape or not scale.is_floating_point():
        raise UserError(f"scale must be one number for each of {len(labels)} samples, not {tuple(scale.shape)}")
    if not bool(((scale > 0) & torch.isfinite(scale)).all()):
        raise UserError("scale must be positive and finite")
    return scale.double()


def _dynamics(dynamics: Mapping[str, object], labels: Tensor) -> dict[str, Tensor]:
    unknown = set(dynamics) - set(DYNAMICS)
    if unknown:
        raise UserError(f"unknown dynamics {sorted(unknown)}; known: {', '.join(DYNAMICS)}")
    kept = {name: _tensor(value).detach().to(labels.device) for name, value in dynamics.items()}
    for name, value in kept.items():
        if value.ndim != 2 or value.shape[1] != len(labels) or len(value) == 0:
            raise UserError(f"dynamics '{name}' must have shape (epochs, {len(labels)}), not {tuple(value.shape)}")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"dynamics '{name}' hold a value that is not finite; retrain or clean them first")
    return kept


def _check_validation(signals: Signals) -> None:
    validation = signals.validation
    if not isinstance(validation, Signals):
        raise UserError(f"validation must be Signals of a held-out split, not {type(validation).__name__}")
    for name in ("features", "logits"):
        own, other = getattr(signals, name), getattr(validation, name)
        if own is not None and other is not None and own.shape[1] != other.shape[1]:
            raise UserError(
                f"validation {name} have {other.shape[1]} columns, but those of the training samples {own.shape[1]}; "
                f"take both from one network"
            )
    if validation.bias != signals.bias:
        has, lacks = ("validation", "training") if validation.bias else ("training", "validation")
        raise UserError(
            f"the last layer of the {has} signals has a bias, that of the {lacks} signals has none; "
            f"take both from one network"
        )


def _initialisations(given: Sequence[Signals], labels: Tensor) -> tuple[Signals, ...]:
    given = tuple(given)
    if not given:
        raise UserError("initialisations are empty; give the signals of at least one network, or None")
    for number, signals in enumerate(given):
        if not isinstance(signals, Signals):
            raise UserError(f"initialisations must be Signals, not {type(signals).__name__}")
        if not torch.equal(signals.labels.to(labels.device), labels):
            raise UserError(f"initialisation {number} is of other samples: its labels differ")
    return given
