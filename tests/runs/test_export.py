"""Exports are complete and right for every layout of files and every class name, or refused before any work."""

import hashlib
import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lcmat import Subset, data
from lcmat.data import Dataset, TensorSplit
from lcmat.runs.export import check_export, export, safe_names
from tests.data_files import refusal
from tests.harness import TINY, call, places


def image_folder(folder: Path, *names: str, noise: float | None = None) -> Dataset:
    """Write an image folder of these training files, each different, and load it."""
    for number, name in enumerate(names):
        for path in {folder / "train" / name, folder / "test" / Path(name).parts[0] / "0.png"}:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (number, number, number)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return data.load("ImageFolder", folder, label_noise=noise)


def in_memory(*classes: str) -> Dataset:
    """Return two images of each class, each different."""
    count = 2 * len(classes)
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 4, 4).contiguous()
    split = TensorSplit(images, torch.arange(count) % len(classes))
    return Dataset("made", split, split, classes, (0.5,), (0.5,))


def everything(dataset: Dataset) -> Subset:
    """Return all training samples, the last first."""
    count = len(dataset.train)
    order = np.arange(count)[::-1].copy()
    sizes = np.bincount(dataset.train.labels.numpy(), minlength=dataset.num_classes)
    return Subset(order, np.arange(count), None, dataset.train.labels.numpy()[order], sizes, "Full")


def hashes(paths: list[Path]) -> list[str]:
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)


BAD_BYTES = os.fsdecode(b"\xff\xe9")
LAYOUTS = {
    "class in class": ("cat/cat/1.png", "dog/dog/1.png"),
    "root and below": ("cat/1.png", "cat/old/1.png", "dog/2.png"),
    "equal names in subfolders": ("cat/x/1.png", "cat/y/1.png", "dog/1.png"),
    "class called train": ("train/1.png", "train/train/2.png", "test/1.png"),
    "names that collide when moved": (
        *("cat/a/b-1.png", "cat/a-b/1.png", "cat/a-b-1.png", "dog/cat-a-b-1.png", "dog/2.png"),
    ),
    "long names": (f"{'c' * 250}/{'d' * 240}.png", f"{'c' * 250}/{'e' * 200}/{'d' * 240}.png", "dog/1.png"),
    "not in UTF-8": ("cat/1.png", f"cat/{BAD_BYTES}.png", f"{BAD_BYTES}/1.png"),
    "spaces": (" cat /x y.png", "dog/z .png"),
}  # fmt: skip


@pytest.mark.parametrize("link", [False, True], ids=["copied", "linked"])
@pytest.mark.parametrize("noise", [None, 0.9], ids=["own labels", "wrong labels"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_file_comes_once_under_its_label(tmp_path: Path, layout: str, noise: float | None, link: bool) -> None:
    dataset = image_folder(tmp_path / "images", *LAYOUTS[layout], noise=noise)
    subset, out = everything(dataset), tmp_path / "out"
    assert export(dataset, subset, out, link) == len(dataset.train)
    files = [path for path in (out / "train").rglob("*") if path.is_file()]
    assert hashes(files) == hashes(dataset.train_files)
    under = Counter(path.relative_to(out / "train").parts[0] for path in files)
    assert under == Counter(dataset.classes[label] for label in dataset.train.labels.tolist())
    names = (out / "chosen.txt").read_bytes().split(b"\n")[:-1]
    root = os.fsencode(tmp_path / "images/train")
    assert [Path(os.fsdecode(os.path.join(root, name))) for name in names] == [
        dataset.train_files[index] for index in subset.indices
    ]
    assert all(path.is_symlink() == link for path in files)


@pytest.mark.parametrize(
    "classes",
    [
        ("a/b", "a-b", "c"), ("a/b", "a-b", "a-b-2", "a\\b"), (".", "..", "", " ", "class", ".hidden", "..."),
        ("a\0b", "a-b", "a\nb"), ("x" * 300, "x" * 299 + "y", "é" * 150), ("Cat", "cat"), ("crane", "crane"),
        ("é", "e\u0301"), ("/etc/passwd", "../../x"), ("a.", "a", "a "), ("a/b.c", "a-b.c"),
    ],
    ids=[
        "slash", "slashes", "dots", "control", "long", "case", "equal", "accents", "paths", "ends", "suffix",
    ],
)  # fmt: skip
def test_every_class_has_a_folder_of_its_own(tmp_path: Path, classes: tuple[str, ...]) -> None:
    dataset = in_memory(*classes)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert export(dataset, everything(dataset), tmp_path / "out") == 2 * len(classes)
    folders = {path.name: path for path in (tmp_path / "out/train").iterdir()}
    assert len(folders) == len({name.casefold() for name in folders}) == len(classes)
    assert sorted(folders) == sorted(safe_names(classes))
    for label, name in enumerate(safe_names(classes)):
        shown = sorted(int(np.array(Image.open(path))[0, 0]) for path in folders[name].iterdir())
        assert shown == [label, label + len(classes)]
    changed = sum(name != own for name, own in zip(safe_names(classes), classes, strict=True))
    assert [" is written as " in str(one.message) for one in said] == [True] * changed
    assert not [name for name in folders if name.startswith(".") or "\n" in name]


def test_names_that_can_be_stay() -> None:
    assert safe_names(["0", "b c", "d.e", "日本", "goldfish, Carassius auratus"]) == [
        "0", "b c", "d.e", "日本", "goldfish, Carassius auratus",
    ]  # fmt: skip


def link_to_a_folder(place: Path) -> None:
    (place.parent / "elsewhere").mkdir()
    place.symlink_to(place.parent / "elsewhere")


REFUSED = {
    "link": (link_to_a_folder, "out", "is a link; name a new folder"),
    "link to nothing": (lambda place: place.symlink_to(place.parent / "gone"), "out", "is a link"),
    "file": (lambda place: place.write_text("mine"), "out", "exists and is not empty"),
    "among the training images": (lambda place: None, "images/train/new", "would be taken for a part of the dataset"),
    "among a class": (lambda place: None, "images/train/cat/new", "would be taken for a part of the dataset"),
    "as test images": (lambda place: None, "images/val", "would be taken for a part of the dataset"),
    "long": (lambda place: None, "o" * 256, "is too long"),
    "deep": (lambda place: None, "/".join(["d" * 100] * 41), "is too long"),
    "zero byte": (lambda place: None, "a\0b", "is too long or no name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_targets_are_refused_before_any_work(tmp_path: Path, case: str) -> None:
    dataset = image_folder(tmp_path / "images", "cat/1.png", "dog/1.png")
    prepare, name, reason = REFUSED[case]
    prepare(tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    message = refusal(check_export, tmp_path / name, dataset)
    assert reason in message
    assert len(message) < 300
    assert sorted(tmp_path.rglob("*")) == before


def test_the_working_folder_is_no_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert "is in use" in refusal(check_export, Path("."), in_memory("a"))


def test_an_empty_folder_and_one_in_the_dataset_will_do(tmp_path: Path) -> None:
    dataset = image_folder(tmp_path / "images", "cat/1.png", "dog/1.png")
    for place in (tmp_path / "empty", tmp_path / "images/tenth"):
        place.mkdir()
        assert export(dataset, everything(dataset), place) == 2


def test_names_of_several_lines_are_refused(tmp_path: Path) -> None:
    dataset = image_folder(tmp_path / "images", "cat/1\n2.png", "dog/1.png")
    message = refusal(check_export, tmp_path / "out", dataset)
    assert message == "chosen.txt has a line for each name, and 'cat/1\\n2.png' has several; rename it"


def test_images_without_files_cannot_be_linked_to(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """They were written, and called linked to."""
    flags = [*TINY, *places(tmp_path), "--selection", "Uniform", "--export", tmp_path / "out", "--link"]
    assert call(*flags) == 2
    assert "--link is for image files, and digits has none" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [("out", 2, "is a link"), ("file/out", 3, "a file is in the place of a folder")],
    ids=["link", "file"],
)
def test_a_run_with_an_export_that_cannot_be_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture, name: str, status: int, reason: str
) -> None:
    link_to_a_folder(tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    assert call(*TINY, *places(tmp_path), "--selection", "Uniform", "--export", tmp_path / name) == status
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "result").exists()
