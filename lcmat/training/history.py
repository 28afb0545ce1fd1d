"""What a training leaves beside the weights, and how files hold it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from lcmat.expected import Expected, both, each, fields, of, optional, real, row, whole

TESTS = each(row(whole(1), real(0, 100)))


@dataclass
class History:
    """What a training leaves beside the weights.

    tests: pairs of epoch (from 1) and test accuracy in per cent. train_accuracy: of the last epoch, while training.
    dynamics: (epochs, n) tensors `correctness`, `margin`, `error_norm`, `probability_margin`, `loss`, `change` of each
    sample when its batch came (see `record`), or None. held_out_accuracy: after the last epoch, on samples held out of
    the training set, or None. images: how many each epoch trained on. class_accuracy: of each class after the last
    epoch, in per cent, None of one without test images; None before.
    """

    tests: list[tuple[int, float]] = field(default_factory=list)
    train_accuracy: float = 0.0
    seconds: float = 0.0
    dynamics: dict[str, Tensor] | None = None
    held_out_accuracy: float | None = None
    images: list[int] = field(default_factory=list)
    class_accuracy: list[float | None] | None = None


def of_history(dynamics: Expected, finished: bool = False) -> Expected:
    """Expect what a file holds of a History; of a finished training there is at least one test."""
    tests = both(TESTS, each(of(list, tuple), 1)) if finished else TESTS
    required = {"tests": tests, "train_accuracy": real(0, 100), "seconds": real(0), "dynamics": dynamics}
    by_class = optional(each(optional(real(0, 100))))
    more = {"held_out_accuracy": optional(real(0, 100)), "images": each(whole(1)), "class_accuracy": by_class}
    return fields(required, more)


def history_of(values: dict[str, object]) -> History:
    """Return the History that a file holds."""
    known = {name: values[name] for name in History.__dataclass_fields__ if name in values}
    return History(**known | {"tests": [tuple(pair) for pair in values["tests"]]})
