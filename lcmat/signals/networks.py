"""What the library asks of any network: its last linear layer, and its signals."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from lcmat import distributed
from lcmat.data import Split
from lcmat.errors import UserError, shown
from lcmat.signals.loaders import called, in_order, inputs_and_labels
from lcmat.signals.signals import Signals
from lcmat.training import Compute, predictions
from lcmat.training.compute import evaluation_mode


def linear_head(network: nn.Module) -> nn.Linear:
    """Return the network's `head`, or else the last nn.Linear that was registered in it."""
    head = getattr(network, "head", None)
    if isinstance(head, nn.Linear):
        return head
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(
            f"{type(network).__name__} has no linear head: selection reads the input of the last nn.Linear layer; "
            f"end the network with one"
        )
    return linear[-1]


@torch.no_grad()
def signals_of_batches(network: nn.Module, batches: Iterable) -> Signals:
    """Return features, logits and labels of one's own data under one's own network, in evaluation mode.

    network: any nn.Module whose output is that of its last nn.Linear: a tensor, a tuple with such a tensor, or an
    object or mapping with `logits`. Compiled ones run uncompiled meanwhile.
    batches: a DataLoader that does not shuffle, or any other iterable of (inputs, labels); of (inputs, labels,
    positions); or of mappings with `labels`, whose other entries the network takes by name. Labels are integers (b,) or
    texts: these become classes by name, as `network.config.id2label` has them, or in sorted order.

    The indices that are selected later are positions in this order. A loader that is known to shuffle is refused; of
    one that is not known, the first two batches are read twice and must be the same; what can be gone through once,
    such as a generator, cannot be checked: it must not shuffle. Inputs are moved to the device and type of the network.
    Raises UserError that names what does not fit.
    """
    if not isinstance(network, nn.Module):
        raise UserError(f"the network must be a torch.nn.Module, not {type(network).__name__}")
    linear_head(network)  # before anything is read
    device = next((value.device for value in network.parameters()), torch.device("cpu"))
    names: list[list[str]] = []

    def outputs() -> Iterator[tuple[object, Tensor]]:
        count = 0
        for batch in in_order(batches):
            inputs, labels = inputs_and_labels(batch, count)
            if not isinstance(labels, Tensor):
                names.append(labels)
                labels = torch.zeros(len(labels), dtype=torch.int64)  # until all names are known
            count += len(labels)
            yield called(network, inputs), labels.to(device)

    with evaluation_mode(network):
        signals = capture(network, outputs())
    if not names:
        return signals
    labels = [name for part in names for name in part]
    if len(labels) != len(signals):
        raise UserError("labels are texts in some batches and numbers in others")
    return replace(signals, labels=labels, class_names=_names_of_columns(network, labels))


def _names_of_columns(network: nn.Module, labels: list[str]) -> list[str] | None:
    """Return the classes' names in the order of the network's outputs, if it says them (transformers' id2label)."""
    known = getattr(getattr(network, "config", None), "id2label", None)
    if not isinstance(known, Mapping) or all(name == f"LABEL_{number}" for number, name in known.items()):
        return None
    names = [known[number] for number in sorted(known)]
    unknown = next((label for label in labels if label not in names), None)
    if unknown is not None:
        raise UserError(
            f"a label is {shown(unknown)}, which is none of the network's (config.id2label): {names[:4]}, …"
        )
    return names


@torch.no_grad()
def take_signals(network: nn.Module, split: Split, compute: Compute, batch: int = 500) -> Signals:
    """Return features, logits and labels of all samples, from one pass in evaluation mode.

    Works for any nn.Module whose output is that of its last nn.Linear: a hook reads what goes into it. The precision
    is that of `compute`; float32 is right, since bfloat16 changes picks. Raises UserError if there is no such layer.
    """
    count = -(-len(split) // batch)
    if distributed.count() == 1 or count < distributed.count():
        return _taken(network, split, compute, batch)
    sent = (distributed.on_host(network), split.to(torch.device("cpu")), replace(compute), batch)
    with distributed.helped(_share_of_signals, *sent):
        return _share_of_signals(network, split, compute, batch)


def _taken(network: nn.Module, split: Split, compute: Compute, batch: int) -> Signals:
    outputs = ((output, labels) for output, labels, _ in predictions(network, split, compute, batch))
    with evaluation_mode(network):  # here, too: a generator that an error leaves half read does not end at once
        return capture(network, outputs)


@torch.no_grad()
def _share_of_signals(network: nn.Module, split: Split, compute: Compute, batch: int) -> Signals:
    """Take signals of this process's share of the batches; return in the first process those of all.

    The batches are those of one process alone, so that signals are the same.
    """
    count, among = -(-len(split) // batch), distributed.count()
    ends = [min(len(split), count * number // among * batch) for number in range(among + 1)]
    own = torch.arange(ends[distributed.rank()], ends[distributed.rank() + 1])
    part = _taken(network, split.take(own).to(compute.device), compute, batch)
    sizes = [after - before for before, after in itertools.pairwise(ends)]
    whole = (distributed.collected(values, sizes) for values in (part.features, part.logits, part.labels))
    return Signals(*whole, bias=part.bias)


def capture(network: nn.Module, outputs: Iterable[tuple[object, Tensor]]) -> Signals:
    """Return signals from the outputs and labels of batches, and what goes into the last layer meanwhile."""
    features, logits, labels, last = [], [], [], None
    with _uncompiled(), _inputs_of_linear_layers(network) as calls:
        for output, batch_labels in outputs:
            if last is None:
                last = _last_layer(network, calls, output, len(batch_labels))
            head, place = last
            feature, out = calls.get(head), _tensors(output).get(place)
            if feature is None or out is None or out.shape != (len(batch_labels), head.out_features):
                raise _no_output_of_a_layer(network)
            calls.clear()
            features.append(feature.float())
            logits.append(out.float())
            labels.append(batch_labels)
    if not features:
        raise UserError("there are no batches to take signals from")
    return Signals(torch.cat(features), torch.cat(logits), torch.cat(labels), bias=head.bias is not None)


@contextmanager
def _inputs_of_linear_layers(network: nn.Module) -> Iterator[dict[nn.Linear, Tensor]]:
    """Note what goes into each linear layer, if that is a vector for each sample."""
    calls: dict[nn.Linear, Tensor] = {}

    def note(module: nn.Linear, inputs: tuple, named: Mapping) -> None:
        value = inputs[0] if inputs else named.get("input")
        if isinstance(value, Tensor) and value.ndim == 2:
            calls[module] = value

    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _uncompiled() -> AbstractContextManager:
    """Let compiled modules run as they are written: what was compiled before a hook came does not call it."""
    # Nothing can be compiled where the compiler was never imported, which takes seconds.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _tensors(output: object) -> dict[object, Tensor]:
    """Return the tensors in a network's output that may be logits, and where they lie."""
    if isinstance(output, Tensor):
        return {None: output}
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return {"logits": logits}
    parts = (
        output.items() if isinstance(output, Mapping) else enumerate(output if isinstance(output, list | tuple) else ())
    )
    return {place: value for place, value in parts if isinstance(value, Tensor) and value.ndim == 2}


def _last_layer(
    network: nn.Module, calls: Mapping[nn.Linear, Tensor], output: object, count: int
) -> tuple[nn.Linear, object]:
    """Return the linear layer whose output is the network's, and where that lies in it.

    Raises UserError if there is none, or if it is not clear which of several is meant.
    """
    given = {place: value for place, value in _tensors(output).items() if value.ndim}
    if given and all(len(value) != count for value in given.values()):
        found = len(next(iter(given.values())))
        raise UserError(f"{type(network).__name__} returns outputs of {found} samples for {count} labels")
    if any(not torch.isfinite(value).all() for value in given.values()):
        raise UserError(
            f"the outputs of {type(network).__name__} are not finite; its weights are ruined, train it anew"
        )
    usual = linear_head(network)
    layers = sorted(calls, key=lambda layer: layer is usual)  # that one in the place of any other with the same output
    found = {
        place: layer for place, value in given.items() for layer in layers if _is_output(layer, calls[layer], value)
    }
    if not found:
        raise _no_output_of_a_layer(network)
    first = next(iter(found))
    if len(found) > 1 and found[first] is not usual:
        raise UserError(
            f"{type(network).__name__} returns the outputs of {len(found)} linear layers; let it return logits alone"
        )
    return found[first], first


def _is_output(layer: nn.Linear, feature: Tensor, value: Tensor) -> bool:
    if len(feature) != len(value) or value.shape[1:] != (layer.out_features,):
        return False
    expected = nn.functional.linear(feature.to(layer.weight.dtype), layer.weight, layer.bias).float()
    tolerance = 1e-2 if value.dtype == torch.bfloat16 else 1e-4
    return torch.allclose(value.float(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def _no_output_of_a_layer(network: nn.Module) -> UserError:
    return UserError(
        f"the output of {type(network).__name__} is not that of its last linear layer (a softmax after it, or another "
        f"shape?); let it return logits, and end it with that layer"
    )
