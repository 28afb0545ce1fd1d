"""The outcome of a selection: indices, ranks, weights, and what follows for smaller budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lcmat.errors import UserError
from lcmat.expected import array, both, each, fields, of, optional, problem, real
from lcmat.files import load_arrays, write_atomically, write_text
from lcmat.selection.budgets import class_budgets


@dataclass(frozen=True, eq=False, repr=False)
class Subset:
    """Chosen samples, class by class and within a class in the order chosen (unbalanced: in the order chosen).

    indices: (m,) int64, positions in the signals. rank: (m,) int64, position within the class (unbalanced: overall).
    weights: (m,) float32 or None. classes: (m,) int64 labels of the chosen.
    class_sizes: (C,) int64, how many samples of each class there were to choose from.
    costs: (m,) float64, the method's cost in the group after each pick, or None.
    transfers: (r, 3) int64 or None: weights that are cluster sizes, as positions in this subset of a pick and of the
    one that it took samples from (−1: none), and how many.
    bound: no selection of as many samples (of each class, if balanced) has a smaller cost than this; or None.
    cost_error: the standard error of `cost`, where that is estimated from a sample; else 0.
    class_names: (C,) what the labels were called where they were text, else None.
    """

    indices: np.ndarray
    rank: np.ndarray
    weights: np.ndarray | None
    classes: np.ndarray
    class_sizes: np.ndarray
    method: str
    balanced: bool = True
    nested: bool = True
    costs: np.ndarray | None = None
    transfers: np.ndarray | None = None
    bound: float | None = None
    cost_error: float = 0.0
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        """Return one line: what chose how many of how many, class by class or not, and what comes with them."""
        of = "weighted, " if self.weights is not None else ""
        cost = f", cost {self.cost:.6g}" if self.costs is not None and len(self) else ""
        how = "class by class" if self.balanced else "over all classes together"
        return f"Subset({len(self):,} of {int(self.class_sizes.sum()):,} samples by {self.method}, {of}{how}{cost})"

    @property
    def cost(self) -> float | None:
        """L(S), summed over the classes if each was covered by itself (LCMat Eq. 11)."""
        if self.costs is None:
            return None
        last = self.rank == np.bincount(self._groups())[self._groups()] - 1
        return float(self.costs[last].sum())

    def prefix(self, fraction: float | None = None, *, budget: int | Sequence[int] | None = None) -> Subset:
        """Return the selection for a smaller fraction or budget, class by class, of a method whose picks are nested.

        Raises UserError if picks of the method are not nested, or if this subset holds too few samples.
        """
        if not self.nested:
            raise UserError(f"the picks of this {self.method} selection are not nested; select the smaller set anew")
        sizes = self.class_sizes if self.balanced else self.class_sizes.sum(keepdims=True)
        wanted = class_budgets(sizes, fraction=fraction, budget=budget)
        have = np.bincount(self._groups(), minlength=len(wanted))
        if (wanted > have).any():
            what = f"a fraction of {fraction:g}" if budget is None else f"a budget of {int(wanted.sum())}"
            raise UserError(f"this subset of {len(self)} samples is smaller than {what}")
        return self._keep(self.rank < wanted[self._groups()])

    def _groups(self) -> np.ndarray:
        return self.classes if self.balanced else np.zeros_like(self.classes)

    def _keep(self, mask: np.ndarray) -> Subset:
        arrays = ("indices", "rank", "classes", "costs")
        kept = {name: getattr(self, name)[mask] for name in arrays if getattr(self, name) is not None}
        if self.transfers is not None:
            # A pick takes samples from earlier picks only, so whoever lost some to a pick that is kept is kept, too.
            transfers = self.transfers[mask[self.transfers[:, 0]]]
            position = np.append(np.cumsum(mask) - 1, -1)  # the last entry is that of "none"
            transfers = np.column_stack([position[transfers[:, 0]], position[transfers[:, 1]], transfers[:, 2]])
            kept |= {"transfers": transfers, "weights": _cluster_sizes(transfers, int(mask.sum()))}
        return replace(self, bound=self.bound if mask.all() else None, **kept)  # fewer samples have another optimum

    def save(self, path: Path) -> None:
        """Write the subset as .npz, atomically; absent arrays are left out."""
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__ if getattr(self, name) is not None}
        write_atomically(path, lambda file: np.savez(file, **arrays))

    def save_text(self, path: Path) -> None:
        """Write the indices as text, one a line, in their order."""
        write_text(path, "".join(f"{index}\n" for index in self.indices))

    @staticmethod
    def load(path: Path) -> Subset:
        """Read what `save` wrote; raise UserError for anything else."""
        arrays = load_arrays(path)
        plain = {name: value.tolist() for name, value in arrays.items() if value.ndim == 0 or value.dtype.kind == "U"}
        values = arrays | {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
        if (wrong := problem(values, STORED)) is not None:
            raise UserError(f"{path} holds no subset: {wrong}")
        return Subset(**{"weights": None} | {name: values[name] for name in _FIELDS if name in values})


def _consistent(values: dict) -> str | None:
    count = len(values["indices"])
    for name in ("rank", "classes", "weights", "costs"):
        if values.get(name) is not None and len(values[name]) != count:
            return f"has {len(values[name])} {name} for {count} indices"
    for name, end in (("classes", len(values["class_sizes"])), ("rank", count)):
        if count and not 0 <= int(values[name].min()) <= int(values[name].max()) < end:
            return f"has {name} that are not 0 to {end - 1}"
    return None


_FIELDS = tuple(Subset.__dataclass_fields__)
_INTEGERS = array(None, kinds="i")
# What a file of a subset holds.
STORED = both(
    fields(
        dict.fromkeys(("indices", "rank", "classes", "class_sizes"), _INTEGERS) | {"method": of(str)},
        {
            "weights": optional(array(None, kinds="F")),
            "balanced": of(bool),
            "nested": of(bool),
            "costs": optional(array(None, kinds="F")),
            "transfers": optional(array(None, 3, kinds="i")),
            "bound": optional(real()),
            "cost_error": real(0),
            "class_names": optional(each(of(str))),
        },
    ),
    _consistent,
)


def _cluster_sizes(transfers: np.ndarray, count: int) -> np.ndarray:
    sizes = np.zeros(count + 1)  # the last entry is that of "none"
    np.add.at(sizes, transfers[:, 0], transfers[:, 2])
    np.subtract.at(sizes, transfers[:, 1], transfers[:, 2])
    return sizes[:count].astype(np.float32)
