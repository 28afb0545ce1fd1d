"""The main job on one's own images of any shape, and of a single class."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcmat import data
from lcmat import records as library
from tests.harness import call, places, records

QUICK = (
    "--dataset",
    "ImageFolder",
    "--selection_epochs",
    "1",
    "--epochs",
    "1",
    "--test_interval",
    "0",
    "--threads",
    "1",
)


def images(folder: Path, shape: tuple[int, int], classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Write six training and two test images of each class."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for number, name in enumerate(classes):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 120 + 100 * number, (*shape, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder


CONDENSATION = {
    "DM": ("iterations=2",),
    "DC": ("iterations=1", "steps=1"),
    "DSA": ("iterations=1", "steps=1"),
    "LCMat-C": ("iterations=1", "steps=1"),
    "KIP": ("iterations=2",),
    "RandomReal": (),
}


@pytest.mark.parametrize("shape", [(9, 20), (24, 12)], ids=["wide", "tall"])
@pytest.mark.parametrize("method", CONDENSATION)
def test_condensation_of_images_that_are_not_square(tmp_path: Path, method: str, shape: tuple[int, int]) -> None:
    """With the augmentations of both recipes; several images in each where the method can."""
    folder = images(tmp_path / "images", shape)
    words = [*QUICK, "--data_path", folder, *places(tmp_path), "--model", "ConvNet3", "--ipc", "2"]
    options = CONDENSATION[method]
    more = ["--option", *(f"{method}.{option}" for option in options)] if options else []
    if method in ("DM", "LCMat-C"):
        more += ["--factor", "2", "--evaluation", "idc"]
    assert call(*words, "--selection", method, *more) == 0
    (record,) = records(tmp_path / "result")
    assert record["config"]["image_size"] == f"{shape[0]}x{shape[1]}"
    (picture,) = tmp_path.glob(f"result/*/{method}/fraction*.png")
    rows, columns, times = 2, 2, max(1, 32 // shape[0])
    assert Image.open(picture).size == ((columns * (shape[1] + 1) + 1) * times, (rows * (shape[0] + 1) + 1) * times)


def test_image_sizes_in_configurations(tmp_path: Path) -> None:
    """Of square images a number, as in every record before there were others."""
    for shape, expected in (((8, 8), 8), ((8, 16), "8x16"), ((16, 8), "16x8")):
        folder = images(tmp_path / str(expected), shape)
        words = [*QUICK, "--data_path", folder, *places(folder), "--model", "MLP", "--selection", "LCMat-S"]
        assert call(*words, "--fraction", "0.5") == 0
        (record,) = records(folder / "result")
        assert record["config"]["image_size"] == expected
        # Found again, and known how long it takes.
        assert call(*words, "--fraction", "0.5") == 0
        assert len(records(folder / "result")) == 1


@pytest.mark.parametrize("method", ["Forgetting", "CCS", "Margin", "LCMat-S", "Moderate"])
def test_images_of_one_class(tmp_path: Path, capsys: pytest.CaptureFixture, method: str) -> None:
    """Nothing is to be told apart, which is said; whatever is chosen, it is as many as asked for."""
    folder = images(tmp_path / "images", (8, 8), ("cat",))
    words = [*QUICK, "--data_path", folder, *places(tmp_path), "--model", "MLP", "--selection", method]
    assert call(*words, "--fraction", "0.5", "--select_only") == 0
    assert f"{method}, seed 0: 3 images" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="ImageFolder has one class, cat: there is nothing to tell apart"):
        data.load("ImageFolder", folder)


def test_a_configuration_is_named_in_records_only_if_given(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    draw = np.random.default_rng(0)
    for name in ("clean", "other"):
        for part in ("train", "test"):
            pixels = [Image.fromarray(draw.integers(0, 200, (8, 8), dtype=np.uint8)) for _ in range(8)]
            content = {"image": pixels, "label": [i % 2 for i in range(8)]}
            path = tmp_path / "pets" / name / f"{part}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                datasets.Dataset.from_dict(content, features=features).to_parquet(path)
    words = [*QUICK[2:], *places(tmp_path), "--model", "MLP", "--selection", "Uniform", "--fraction", "0.5"]
    assert call("--dataset", f"hf:{tmp_path / 'pets'}", *words) == 2
    assert call("--dataset", f"hf:{tmp_path / 'pets'}", "--config_name", "other", *words) == 0
    assert call("--dataset", f"hf:{tmp_path / 'pets/other'}", *words) == 0
    alone, chosen = sorted(records(tmp_path / "result"), key=lambda record: "config_name" in record["config"])
    assert "config_name" not in alone["config"]
    assert (chosen["config"]["config_name"], chosen["dataset"]) == ("other", "hf:pets:other")
    assert chosen["config"]["dataset_fingerprint"] == alone["config"]["dataset_fingerprint"]


# ---- names -----------------------------------------------------------------------------------------------------------


def trained(folder: Path, *words: object) -> int:
    """Train on a folder of images, with further words, into one result."""
    few = (*QUICK, "--model", "MLP", "--selection", "Uniform", "LCMat-S", "--fraction", "0.5", "--precision", "float32")
    return call(*few, "--data_path", folder, *places(folder.parent), *words)


def test_two_image_folders_have_names_of_their_own(tmp_path: Path) -> None:
    """In headings, paths and records; one configuration, whose hash is that of a folder without a name."""
    for name, shape, words in (("cats", (8, 8), ()), ("dogs", (8, 8), ("--dataset_name", "my dogs"))):
        assert trained(images(tmp_path / name, shape), *words) == 0
    table = (tmp_path / "result" / "tables" / "accuracy.md").read_text()
    assert {line for line in table.splitlines() if line.startswith("## ")} == {"## cats, MLP", "## my dogs, MLP"}
    assert {path.name for path in (tmp_path / "result").glob("*-MLP")} == {"cats-MLP", "my dogs-MLP"}
    assert {record["dataset"] for record in records(tmp_path / "result")} == {"cats", "my dogs"}
    assert {record["config"]["dataset"] for record in records(tmp_path / "result")} == {"ImageFolder"}


def test_records_of_before_names_are_found_and_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """They stood below ImageFolder-…; in tables they stand beside what was made since."""
    folder = images(tmp_path / "cats", (8, 8))
    assert trained(folder) == 0
    for path in sorted((tmp_path / "result" / "cats-MLP").rglob("fraction*.json")):
        old = tmp_path / "result" / "ImageFolder-MLP" / path.parent.name / path.name
        record = library.read_record(path)
        library.write_record(old, record | {"dataset": "ImageFolder"})
        path.with_suffix(".npz").rename(old.with_suffix(".npz"))
        path.unlink()
    capsys.readouterr()
    assert trained(folder, "--plan") == 0
    assert "2 runs, 2 recorded, 0 to do" in capsys.readouterr().out
    assert trained(folder) == 0
    table = tmp_path / "result" / "tables" / "accuracy.md"
    assert "## ImageFolder, MLP" in table.read_text()
    assert trained(folder, "--seed", "1") == 0
    assert [line for line in table.read_text().splitlines() if line.startswith("## ")] == ["## cats, MLP"]


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "CIFAR10", "imagefolder", "x" * 101, "a\tb"])
def test_names_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture, name: str) -> None:
    assert trained(images(tmp_path / "cats", (8, 8), ("cat",)), "--dataset_name", name) == 2
    assert "--dataset_name" in capsys.readouterr().err
    assert not (tmp_path / "result").exists()


def test_a_published_dataset_has_its_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert call("--dataset", "digits", "--dataset_name", "mine", *places(tmp_path)) == 2
    assert "digits has a name: leave it out" in capsys.readouterr().err
    assert data.load("ImageFolder", images(tmp_path / "CIFAR10", (8, 8))).title == "ImageFolder-CIFAR10"
