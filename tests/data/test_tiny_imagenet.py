"""TinyImageNet from its folder or its zip file."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lcmat.data import load
from tests.data_files import (
    FISH,
    SMALL_PARTS,
    TINY_NAMES,
    Parts,
    check,
    content_of,
    halve,
    overwrite,
    pack,
    refusal,
    shrunk,
    write_parquet_parts,
    write_tiny_imagenet,
    write_tiny_imagenet_zip,
)

pytestmark = pytest.mark.usefixtures("hosts")


Writer = Callable[[Path], Parts]


@pytest.mark.parametrize("write", [write_tiny_imagenet, write_tiny_imagenet_zip], ids=["folder", "zip"])
def test_tiny_imagenet(tmp_path: Path, write: Writer) -> None:
    parts = write(tmp_path)
    before = content_of(tmp_path)
    dataset = load("TinyImageNet", tmp_path)
    check(dataset, parts, TINY_NAMES)
    assert content_of(tmp_path) == before
    assert dataset.augmentation == "none", "the released code augments CIFAR alone"


@pytest.mark.parametrize("write", [write_tiny_imagenet, write_tiny_imagenet_zip], ids=["folder", "zip"])
def test_tiny_imagenet_beside_its_parquet_files(tmp_path: Path, write: Writer) -> None:
    write_parquet_parts(tmp_path / "TinyImageNet", SMALL_PARTS)
    parts = write(tmp_path / "TinyImageNet")
    check(load("TinyImageNet", tmp_path), parts, TINY_NAMES)


def test_tiny_imagenet_is_scaled_while_decoding(tmp_path: Path) -> None:
    parts = write_tiny_imagenet(tmp_path)
    scaled = tuple((np.stack([shrunk(image, 16) for image in images]), labels) for images, labels in parts)
    check(load("TinyImageNet", tmp_path, image_size=16), scaled, TINY_NAMES)


def append(text: str) -> Callable[[Path], object]:
    """Return what adds a line to a text file."""
    return lambda path: path.write_text(f"{path.read_text()}\n{text}\n")


@pytest.mark.parametrize("absent", ["wnids.txt", "words.txt", "val/val_annotations.txt", "val/images/val_0.JPEG"])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_incomplete_tiny_imagenet(tmp_path: Path, absent: str, packed: bool) -> None:
    root = tmp_path / "tiny-imagenet-200"
    write_tiny_imagenet(tmp_path)
    (root / absent).unlink()
    if packed:
        pack(root)
    origin = f"{root}.zip" if packed else root
    message = refusal(load, "TinyImageNet", tmp_path)
    assert message.startswith(f"{origin} lacks ")
    assert f"{absent};" in message


@pytest.mark.parametrize(
    ("file", "harm", "culprit"),
    [
        ("wnids.txt", overwrite(b"n01443537\nn01641577\n"), "n01629819"),
        ("val/val_annotations.txt", append("val_0.JPEG\tn99999999\t0\t0\t62\t62"), "n99999999"),
        ("val/val_annotations.txt", append("val_0.JPEG"), "val_annotations.txt"),
    ],
    ids=["class_not_listed", "annotation_of_no_class", "annotation_cut"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_tiny_imagenet_lists_that_do_not_fit(
    tmp_path: Path, file: str, harm: Callable[[Path], object], culprit: str, packed: bool
) -> None:
    root = tmp_path / "tiny-imagenet-200"
    write_tiny_imagenet(tmp_path)
    harm(root / file)
    if packed:
        pack(root)
    message = refusal(load, "TinyImageNet", tmp_path)
    assert str(root) in message
    assert culprit in message


def test_broken_image_in_a_zip(tmp_path: Path) -> None:
    write_tiny_imagenet(tmp_path)
    halve(tmp_path / FISH)
    pack(tmp_path / "tiny-imagenet-200")
    message = refusal(load, "TinyImageNet", tmp_path)
    assert f"{tmp_path / 'tiny-imagenet-200.zip'}: {FISH}" in message


def test_flipped_bit_in_a_zip(tmp_path: Path) -> None:
    write_tiny_imagenet_zip(tmp_path)
    path = tmp_path / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(FISH)
    content = bytearray(path.read_bytes())
    content[info.header_offset + 30 + len(FISH) + info.compress_size // 2] ^= 1
    path.write_bytes(content)
    assert f"{path}: {FISH}" in refusal(load, "TinyImageNet", tmp_path)
