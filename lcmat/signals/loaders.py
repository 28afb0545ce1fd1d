"""Batches as people's loaders give them: their order, which part is what, and how a network takes its inputs."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from lcmat.errors import UserError, shown

SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler, DistributedSampler)
# What the labels are called in batches that are mappings.
LABELS = ("labels", "label", "targets", "target", "y", "class")
# Batches that are looked at twice where a loader's order is not known.
LOOKED_AT = 2


def in_order(batches: Iterable) -> Iterator[object]:
    """Yield the batches; raise UserError where they come in an order of their own, by which indices would mean others.

    A DataLoader's sampler says so before anything is read. Of other loaders the first batches are compared when all
    were read, if they can be gone through again.
    """
    if isinstance(batches, str | bytes | Mapping | Tensor | np.ndarray) or not isinstance(batches, Iterable):
        raise UserError(
            f"batches must be a DataLoader or a list of batches, not {type(batches).__name__}; for a data set give "
            f"DataLoader(dataset, batch_size=256)"
        )
    known = _is_sequential(batches)
    seen = []
    for batch in batches:
        if not known and len(seen) < LOOKED_AT:
            seen.append(batch)
        yield batch
    if not known:
        again = iter(batches)
        if again is not batches:  # else they can be read once
            _compare(seen, list(itertools.islice(again, LOOKED_AT)), batches)


def _is_sequential(batches: Iterable) -> bool:
    """Tell whether batches are known to come in their data set's order. Raises UserError if they are known not to."""
    if not isinstance(batches, DataLoader):
        return isinstance(batches, list | tuple)
    if isinstance(batches.dataset, IterableDataset):
        return False
    batching = batches.batch_sampler
    sampler = batches.sampler if batching is None else getattr(batching, "sampler", batching)
    if isinstance(sampler, SHUFFLING):
        raise UserError(
            f"the loader takes samples in the order of its {type(sampler).__name__}, so that indices would mean other "
            f"samples; give one that does not shuffle: DataLoader(…, shuffle=False)"
        )
    if isinstance(sampler, SequentialSampler) and (batching is None or type(batching) is BatchSampler):
        left = len(batches.dataset) % batches.batch_size if batches.drop_last and batches.batch_size else 0
        if left:
            warnings.warn(
                f"the loader drops its last {left} samples (drop_last), which cannot be selected", stacklevel=5
            )
        return True
    return False


def _compare(seen: list, again: list, batches: Iterable) -> None:
    if again and not all(_same(one, other) for one, other in zip(seen, again, strict=False)):
        raise UserError(
            f"the {type(batches).__name__} gives other batches when it is gone through again: it shuffles, so that "
            f"indices would mean other samples, or it changes images at random; let it do neither"
        )
    if isinstance(batches, DataLoader) and not isinstance(batches.dataset, IterableDataset):
        order = batches.sampler if batches.batch_sampler is None else itertools.chain(*batches.batch_sampler)
        if any(place != index for place, index in enumerate(order)):
            warnings.warn(
                "the loader's sampler has an order of its own: indices are positions in that order, not in the dataset",
                stacklevel=5,
            )


def _same(one: object, other: object) -> bool:
    if isinstance(one, Tensor | np.ndarray):
        one, other = torch.as_tensor(one), torch.as_tensor(other)
        return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def inputs_and_labels(batch: object, position: int) -> tuple[object, Tensor | list[str]]:
    """Return what the network takes, and the labels of the batch that begins with the sample at `position`.

    batch: (inputs, labels), or with the samples' positions as a third part; or a mapping with an entry of labels, the
    others being inputs. Labels are integers or texts. Raises UserError that says what else was found.
    """
    if isinstance(batch, Mapping):
        inputs, labels = _of_mapping(batch)
    elif isinstance(batch, list | tuple) and len(batch) in (2, 3):
        inputs, labels = batch[:2]
        if len(batch) == 3 and not _are_positions(batch[2], position, len(labels) if hasattr(labels, "__len__") else 0):
            raise UserError(
                "batches have three parts, of which the third is not the samples' positions 0, 1, …; give pairs of "
                "inputs and labels"
            )
    else:
        what = f"{len(batch)} parts" if isinstance(batch, list | tuple) else type(batch).__name__
        raise UserError(f"batches must be pairs of inputs and labels, or mappings with labels, not {what}")
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "OSTU":
        labels = labels.tolist()
    if isinstance(labels, list | tuple) and labels and all(isinstance(label, str | bytes) for label in labels):
        return inputs, list(labels)
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"the labels of a batch must be integers or texts, not {shown(labels)}") from None
    if labels.ndim == 0:
        raise UserError("batches hold one sample each; for a data set give DataLoader(dataset, batch_size=256)")
    return inputs, labels


def _of_mapping(batch: Mapping) -> tuple[Mapping, object]:
    names = [name for name in LABELS if name in batch]
    if len(names) != 1:
        found = ", ".join(map(str, batch))
        raise UserError(f"batches are mappings of {found}, of which one must be called labels, and nothing else alike")
    return {name: value for name, value in batch.items() if name != names[0]}, batch[names[0]]


def _are_positions(values: object, position: int, count: int) -> bool:
    if not isinstance(values, Tensor | np.ndarray):
        return False
    values = torch.as_tensor(values)
    return values.shape == (count,) and torch.equal(values.cpu().long(), torch.arange(position, position + count))


def called(network: nn.Module, inputs: object) -> object:
    """Return the network's output of inputs, which are moved to its device, and floats to its type.

    inputs: a tensor, or a mapping of tensors, of which those entries are passed by name that the network has parameters
    for; if it has none of these names, the only one. Raises UserError that names what it cannot take.
    """
    first = next((value for value in network.parameters() if value.is_floating_point()), None)
    device = torch.device("cpu") if first is None else first.device

    def moved(value: object) -> object:
        if not isinstance(value, Tensor | np.ndarray):
            return value
        value = torch.as_tensor(value).to(device)
        return value.to(first.dtype) if first is not None and value.is_floating_point() else value

    where, by_name = [], {}
    if isinstance(inputs, Mapping):
        by_name = _for_parameters(network, inputs)
        where = [] if by_name else list(inputs.values())
    else:
        where = [inputs]
    if len(where) > 1 or not all(isinstance(value, Tensor | np.ndarray) for value in where):
        raise UserError(
            f"{type(network).__name__} takes inputs as a tensor, not {_inputs(inputs)}; let batches hold one"
        )
    try:
        return network(*map(moved, where), **{name: moved(value) for name, value in by_name.items()})
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{type(network).__name__} cannot take {_inputs(inputs)}: {reason}") from error


def _for_parameters(network: nn.Module, inputs: Mapping) -> dict[str, object]:
    """Return the entries that the network's forward has parameters of these names for; wrappers are looked into."""
    taking = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [p.name for p in inspect.signature(network.forward).parameters.values() if p.kind in taking]
    inner = getattr(network, "_orig_mod", getattr(network, "module", None))
    if not names and isinstance(inner, nn.Module):
        return _for_parameters(inner, inputs)
    return {name: inputs[name] for name in names if name in inputs}


def _inputs(inputs: object) -> str:
    """Return what to call inputs in a message."""
    if isinstance(inputs, Tensor | np.ndarray):
        return f"inputs of shape {tuple(inputs.shape)} and type {inputs.dtype}"
    if isinstance(inputs, Mapping):
        return f"a mapping of {', '.join(map(str, inputs))}"
    return f"a {type(inputs).__name__}"
