"""Datasets of Hugging Face: Parquet files, their columns and splits."""

from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from lcmat.data import load
from lcmat.data.splits import channel_statistics
from tests.data_files import (
    BROKEN_IMAGES,
    SMALL_NAMES,
    SMALL_PARTS,
    check,
    encoded,
    flat,
    halve,
    overwrite,
    pixels,
    put,
    refusal,
    shorten,
    shrunk,
    write_parquet,
    write_parquet_parts,
)

pytestmark = pytest.mark.usefixtures("hosts")


@pytest.fixture
def offline_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what the `datasets` library caches out of the user's folder."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache


@pytest.mark.parametrize("below", [".", "data"])
@pytest.mark.parametrize("names", [(), SMALL_NAMES], ids=["no_metadata", "metadata"])
def test_hf_folder_of_parquet(tmp_path: Path, names: Sequence[str], below: str) -> None:
    write_parquet_parts(tmp_path / "pets" / below, SMALL_PARTS, names)
    dataset = load(f"hf:{tmp_path / 'pets'}")
    check(dataset, SMALL_PARTS, names or ("0", "1", "2"))
    assert dataset.name == "hf:pets"
    assert dataset.mean == channel_statistics(torch.from_numpy(SMALL_PARTS[0][0]))[0]


@pytest.mark.parametrize("label", ["label", "labels", "fine_label", "target", "class"])
@pytest.mark.parametrize("image", ["img", "image"])
def test_hf_finds_the_usual_columns(tmp_path: Path, image: str, label: str) -> None:
    for split, (x, y) in zip(("train", "validation"), SMALL_PARTS, strict=True):
        contents = [encoded(i) for i in x]
        write_parquet(tmp_path / f"{split}-0.parquet", contents, column=image, id=[7] * len(y), **{label: y})
    check(load(f"hf:{tmp_path}"), SMALL_PARTS, ("0", "1", "2"))


def test_hf_finds_columns_by_their_type(tmp_path: Path) -> None:
    for split, (x, y) in zip(("train", "test"), SMALL_PARTS, strict=True):
        write_parquet(tmp_path / f"{split}.parquet", [encoded(i) for i in x], SMALL_NAMES, column="photo", species=y)
    check(load(f"hf:{tmp_path}"), SMALL_PARTS, SMALL_NAMES)


def test_hf_prefers_fine_labels(tmp_path: Path) -> None:
    for split, (x, y) in zip(("train", "test"), SMALL_PARTS, strict=True):
        contents = [encoded(i) for i in x]
        write_parquet(tmp_path / f"{split}.parquet", contents, SMALL_NAMES, coarse_label=[0] * len(y), fine_label=y)
    check(load(f"hf:{tmp_path}"), SMALL_PARTS, SMALL_NAMES)


def test_hf_columns_and_splits_by_name(tmp_path: Path) -> None:
    (x, y), (test_x, test_y) = SMALL_PARTS
    write_parquet(tmp_path / "first.parquet", [encoded(i) for i in x], column="left", label=[0] * 4, species=y)
    write_parquet(
        tmp_path / "second.parquet", [encoded(i) for i in test_x], column="left", label=[0] * 3, species=test_y
    )
    write_parquet(tmp_path / "train.parquet", [encoded(i) for i in x[:1]], column="left", label=[0], species=[0])
    columns = {"image_column": "left", "label_column": "species", "train_split": "first", "test_split": "second"}
    check(load(f"hf:{tmp_path}", columns=columns), SMALL_PARTS, ("0", "1", "2"))


def test_hf_string_labels_are_numbered_in_their_order(tmp_path: Path) -> None:
    for split, (x, y) in zip(("train", "test"), SMALL_PARTS, strict=True):
        write_parquet(tmp_path / f"{split}.parquet", [encoded(i) for i in x], label=[SMALL_NAMES[k] for k in y])
    check(load(f"hf:{tmp_path}"), SMALL_PARTS, SMALL_NAMES)


def test_hf_labels_with_gaps_are_numbered_as_numbers(tmp_path: Path) -> None:
    for split, (x, y) in zip(("train", "test"), SMALL_PARTS, strict=True):
        write_parquet(tmp_path / f"{split}.parquet", [encoded(i) for i in x], label=[(2, 9, 10)[k] for k in y])
    check(load(f"hf:{tmp_path}"), SMALL_PARTS, ("2", "9", "10"))


def test_hf_grey_images_have_one_channel(tmp_path: Path) -> None:
    parts = (pixels(0, 2, 1, 6, 6), [0, 1]), (pixels(1, 2, 1, 6, 6), [1, 0])
    write_parquet_parts(tmp_path, parts)
    check(load(f"hf:{tmp_path}"), parts, ("0", "1"))


def test_hf_grey_among_coloured_images_becomes_coloured(tmp_path: Path) -> None:
    grey, coloured = pixels(0, 1, 6, 6), pixels(1, 3, 6, 6)
    write_parquet(tmp_path / "train.parquet", [encoded(grey)], label=[0])
    write_parquet(tmp_path / "test.parquet", [encoded(coloured)], label=[0])
    check(load(f"hf:{tmp_path}"), ((grey[None].repeat(3, 1), [0]), (coloured[None], [0])), ("0",))


def test_hf_images_of_different_sizes(tmp_path: Path) -> None:
    sizes = {8: 10, 64: 20, 100: 30}
    contents = [encoded(flat([value], size)[0]) for size, value in sizes.items()]
    write_parquet(tmp_path / "train.parquet", contents, label=[0, 1, 0])
    write_parquet(tmp_path / "test.parquet", contents[:1], label=[1])
    expected = (flat([10, 20, 30], 64), [0, 1, 0]), (flat([10], 64), [1])
    check(load(f"hf:{tmp_path}"), expected, ("0", "1"))


def test_hf_images_are_scaled_while_decoding(tmp_path: Path) -> None:
    (x, y), (test_x, test_y) = (pixels(0, 2, 3, 32, 32), [0, 1]), (pixels(1, 1, 3, 32, 32), [1])
    write_parquet_parts(tmp_path, ((x, y), (test_x, test_y)))
    expected = (np.stack([shrunk(image, 16) for image in x]), y), (shrunk(test_x[0], 16)[None], test_y)
    check(load(f"hf:{tmp_path}", image_size=16), expected, ("0", "1"))


def test_hf_folder_of_images_is_read_by_the_library(tmp_path: Path, hosts: list[str], offline_cache: Path) -> None:
    x = pixels(0, 3, 3, 5, 7)
    for file, image in zip(("train/ant/0.png", "train/bee/0.png", "test/bee/0.png"), x, strict=True):
        put(tmp_path / "pets" / file, encoded(image))
    check(load(f"hf:{tmp_path / 'pets'}"), ((x[:2], [0, 1]), (x[2:], [1])), ("ant", "bee"))
    hosts.clear()  # it asks whether there is a network


@pytest.mark.parametrize("given", ["nobody/nothing", "{}/nothing"], ids=["name", "path"])
def test_absent_hugging_face_data(
    tmp_path: Path, hosts: list[str], offline_cache: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source = given.format(tmp_path)
    message = refusal(load, f"hf:{source}")
    assert f"'{source}'" in message
    assert "train-*.parquet" in message
    assert list(tmp_path.iterdir()) == []
    hosts.clear()


@pytest.mark.parametrize(
    "harm", [halve, shorten, overwrite(b""), overwrite(b"<html>")], ids=["halved", "shortened", "empty", "garbage"]
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_broken_parquet(tmp_path: Path, split: str, harm: Callable[[Path], object]) -> None:
    write_parquet_parts(tmp_path / "CIFAR10", SMALL_PARTS)
    path = tmp_path / f"CIFAR10/{split}-00000-of-00001.parquet"
    harm(path)
    assert refusal(load, "CIFAR10", tmp_path).startswith(f"{path} is damaged")


def test_parquet_parts_that_do_not_fit(tmp_path: Path) -> None:
    write_parquet_parts(tmp_path, SMALL_PARTS)
    write_parquet(tmp_path / "train-00001-of-00001.parquet", [encoded(pixels(0, 3, 5, 7))], label=["cow"])
    assert str(tmp_path) in refusal(load, f"hf:{tmp_path}")


@pytest.mark.parametrize("image_size", [None, 5])
@pytest.mark.parametrize("content", [*BROKEN_IMAGES.values(), None], ids=[*BROKEN_IMAGES, "null"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_broken_image_in_parquet(tmp_path: Path, split: str, content: bytes | None, image_size: int | None) -> None:
    write_parquet_parts(tmp_path, SMALL_PARTS)
    contents = [encoded(pixels(1, 3, 5, 7)), content, encoded(pixels(2, 3, 5, 7))]
    write_parquet(tmp_path / f"{split}-00000-of-00001.parquet", contents, label=[0, 1, 2])
    message = refusal(load, f"hf:{tmp_path}", image_size=image_size)
    assert message.startswith("cannot read image ")
    assert str(tmp_path) in message
    assert content is None or "1.png" in message


@pytest.mark.parametrize(
    ("names", "train", "test"),
    [
        (SMALL_NAMES, [2, 0, 1, 2], [-1, -1, -1]),
        (SMALL_NAMES, [2, 0, 3, 2], [1, 2, 0]),
        ((), ["ant", "bee", "ant", "bee"], ["bee", "cow", "ant"]),
        ((), ["ant", "bee", None, "bee"], ["bee", "ant", "ant"]),
    ],
    ids=["without_test_labels", "number_too_large", "unknown_in_test", "null"],
)
def test_hf_labels_out_of_range(tmp_path: Path, names: Sequence[str], train: list, test: list) -> None:
    for split, (x, _), labels in zip(("train", "test"), SMALL_PARTS, (train, test), strict=True):
        write_parquet(tmp_path / f"{split}.parquet", [encoded(i) for i in x], names, label=labels)
    assert "label" in refusal(load, f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("option", "given", "nearest", "known"),
    [
        ("image_column", "imgs", "img", "img, label"),
        ("label_column", "lable", "label", "img, label"),
        ("train_split", "trian", "train", "test, train"),
        ("test_split", "tests", "test", "test, train"),
    ],
)
def test_unknown_column_or_split(tmp_path: Path, option: str, given: str, nearest: str, known: str) -> None:
    write_parquet_parts(tmp_path, SMALL_PARTS)
    message = refusal(load, f"hf:{tmp_path}", columns={option: given})
    kind = option.split("_")[1]
    assert message == f"{tmp_path} has no {kind} '{given}'; did you mean {nearest}? (known: {known})"


@pytest.mark.parametrize(
    ("files", "column", "label", "named", "flag"),
    [
        (("learn", "test"), "img", "label", "learn", "--train_split"),
        (("train", "check"), "img", "label", "check", "--test_split"),
        (("train", "test"), "photo", "label", "photo", "--image_column"),
        (("train", "test"), "img", "species", "species", "--label_column"),
    ],
    ids=["train_split", "test_split", "image_column", "label_column"],
)
def test_columns_and_splits_that_are_not_found(
    tmp_path: Path, files: tuple[str, str], column: str, label: str, named: str, flag: str
) -> None:
    for file in files:
        write_parquet(tmp_path / f"{file}.parquet", [encoded(pixels(0, 3, 5, 7))], column=column, **{label: [0]})
    message = refusal(load, f"hf:{tmp_path}")
    assert str(tmp_path) in message
    assert f"'{named}'" in message
    assert flag in message


@pytest.mark.parametrize("columns", [{"image_column": "label"}, {"label_column": "img"}], ids=lambda c: next(iter(c)))
def test_column_of_another_kind(tmp_path: Path, columns: dict[str, str]) -> None:
    write_parquet_parts(tmp_path, SMALL_PARTS)
    message = refusal(load, f"hf:{tmp_path}", columns=columns)
    assert f"'{next(iter(columns.values()))}'" in message


def test_grey_images_where_coloured_are_expected(tmp_path: Path) -> None:
    write_parquet_parts(tmp_path / "CIFAR10", ((pixels(0, 2, 1, 32, 32), [0, 1]), (pixels(1, 1, 1, 32, 32), [1])))
    assert refusal(load, "CIFAR10", tmp_path) == "CIFAR10 should have 3 channels, but its images have 1"
