"""Datasets and augmentations by name, in any spelling; an unknown one names the nearest."""

from pathlib import Path

import pytest
import torchvision

from lcmat import data
from lcmat.data import load
from tests.data_files import IDX_FILES, check, flat, idx, put, refusal, write_mnist

pytestmark = pytest.mark.usefixtures("hosts")


@pytest.mark.parametrize("name", ["mnist", "Mnist", "MNIST"])
def test_case_of_a_name_is_ignored(tmp_path: Path, name: str) -> None:
    parts = write_mnist(tmp_path)
    dataset = load(name, str(tmp_path))
    check(dataset, parts, torchvision.datasets.MNIST.classes)
    assert dataset.name == "MNIST"


@pytest.mark.parametrize(
    ("given", "expected"), [(None, "none"), ("crop", "crop"), ("NONE", "none"), ("Crop_Flip", "crop_flip")]
)
def test_augmentation_has_its_canonical_spelling(given: str | None, expected: str) -> None:
    assert load("digits", augmentation=given).augmentation == expected


def test_image_size_scales_both_splits(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    put(tmp_path / IDX_FILES[0], idx(flat([10, 200, 30, 40, 50], 28, 1)[:, 0]))
    put(tmp_path / IDX_FILES[2], idx(flat([7, 255], 28, 1)[:, 0]))
    expected = (flat([10, 200, 30, 40, 50], 12, 1), [3, 0, 9, 3, 7]), (flat([7, 255], 12, 1), [9, 0])
    check(load("MNIST", tmp_path, image_size=12), expected, torchvision.datasets.MNIST.classes)


def test_names_are_those_that_load_knows() -> None:
    known = ["digits", "MNIST", "FashionMNIST", "SVHN", "CIFAR10", "CIFAR100", "TinyImageNet", "ImageFolder"]
    assert data.names() == [*known, "hf:NAME_OR_PATH"]
    assert [data.resolve(name.upper()) for name in known] == known


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("CIFAR-10", "CIFAR10"), ("cifar1000", "CIFAR100"), ("SVNH", "SVHN"), ("fashion_mnist", "FashionMNIST")],
)
def test_unknown_dataset(tmp_path: Path, given: str, nearest: str) -> None:
    message = refusal(load, given, tmp_path / "data")
    assert message.startswith(f"unknown dataset '{given}'; did you mean {nearest}? (known: digits, MNIST, ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["xyzzy", "", "hf:"])
def test_unknown_dataset_with_none_near(given: str) -> None:
    message = refusal(load, given)
    assert message.startswith(f"unknown dataset '{given}'; ")
    assert message.rstrip(")").endswith(", ".join(data.names()))


@pytest.mark.parametrize(("given", "nearest"), [("crop_flop", "crop_flip"), ("corp", "crop"), ("non", "none")])
def test_unknown_augmentation(given: str, nearest: str) -> None:
    message = refusal(load, "digits", augmentation=given)
    known = "none, crop, crop_flip, dsa, dsa_unmirrored, idc, idc_unmirrored"
    assert message == f"unknown augmentation '{given}'; did you mean {nearest}? (known: {known})"
