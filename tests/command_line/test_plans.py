"""Plans without the data, for a fresh folder, and of main.py: how many runs there are, and how long they may take."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from lcmat import data
from lcmat.command_line import planning
from lcmat.commands import grid
from lcmat.data import sources
from lcmat.data.stand_in import SHAPES
from tests.harness import ROOT, TINY, call, cli, places


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the flags of a folder without data; whoever downloads fails."""
    monkeypatch.setattr(sources, "fetch", lambda *_: pytest.fail("downloads"))
    return ["--data_path", str(tmp_path / "data"), *places(tmp_path), "--device", "cpu"]


def test_a_grid_is_planned_without_its_data(alone: list[str], capsys: pytest.CaptureFixture) -> None:
    """By published sizes; times are those of the project's records, and whose they are is said."""
    assert call(ROOT / "configs" / "table1_cifar100.yaml", "--plan", *alone, command=grid.main) == 0
    said = capsys.readouterr()
    assert "CIFAR100 is not in" in said.err
    assert "50,000 training and 10,000 test images of 3×32×32, 100 classes" in said.out
    assert "0 recorded, " in said.out
    assert "in one process, by the runs recorded on NVIDIA H200" in said.out


def test_what_nothing_is_recorded_of_is_counted(alone: list[str], capsys: pytest.CaptureFixture) -> None:
    """Images of DM (20,000 iterations) for two sizes, once for three networks, which train 1000 epochs on them."""
    words = ["--config", ROOT / "configs" / "table5_cifar10.yaml", "--selection", "DM", "--seed", "0", *alone]
    assert call(*words, "--plan") == 0
    assert "in all 6 trainings of 1000 epochs, and 40,000 steps of learning images" in capsys.readouterr().out


def test_what_is_recorded_is_found_without_the_data(
    alone: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Of CIFAR-10, whose fingerprint the records tell."""
    place = Path("result", "CIFAR10-ResNet18", "Uniform")
    shutil.copytree(ROOT / place, tmp_path / place)
    words = ["--dataset", "CIFAR10", "--selection", "Uniform", "--fraction", "0.001", "--seed", "0", "1", "2"]
    words += ["--epochs", "200", "--precision", "bfloat16"]
    assert call(*words, "--plan", *alone) == 0
    assert "main.py: 3 runs, 3 recorded, 0 to do" in capsys.readouterr().out


def test_a_plan_of_main_in_a_fresh_folder_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [*TINY, "--selection", "Uniform", "LCMat-S", "--seed", "0", "1", *places(tmp_path)]
    assert call(*words, "--plan") == 0
    assert "main.py: 4 runs, 0 recorded, 4 to do" in capsys.readouterr().out
    assert list((tmp_path / "result").rglob("*.json")) == []


@pytest.mark.parametrize("name", SHAPES)
def test_stand_in_has_the_sizes_of_the_data(name: str) -> None:
    """As published: balanced but for MNIST and SVHN."""
    dataset = data.without_images(name, None, None)
    test = {"SVHN": 26032}.get(name, 10000)
    train = {"SVHN": 73257, "TinyImageNet": 100000}.get(name, 50000 if name.startswith("CIFAR") else 60000)
    assert (len(dataset.train), len(dataset.test)) == (train, test)
    even = len(set(torch.bincount(dataset.train.labels).tolist())) == 1
    assert even == (name not in ("MNIST", "SVHN"))
    assert dataset.train.take(torch.tensor([0, 3])).images.shape == (2, *dataset.image_shape)


def test_times_of_another_dataset_serve_in_proportion(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Ten times the seconds of every stage are ten times the time that a plan says of it."""
    cli(tmp_path)("--selection", "Margin")
    (path,) = (tmp_path / "result").rglob("fraction*.json")
    record = json.loads(path.read_text())
    del record["checksum"]
    said = []
    for times in (1, 10):
        record["seconds"] = {"pretrain": 600.0 * times, "signals": 0.0, "select": 60.0 * times, "train": 600.0 * times}
        path.write_text(json.dumps(record))
        capsys.readouterr()
        another = ("--long_tail", "2", "--cache_path", tmp_path / "new")
        assert call(*TINY, "--selection", "Margin", *places(tmp_path), *another, "--plan") == 0
        said.append(capsys.readouterr().out.partition("about ")[2].partition(" in one")[0])
    minutes = [float(words.split()[0]) * (60 if " h " in words else 1) for words in said]
    assert 5 < minutes[1] / minutes[0] < 12


def test_a_plan_is_said_again_at_once_until_something_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*TINY, "--selection", "Uniform", "--seed", "0", "1", *places(tmp_path)]
    assert call(*words, "--plan") == 0
    first = capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(planning, "planned", lambda *_: pytest.fail("plans anew"))
        assert call(*words, "--plan") == 0
    assert capsys.readouterr().out == first
    assert call(*TINY, "--selection", "Uniform", "--seed", "0", *places(tmp_path)) == 0  # one of the two runs
    capsys.readouterr()
    assert call(*words, "--plan") == 0
    assert "main.py: 2 runs, 1 recorded, 1 to do" in capsys.readouterr().out
