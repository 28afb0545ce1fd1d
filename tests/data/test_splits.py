"""Splits and datasets: held-out parts, sizes, statistics, fingerprints."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from lcmat.data import Dataset, TensorSplit, held_out
from lcmat.data.splits import channel_statistics, resized, to_pixels
from tests.data_files import SMALL_NAMES, SMALL_PARTS, flat, picture, pixels, refusal, shrunk

pytestmark = pytest.mark.usefixtures("hosts")


@pytest.mark.parametrize("seed", [0, 1, 12])
@pytest.mark.parametrize(
    ("counts", "ratio"),
    [((50, 50), 0.2), ((100, 30, 7), 0.1), ((40, 41, 42, 43), 0.25), ((11, 3, 5), 0.5), ((2, 2), 0.5)],
    ids=str,
)
def test_held_out_is_stratified_and_complete(counts: tuple[int, ...], ratio: float, seed: int) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    kept, out = held_out(labels, ratio, seed)
    assert kept.dtype == out.dtype == torch.int64
    assert kept.tolist() == sorted(kept.tolist())
    assert out.tolist() == sorted(out.tolist())
    assert sorted([*kept.tolist(), *out.tolist()]) == list(range(len(labels)))
    shares = torch.bincount(labels[out], minlength=len(counts)) - ratio * torch.tensor(counts)
    assert shares.abs().max() <= 1


def test_held_out_is_seeded() -> None:
    labels = torch.arange(4).repeat(25)
    again = [held_out(labels, 0.2, seed)[1].tolist() for seed in (0, 0, 1, 2)]
    assert again[0] == again[1]
    assert len({tuple(out) for out in again}) == 3


def test_held_out_takes_a_number() -> None:
    labels = torch.arange(4).repeat(25)
    kept, out = held_out(labels, 8, 0)
    assert (len(kept), torch.bincount(labels[out]).tolist()) == (92, [2, 2, 2, 2])


@pytest.mark.parametrize(
    ("labels", "ratio"), [([0, 0, 0, 1], 0.5), ([0, 0, 1, 1], 0.01), ([0, 0, 1, 1], 1.5), ([], 0.2)], ids=str
)
def test_held_out_refuses(labels: list[int], ratio: float) -> None:
    message = refusal(held_out, torch.tensor(labels, dtype=torch.int64), ratio, 0)
    assert message.startswith(f"cannot hold out {ratio:g} of the training set for validation: ")


def test_resized_flat_images_stay_flat_and_in_order() -> None:
    values = [i % 256 for i in range(1030)]  # more than are scaled at once
    split = TensorSplit(torch.from_numpy(flat(values, 4, 1)), torch.arange(1030))
    for size in (2, 6):
        scaled = resized(split, size)
        assert scaled.images.dtype == torch.uint8
        assert np.array_equal(scaled.images.numpy(), flat(values, size, 1))
        assert scaled.labels.tolist() == list(range(1030))


@pytest.mark.parametrize("size", [7, 16, 40])
def test_resized_agrees_with_pillow(size: int) -> None:
    images = pixels(0, 2, 3, 24, 16)
    scaled = resized(TensorSplit(torch.from_numpy(images), torch.zeros(2, dtype=torch.int64)), size).images
    for ours, image in zip(scaled.numpy(), images, strict=True):
        assert np.abs(ours.astype(int) - shrunk(image, size)).max() <= 1


def test_resized_to_the_size_it_has() -> None:
    split = TensorSplit(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    assert resized(split, 4) is split


@pytest.mark.parametrize("shape", [(5, 3, 4, 6), (1, 1, 2, 2), (300, 1, 3, 3)], ids=str)
def test_channel_statistics_are_numpys(shape: tuple[int, ...]) -> None:
    images = pixels(0, *shape) // (1 + np.arange(shape[1], dtype=np.uint8)[:, None, None])
    mean, std = channel_statistics(torch.from_numpy(images))
    scaled = images.astype(np.float64) / 255
    assert mean == pytest.approx(scaled.mean(axis=(0, 2, 3)), abs=0.51e-4)
    assert std == pytest.approx(scaled.std(axis=(0, 2, 3)), abs=0.51e-4)
    assert all(round(value, 4) == value for value in (*mean, *std))


def test_channel_statistics_of_a_constant_channel() -> None:
    images = torch.from_numpy(flat([51, 51], channels=2))
    assert channel_statistics(images) == ((0.2, 0.2), (1e-4, 1e-4))


@pytest.mark.parametrize(
    ("mode", "given", "expected"),
    [
        ("L", np.array([[[1, 2, 3], [4, 5, 6]]]), np.array([[[1, 2, 3], [4, 5, 6]]])),
        ("RGB", np.array([[[1, 2, 3], [4, 5, 6]]]), np.array([[[1, 2, 3], [4, 5, 6]]] * 3)),
        ("RGB", np.arange(18).reshape(3, 2, 3), np.arange(18).reshape(3, 2, 3)),
    ],
    ids=["grey", "grey_to_colour", "colour"],
)
def test_to_pixels_as_they_are(mode: str, given: np.ndarray, expected: np.ndarray) -> None:
    result = to_pixels(picture(given.astype(np.uint8)), mode, None)
    assert result.dtype == torch.uint8
    assert result.is_contiguous()
    assert result.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [(6, 6, (0, 6), (0, 6)), (6, 10, (0, 6), (2, 8)), (9, 6, (1, 7), (0, 6)), (6, 7, (0, 6), (0, 6))],
    ids=["square", "wide", "high", "one_more"],
)
def test_to_pixels_cuts_the_middle(height: int, width: int, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    image = pixels(0, 3, height, width)
    assert np.array_equal(to_pixels(picture(image), "RGB", 6).numpy(), image[:, slice(*rows), slice(*columns)])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (33, 32), (200, 3)], ids=str)
def test_to_pixels_fills_the_square(height: int, width: int) -> None:
    image = np.full((3, height, width), 77, np.uint8)
    assert np.array_equal(to_pixels(picture(image), "RGB", 32).numpy(), flat([77], 32)[0])


def split_of(images: np.ndarray, labels: Sequence[int]) -> TensorSplit:
    return TensorSplit(torch.from_numpy(images), torch.tensor(labels, dtype=torch.int64))


def test_fingerprint_is_that_of_the_content() -> None:
    images, labels = pixels(0, 4, 3, 2, 2), [0, 1, 1, 2]
    original = split_of(images, labels).fingerprint()
    assert split_of(images.copy(), labels).fingerprint() == original
    strided = torch.from_numpy(images).to(memory_format=torch.channels_last)
    assert TensorSplit(strided, torch.tensor(labels)).fingerprint() == original
    every_other = torch.tensor([0, 9, 1, 9, 1, 9, 2, 9])[::2]
    assert TensorSplit(torch.from_numpy(images), every_other).fingerprint() == original
    changed = images.copy()
    changed[3, 2, 1, 1] ^= 1
    order = [1, 0, 2, 3]
    variants = [
        split_of(changed, labels),
        split_of(images, [0, 1, 1, 1]),
        split_of(images[order], [labels[i] for i in order]),
        split_of(images[[0, 2, 1, 3]], labels),
        split_of(images.reshape(4, 2, 3, 2), labels),
        split_of(images[:3], labels[:3]),
    ]
    prints = {original, *(variant.fingerprint() for variant in variants)}
    assert len(prints) == 1 + len(variants)


def dataset_of(train: TensorSplit, test: TensorSplit, classes: tuple[str, ...] = SMALL_NAMES, **options) -> Dataset:
    return Dataset("pets", train, test, classes, (0.5,) * 3, (0.2,) * 3, **options)


def test_fingerprint_of_a_dataset() -> None:
    train, test = (split_of(*part) for part in SMALL_PARTS)
    original = dataset_of(train, test).fingerprint()
    assert dataset_of(train, test, augmentation="crop").fingerprint() == original
    assert len(original) == 16
    variants = [
        dataset_of(test, train),
        dataset_of(train, train),
        dataset_of(train.take(torch.tensor([1, 0, 2, 3])), test),
        dataset_of(train, test, ("ant", "bee", "elk")),
    ]
    assert len({original, *(variant.fingerprint() for variant in variants)}) == 1 + len(variants)


def test_dataset_describes_itself() -> None:
    train, test = (split_of(*part) for part in SMALL_PARTS)
    dataset = dataset_of(train, test)
    assert (dataset.num_classes, dataset.image_shape, len(dataset.train)) == (3, (3, 5, 7), 4)
    moved = dataset.to(torch.device("cpu"))
    assert torch.equal(moved.train.images, train.images)
    assert torch.equal(moved.test.labels, test.labels)


@pytest.mark.parametrize("part", ["training", "test"])
def test_dataset_refuses_an_empty_split(part: str) -> None:
    splits = [split_of(*each) for each in SMALL_PARTS]
    splits[part == "test"] = split_of(pixels(0, 0, 3, 5, 7), [])
    assert refusal(dataset_of, *splits) == f"the {part} split of pets is empty"


@pytest.mark.parametrize("part", ["training", "test"])
@pytest.mark.parametrize("label", [-1, 3, 255])
def test_dataset_refuses_labels_out_of_range(part: str, label: int) -> None:
    splits = [split_of(*each) for each in SMALL_PARTS]
    splits[part == "test"] = split_of(pixels(0, 2, 3, 5, 7), [label, 1])
    low, high = sorted((label, 1))
    expected = f"the {part} split of pets has labels {low} to {high}, but there are 3 classes"
    assert refusal(dataset_of, *splits) == expected
