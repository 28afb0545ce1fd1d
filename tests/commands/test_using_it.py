"""What a practitioner does: one's own images and networks, the README's code, exports, and comparing results."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lcmat import UserError, data, records, signals_of_batches
from lcmat.commands import tables as command
from lcmat.data.splits import TensorSplit
from lcmat.reports import comparison
from lcmat.signals.networks import take_signals
from lcmat.training import Compute
from tests.harness import ROOT, call, places


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder with two classes of 20 images, one of them in a subfolder."""
    root = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 4)):
        for number, name in enumerate(("cat", "dog")):
            place = root / part / name / ("old" if part == "train" and number else "")
            place.mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 120 + 100 * number, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return root


def words(folder: Path, place: Path) -> list[object]:
    given = ["--dataset", "ImageFolder", "--data_path", folder, "--model", "MLP", "--selection", "LCMat-S"]
    given += ["--fraction", "0.1", "--selection_epochs", "1", "--epochs", "2", "--test_interval", "0"]
    return [*given, *places(place)]


# --- exports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("memory", ["held", "read as needed"])
def test_chosen_images_come_to_a_folder_of_their_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: bool, memory: str
) -> None:
    if memory != "held":
        monkeypatch.setattr("lcmat.data.available_memory", lambda: 0)
    extra = ["--link"] if link else []
    assert (
        call(*words(folder, tmp_path), "--select_only", "--export", tmp_path / "chosen", "--workers", "0", *extra) == 0
    )
    (indices,) = tmp_path.glob("result/*-MLP/LCMat-S/subset0.1-seed0-*.txt")
    all_files = [p.relative_to(folder / "train").as_posix() for c in ("cat", "dog")
                 for p in sorted((folder / "train" / c).rglob("*.png"))]  # fmt: skip
    expected = [all_files[int(line)] for line in indices.read_text().split()]
    assert len(expected) == 4
    assert (tmp_path / "chosen/chosen.txt").read_text().split() == expected
    made = {p.relative_to(tmp_path / "chosen/train").as_posix(): p for p in (tmp_path / "chosen/train").rglob("*.png")}
    assert sorted(made) == sorted(expected)
    for name, path in made.items():
        assert path.is_symlink() == link
        assert path.read_bytes() == (folder / "train" / name).read_bytes()
    assert not list(tmp_path.glob("result/*/*/*.json")), "nothing was trained, nothing is recorded"
    # It is an image folder again.
    shutil.copytree(folder / "test", tmp_path / "chosen/test")
    assert len(data.load("ImageFolder", tmp_path / "chosen").train) == 4


def test_an_export_after_training_is_of_the_recorded_subset(tmp_path: Path, digits: data.Dataset) -> None:
    given = ["--dataset", "digits", "--model", "MLP", "--selection", "Uniform", "--fraction", "0.02", "--epochs", "1"]
    assert call(*given, *places(tmp_path), "--export", tmp_path / "out") == 0
    (path,) = tmp_path.glob("result/*/*/*.npz")
    chosen = np.load(path)["indices"].tolist()
    assert [int(line) for line in (tmp_path / "out/chosen.txt").read_text().split()] == chosen
    for index in chosen:
        image = Image.open(tmp_path / "out/train" / str(int(digits.train.labels[index])) / f"{index:08}.png")
        assert np.array_equal(np.array(image), digits.train.images[index, 0].numpy())


def test_an_export_stands_under_the_labels_that_are_trained_on(folder: Path, tmp_path: Path) -> None:
    """Wrong ones included; two files of one name do not meet in one class."""
    flags = ["--select_only", "--label_noise", "0.5"]
    assert call(*words(folder, tmp_path), "--fraction", "1.0", *flags, "--export", tmp_path / "out") == 0
    noisy = data.load("ImageFolder", folder, image_size=8, label_noise=0.5).train
    wrong = 0
    for path, label in zip(noisy.paths, noisy.labels.tolist(), strict=True):
        own, _, name = path.relative_to(folder / "train").as_posix().partition("/")
        shown = sorted(p.name for p in (folder / "train").iterdir())[label]
        wrong += shown != own
        target = tmp_path / "out/train" / shown / (name if shown == own else f"{own}-{name.replace('/', '-')}")
        assert target.read_bytes() == path.read_bytes()
    assert wrong
    assert len(list((tmp_path / "out/train").rglob("*.png"))) == len(noisy.paths)


def test_exports_that_cannot_be(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("precious")
    assert call(*words(folder, tmp_path), "--export", tmp_path / "full") == 2
    assert "not empty; name a new folder" in capsys.readouterr().err
    assert call(*words(folder, tmp_path), "--export", tmp_path / "new", "--seed", "0", "1") == 2
    assert "takes one run, not 2" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "result").exists()
    assert (tmp_path / "full/mine.txt").read_text() == "precious"


def test_selection_alone_agrees_with_that_of_a_run(folder: Path, tmp_path: Path) -> None:
    assert call(*words(folder, tmp_path), "--select_only") == 0
    assert call(*words(folder, tmp_path)) == 0
    first, second = (np.load(next(tmp_path.glob(f"result/*/*/{kind}*.npz"))) for kind in ("subset", "fraction"))
    assert np.array_equal(first["indices"], second["indices"])


# --- from Python ------------------------------------------------------------------------------------------------------


class Own(nn.Module):
    """Somebody's network: no embed, no head, dropout and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Linear(64, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 10)
        self.layers = nn.Sequential(nn.Flatten(), *layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.layers(x)


def test_signals_of_batches_are_those_of_the_pipeline(digits: data.Dataset, compute: Compute) -> None:
    torch.manual_seed(0)
    network = Own()
    part = digits.train.take(torch.arange(100))
    ours = take_signals(network, part, compute)
    batches = [(compute.inputs(images), labels) for images, labels, _ in part.batches(torch.arange(100).split(33))]
    theirs = signals_of_batches(network, batches)
    for name in ("features", "logits"):
        torch.testing.assert_close(getattr(theirs, name), getattr(ours, name))
    assert torch.equal(theirs.labels, part.labels)
    assert network.training, "the network's mode is left as it was"
    with pytest.raises(UserError, match="no batches"):
        signals_of_batches(network, [])


def test_the_readme_holds_code_that_runs(
    monkeypatch: pytest.MonkeyPatch, digits: data.Dataset, compute: Compute
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    part = digits.train.take(torch.arange(400))
    images = compute.inputs(part.images)
    dataset = torch.utils.data.TensorDataset(images, part.labels)
    torch.manual_seed(0)
    names = {"network": Own(), "dataset": dataset}
    exec(blocks[0], names)
    assert len(names["small"]) == len(names["subset"]) == 40
    assert torch.equal(names["small"][0][0], images[names["subset"].indices[0]])
    arrays = {"F": images.flatten(1).numpy(), "Z": images.flatten(1).numpy()[:, :10], "y": part.labels.numpy()}
    exec(blocks[1], arrays)
    assert len(arrays["subset"]) == 40
    assert arrays["subset"].bound <= arrays["subset"].cost


# --- comparing --------------------------------------------------------------------------------------------------------


def record(method: str, seed: int, value: float, lr: float = 0.1, **more: object) -> dict:
    config = {"selection": method, "seed": seed, "training": {"lr": lr, "epochs": 2}, **more}
    return {
        "dataset": "digits", "selection_model": "MLP", "test_model": "MLP", "selection": method, "fraction": 0.1,
        "seed": seed, "test_accuracy": value, "best_test_accuracy": value, "test_interval": 0, "config": config,
        "subset_size": 1, "seconds": {}, "environment": {},
    }  # fmt: skip


def test_cells_are_matched_and_what_differs_is_named() -> None:
    one = [record("Uniform", s, 50 + s) for s in range(3)] + [record("Craig", 0, 30.0)]
    other = [record("Uniform", s, 52 + s, lr=0.2, extra=None) for s in (1, 2, 3)] + [record("EL2N", 0, 9.0)]
    pairs = {pair.what[3]: pair for pair in comparison.compare(one, other)}
    assert pairs["Uniform"].differing == {"training.lr": (0.1, 0.2)}
    assert pairs["Craig"].second is None
    assert pairs["EL2N"].first is None
    text = comparison.comparison_markdown(list(pairs.values()), ("A", "B"))
    assert "| +2.00 ± 0.00" in text
    assert "missing" in text
    assert "1. training.lr: 0.1 / 0.2" in text


def test_equal_configurations_go_together_before_others() -> None:
    one = [record("Uniform", 0, 50.0), record("Uniform", 0, 70.0, lr=0.5)]
    other = [record("Uniform", 0, 71.0, lr=0.5), record("Uniform", 0, 52.0, lr=0.3)]
    found = [(p.first.final[0], p.second.final[0], p.differing) for p in comparison.compare(one, other)]
    assert (70.0, 71.0, {}) in found
    assert (50.0, 52.0, {"training.lr": (0.1, 0.3)}) in found


def test_two_folders_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, value in (("a", 40.0), ("b", 45.0)):
        for seed in range(2):
            path = tmp_path / name / "digits-MLP/Uniform" / f"fraction0.1-seed{seed}-0.json"
            records.write_record(path, record("Uniform", seed, value + seed))
    damaged = tmp_path / "b/digits-MLP/Uniform/fraction0.1-seed9-0.json"
    damaged.write_text('{"half": ')
    run = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert call(*run, command=command.main) == 0
    out, err = capsys.readouterr()
    assert "+5.00 ± 0.00" in out
    assert damaged.name in err
    assert damaged.read_text() == '{"half": '
    assert not (tmp_path / "a/tables").exists()
    (tmp_path / "empty").mkdir()
    assert call(tmp_path / "a", tmp_path / "empty", command=command.main) == 2
    assert "no records below" in capsys.readouterr().err
    assert json.loads((tmp_path / "a/digits-MLP/Uniform/fraction0.1-seed0-0.json").read_text())["seed"] == 0


def test_files_of_images_follow_the_split(folder: Path) -> None:
    split = data.load("ImageFolder", folder).train
    assert isinstance(split, TensorSplit)
    part = split.to(torch.device("cpu")).take(torch.tensor([3, 21]))
    assert [path.name for path in part.paths] == [split.paths[3].name, split.paths[21].name]
