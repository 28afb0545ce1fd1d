"""Signals: what a selection method may read of a trained network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lcmat.errors import UserError
from lcmat.method_options import checked_flag
from lcmat.signals.arrays import (
    FIRST_ID,
    are_numbers_in_another_order,
    check_same_index,
    classes,
    ids_as_classes,
    numbers,
)

DYNAMICS = ("correctness", "margin", "error_norm", "probability_margin", "loss", "change")


@dataclass(frozen=True, eq=False)
class Signals:
    """The outputs of one network on n labelled samples.

    features: (n, d) inputs of the last linear layer.
    logits: (n, C) its outputs, before softmax.
    labels: (n,) integers in [0, C), or text, which becomes integers: its classes are numbered in sorted order.
    dynamics: per-epoch records of pretraining, each (E, n): a mapping with some of `correctness`, `margin` (of logits),
    `error_norm` ‖p − onehot(y)‖₂, `probability_margin`, `loss` −log p_y and `change` Σ_c |p_c log(p_c / p'_c)| from the
    epoch before (0 in the first).
    validation: the signals of a held-out split, under the same network.
    initialisations: signals of the same samples, in the same order, under several networks.
    bias: whether the last layer has one; without it gradients have a dimension less for each class.
    scale: (n,) positive numbers that per-sample gradients and Hessians are multiplied by; None: 1.
    class_names: of each class; for labels that are text, to number them otherwise. Kept if given, and made from text.
    softmax_twice: whether gradients are those of cross-entropy that is given softmax(logits) as its logits.

    NumPy arrays and tensors are taken, of any floating type; half precision is widened to float32. So are tables, whose
    rows go together by position, and lists of batches. Everything is kept on the device of `labels`. Features and
    logits may be missing for methods that read labels alone; without logits, labels of 10⁶ and more are ids, and become
    classes in their order, with the ids as names.
    Raises UserError when shapes disagree, a label is out of range, or a value is not finite, missing or no number.
    """

    features: Tensor | None = None
    logits: Tensor | None = None
    labels: Tensor | None = None
    dynamics: Mapping[str, Tensor] | None = None
    validation: Signals | None = None
    initialisations: Sequence[Signals] | None = None
    bias: bool = True
    scale: Tensor | None = None
    class_names: Sequence[str] | None = None
    softmax_twice: bool = False

    def __post_init__(self) -> None:
        if self.labels is None:
            raise UserError("signals need labels, one integer per sample")
        check_same_index({name: getattr(self, name) for name in ("labels", "features", "logits")})
        labels, names = classes(self.labels, self.class_names)
        of_text = names is not None and self.class_names is None
        if self.logits is None and names is None and len(labels) and int(labels.max()) >= FIRST_ID:
            labels, names = ids_as_classes(labels)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "class_names", names)
        object.__setattr__(self, "bias", checked_flag("bias", self.bias))
        for name in ("features", "logits"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _matrix(name, value, labels))
        if self.logits is not None and len(labels) and int(labels.max()) >= self.logits.shape[1]:
            raise UserError(f"a label is {int(labels.max())}, but logits have {self.logits.shape[1]} columns")
        if self.logits is not None and names is not None:
            _check_columns(names, self.logits.shape[1], of_text)
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
    def class_sizes(self) -> np.ndarray:
        """How many samples of each class there are, (C,): of as many classes as logits have columns, or labels name."""
        classes = int(self.labels.max()) + 1 if self.logits is None else self.logits.shape[1]
        return torch.bincount(self.labels, minlength=classes).cpu().numpy()

    @property
    def matrices(self) -> tuple[Tensor, ...]:
        """Features, logits, labels and scale, those that are there: samples that agree in all are equal."""
        return tuple(m for m in (self.features, self.logits, self.labels, self.scale) if m is not None)

    def __getitem__(self, index: Tensor) -> Signals:
        """Return the signals of the samples in `index` (integers, a mask or a slice); validation stays whole."""
        if isinstance(index, slice):
            index = torch.arange(len(self))[index]
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


def _check_columns(names: Sequence[str], columns: int, of_text: bool) -> None:
    """Raise UserError unless it is known which column of the logits belongs to which name."""
    if len(names) != columns:
        raise UserError(
            f"{'labels name' if of_text else 'class_names are'} {len(names)} classes, but logits have {columns} "
            f"columns; give class_names=[…], one for each column"
        )
    if of_text and are_numbers_in_another_order(names):
        raise UserError(
            "labels are numbers written as text, whose order as text is not that of the numbers; give integers, or "
            "class_names=[…] in the order of the logits' columns"
        )


def _matrix(name: str, value: object, labels: Tensor) -> Tensor:
    matrix = numbers(name, value, 2).to(labels.device)
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
    scale = numbers("scale", value, 1).to(labels.device)
    if scale.shape != labels.shape or not scale.is_floating_point():
        raise UserError(f"scale must be one number for each of {len(labels)} samples, not {tuple(scale.shape)}")
    if not bool(((scale > 0) & torch.isfinite(scale)).all()):
        raise UserError("scale must be positive and finite")
    return scale.double()


def _dynamics(dynamics: Mapping[str, object], labels: Tensor) -> dict[str, Tensor]:
    if not isinstance(dynamics, Mapping):
        raise UserError(f"dynamics must map {', '.join(DYNAMICS)} to arrays, not be of type {type(dynamics).__name__}")
    unknown = [name for name in dynamics if name not in DYNAMICS]
    if unknown:
        raise UserError(f"unknown dynamics {', '.join(map(str, unknown))}; known: {', '.join(DYNAMICS)}")
    kept = {name: numbers(f"dynamics '{name}'", value, 2).to(labels.device) for name, value in dynamics.items()}
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
    if None not in (signals.class_names, validation.class_names) and signals.class_names != validation.class_names:
        raise UserError(
            "the classes of the validation labels have other names than those of the training labels; give both the "
            "same class_names=[…]"
        )
    if validation.bias != signals.bias:
        has, lacks = ("validation", "training") if validation.bias else ("training", "validation")
        raise UserError(
            f"the last layer of the {has} signals has a bias, that of the {lacks} signals has none; "
            f"take both from one network"
        )


def _initialisations(given: Sequence[Signals], labels: Tensor) -> tuple[Signals, ...]:
    if isinstance(given, Signals) or not isinstance(given, Iterable):
        raise UserError(f"initialisations must be a list of Signals, not {type(given).__name__}")
    given = tuple(given)
    if not given:
        raise UserError("initialisations are empty; give the signals of at least one network, or None")
    for number, signals in enumerate(given):
        if not isinstance(signals, Signals):
            raise UserError(f"initialisations must be Signals, not {type(signals).__name__}")
        if not torch.equal(signals.labels.to(labels.device), labels):
            raise UserError(f"initialisation {number} is of other samples: its labels differ")
    return given
