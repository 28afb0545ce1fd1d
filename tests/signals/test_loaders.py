"""`signals_of_batches` with loaders and networks as people have them: what is taken, and what is refused by name."""

import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lcmat import UserError, signals_of_batches

X = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3
DATA = TensorDataset(X, Y)


class Network(nn.Module):
    """A hidden layer, a head, and another head that is registered before it, or after it."""

    def __init__(self, main_first: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Linear(8, 16)
        heads = {"main": nn.Linear(16, 3), "other": nn.Linear(16, 5)}
        for name in sorted(heads, reverse=not main_first):
            self.add_module(name, heads[name])

    def forward(self, x: Tensor) -> object:
        """Map vectors to logits, in some form."""
        hidden = self.body(x).relu()
        return self.returned(self.main(hidden), hidden)

    def returned(self, logits: Tensor, hidden: Tensor) -> object:
        """The logits as they are."""
        return logits


def check(network: nn.Module, batches: object, labels: Tensor = Y) -> None:
    """Take signals, and compare them with those of the plain network on the plain data."""
    signals = signals_of_batches(network, batches)
    plain = Network()
    with torch.no_grad():
        hidden = plain.body(X).relu()
        torch.testing.assert_close(signals.features, hidden)
        torch.testing.assert_close(signals.logits, plain.main(hidden))
    assert signals.labels.tolist() == labels.tolist()


# ---- order ----------------------------------------------------------------------------------------------------------


class Anew(Sampler):
    """Another order each time."""

    def __iter__(self) -> Iterator[int]:
        """Draw it."""
        return iter(random.sample(range(60), 60))

    def __len__(self) -> int:
        return 60


class Stream(IterableDataset):
    """Samples one after the other, from a buffer that is shuffled or not."""

    def __init__(self, shuffles: bool) -> None:
        self.shuffles = shuffles

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through them once more."""
        order = random.sample(range(60), 60) if self.shuffles else range(60)
        return ((X[i], Y[i]) for i in order)


class Loader:
    """A loader of another library, that can be gone through again and again."""

    def __init__(self, shuffles: bool = False, noise: float = 0.0) -> None:
        self.shuffles, self.noise = shuffles, noise

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through the batches once more."""
        order = torch.randperm(60) if self.shuffles else torch.arange(60)
        return ((X[i] + self.noise * torch.randn(len(i), 8), Y[i]) for i in order.split(16))


class Reversed(Sampler):
    """The same other order each time."""

    def __iter__(self) -> Iterator[int]:
        """Go through it."""
        return iter(range(59, -1, -1))

    def __len__(self) -> int:
        return 60


SHUFFLED: dict[str, tuple[Callable[[], object], str]] = {
    "shuffle=True": (lambda: DataLoader(DATA, 16, shuffle=True), "RandomSampler"),
    "with a seed": (lambda: DataLoader(DATA, 16, shuffle=True, generator=torch.Generator()), "RandomSampler"),
    "weighted": (lambda: DataLoader(DATA, 16, sampler=WeightedRandomSampler([1.0] * 60, 60)), "WeightedRandomSampler"),
    "a random subset": (lambda: DataLoader(DATA, 16, sampler=SubsetRandomSampler(range(30))), "SubsetRandomSampler"),
    "batches at random": (
        lambda: DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 16, False)), "RandomSampler"),
    "a share of several processes": (
        lambda: DataLoader(DATA, 16, sampler=DistributedSampler(DATA, 2, 0, shuffle=False)), "DistributedSampler"),
    "batches made by the data set": (lambda: DataLoader(DATA, None, sampler=RandomSampler(DATA)), "RandomSampler"),
    "a sampler of one's own": (lambda: DataLoader(DATA, 16, sampler=Anew()), "when it is gone through again"),
    "a stream that shuffles": (lambda: DataLoader(Stream(True), 16), "when it is gone through again"),
    "another library's loader": (lambda: Loader(shuffles=True), "the Loader gives other batches"),
    "augmentation": (lambda: Loader(noise=0.1), "or it changes images at random"),
}  # fmt: skip


@pytest.mark.parametrize("case", SHUFFLED)
def test_loaders_that_shuffle_are_refused(case: str) -> None:
    """By their sampler, or by a second look: indices would mean other samples."""
    make, message = SHUFFLED[case]
    random.seed(0)
    torch.manual_seed(0)
    with pytest.raises(UserError, match=message):
        signals_of_batches(Network(), make())


IN_ORDER: dict[str, Callable[[], object]] = {
    "a DataLoader": lambda: DataLoader(DATA, 16),
    "with workers' settings": lambda: DataLoader(DATA, 7, num_workers=0, drop_last=False, pin_memory=False),
    "a stream": lambda: DataLoader(Stream(False), 16),
    "another library's loader": Loader,
    "a list of batches": lambda: list(DataLoader(DATA, 16)),
    "a generator": lambda: (batch for batch in DataLoader(DATA, 16)),
    "an iterator": lambda: iter(DataLoader(DATA, 16)),
    "batches of its own in order": lambda: DataLoader(DATA, batch_sampler=[list(range(40)), list(range(40, 60))]),
    "one batch": lambda: [(X, Y)],
    "NumPy's arrays": lambda: [(X[:30].numpy(), Y[:30].numpy()), (X[30:].numpy(), Y[30:].tolist())],
    "float64": lambda: [(X.double(), Y)],
}


@pytest.mark.parametrize("case", IN_ORDER)
def test_loaders_in_order_are_taken_without_a_word(case: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(Network(), IN_ORDER[case]())


def test_an_order_of_its_own_is_said() -> None:
    with pytest.warns(UserWarning, match="positions in that order, not in the dataset"):
        signals = signals_of_batches(Network(), DataLoader(DATA, 16, sampler=Reversed()))
    assert signals.labels.tolist() == Y.flip(0).tolist()


def test_samples_that_the_loader_drops_are_counted() -> None:
    with pytest.warns(UserWarning, match="drops its last 12 samples"):
        assert len(signals_of_batches(Network(), DataLoader(DATA, 16, drop_last=True))) == 48


# ---- networks -------------------------------------------------------------------------------------------------------


@dataclass
class Output:
    """What libraries return."""

    loss: Tensor | None
    logits: Tensor


class Named(NamedTuple):
    """As torchvision's GoogLeNet returns it."""

    logits: Tensor
    aux: Tensor


RETURNED: dict[str, Callable[[Network, Tensor, Tensor], object]] = {
    "an object with logits": lambda n, z, h: Output(None, z),
    "a mapping with logits": lambda n, z, h: {"loss": z.sum(), "logits": z},
    "a mapping with one output": lambda n, z, h: {"out": z, "features": h},
    "logits and features": lambda n, z, h: (z, h),
    "features and logits": lambda n, z, h: [h, z],
    "a tuple with a name": lambda n, z, h: Named(z, n.other(h)),
    "logits and other logits": lambda n, z, h: (z, n.other(h)),
    "a tuple with nothing beside": lambda n, z, h: (z, None),
    "logits in double precision": lambda n, z, h: z.double(),
}


@pytest.mark.parametrize("case", RETURNED)
def test_networks_that_return_more_than_logits(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network, "returned", lambda n, z, h: RETURNED[case](n, z, h))
    check(Network(), DataLoader(DATA, 16))


def test_the_head_is_the_layer_whose_output_the_network_returns() -> None:
    """Whichever was registered last."""
    check(Network(main_first=True), DataLoader(DATA, 16))


class Unclear(Network):
    """Two heads, of which the usual one is not the first that is returned."""

    def returned(self, logits: Tensor, hidden: Tensor) -> object:
        """Both."""
        return self.other(hidden), logits


class Lazy(nn.Module):
    """Layers that take their width from the first batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.LazyLinear(16)
        self.head = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        """Map vectors to logits."""
        return self.head(input=self.body(x).relu())


def test_layers_that_take_their_width_from_the_first_batch() -> None:
    """And are given their input by name."""
    network = Lazy()
    signals = signals_of_batches(network, DataLoader(DATA, 16))
    with torch.no_grad():
        torch.testing.assert_close(signals.logits, network(X))
        torch.testing.assert_close(signals.features, network.body(X).relu())


def wrapped(kind: str) -> nn.Module:
    """The network in a wrapper that does not change what it computes."""
    network = Network().eval()
    if kind == "DataParallel":
        return nn.DataParallel(network)
    if kind == "compiled in place":
        network.compile(backend="eager")
    if kind == "a compiled part":
        network.main = torch.compile(network.main, backend="eager")
    compiled = torch.compile(network, backend="eager") if kind == "compiled" else network
    with torch.no_grad():
        compiled(X[:16])
        compiled(X[:12])
    return compiled


@pytest.mark.parametrize("kind", ["DataParallel", "compiled", "compiled in place", "a compiled part"])
def test_wrapped_networks_that_have_run(kind: str) -> None:
    """What was compiled before a hook came would not call it."""
    check(wrapped(kind), DataLoader(DATA, 16))


def test_a_compiled_network_stays_compiled() -> None:
    network = wrapped("compiled")
    signals_of_batches(network, DataLoader(DATA, 16))
    with torch.no_grad():
        torch.testing.assert_close(network(X), Network()(X))


# ---- batches --------------------------------------------------------------------------------------------------------


class Items(Dataset):
    """A data set of what a function makes of a sample's number."""

    def __init__(self, item: Callable[[int], object]) -> None:
        self.item = item

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> object:
        return self.item(index)


ITEMS: dict[str, Callable[[int], object]] = {
    "a mapping by the parameter's name": lambda i: {"x": X[i], "labels": Y[i]},
    "a mapping with more": lambda i: {"x": X[i], "label": Y[i], "id": i, "path": f"{i}.png"},
    "a mapping with one input": lambda i: {"image": X[i], "target": int(Y[i])},
    "a mapping within a pair": lambda i: ({"x": X[i]}, Y[i]),
    "with positions": lambda i: (X[i], Y[i], i),
    "labels as numbers": lambda i: (X[i], int(Y[i])),
    "labels as text": lambda i: (X[i], "abc"[Y[i]]),
    "a mapping with text": lambda i: {"x": X[i], "labels": "abc"[Y[i]]},
}


@pytest.mark.parametrize("case", ITEMS)
def test_batches_of_other_forms(case: str) -> None:
    check(Network(), DataLoader(Items(ITEMS[case]), 16))


def test_labels_as_text_are_named() -> None:
    """In sorted order, whatever comes first; from arrays, too."""
    first = signals_of_batches(Network(), DataLoader(Items(lambda i: (X[i], "cab"[Y[i]])), 16))
    second = signals_of_batches(Network(), [(X, np.array(list("cab"))[Y.numpy()])])
    for signals in (first, second):
        assert signals.class_names == ("a", "b", "c")
        assert signals.labels.tolist() == torch.tensor([2, 0, 1])[Y].tolist()


REFUSED: dict[str, tuple[Callable[[], tuple[object, object]], str]] = {
    "no network": (lambda: (lambda x: x, DataLoader(DATA, 16)), "must be a torch.nn.Module, not function"),
    "no linear layer": (lambda: (nn.ReLU(), DataLoader(DATA, 16)), "no linear head"),
    "no parameters at all": (lambda: (nn.Sequential(), DataLoader(DATA, 16)), "no linear head"),
    "two heads": (lambda: (Unclear(), DataLoader(DATA, 16)), "Unclear returns the outputs of 2 linear layers"),
    "a softmax": (lambda: (nn.Sequential(Network(), nn.Softmax(1)), DataLoader(DATA, 16)), "a softmax after it"),
    "logits of every step": (
        lambda: (nn.Linear(8, 3), [(X[:, None].expand(60, 2, 8), Y)]), "not that of its last linear layer"),
    "text for an output": (
        lambda: (nn.Sequential(nn.Linear(8, 3), Returning("logits")), DataLoader(DATA, 16)), "not that of its last"),
    "fewer outputs than labels": (lambda: (Network(), [(X[:30], Y)]), "outputs of 30 samples for 60 labels"),
    "no batches": (lambda: (Network(), []), "there are no batches"),
    "nothing": (lambda: (Network(), None), "batches must be a DataLoader or a list of batches, not NoneType"),
    "one mapping": (lambda: (Network(), {"x": X, "labels": Y}), "must be a DataLoader or a list of batches, not dict"),
    "one tensor": (lambda: (Network(), X), "must be a DataLoader or a list of batches, not Tensor"),
    "no labels": (lambda: (Network(), DataLoader(Items(lambda i: X[i]), 16)), "pairs of inputs .* not Tensor"),
    "one part": (lambda: (Network(), DataLoader(TensorDataset(X), 16)), "mappings with labels, not 1 parts"),
    "four parts": (lambda: (Network(), DataLoader(TensorDataset(X, X, X, Y), 16)), "not 4 parts"),
    "a mask between": (lambda: (Network(), DataLoader(TensorDataset(X, X > 0, Y), 16)), "third is not the samples'"),
    "other positions": (lambda: (Network(), DataLoader(TensorDataset(X, Y, Y), 16)), "third is not the samples'"),
    "a data set": (lambda: (Network(), DATA), r"not TensorDataset; for a data set give DataLoader\(dataset"),
    "a data set that is a list": (lambda: (Network(), list(DATA)), "hold one sample each; for a data set give"),
    "a mapping without labels": (
        lambda: (Network(), DataLoader(Items(lambda i: {"x": X[i], "z": 1}), 16)), "mappings of x, z, of which one"),
    "two kinds of labels": (
        lambda: (Network(), DataLoader(Items(lambda i: {"x": X[i], "label": 1, "target": 1}), 16)), "x, label, target"),
    "several inputs of other names": (
        lambda: (Network(), DataLoader(Items(lambda i: {"a": X[i], "b": X[i], "y": 1}), 16)), "not a mapping of a, b"),
    "a list of inputs": (
        lambda: (Network(), DataLoader(Items(lambda i: ((X[i], X[i]), 1)), 16)), "as a tensor, not a list"),
    "text for inputs": (
        lambda: (Network(), DataLoader(Items(lambda i: ("cat", 1)), 16)), "takes inputs as a tensor, not a"),
    "inputs of another width": (lambda: (Network(), [(X[:, :5], Y)]), r"cannot take inputs of shape \(60, 5\)"),
    "whole numbers": (lambda: (Network(), [(X.long(), Y)]), r"shape \(60, 8\) and type torch.int64"),
    "labels in columns": (lambda: (Network(), [(X, nn.functional.one_hot(Y))]), r"labels must have shape \(n,\)"),
    "labels as floats": (lambda: (Network(), [(X, Y.float())]), "labels must be integers or text, not torch.float32"),
    "labels of two kinds": (
        lambda: (Network(), [(X[:30], list("abc") * 10), (X[30:], Y[30:])]), "texts in some batches and numbers"),
    "labels as mappings": (
        lambda: (Network(), DataLoader(Items(lambda i: (X[i], {"a": 1})), 16)), "labels of a batch must be"),
    "too few names": (lambda: (Network(), [(X, list("ab") * 30)]), "labels name 2 classes, but logits have 3 columns"),
    "weights that are not finite": (lambda: (ruined(), DataLoader(DATA, 16)), "outputs of Network are not finite"),
}  # fmt: skip


class Returning(nn.Module):
    """A layer that returns something else."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> object:
        """Return it."""
        return self.value


def ruined() -> nn.Module:
    """A network whose training diverged."""
    network = Network()
    network.main.weight.data[0, 0] = torch.nan
    return network


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_single_meaning_is_named(case: str) -> None:
    make, message = REFUSED[case]
    network, batches = make()
    with pytest.raises(UserError, match=message) as caught:
        signals_of_batches(network, batches)
    assert "\n" not in str(caught.value)
    if isinstance(network, nn.Module):
        assert network.training, "the network is left as it was"
        assert not any(module._forward_pre_hooks for module in network.modules())
