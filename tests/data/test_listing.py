"""What an image folder may hold beside its images: nothing is added or left out without a line that counts it."""

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lcmat.data import load
from tests.data_files import encoded, flat, put, refusal

pytestmark = pytest.mark.usefixtures("hosts")


def image(path: Path, value: int = 5) -> None:
    put(path, encoded(flat([value])[0]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of two images, all with pixels of their own."""
    root = tmp_path / "images"
    for i, place in enumerate(("train/ant", "train/bee", "test/ant", "test/bee")):
        image(root / place / "0.png", 10 * i + 1)
        image(root / place / "1.png", 10 * i + 2)
    return root


def loaded(folder: Path, memory: int | None = None) -> tuple[tuple[str, ...], list[int], list[int], list[str]]:
    """Return class names, training labels, what the training images hold, and the lines that were said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        dataset = load("ImageFolder", folder, memory=memory, workers=0)
    ((images, labels, _),) = dataset.train.batches([torch.arange(len(dataset.train))])
    return dataset.classes, labels.tolist(), images[:, 0, 0, 0].tolist(), [str(one.message) for one in said]


def hidden(root: Path) -> None:
    image(root / "train/.ipynb_checkpoints/0.png")
    image(root / "train/ant/.ipynb_checkpoints/0-checkpoint.png")
    image(root / "train/bee/._0.png")
    image(root / "test/.cache/0.png")
    (root / "test/.DS_Store").write_text("?")


def other_formats(root: Path) -> None:
    for name in ("notes.TXT", "0.gif", "README"):
        (root / "train/ant" / name).write_text("?")


LEFT_OUT = {
    "hidden": (hidden, "left out, hidden: 5"),
    "other_formats": (other_formats, "left out, of other formats (.gif, .txt, no suffix): 3"),
    "beside": (lambda root: image(root / "train/2.png"), "left out, beside the class folders: 1"),
    "linked_folder": (
        lambda root: (root / "train/ant/more").symlink_to(root / "train/bee"),
        "left out, linked folders in class folders: 1",
    ),
    "linked_to_itself": (
        lambda root: (root / "test/ant/more").symlink_to(root / "test/ant"),
        "left out, linked folders in class folders: 1",
    ),
    "fifo": (lambda root: os.mkfifo(root / "train/ant/2.png"), "left out, neither file nor folder: 1"),
    "other_tests": (
        lambda root: (image(root / "val/ant/0.png"), (root / "valid").mkdir()),
        "left out, further test folders (val, valid): 2",
    ),
}


@pytest.mark.parametrize("memory", [None, 0], ids=["memory", "files"])
@pytest.mark.parametrize("case", LEFT_OUT)
def test_what_is_left_out_is_counted_in_one_line(folder: Path, case: str, memory: int | None) -> None:
    before = loaded(folder, memory)
    assert before == (("ant", "bee"), [0, 0, 1, 1], [1, 2, 11, 12], [])
    add, line = LEFT_OUT[case]
    add(folder)
    assert loaded(folder, memory) == (*before[:3], [f"{folder}: {line}"])


def test_several_kinds_come_in_one_line(folder: Path) -> None:
    hidden(folder)
    other_formats(folder)
    image(folder / "train/bee/old/0.png", 99)
    classes, labels, values, lines = loaded(folder)
    assert (classes, labels, values) == (("ant", "bee"), [0, 0, 1, 1, 1], [1, 2, 11, 12, 99])
    assert lines == [
        f"{folder}: left out, hidden: 5, of other formats (.gif, .txt, no suffix): 3; "
        f"taken from subfolders of class folders: 1"
    ]


def test_links_to_class_folders_and_files_are_followed(folder: Path) -> None:
    shutil.move(folder / "train/bee", folder / "elsewhere")
    (folder / "train/bee").symlink_to(folder / "elsewhere")
    (folder / "train/ant/2.png").symlink_to(folder / "elsewhere/0.png")
    assert loaded(folder) == (("ant", "bee"), [0, 0, 0, 1, 1], [1, 2, 11, 11, 12], [])


@pytest.mark.parametrize("place", ["train/cow", "train/ant/2.png", "test/cow", "test/ant/2.png"])
def test_a_link_to_nothing_is_named(folder: Path, place: str) -> None:
    (folder / place).symlink_to(folder / "gone")
    assert refusal(load, "ImageFolder", folder) == f"{folder / place} is a link to nothing; mend or remove it"


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_names_of_test_folders(folder: Path, name: str) -> None:
    (folder / "test").rename(folder / name)
    assert loaded(folder) == (("ant", "bee"), [0, 0, 1, 1], [1, 2, 11, 12], [])


@pytest.mark.parametrize("name", ["train", "test", "val", "valid"])
def test_a_flat_folder_is_named_for_what_it_is(folder: Path, name: str) -> None:
    place = "train" if name == "train" else "test"
    shutil.rmtree(folder / place)
    for i in range(3):
        image(folder / name / f"{i}.png")
    expected = f"{folder / name} has no class folders, but 3 images of its own; make one folder for each class"
    assert refusal(load, "ImageFolder", folder) == expected


def test_a_class_absent_in_test_is_fine_and_one_absent_in_training_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "test/ant")
    dataset = load("ImageFolder", folder)
    assert (dataset.classes, dataset.test.labels.tolist()) == (("ant", "bee"), [1, 1])
    (folder / "test/bee").rename(folder / "test/Bee")
    assert f"{folder / 'test'} has a class Bee that {folder / 'train'} lacks" in refusal(load, "ImageFolder", folder)


@pytest.mark.parametrize("classes", [("cat", "dog"), ("cat",)], ids=str)
def test_a_level_too_many_is_said(tmp_path: Path, classes: tuple[str, ...]) -> None:
    for name in classes:
        image(tmp_path / "train/images" / name / "0.png")
        image(tmp_path / "test/images" / name / "0.png")
    _, labels, _, lines = loaded(tmp_path)
    assert labels == [0] * len(classes)
    shown = ", ".join(classes)
    assert lines == [
        f"{tmp_path}: taken from subfolders of class folders: {2 * len(classes)}",
        f"{tmp_path / 'train'} has one class, images, and all of its images lie in subfolders ({shown}); "
        f"if these are the classes, move them up to {tmp_path / 'train'}",
        "ImageFolder has one class, images: there is nothing to tell apart",
    ]


@pytest.mark.parametrize("memory", [None, 0], ids=["memory", "files"])
def test_names_that_are_no_utf8(folder: Path, memory: int | None) -> None:
    name = os.fsdecode(b"caf\xe9")
    (folder / "train/bee").rename(folder / "train" / name)
    (folder / "train" / name / "0.png").rename(folder / "train" / name / os.fsdecode(b"\xff.png"))
    shutil.rmtree(folder / "test/bee")
    assert loaded(folder, memory) == (("ant", name), [0, 0, 1, 1], [1, 2, 12, 11], [])
    assert len(load("ImageFolder", folder, memory=memory, workers=0).fingerprint()) == 16


@pytest.mark.parametrize("add", [hidden, other_formats], ids=["hidden", "other_formats"])
def test_the_fingerprint_does_not_depend_on_what_is_left_out(folder: Path, add: Callable[[Path], None]) -> None:
    before = load("ImageFolder", folder).fingerprint()
    add(folder)
    with pytest.warns(UserWarning, match="left out"):
        assert load("ImageFolder", folder).fingerprint() == before
