"""cross_network_generalization.py: other networks on subsets selected, recorded or given."""

from pathlib import Path

import numpy as np
import pytest
import torch

import cross_network_generalization as script
from lcmat.condensation.synthetic import Synthetic
from lcmat.errors import UserError
from lcmat.runs.subset_file import read_subset
from lcmat.selection.subset import Subset
from tests import harness
from tests.harness import places, records

QUICK = ["--dataset", "digits", "--model", "MLP", "--selection_epochs", "2", "--epochs", "3", "--batch", "20"]
QUICK += ["--test_interval", "0", "--test_models", "mlp", "LeNet"]


def call(folder: Path, *words: object) -> int:
    return harness.call(*QUICK, *places(folder), *words, command=script.main)


def test_each_network_is_trained_on_the_same_subset_and_tabulated(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call(tmp_path, "--selection", "LCMat-S", "Random", "--fraction", "0.05", "--seed", "0", "1") == 0
    found = records(tmp_path / "result")
    assert len(found) == 8
    for method in ("LCMat-S", "Uniform"):
        for seed in (0, 1):
            pair = [r for r in found if (r["selection"], r["seed"]) == (method, seed)]
            assert {r["test_model"] for r in pair} == {"MLP", "LeNet"}
            subsets = [Subset.load(tmp_path / "result/digits-MLP" / method / r["indices"]).indices for r in pair]
            assert np.array_equal(*subsets)
    shown = capsys.readouterr().out
    assert "| Fraction | Method  | MLP" in shown
    assert "| 5%       | LCMat-S |" in shown
    assert (tmp_path / "result/tables/cross-digits-MLP.md").read_text() in shown
    assert (tmp_path / "result/tables/cross-digits-MLP.tex").exists()
    assert call(tmp_path, "--selection", "LCMat-S", "--fraction", "0.05") == 0
    assert capsys.readouterr().out.count("already recorded") == 2


def test_networks_are_trained_on_the_same_synthetic_images(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """As Table 5 takes them: learned under one network, and once."""
    words = ["--selection", "DM", "RandomReal", "--ipc", "2", "--option", "DM.iterations=3", "DM.batch=4"]
    assert call(tmp_path, *words) == 0
    found = records(tmp_path / "result")
    assert len(found) == 4
    for method in ("DM", "RandomReal"):
        pair = [r for r in found if r["selection"] == method]
        assert {r["test_model"] for r in pair} == {"MLP", "LeNet"}
        first, second = (Synthetic.load(tmp_path / "result/digits-MLP" / method / r["synthetic"]) for r in pair)
        assert torch.equal(first.images, second.images)
        assert first.labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert len(list((tmp_path / "cache/synthetic").glob("*.pt"))) == 2
    rows = [line.split("|")[2].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("| 1.542%")]
    assert rows == ["DM", "RandomReal", "DM", "DM", "RandomReal", "RandomReal"]  # and each cell by itself
    assert call(tmp_path, *words, "--test_models", "SVHN-CNN") == 0
    assert {r["test_model"] for r in records(tmp_path / "result")} == {"MLP", "LeNet", "SVHN-CNN"}
    assert len(list((tmp_path / "cache/synthetic").glob("*.pt"))) == 2


@pytest.mark.parametrize("kind", ["text", "npz", "recorded"])
def test_a_subset_from_a_file_is_what_is_trained_on(tmp_path: Path, kind: str) -> None:
    indices, weights = np.array([7, 1296, 0, 33]), np.array([1, 2, 3, 4.0])
    path = tmp_path / f"mine.{kind}"
    if kind == "text":
        path.write_text("# chosen by hand\n7\n1296  # the last\n\n0\n33\n")
    else:
        extra = {"method": "x", "balanced": False} if kind == "recorded" else {}
        with open(path, "wb") as file:
            np.savez(file, indices=indices, weights=weights, **extra)
    assert call(tmp_path, "--subset", path, "--seed", "0") == 0
    found = records(tmp_path / "result")
    assert [r["selection"] for r in found] == ["mine"] * 2
    for record in found:
        subset = Subset.load(tmp_path / "result/digits-MLP/mine" / record["indices"])
        assert subset.indices.tolist() == indices.tolist()
        assert (subset.weights is None) == (kind == "text")
        assert record["subset_size"] == 4
        assert record["selection_network"] is None
    # Another list of the same name is another subset.
    with open(tmp_path / "mine.npz", "wb") as file:
        np.savez(file, indices=indices[::-1])
    assert call(tmp_path, "--subset", tmp_path / "mine.npz") == 0
    assert len(records(tmp_path / "result")) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\n2\nthree\n", "one index on each line"),
        ("1\n2\n1\n", "names a sample twice"),
        ("1\n1297\n", "names sample 1297, but there are 1,297 (0 to 1296)"),
        ("-1\n3\n", "names sample -1"),
        (b"\xff\xfe\x00\x81", "neither .npz nor text"),
        ("5\n", "too few to train on"),
        ("", "names no sample"),
    ],
)
def test_bad_subset_files_get_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, content: str | bytes, message: str
) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert call(tmp_path, "--subset", path) == 2
    error = capsys.readouterr().err
    assert message in error
    assert records(tmp_path / "result") == []


def test_a_list_that_windows_marks_as_utf_8_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbf3\r\n1\r\n")
    assert read_subset(tmp_path / "x.txt")[0].tolist() == [3, 1]


def test_absent_and_unfit_npz_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.txt.*No such file"):
        read_subset(tmp_path / "none.txt")
    for arrays, message in (
        ({"labels": [1]}, "no array 'indices'"),
        ({"indices": [0.5, 1]}, "integers"),
        ({"indices": 5}, "a list of integers, not int64"),
        ({"indices": []}, "names no sample"),
        ({"indices": [0, 1], "weights": ["a", "b"]}, "weights must be finite"),
        ({"indices": [0, 1], "weights": [1, np.nan]}, "weights must be finite"),
        ({"indices": [0, 1], "weights": [1.0]}, "one for each index"),
    ):
        np.savez(tmp_path / "x.npz", **arrays)
        with pytest.raises(UserError, match=message):
            read_subset(tmp_path / "x.npz")


def test_a_validation_split_has_no_meaning_for_a_given_subset(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "s.txt").write_text("1\n2\n")
    assert call(tmp_path, "--subset", tmp_path / "s.txt", "--val") == 2
    assert "leave it out" in capsys.readouterr().err


def test_unknown_networks_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert call(tmp_path, "--test_models", "VGG61") == 2
    assert "did you mean VGG16" in capsys.readouterr().err
