"""Caches and checkpoints that are damaged, or hold what they should not: made anew or refused, never believed."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lcmat.__main__ import main as command
from lcmat.data import Dataset
from lcmat.errors import UserError
from lcmat.training import Checkpoint, Compute, Recipe, Watch, train
from nets import build
from tests.harness import TINY, call, places, records_in

DM = ("--selection", "DM", "--model", "ConvNet3", "--ipc", "1", "--option", "iterations=2", "--snapshots", "0")
RUNS = {
    "signals": (*TINY, "--selection", "LCMat-S"),
    "networks": (*TINY, "--selection", "LCMat-S", "Forgetting"),
    "synthetic": (*TINY, *DM),
}


def with_a_flipped_bit(content: bytes) -> bytes:
    """Return a file with one bit flipped in the middle, where its numbers lie."""
    changed = bytearray(content)
    changed[len(content) // 2] ^= 64
    return bytes(changed)


def saved_again(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Return what changes a file's value and writes it with right checksums."""

    def apply(path: Path) -> None:
        value = torch.load(path, weights_only=True)
        change(value)
        torch.save(value, path)

    return apply


FEW = {
    "sharpness": ("--starts", "1", "--ascent_steps", "1", "--network_steps", "1"),
    "landscape": ("--points", "2", "--images", "10"),
}
CHANGES = {
    "signals": [
        saved_again(lambda kept: kept.update(facts=-1)),
        saved_again(lambda kept: kept.update(seconds={"pretrain": "long"})),
        saved_again(lambda kept: kept.update(logits=kept["logits"][1:])),
        saved_again(lambda kept: kept["facts"].update(train_accuracy=True)),
    ],
    "networks": [
        saved_again(lambda kept: kept.pop("state")),
        saved_again(lambda kept: kept.update(dynamics=None)),
        saved_again(lambda kept: kept["state"].popitem()),
    ],
    "synthetic": [
        saved_again(lambda kept: kept.update(factor=2)),
        saved_again(lambda kept: kept.update(images=kept["images"] * torch.nan)),
        saved_again(lambda kept: kept.update(labels=kept["labels"][1:])),
    ],
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_damaged_cache_is_said_and_made_anew(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One flipped bit, and fields of the wrong kind in files whose checksums are right."""
    words = (*RUNS[kind], *places(tmp_path))
    assert call(*words) == 0
    expected = records_in(tmp_path / "result")
    (path,) = (tmp_path / "cache" / kind).glob("*.pt")
    content = path.read_bytes()
    flip: Callable[[Path], object] = lambda path: path.write_bytes(with_a_flipped_bit(content))  # noqa: E731
    for change in (flip, *CHANGES[kind]):
        path.write_bytes(content)
        change(path)
        if kind == "networks":
            for other in (tmp_path / "cache" / "signals").glob("*.pt"):
                other.unlink()
        for beside in (tmp_path / "result").glob("*/*/*.npz"):
            beside.unlink()  # the subset would be read there, and the cache not asked
        capsys.readouterr()
        assert call(*words, "--overwrite") == 0
        assert "it is made anew" in capsys.readouterr().err
        assert records_in(tmp_path / "result") == expected


def test_a_damaged_subset_is_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = (*RUNS["signals"], *places(tmp_path))
    assert call(*words) == 0
    (path,) = (tmp_path / "result").glob("*/*/*.npz")
    path.write_bytes(with_a_flipped_bit(path.read_bytes()))
    export = ("--export", tmp_path / "tenth")
    assert call(*words, *export) == 2
    assert f"cannot read {path}" in (line := capsys.readouterr().err)
    assert "give --overwrite to choose anew" in line
    assert call(*words, *export, "--overwrite") == 0
    assert len(list((tmp_path / "tenth/train").rglob("*.png"))) == 65


def wrong(value: dict) -> None:
    """Put words in place of what a cache file holds."""
    value.update(dict.fromkeys(value, "3"))


@pytest.mark.parametrize("name", ["bound", "sharpness", "landscape", "overlap", "diagonal"])
def test_what_an_analysis_keeps_is_checked_by_kind(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Files whose checksums are right, with words in place of numbers, or nothing at all."""
    words = ["analysis", name, *RUNS["signals"], *places(tmp_path), *FEW.get(name, ())]
    assert call(*words, command=command) == 0
    tables = {path: path.read_text() for path in (tmp_path / "result/tables").glob("*.csv")}
    kept = list((tmp_path / "cache/analyses").glob("*.pt"))
    assert tables
    assert kept
    for change in (wrong, dict.clear):
        for path in kept:
            saved_again(change)(path)
        capsys.readouterr()
        assert call(*words, command=command) == 0
        assert capsys.readouterr().err.count("it is made anew") == len(kept)
        assert {path: path.read_text() for path in tables} == tables


RECIPE = Recipe(epochs=3, batch=64, lr=0.05, scheduler="StepLR", step_size=1)
UNFIT = {
    "history": lambda state: state.update(history=-1),
    "epoch is 3": lambda state: state.update(epoch=3),
    "epoch is -1": lambda state: state.update(epoch=-1),
    "lacks 'optimizer'": lambda state: state.pop("optimizer"),
    r"optimizer\.state\[0\] has another shape": lambda state: state["optimizer"]["state"][0].update(
        momentum_buffer=torch.zeros(3, 3)
    ),
    r"optimizer\.param_groups": lambda state: state["optimizer"].update(param_groups=[]),
    r"scheduler has 'step'": lambda state: state["scheduler"].update(step=5),
    r"history\.tests\[0\]": lambda state: state["history"].update(tests=[(1, 200.0)]),
    r"history\.dynamics\.margin has shape": lambda state: state["history"]["dynamics"].update(margin=torch.ones(2, 2)),
    "network": lambda state: state["network"].popitem(),
}


@pytest.fixture(scope="module")
def checkpoint(digits: Dataset, compute: Compute, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that a training leaves."""
    path = tmp_path_factory.mktemp("training") / "state.pt"
    trained(digits, compute, path)
    return path


def trained(digits: Dataset, compute: Compute, path: Path, resume: bool = False) -> object:
    """Train a perceptron, with checkpoints after each epoch."""
    split = digits.train.take(torch.arange(200))
    torch.manual_seed(0)
    network = build("MLP", 10, 1, 8)
    watch = Watch(split, interval=1, dynamics=True)
    return train(network, split, RECIPE, compute, seed=0, watch=watch, checkpoint=Checkpoint(path, 0, resume))


@pytest.mark.parametrize("message", UNFIT)
def test_a_checkpoint_with_fields_of_the_wrong_kind_is_refused(
    message: str, checkpoint: Path, digits: Dataset, compute: Compute, tmp_path: Path
) -> None:
    path = tmp_path / "state.pt"
    path.write_bytes(checkpoint.read_bytes())
    trained(digits, compute, path, resume=True)
    path.write_bytes(checkpoint.read_bytes())
    saved_again(UNFIT[message])(path)
    with pytest.raises(UserError, match=rf"state\.pt does not fit this run: .*{message}.*; remove it or leave"):
        trained(digits, compute, path, resume=True)


def test_a_flipped_bit_in_a_checkpoint_is_refused_or_changes_nothing(
    checkpoint: Path, digits: Dataset, compute: Compute, tmp_path: Path
) -> None:
    """It gave other records without a word."""
    path, content, draw, refused = tmp_path / "state.pt", checkpoint.read_bytes(), random.Random(0), 0
    path.write_bytes(content)
    expected = trained(digits, compute, path, resume=True)
    for _ in range(20):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            found = trained(digits, compute, path, resume=True)
        except UserError as error:
            refused += "remove it or leave --resume out" in str(error)
            continue
        assert found.tests == expected.tests
    assert refused > 10


def test_a_damaged_checkpoint_stops_the_command_that_names_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = (*TINY, "--selection", "Uniform", *places(tmp_path), "--epochs", "3", "--checkpoint_interval", "0")
    assert call(*words) == 0
    (name,) = records_in(tmp_path / "result")
    (tmp_path / "result" / name).unlink()
    path = tmp_path / "cache" / "checkpoints" / f"{Path(name).stem.split('-')[-1]}.pt"
    save = {"epoch": 1, "history": -1}
    torch.save(save, path)
    assert call(*words, "--resume") == 2
    assert f"checkpoint {path} does not fit this run" in capsys.readouterr().err
    path.unlink()
    assert call(*words, "--resume") == 0
