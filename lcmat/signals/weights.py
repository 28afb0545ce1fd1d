"""Weights from a file of this or another trainer: found in whatever surrounds them, and by the names of their parts."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lcmat.errors import UserError, shown
from lcmat.files import load_tensors

# Names that other code gives to the same parts, of which each network here has one.
_HEADS = ("linear.", "head.", "fc.", "classifier.")
SYNONYMS = (("downsample.", "shortcut."), *((other, own) for own in _HEADS for other in _HEADS if other != own))
# Under which trainers keep the weights, the first that fits before the others: averaged ones beside them are left.
WRAPPERS = ("state_dict", "model", "network", "net", "model_state_dict", "model_state", "weights", "params")
# And what they put before names.
PREFIXES = ("module", "_orig_mod", "model", "network", "net")
# NumPy's functions that make numbers and arrays again.
_MAKERS = (np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0])
# What trainers keep beside the weights and is data alone: options, and numbers and arrays of NumPy 1 and 2.
INERT = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdgFDSU"},
    *((make, f"numpy.{core}.multiarray.{make.__name__}") for make in _MAKERS for core in ("core", "_core")),
]
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict from a file into `network`, of any floating type, with the common names for its parts.

    It may lie in a wrapper ({"state_dict": …}, {"model": …}, …), beside options and numbers, and its names may have a
    prefix, as DataParallel, torch.compile, averaged models and trainers give them. Raises UserError that says which
    entries are missing, unknown or of another shape, or what the file holds instead.
    """
    path = Path(path)
    _refuse_other_kinds(path)
    with torch.serialization.safe_globals(INERT):
        content = load_tensors(path)
    found = dict(_state_dicts(content))
    if not found:
        raise UserError(f"{path} holds no state dict: a mapping from parameter names to tensors; {_described(content)}")
    wanted = network.state_dict()
    named = {(*where, prefix): part for where, state in found.items() for prefix, part in _parts(state, wanted).items()}
    problems = {where: _problem(state, wanted) for where, state in named.items()}
    fitting = [where for where, problem in problems.items() if problem is None]
    if not fitting:
        where = max(named, key=lambda where: len(wanted.keys() & named[where].keys()))
        raise UserError(
            f"{path} does not fit {type(network).__name__} for this dataset: it {problems[where]}; check --model"
        )
    state = named[_chosen(fitting, path)]
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise UserError(f"{path} holds weights that are not finite")
    network.load_state_dict(state, strict=False)


def _refuse_other_kinds(path: Path) -> None:
    """Raise UserError for files of weights that are no file of torch.save."""
    if not path.is_file():
        return  # which `load_tensors` says
    with open(path, "rb") as file:
        start = file.read(9)
    if start[8:9] == b"{" and path.suffix == ".safetensors":
        raise UserError(f"{path} is a file of safetensors; save what safetensors.torch.load_file returns by torch.save")
    if start[:2] == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise UserError(f"{path} is a TorchScript program; save the network's state_dict() in place of it")


def _state_dicts(content: object, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield mappings from names to tensors, and the keys under which they lie, the usual keys first."""
    if not isinstance(content, Mapping) or len(where) > 2:
        return
    tensors = {k: torch.from_numpy(v) if _is_numeric(v) else v for k, v in content.items()}
    tensors = {k: v for k, v in tensors.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        yield where, tensors
    order = sorted(
        (key for key in content if isinstance(key, str)),
        key=lambda key: WRAPPERS.index(key) if key in WRAPPERS else len(WRAPPERS),
    )
    for key in order:
        yield from _state_dicts(content[key], (*where, key))


def _is_numeric(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype.isnative


def _parts(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the entries under the network's names, by what stands before these.

    Entries of no such name are in the part without a prefix: there, they belong to another network.
    """
    parts: dict[str, dict[str, Tensor]] = {"": {}}
    for name, value in state.items():
        prefix, own = _own_name(name, wanted)
        parts.setdefault(prefix, {})[own] = value
    return parts


def _own_name(name: str, wanted: Mapping[str, Tensor]) -> tuple[str, str]:
    """Return the prefix and the network's own name of an entry; without a prefix the name given, if it has none."""
    parts = name.split(".")
    for start in range(len(parts)):
        rest = ".".join(parts[start:])
        for own in (rest, *(rest.replace(other, own) for other, own in SYNONYMS)):
            if own in wanted:
                return name[: len(name) - len(rest)], own
    return "", name


def _problem(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """Return in which way entries are not those wanted, or None."""
    # Files written by hand often lack BatchNorm's counters, which evaluation does not use.
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in wanted]
    shape = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    other = [name for name in wanted if name in state and not _holds_numbers(state[name], wanted[name])]
    if missing:
        return f"lacks {missing[0]}"
    if unknown:
        return f"has {shown(unknown[0]).strip(chr(39))} too many"
    if shape:
        return f"has {shape[0]} of shape {tuple(state[shape[0]].shape)}, not {tuple(wanted[shape[0]].shape)}"
    if other:
        kind = (
            "meta, without values" if state[other[0]].is_meta else f"{state[other[0]].dtype}, {state[other[0]].layout}"
        )
        return f"has {other[0]} in another form ({kind}) than dense floating numbers"
    return None


def _holds_numbers(value: Tensor, wanted: Tensor) -> bool:
    """Tell whether a tensor can be copied as it is: quantised and complex ones would lose what they mean."""
    plain = value.layout == torch.strided and not value.is_meta and not value.is_quantized
    return plain and (value.dtype in FLOATING or not wanted.is_floating_point()) and not value.is_complex()


def _chosen(fitting: list[tuple[str, ...]], path: Path) -> tuple[str, ...]:
    """Return which of several state dicts is meant: the only one, or the first under usual keys and prefixes."""
    usual = [
        (*keys, prefix)
        for *keys, prefix in fitting
        if all(key in WRAPPERS for key in keys) and all(word in PREFIXES for word in prefix.split(".")[:-1])
    ]
    if len(fitting) > 1 and not usual:
        names = ", ".join(".".join(filter(None, where)).strip(".") for where in fitting[:4])
        raise UserError(f"{path} holds several state dicts that fit, {names}; save the one that is meant by itself")
    return (usual or fitting)[0]


def _described(content: object) -> str:
    """Return what a file holds in place of weights."""
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}"
    if not content:
        return "it is empty"
    return "it holds " + ", ".join(shown(key) for key in list(content)[:4]) + ", …" * (len(content) > 4)
