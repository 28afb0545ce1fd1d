"""What the library asks of any network: its last linear layer, its signals, and weights from a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from lcmat.data.splits import Split
from lcmat.errors import UserError
from lcmat.files import load_tensors
from lcmat.signals.signals import Signals
from lcmat.training import Compute, evaluation_mode, predictions

# Names that other ResNet code gives to the same parts; ours are those of the released code.
SYNONYMS = (("downsample.", "shortcut."), ("fc.", "linear."), ("classifier.", "linear."), ("head.", "linear."))


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

    batches: pairs of inputs as the network takes them and labels (b,), such as a DataLoader that does not shuffle: the
    indices that are selected later are positions in this order. Works for any nn.Module whose output is that of its
    last nn.Linear. Inputs are moved to the device of the network. Raises UserError if there is no such layer.
    """
    device = next(network.parameters()).device

    def outputs() -> Iterator[tuple[Tensor, Tensor]]:
        with evaluation_mode(network):
            for inputs, labels in batches:
                yield network(inputs.to(device)), torch.as_tensor(labels).to(device)

    return capture(network, outputs())


@torch.no_grad()
def take_signals(network: nn.Module, split: Split, compute: Compute, batch: int = 500) -> Signals:
    """Return features, logits and labels of all samples, from one pass in evaluation mode.

    Works for any nn.Module whose output is that of its last nn.Linear: a hook reads what goes into it. The precision
    is that of `compute`; float32 is right, since bfloat16 changes picks. Raises UserError if there is no such layer.
    """
    return capture(network, ((output, labels) for output, labels, _ in predictions(network, split, compute, batch)))


def capture(network: nn.Module, outputs: Iterable[tuple[Tensor, Tensor]]) -> Signals:
    """Return signals from the outputs and labels of batches, and what goes into the last layer meanwhile."""
    head = linear_head(network)
    captured: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, inputs: captured.append(inputs[0]))
    features, logits, labels = [], [], []
    try:
        for output, batch_labels in outputs:
            if not captured or captured[-1].ndim != 2 or output.shape != (len(batch_labels), head.out_features):
                raise UserError(
                    f"the output of {type(network).__name__} is not that of its last linear layer; end it with one"
                )
            feature = captured[-1]
            captured.clear()
            if not features:
                _check_output(network, head, feature, output)
            features.append(feature.float())
            logits.append(output.float())
            labels.append(batch_labels)
    finally:
        handle.remove()
    if not features:
        raise UserError("there are no batches to take signals from")
    bias = head.bias is not None
    return Signals(torch.cat(features), torch.cat(logits), torch.cat(labels), bias=bias)


def _check_output(network: nn.Module, head: nn.Linear, feature: Tensor, output: Tensor) -> None:
    expected = nn.functional.linear(feature.to(head.weight.dtype), head.weight, head.bias)
    if not torch.isfinite(output).all():
        raise UserError(
            f"the outputs of {type(network).__name__} are not finite; its weights are ruined, train it anew"
        )
    tolerance = 1e-2 if output.dtype == torch.bfloat16 else 1e-4
    if not torch.allclose(
        output.float(), expected.float(), rtol=tolerance, atol=tolerance * float(expected.abs().max())
    ):
        raise UserError(
            f"the output of {type(network).__name__} is not that of its last linear layer (a softmax after it?); "
            f"let it return logits"
        )


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict from a file into `network`, of any floating type, with the common names for its parts.

    A wrapper ({"state_dict": …}, {"model": …}) and the prefix of DataParallel are taken off.
    Raises UserError that says which entries are missing, unknown or of another shape.
    """
    state = load_tensors(Path(path))
    for wrapper in ("state_dict", "model", "network"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict: a mapping from parameter names to tensors")
    wanted = network.state_dict()
    state = {_own_name(name, wanted): value for name, value in state.items()}
    # Files written by hand often lack BatchNorm's counters, which evaluation does not use.
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in wanted]
    shape = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if missing or unknown or shape:
        problem = (
            f"lacks {missing[0]}"
            if missing
            else f"has {unknown[0]} too many"
            if unknown
            else f"has {shape[0]} of shape {tuple(state[shape[0]].shape)}, not {tuple(wanted[shape[0]].shape)}"
        )
        raise UserError(f"{path} does not fit {type(network).__name__} for this dataset: it {problem}; check --model")
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise UserError(f"{path} holds weights that are not finite")
    network.load_state_dict(state, strict=False)


def _own_name(name: str, wanted: dict) -> str:
    name = name.removeprefix("module.")
    if name in wanted:
        return name
    for other, own in SYNONYMS:
        if name.replace(other, own) in wanted:
            return name.replace(other, own)
    return name
