"""Arrays as people have them, as tensors: any byte order, tables, lists of batches, labels that are text."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor

from lcmat.errors import UserError

# Without logits, whose columns labels are, values from here on are not taken for the number of a class, but for its
# name: nothing is made that has as many entries.
FIRST_ID = 10**6


class ClassNames(tuple):
    """Names that were found to be texts, each once: not looked through again for every class of signals."""

    __slots__ = ()


def numbers(name: str, value: object, ndim: int) -> Tensor:
    """Return the numbers of a field as a tensor of `ndim` dimensions, if it has as many; lists of batches are joined.

    Raises UserError that names the field if it holds anything else than numbers, or hides some of them.
    """
    tensor = _plain(name, value, ndim)
    if not isinstance(tensor, Tensor):
        raise UserError(f"{name} must be numbers, not {_kind(tensor)}")
    return tensor


def classes(value: object, names: Sequence[str] | None = None) -> tuple[Tensor, tuple[str, ...] | None]:
    """Return labels as integers (n,), and the names of the classes.

    Text and categories become classes by name: numbered as in `names`, or else in sorted order. Integers stay as they
    are, and have the names given, if any. Raises UserError for anything else.
    """
    names = names if names is None or isinstance(names, ClassNames) else _names(names)
    labels = _plain("labels", value, 1)
    if not isinstance(labels, Tensor):
        return _by_name(labels, names)
    if labels.ndim != 1:
        raise UserError(f"labels must have shape (n,), not {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f"labels must be integers or text, not {labels.dtype}")
    labels = labels.to(torch.int64)
    if len(labels) and int(labels.min()) < 0:
        raise UserError(f"labels must not be negative; found {int(labels.min())}")
    if names is not None and len(labels) and int(labels.max()) >= len(names):
        raise UserError(f"a label is {int(labels.max())}, but there are only {len(names)} class_names")
    return labels, names


def ids_as_classes(labels: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Return labels of any size as the numbers of classes in the order of their values, which become their names."""
    values, labels = labels.unique(return_inverse=True)
    return labels, ClassNames(map(str, values.tolist()))


def are_numbers_in_another_order(names: Sequence[str]) -> bool:
    """Tell whether all names are whole numbers, and their order as text is another one: "10" comes before "2"."""
    if not all(name.isascii() and name.isdigit() for name in names):
        return False
    return sorted(names, key=int) != sorted(names)


def check_same_index(fields: Mapping[str, object]) -> None:
    """Raise UserError if two tables have rows of other names, or in another order: rows go together by position."""
    indices = {name: value.index for name, value in fields.items() if hasattr(getattr(value, "index", None), "equals")}
    for name, index in list(indices.items())[1:]:
        first = next(iter(indices))
        if not index.equals(indices[first]):
            raise UserError(
                f"{first} and {name} are tables whose indices differ, but rows go together by position; bring them "
                f"into one order, and give {first}.to_numpy() and {name}.to_numpy()"
            )


def _plain(name: str, value: object, ndim: int) -> Tensor | np.ndarray:
    """Return numbers as a tensor, and texts as an array of str."""
    if isinstance(value, Tensor):
        if value.is_meta or value.is_nested:
            raise UserError(
                f"{name} are a {'meta tensor, which holds no values' if value.is_meta else 'nested tensor'}"
            )
        value = value.detach().dequantize() if value.is_quantized else value.detach()
        return value if value.layout == torch.strided else value.to_dense()
    if value is None or isinstance(value, str | bytes | Mapping | Set | Iterator):
        raise UserError(f"{name} must be an array or a tensor, not {_kind(value)}")
    if isinstance(value, list | tuple):
        return _of_list(name, value, ndim)
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            where = np.argwhere(np.ma.getmaskarray(value))[0].tolist()
            raise UserError(f"{name} hold masked values, first at {where}; fill them, or leave such samples out")
        value = value.data
    if hasattr(value, "toarray"):  # SciPy's sparse matrices
        value = value.toarray()
    return _of_array(name, np.asarray(value))


def _of_list(name: str, value: list | tuple, ndim: int) -> Tensor | np.ndarray:
    parts = [part for part in value if isinstance(part, Tensor | np.ndarray)]
    if parts and len(parts) == len(value):
        tensors = [_plain(name, part, ndim) for part in value]
        depths = {part.ndim for part in tensors}
        if depths == {ndim} or depths == {ndim - 1}:
            return _joined(name, tensors, torch.cat if depths == {ndim} else torch.stack)
        raise UserError(f"{name} are a list of arrays of {sorted(depths)} dimensions; give one array of {ndim}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of slow lists
            return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass  # text, what torch has no type for, or rows of unequal length
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise UserError(f"{name} must be numbers in rows of equal length") from None
    # NumPy makes text of numbers beside text.
    return _of_array(name, np.array(value, dtype=object) if array.dtype.kind in "SU" and array.ndim == 1 else array)


def _joined(name: str, parts: list[Tensor | np.ndarray], join: object) -> Tensor | np.ndarray:
    if not all(isinstance(part, Tensor) for part in parts):
        if any(isinstance(part, Tensor) for part in parts):
            raise UserError(f"{name} hold numbers in one batch and text in another")
        return np.concatenate(parts)
    try:
        return join(parts)
    except (RuntimeError, TypeError) as error:
        shapes = sorted({tuple(part.shape) for part in parts})
        raise UserError(f"{name} are a list of arrays that do not fit together, of shapes {shapes[:3]}") from error


def _of_array(name: str, array: np.ndarray) -> Tensor | np.ndarray:
    if array.dtype.kind in "OT":  # T: NumPy's text of varying width
        array = _of_objects(name, array.astype(object))
    if array.dtype.kind == "S":
        array = _decoded(name, array)
    kind = array.dtype.kind
    if kind == "U":
        return array
    if kind not in "biufc":
        what = "dates or times" if kind in "Mm" else f"of type {array.dtype}"
        raise UserError(f"{name} must be {'integers or text' if name == 'labels' else 'numbers'}, not {what}")
    if kind == "f" and array.dtype.itemsize > 8:  # long double
        with np.errstate(over="ignore"):  # what overflows is not finite, which is said later
            array = array.astype(np.float64)
    if kind == "u" and array.dtype.itemsize > 1:  # of these, torch knows little
        if array.size and int(array.max()) > np.iinfo(np.int64).max:
            raise UserError(f"{name} hold {int(array.max())}, which is beyond 64-bit integers")
        array = array.astype(np.int64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch has no negative strides
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")  # nothing here writes into signals
        return torch.as_tensor(array)


def _of_objects(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array of Python objects as one of a type of its own."""
    values = array.ravel()
    for position, value in enumerate(values):
        missing = value is None or type(value).__name__ in ("NAType", "NaTType")
        if missing or (isinstance(value, float) and np.isnan(value)):
            where = [int(place) for place in np.unravel_index(position, array.shape)]
            raise UserError(f"{name} hold missing values, first at {where}; fill them, or leave such samples out")
    for kinds, dtype in ((Integral, np.int64), (Real, np.float64), (str, str), (bytes, bytes)):
        if all(isinstance(value, kinds) and not isinstance(value, bool | np.bool_) for value in values):
            try:
                return array.astype(dtype)
            except (OverflowError, UnicodeEncodeError, ValueError):
                raise UserError(f"{name} hold a value that {np.dtype(dtype)} cannot hold") from None
    found = sorted({type(value).__name__ for value in values})
    raise UserError(f"{name} hold values of types {', '.join(found[:4])}; give numbers, or text for labels")


def _decoded(name: str, array: np.ndarray) -> np.ndarray:
    try:
        return np.char.decode(array, "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} hold bytes that are no text in UTF-8: {error.object[:40]!r}") from None


def _by_name(labels: np.ndarray, names: tuple[str, ...] | None) -> tuple[Tensor, tuple[str, ...]]:
    if labels.ndim != 1:
        raise UserError(f"labels must have shape (n,), not {labels.shape}")
    found, positions = np.unique(labels, return_inverse=True)
    found = found.tolist()
    if names is None:
        return torch.from_numpy(positions.astype(np.int64)), ClassNames(found)
    number = {name: place for place, name in enumerate(names)}
    unknown = [name for name in found if name not in number]
    if unknown:
        raise UserError(f"a label is {unknown[0][:40]!r}, which is none of the class_names")
    where = np.array([number[name] for name in found], dtype=np.int64)
    return torch.from_numpy(where[positions]), names


def _names(given: Sequence[str]) -> tuple[str, ...]:
    array = given if isinstance(given, Sequence) else np.asarray(given).tolist()
    if isinstance(array, str) or not isinstance(array, Sequence) or not all(isinstance(name, str) for name in array):
        raise UserError(f"class_names must be a list of texts, one for each class, not {_kind(given)}")
    if len(set(array)) != len(array):
        raise UserError("class_names hold a name twice")
    return ClassNames(map(str, array))


def _kind(value: object) -> str:
    """Return what to call a value of a wrong kind."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        return f"text such as {value.ravel()[0][:40]!r}" if value.size else "text"
    return "None" if value is None else type(value).__name__
