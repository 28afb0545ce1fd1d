"""Labels of several files and splits, brought to one numbering: by name wherever names are known."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lcmat.errors import UserError, shown

Names = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class LabelColumn:
    """The labels of one file. values: numbers, or texts and the like. names: what its numbers stand for, if it says."""

    origin: str
    values: list
    names: Names | None = None

    @property
    def named(self) -> bool:
        """Whether the file says by name what its labels are; names that are the numbers themselves say nothing."""
        if self.names is not None:
            return self.names != tuple(str(i) for i in range(len(self.names)))
        return any(not _is_number(value) for value in self.values)


def numbered(train: Sequence[LabelColumn], test: Sequence[LabelColumn]) -> tuple[Names, Tensor, Tensor]:
    """Return the names of the training classes and the labels of both splits, (n,) int64: positions among these.

    Classes come as the training files declare them, else sorted. Where a file's labels are none of their names, and it
    or all training files have numbers alone, numbers are positions in the other's list, which is said. Raises UserError
    for a label that is none of the training classes, is missing, or is tested without one training sample.
    """
    for column in (*train, *test):
        if missing := sum(value is None or value != value for value in column.values):
            raise UserError(f"{column.origin}: {missing:,} rows have no label; leave them out")
    if not any(column.values for column in train):
        raise UserError(f"{train[0].origin}: the training split is empty")
    classes = _classes(train)
    known = {key: number for number, key in enumerate(classes)}
    labels = [
        torch.tensor([n for column in part for n in _numbers(column, known, train)], dtype=torch.int64)
        for part in (train, test)
    ]
    names = tuple(classes.values())
    if untrained := set(labels[1].tolist()) - set(labels[0].tolist()):
        raise UserError(f"{test[0].origin} has {_listed(names[n] for n in untrained)}, which no training image is of")
    return names, *labels


def key_of(name: object) -> str:
    """Return what a class is matched by: its name, however its letters are encoded (Unicode's composed form)."""
    if isinstance(name, bool) or (isinstance(name, float) and name.is_integer()):
        name = int(name)
    return unicodedata.normalize("NFC", _text(name))


def _classes(train: Sequence[LabelColumn]) -> dict[str, str]:
    """Return the name of each class, by what it is matched by, in order."""
    declaring = [column for column in train if column.names is not None and column.named]
    declaring = declaring or [column for column in train if column.names is not None]
    declared = dict.fromkeys(name for column in declaring for name in column.names)
    classes = {key_of(name): name for name in declared}
    if len(classes) < len(declared):
        raise UserError(
            f"{train[0].origin}: two of its class names differ in how letters are encoded alone; rename one"
        )
    others = [column for column in train if column.names is None and (column.named or not declaring)]
    values = {value for column in others for value in column.values}
    if len({_is_number(value) for value in values}) > 1:
        raise UserError(f"{others[0].origin} and other training files: labels are numbers in one and text in another")
    if measured := [value for value in values if isinstance(value, float) and not value.is_integer()]:
        raise UserError(f"{others[0].origin}: labels are measurements, such as {shown(measured[0])}, and no classes")
    for value in sorted(values, key=_rank):
        classes.setdefault(key_of(value), _text(value))
    return classes


def _numbers(column: LabelColumn, known: dict[str, int], train: Sequence[LabelColumn]) -> list[int]:
    """Return the position of each label's class."""
    values = dict.fromkeys(column.values)
    found = {value: known.get(key_of(_name(value, column.names))) for value in values}
    if None in found.values():
        lists = {other.names for other in train if other.names is not None and other.named}
        if not column.named and lists:
            if len(lists) > 1:
                raise UserError(f"{column.origin} has numbers alone, which other training files name in several orders")
            (names,) = lists
            found = {value: known.get(key_of(_name(value, names))) for value in values}
            _say(
                f"{column.origin} has numbers without names: they are taken as the training files number their classes"
            )
        elif column.names is not None and not any(other.named for other in train):
            found = {value: known.get(key_of(value)) for value in values}
            _say(f"{column.origin} names its classes, and the training files do not: labels are matched by number")
    if unknown := [_name(value, column.names) for value in values if found[value] is None]:
        raise UserError(f"{column.origin} has {_listed(unknown)}, which is none of the training classes")
    return [found[value] for value in column.values]


def _name(value: object, names: Names | None) -> object:
    """Return the name that a number stands for, where there is one."""
    return value if names is None or value not in range(len(names)) else names[int(value)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _rank(value: object) -> object:
    return value if _is_number(value) else _text(value)


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _listed(labels: Iterable[object]) -> str:
    words = [shown(_text(label)) for label in labels]
    return f"label {', '.join(words[:5])}{f' and {len(words) - 5} more' if len(words) > 5 else ''}"


def _say(text: str) -> None:
    warnings.warn(text, stacklevel=2)
