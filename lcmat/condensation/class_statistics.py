"""What is compared between the real and the synthetic images of a class: mean features, mean gradients, moments.

All are sums over images with weights 1/n, n being the images of the image's class; so what pieces of a class give adds
up to what the class gives. Each statistic has the k classes in its first dimension. With `graph` it can be
differentiated in the images.

    inputs (n, c, h, w)   │ class 0: n₀ │ class 1: n₁ │ … │      sizes = [n₀, n₁, …], Σ = n
    labels, weights (n,)  │ 0 … 0       │ 1 … 1       │ … │
    φ (n, d)              → Σ w φ       (k, d)
    ∇W Σ w ℓ              → (k, *W.shape) for each weight W
    g = a ⊗ h̃             → Σ w g, Σ w g²   (k, C, d+1), a (n, C), h̃ (n, d+1): never (n, C, d+1)
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from backpack import backpack, extend
from backpack.extensions import BatchGrad
from torch import Tensor, nn

from lcmat.errors import UserError
from lcmat.last_layer import layer_inputs, residuals
from lcmat.signals import linear_head

LAYERS = ("all", "convolutions")
Statistics = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class ClassBatch:
    """Images of k classes, class after class, as a network reads them.

    inputs: (n, c, h, w). labels, weights: (n,). sizes: how many there are of each class, k numbers.
    """

    inputs: Tensor
    labels: Tensor
    weights: Tensor
    sizes: list[int]

    def losses(self, logits: Tensor) -> Tensor:
        """Return the weighted cross-entropy of each image, (n,)."""
        return self.weights * F.cross_entropy(logits, self.labels, reduction="none")


def mean_features(network: nn.Module, batch: ClassBatch, graph: bool) -> Statistics:
    """Return the weighted sum of φ, the input of the last linear layer, over each class: (k, d)."""
    with torch.set_grad_enabled(graph):
        features, _ = features_and_logits(network, batch.inputs, head=False)
        return {"features": _class_weights(batch.weights, batch.sizes) @ features}


def mean_gradients(
    network: nn.Module,
    batch: ClassBatch,
    graph: bool,
    layers: str = "all",
    moments: Callable[..., Statistics] | None = None,
) -> Statistics:
    """Return the gradient of the weighted sum of cross-entropies over each class, (k, *shape) for each weight.

    Parameters of one dimension (biases, normalisation) are left out; layers: "all" others, or "convolutions".
    moments: also those of the last layer's per-sample gradients, by `closed_form_moments` or `backpack_moments`.
    """
    sizes, by_backpack = batch.sizes, moments is backpack_moments
    with torch.enable_grad(), _captured(network, len(sizes) > 1) as calls:
        features, logits = features_and_logits(network, batch.inputs)
        losses = batch.losses(logits)
        loss = losses.sum()
    names = matched_weights(network, layers)
    again = graph or by_backpack  # whether the graph is needed once more
    if len(sizes) == 1:
        found = torch.autograd.grad(loss, list(names.values()), create_graph=graph, retain_graph=again)
        result = {name: value[None] for name, value in zip(names, found, strict=True)}
    elif calls is not None and calls.usable(names):
        with torch.set_grad_enabled(graph):
            result = calls.gradients(loss, names, sizes, graph, again)
    else:
        result = _one_by_one(losses, sizes, names, graph, again)
    if moments is not None:
        with torch.set_grad_enabled(graph or by_backpack):
            result |= moments(linear_head(network), features, logits, batch, graph)
    return result if graph else {name: value.detach() for name, value in result.items()}


def matched_weights(network: nn.Module, layers: str) -> dict[str, Tensor]:
    """Return the parameters whose gradients are matched, by name: those with at least two, or four, dimensions."""
    least = 4 if layers == "convolutions" else 2
    found = {name: p for name, p in network.named_parameters() if p.ndim >= least}
    if not found:
        raise UserError(
            f"{type(network).__name__} has no convolution whose gradients could be matched; take layers=all"
        )
    return found


def closed_form_moments(
    head: nn.Linear, features: Tensor, logits: Tensor, batch: ClassBatch, graph: bool
) -> Statistics:
    """Return the weighted sums of g and g² over each class, (k, C, d+1), g = a ⊗ h̃ being the last layer's gradient.

    As products of the factors, in float64: g itself, (n, C, d+1), is never formed.
    """
    sizes = batch.sizes
    a, h = residuals(logits, batch.labels), layer_inputs(features, head.bias is not None)
    parts = zip(a.split(sizes), h.split(sizes), batch.weights.double().split(sizes), strict=True)
    sums = [((w[:, None] * a).T @ h, (w[:, None] * a.square()).T @ h.square()) for a, h, w in parts]
    first, second = zip(*sums, strict=True)
    return {"first": torch.stack(first), "second": torch.stack(second)}


def backpack_moments(head: nn.Linear, features: Tensor, logits: Tensor, batch: ClassBatch, graph: bool) -> Statistics:
    """Return what `closed_form_moments` does, from BackPACK's per-sample gradients, (n, C, d+1) at once."""
    extended = extend(copy.deepcopy(head).requires_grad_(True))
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))(extended(features), batch.labels)
    with backpack(BatchGrad(), retain_graph=True):
        # Its hooks run on the way to the layer's input; backward() would also fill .grad of everything before that.
        torch.autograd.grad(loss, features, create_graph=graph, retain_graph=True)
    g = extended.weight.grad_batch
    if head.bias is not None:
        g = torch.cat([g, extended.bias.grad_batch[:, :, None]], 2)
    weighting, g = _class_weights(batch.weights.double(), batch.sizes), g.double()
    return {"first": torch.tensordot(weighting, g, 1), "second": torch.tensordot(weighting, g.square(), 1)}


def features_and_logits(network: nn.Module, inputs: Tensor, head: bool = True) -> tuple[Tensor, Tensor | None]:
    """Return the input of the last linear layer (n, d) and the logits (n, C), or no logits.

    Networks of this project say both; of any other, a hook reads the first. Several threads may call this at once.
    """
    if hasattr(network, "embed"):
        features = network.embed(inputs)
        return features, network.head(features) if head else None
    taken: dict[int, Tensor] = {}
    hook = linear_head(network).register_forward_pre_hook(
        lambda module, given: taken.__setitem__(threading.get_ident(), given[0])
    )
    try:
        logits = network(inputs)
    finally:
        hook.remove()
    return taken[threading.get_ident()], logits


def _class_weights(weights: Tensor, sizes: list[int]) -> Tensor:
    """Return the matrix (k, n) whose row c holds the weights of class c's images."""
    return torch.block_diag(*weights.split(sizes))


class _Calls:
    """Inputs and outputs of layers with weights in one forward pass: from these follow the gradients of each class.

    One backward pass to the layers' outputs serves all classes, since no image's loss depends on another image. What
    is left is a small product for each class, where a pass for each class would start the whole network again.
    """

    def __init__(self) -> None:
        self.of: dict[nn.Module, list[tuple[Tensor, Tensor, int]]] = {}

    def note(self, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep a call of a layer; a forward hook."""
        self.of.setdefault(module, []).append((given[0], output, output._version))

    def usable(self, names: dict[str, Tensor]) -> bool:
        """Tell whether every weight is that of a layer known here, and no output was overwritten afterwards."""
        known = {id(module.weight) for module in self.of}
        untouched = all(output._version == version for calls in self.of.values() for _, output, version in calls)
        return untouched and all(id(weight) in known for weight in names.values())

    def gradients(
        self, loss: Tensor, names: dict[str, Tensor], sizes: list[int], graph: bool, retain: bool
    ) -> Statistics:
        """Return the gradients of each class."""
        wanted = {id(weight): name for name, weight in names.items()}
        calls = [(m, *call[:2]) for m, several in self.of.items() if id(m.weight) in wanted for call in several]
        deltas = torch.autograd.grad(loss, [output for *_, output in calls], create_graph=graph, retain_graph=retain)
        result: Statistics = {}
        for (module, given, _), delta in zip(calls, deltas, strict=True):
            parts = zip(given.split(sizes), delta.split(sizes), strict=True)
            value = torch.stack([_weight_gradient(module, x, d) for x, d in parts])
            name = wanted[id(module.weight)]
            result[name] = result[name] + value if name in result else value
        return {name: result[name] for name in names}


def _weight_gradient(module: nn.Module, given: Tensor, delta: Tensor) -> Tensor:
    if isinstance(module, nn.Linear):
        return delta.flatten(0, -2).T @ given.flatten(0, -2)
    where = (module.stride, module.padding, module.dilation, module.groups)
    return torch.nn.grad.conv2d_weight(given, module.weight.shape, delta, *where)


def _is_known(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return isinstance(module, nn.Linear)


@contextmanager
def _captured(network: nn.Module, wanted: bool) -> Iterator[_Calls | None]:
    """Note the calls of all layers with weights in the forward pass within; None if that is not wanted."""
    if not wanted:
        yield None
        return
    calls = _Calls()
    hooks = [module.register_forward_hook(calls.note) for module in network.modules() if _is_known(module)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _one_by_one(losses: Tensor, sizes: list[int], names: dict[str, Tensor], graph: bool, retain: bool) -> Statistics:
    """Return the gradients of each class by a backward pass for each: for layers of any kind."""
    rows = []
    for number, own in enumerate(losses.split(sizes)):
        keep = graph or retain or number + 1 < len(sizes)
        rows.append(torch.autograd.grad(own.sum(), list(names.values()), create_graph=graph, retain_graph=keep))
    return {name: torch.stack(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
