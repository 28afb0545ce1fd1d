"""Recorded subsets in forms that others load, and learned images likewise."""

import csv
import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from lcmat.commands import export, publish
from lcmat.condensation import Synthetic
from lcmat.reports.subsets import KEPT
from lcmat.runs.subset_file import read_subset
from tests.harness import call, cli, places


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of a weighted selection, a random one, and learned images."""
    folder = tmp_path_factory.mktemp("recorded")
    cli(folder)("--selection", "Craig", "Uniform")
    small = ("--model", "ConvNet3", "--selection", "DM", "--ipc", "1", "--option", "DM.iterations=1", "DM.batch=4")
    cli(folder)(*small, "--fraction", "0.01", "--epochs", "1")
    return folder


def record_of(folder: Path, method: str) -> Path:
    """Return the only record of a method."""
    (path,) = folder.glob(f"result/*/{method}/*.json")
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `datasets` caches stays with the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def test_a_parquet_data_set_loads_and_says_what_it_is(folder: Path, tmp_path: Path) -> None:
    path, to = record_of(folder, "Craig"), tmp_path / "kept"
    assert call(path, "--to", to, command=export.main) == 0
    found = datasets.load_dataset(str(to), split="train")
    arrays = np.load(path.with_suffix(".npz"))
    assert found["index"] == arrays["indices"].tolist()
    assert found["class"] == arrays["classes"].tolist()
    assert found["rank"] == arrays["rank"].tolist()
    np.testing.assert_array_equal(np.float32(found["weight"]), arrays["weights"])
    assert set(found["kept"]) == {True}
    record, card = json.loads(path.read_text()), (to / "README.md").read_text()
    assert KEPT in card
    assert record["config"]["dataset_fingerprint"] in card
    assert f"- test_accuracy: {record['test_accuracy']}" in card


def test_files_hold_the_indices_and_say_that_they_are_kept(folder: Path, tmp_path: Path) -> None:
    path = record_of(folder, "Uniform")
    wanted = np.load(path.with_suffix(".npz"))["indices"]
    for kind in ("json", "npy", "txt", "csv"):
        assert call(path.with_suffix(".npz"), "--format", kind, "--to", tmp_path / kind, command=export.main) == 0
    value = json.loads((tmp_path / "json" / "kept.json").read_text())
    (name,) = value.keys() - {"meaning", "about"}
    assert "Uniform" in name
    assert "digits" in name
    assert value[name] == sorted(wanted.tolist())
    assert "KEPT" in value["meaning"]
    assert np.array_equal(np.load(tmp_path / "npy" / "kept.npy"), np.sort(wanted))
    assert "KEPT" in (tmp_path / "txt" / "kept.txt").read_text().splitlines()[0]
    assert np.array_equal(read_subset(tmp_path / "txt" / "kept.txt")[0], wanted), "--subset cannot read it"
    rows = list(csv.DictReader((tmp_path / "csv" / "kept.csv").open()))
    assert [int(row["index"]) for row in rows] == wanted.tolist()
    assert {row["kept"] for row in rows} == {"True"}


def test_learned_images_load_as_they_were_learned(folder: Path, tmp_path: Path) -> None:
    path, to = record_of(folder, "DM"), tmp_path / "images"
    assert call(path, "--to", to, command=export.main) == 0
    found = datasets.load_dataset(str(to), split="train").with_format("numpy")
    synthetic = Synthetic.load(path.with_suffix(".pt"))
    assert torch.equal(torch.from_numpy(np.stack([row["pixels"] for row in found])), synthetic.images)
    assert list(found["label"]) == synthetic.labels.tolist()
    assert found[0]["image"].shape == synthetic.images.shape[2:]


def test_all_is_published_and_a_stopped_call_is_gone_on_from(folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "published"
    assert call(folder / "result", "--to", to, command=publish.main) == 0
    index = json.loads((to / "index.json").read_text())
    assert index["complete"]
    assert sorted(one["selection"] for one in index["sets"]) == ["Craig", "DM", "Uniform"]
    (uniform,) = (to / one["folder"] for one in index["sets"] if one["selection"] == "Uniform")
    assert datasets.load_dataset(str(uniform), split="train").num_rows > 0
    before = {path: path.stat().st_mtime_ns for path in to.rglob("data.parquet")}
    for path in uniform.iterdir():
        path.unlink()
    assert call(folder / "result", "--to", to, command=publish.main) == 0
    after = {path: path.stat().st_mtime_ns for path in to.rglob("data.parquet")}
    assert after.keys() == before.keys()
    assert [path for path in after if after[path] != before[path]] == [uniform / "data.parquet"]


def test_another_format_is_not_mixed_in(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is there would stay as it was, under an index that says otherwise."""
    to = tmp_path / "published"
    assert call(folder / "result", "--to", to, "--format", "csv", command=publish.main) == 0
    assert call(folder / "result", "--to", to, "--format", "npy", command=publish.main) == 2
    assert "was begun with --format csv" in capsys.readouterr().err
    (to / "index.json").write_text("{}")
    assert call(folder / "result", "--to", to, "--format", "csv", command=publish.main) == 2
    assert "is no index of published sets" in capsys.readouterr().err


def test_names_of_an_image_folder_come_with_the_indices(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            for number in range(4):
                place = tmp_path / "data" / split / name / f"{split}{number}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (8, 8), 30 * number + len(name)).save(place)
    flags = ("--dataset", "ImageFolder", "--data_path", tmp_path / "data", "--model", "MLP", "--selection", "Uniform")
    short = ("--fraction", "0.5", "--selection_epochs", "1", "--epochs", "1", "--threads", "1", "--batch", "4")
    assert call(*flags, *short, *places(tmp_path)) == 0
    path, to = record_of(tmp_path, "Uniform"), tmp_path / "names"
    assert call(path, "--format", "txt", "--to", to, "--data_path", tmp_path / "data", command=export.main) == 0
    lines = [line for line in (to / "kept.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 4
    assert all((tmp_path / "data" / "train" / line).is_file() for line in lines)
    Image.new("L", (8, 8), 200).save(tmp_path / "data" / "train" / "cat" / "train0.png")
    assert call(path, "--to", tmp_path / "other", "--data_path", tmp_path / "data", command=export.main) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("missing.json", "--to", "new"), "is no whole record"),
        (("RECORD", "--to", "full"), "is not empty"),
        (("RECORD", "--to", "new", "--data_path", "."), "is for image folders"),
        (("IMAGES", "--to", "new", "--format", "csv"), "leave --format csv out"),
    ],
)
def test_bad_input_is_one_line(
    words: tuple[str, ...], said: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: object
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/x").touch()
    known = {"RECORD": record_of(folder, "Uniform"), "IMAGES": record_of(folder, "DM")}
    assert call(*(known.get(word, word) for word in words), command=export.main) == 2
    message = capsys.readouterr().err
    assert said in message
    assert len(message.strip().splitlines()) == 1
    assert not Path("new").exists()
