"""Weights from files of other trainers: found where they lie, or one line that says what the file holds."""

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nets
from lcmat.errors import UserError
from lcmat.signals.weights import load_weights


def network(seed: int = 0) -> nn.Module:
    """A small network of this project."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nets.build("MLP", 10, 1, 8)


SAVED = network(1).state_dict()


def prefixed(prefix: str, state: dict[str, Tensor] = SAVED) -> dict[str, Tensor]:
    """The entries with a prefix before each name."""
    return {prefix + name: value for name, value in state.items()}


def noise() -> dict[str, Tensor]:
    """Other weights for the same network."""
    return network(2).state_dict()


def lightning() -> dict[str, object]:
    """As Lightning saves: a prefix, a loss with weights of its own, and more beside."""
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1, momentum=0.9).state_dict()
    more = {"epoch": 3, "global_step": 100, "optimizer_states": [optimizer], "lr_schedulers": [], "callbacks": {}}
    return {"state_dict": {**prefixed("model."), "criterion.weight": torch.ones(10)}, "loops": None} | more


def compiled_and_averaged() -> dict[str, Tensor]:
    """As AveragedModel has the names, of a network that was compiled."""
    average = torch.optim.swa_utils.AveragedModel(torch.compile(network(1), backend="eager"))
    return average.state_dict()


READ: dict[str, Callable[[], object]] = {
    "plain": lambda: SAVED,
    "ordered": lambda: OrderedDict(SAVED),
    "net, DataParallel": lambda: {"net": prefixed("module."), "acc": 91.2, "epoch": 7},
    "model_state_dict": lambda: {"epoch": 7, "model_state_dict": SAVED, "loss": torch.tensor(0.3)},
    "compiled": lambda: prefixed("_orig_mod."),
    "compiled DataParallel": lambda: prefixed("module._orig_mod."),
    "Lightning": lightning,
    "SWA": lambda: {"n_averaged": torch.tensor(3), **prefixed("module.")},
    "SWA of a compiled network": compiled_and_averaged,
    "a NumPy scalar beside": lambda: {"state_dict": SAVED, "best_acc": np.float64(91.2), "epoch": np.int64(3)},
    "NumPy's arrays beside": lambda: {"state_dict": SAVED, "curve": np.arange(3.0), "names": np.array(["a"])},
    "arrays for weights": lambda: {name: value.numpy() for name, value in SAVED.items()},
    "options beside, as timm": lambda: {"arch": "mlp", "state_dict": SAVED, "args": argparse.Namespace(lr=0.1)},
    "averaged weights beside": lambda: {"state_dict": SAVED, "state_dict_ema": noise()},
    "averaged weights before": lambda: {"model_ema": noise(), "model": SAVED},
    "averaged weights among them": lambda: {"state_dict": {**prefixed("model_ema.", noise()), **prefixed("model.")}},
    "numbers among the weights": lambda: {**SAVED, "epoch": 3, "name": "mlp"},
    "a key of one's own": lambda: {"my_best_net": SAVED, "accuracy": 91.2},
    "two wrappers": lambda: {"checkpoint": {"model": prefixed("module.")}},
    "a part of something larger": lambda: {**prefixed("student.backbone."), "projector.weight": torch.ones(3, 3)},
    "parameters": lambda: {name: nn.Parameter(value) for name, value in SAVED.items()},
    "another head's name": lambda: {
        name.replace("linear.", "fc.").replace("head.", "fc."): value for name, value in SAVED.items()
    },
}


@pytest.mark.parametrize("case", READ)
def test_weights_are_found_where_other_trainers_keep_them(case: str, tmp_path: Path) -> None:
    torch.save(READ[case](), tmp_path / "f.pth")
    target = network()
    load_weights(target, tmp_path / "f.pth")
    for name, value in target.state_dict().items():
        assert torch.equal(value, SAVED[name]), name


class Own(nn.Module):
    """A network of somebody's own."""


def pickled(path: Path) -> None:
    """Save a whole network, which is code."""
    torch.save({"model": Own(), "epoch": 3}, path)


def scripted(path: Path) -> None:
    """Save a TorchScript program."""
    torch.jit.save(torch.jit.trace(network().eval(), torch.zeros(1, 1, 8, 8)), path)


def safe(path: Path) -> None:
    """Save as safetensors."""
    from safetensors.torch import save_file

    save_file(SAVED, path)


def saving(make: Callable[[], object]) -> Callable[[Path], None]:
    """Return what saves a value."""
    return lambda path: torch.save(make(), path)


def in_form(change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights, the matrices among them in another form."""
    return {name: change(value) if value.ndim == 2 else value for name, value in SAVED.items()}


REFUSED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no weights": ("f.pth", saving(lambda: {"epoch": 3, "loss": 0.1}), "no state dict.*; it holds 'epoch', 'loss'$"),
    "much else": ("f.pth", saving(lambda: {f"key {n}": n for n in range(9)}), r"it holds 'key 0'.* 'key 3', …"),
    "an empty file of tensors": ("f.pth", saving(dict), "it is empty"),
    "a tensor": ("f.pth", saving(lambda: torch.zeros(3)), "no state dict.*; it holds a Tensor"),
    "a list": ("f.pth", saving(lambda: [SAVED]), "no state dict.*; it holds a list"),
    "an optimizer": (
        "f.pth", saving(lambda: {"optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}}), "it holds 'optimizer'"),
    "another network": (
        "f.pth", saving(lambda: nets.build("LeNet", 10, 1, 28).state_dict()), "does not fit .* it lacks"),
    "another's behind a prefix": (
        "f.pth", saving(lambda: {"net": prefixed("module.", dict([*SAVED.items()][1:]))}), "does not fit .* it lacks"),
    "more than the network": (
        "f.pth", saving(lambda: {**SAVED, "extra\x1b[31m": torch.ones(1)}), "has extra.* too many"),
    "teacher and student": (
        "f.pth", saving(lambda: {"student": SAVED, "teacher": noise()}), "dicts that fit, student, teacher"),
    "teacher and student in one": (
        "f.pth", saving(lambda: {"model": {**prefixed("student."), **prefixed("teacher.", noise())}}),
        "dicts that fit, model.student, model.teacher"),
    "not finite": (
        "f.pth", saving(lambda: {"net": {k: v * torch.nan for k, v in prefixed("module.").items()}}), "not finite"),
    "sparse": ("f.pth", saving(lambda: in_form(lambda v: v.to_sparse())), r"in another form \(torch.float32, torch.sp"),
    "quantised": ("f.pth", saving(lambda: in_form(lambda v: v.to(torch.int8))), r"in another form \(torch.int8"),
    "complex": ("f.pth", saving(lambda: in_form(lambda v: v.to(torch.complex64))), r"in another form \(torch.complex"),
    "without values": ("f.pth", saving(lambda: in_form(lambda v: v.to("meta"))), r"in another form \(meta, without"),
    "a whole network": ("f.pth", pickled, "code|Own"),
    "a program": ("f.pt", scripted, "is a TorchScript program; save the network's state_dict"),
    "safetensors": ("model.safetensors", safe, "is a file of safetensors; save what safetensors.torch.load_file"),
    "text": ("f.pth", lambda path: path.write_text("version https://git-lfs\n"), "cannot read .*f.pth"),
    "a folder": ("f.pth", Path.mkdir, "f.pth"),
    "no file": ("f.pth", lambda path: None, "no such file: .*f.pth"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_file_holds_in_place_of_weights_is_said(case: str, tmp_path: Path) -> None:
    """In one line, without terminal codes or a library's advice; the network stays as it is."""
    name, make, message = REFUSED[case]
    make(tmp_path / name)
    target = network()
    with pytest.raises((UserError, IsADirectoryError), match=message) as caught:
        load_weights(target, tmp_path / name)
    text = str(caught.value)
    assert text.isprintable()
    assert "weights_only" not in text
    assert len(text) < 400
    for own, value in network().state_dict().items():
        assert torch.equal(target.state_dict()[own], value)


def test_arrays_of_objects_are_not_read(tmp_path: Path) -> None:
    """What may be code stays unread, beside weights as well."""
    torch.save({"state_dict": SAVED, "more": np.array([Own()], dtype=object)}, tmp_path / "f.pth")
    with pytest.raises(UserError, match="cannot read"):
        load_weights(network(), tmp_path / "f.pth")
