"""Folders of images by class, held in memory or read as needed."""

import gc
import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from lcmat.data import FileSplit, TensorSplit, folders, listing, load
from tests.data_files import (
    BROKEN_IMAGES,
    SMALL_NAMES,
    Parts,
    check,
    decoded,
    encoded,
    flat,
    halve,
    pixels,
    put,
    refusal,
)

pytestmark = pytest.mark.usefixtures("hosts")


def write_folder(folder: Path, test: str = "test") -> Parts:
    """Write ImageFolder's layout: PNG images of 5×7 pixels, some of them nested."""
    files = (
        ("train/ant/1.png", 0),
        ("train/ant/2.PNG", 0),
        ("train/bee/a.png", 1),
        ("train/bee/deep/er/0.png", 1),
        ("train/bee/z.png", 1),
        ("train/cow/1.png", 2),
        (f"{test}/bee/1.png", 1),
        (f"{test}/cow/1.png", 2),
        (f"{test}/cow/2.png", 2),
    )
    images = pixels(0, len(files), 3, 5, 7)
    for (file, _), image in zip(files, images, strict=True):
        put(folder / file, encoded(image))
    put(folder / "train/ant/notes.txt", "no image")
    labels = [label for _, label in files]
    return (images[:6], labels[:6]), (images[6:], labels[6:])


@pytest.mark.parametrize("test", ["test", "val"])
def test_image_folder(tmp_path: Path, test: str) -> None:
    parts = write_folder(tmp_path, test)
    dataset = load("ImageFolder", tmp_path)
    check(dataset, parts, SMALL_NAMES)
    assert dataset.image_shape == (3, 5, 7)
    assert dataset.augmentation == "crop_flip"


def test_image_folder_prefers_test_to_val(tmp_path: Path) -> None:
    parts = write_folder(tmp_path)
    put(tmp_path / "val/ant/0.png", encoded(pixels(9, 3, 5, 7)))
    check(load("ImageFolder", tmp_path), parts, SMALL_NAMES)


def test_image_folder_of_jpeg_files(tmp_path: Path) -> None:
    files = [tmp_path / "train/ant/0.jpg", tmp_path / "train/ant/1.JPEG", tmp_path / "test/ant/0.jpeg"]
    for seed, file in enumerate(files):
        put(file, encoded(pixels(seed, 3, 16, 16), "JPEG"))
    images = np.stack([decoded(file) for file in files])
    check(load("ImageFolder", tmp_path), ((images[:2], [0, 0]), (images[2:], [0])), ("ant",))


def test_image_folder_makes_three_channels(tmp_path: Path) -> None:
    grey, opaque = pixels(0, 1, 4, 4), pixels(1, 3, 4, 4)
    put(tmp_path / "train/ant/0.png", encoded(grey))
    put(tmp_path / "train/ant/1.png", encoded(np.concatenate([opaque, np.full((1, 4, 4), 255, np.uint8)])))
    put(tmp_path / "test/ant/0.png", encoded(opaque))
    expected = (np.stack([grey.repeat(3, 0), opaque]), [0, 0]), (opaque[None], [0])
    check(load("ImageFolder", tmp_path), expected, ("ant",))


@pytest.mark.parametrize("image_size", [None, 8, 100])
def test_image_folder_of_different_sizes(tmp_path: Path, image_size: int | None) -> None:
    sizes = {"0": (8, 8), "1": (64, 64), "2": (30, 90), "3": (200, 50)}
    for value, (name, (height, width)) in enumerate(sizes.items(), 1):
        put(tmp_path / f"train/ant/{name}.png", encoded(np.full((3, height, width), value, np.uint8)))
    put(tmp_path / "test/ant/0.png", encoded(np.full((3, 8, 8), 9, np.uint8)))
    expected = (flat([1, 2, 3, 4], image_size or 64), [0] * 4), (flat([9], image_size or 64), [0])
    check(load("ImageFolder", tmp_path, image_size=image_size), expected, ("ant",))


def test_test_images_of_another_size(tmp_path: Path) -> None:
    write_folder(tmp_path)
    put(tmp_path / "test/ant/0.png", encoded(np.full((3, 9, 9), 33, np.uint8)))
    dataset = load("ImageFolder", tmp_path)
    assert dataset.train.image_shape == dataset.test.image_shape == (3, 64, 64)
    assert np.array_equal(dataset.test.images[0].numpy(), flat([33], 64)[0])


def test_image_folder_cuts_to_the_middle(tmp_path: Path) -> None:
    wide, high = pixels(0, 3, 4, 8), pixels(1, 3, 10, 4)
    put(tmp_path / "train/ant/0.png", encoded(wide))
    put(tmp_path / "test/ant/0.png", encoded(high))
    expected = (wide[None, :, :, 2:6], [0]), (high[None, :, 3:7], [0])
    check(load("ImageFolder", tmp_path, image_size=4), expected, ("ant",))


@pytest.mark.parametrize("absent", ["train", "test"])
def test_absent_image_folder(tmp_path: Path, absent: str) -> None:
    write_folder(tmp_path)
    shutil.rmtree(tmp_path / absent)
    message = refusal(load, "ImageFolder", tmp_path)
    assert message.startswith(f"{tmp_path / absent} is missing")
    assert f"{tmp_path}/train/CLASS/" in message
    assert not (tmp_path / absent).exists()


def test_absent_class_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        put(tmp_path / split / "1.png", encoded(pixels(0, 3, 4, 4)))
    assert refusal(load, "ImageFolder", tmp_path).startswith(f"{tmp_path / 'train'} has no class folders")


def test_empty_class_folder_in_training(tmp_path: Path) -> None:
    write_folder(tmp_path)
    put(tmp_path / "train/dog/notes.txt", "no image")
    assert refusal(load, "ImageFolder", tmp_path).startswith(f"{tmp_path / 'train' / 'dog'} holds no images (.jpg")


def test_empty_test_folder(tmp_path: Path) -> None:
    write_folder(tmp_path)
    shutil.rmtree(tmp_path / "test")
    (tmp_path / "test/ant").mkdir(parents=True)
    assert refusal(load, "ImageFolder", tmp_path).startswith(f"{tmp_path / 'test'} holds no images (.jpg")


def test_class_only_in_test(tmp_path: Path) -> None:
    write_folder(tmp_path)
    put(tmp_path / "test/dog/0.png", encoded(pixels(0, 3, 5, 7)))
    message = refusal(load, "ImageFolder", tmp_path)
    assert message.startswith(f"{tmp_path / 'test'} has a class dog that {tmp_path / 'train'} lacks")


@pytest.mark.parametrize("memory", [None, 0], ids=["memory", "files"])
@pytest.mark.parametrize("image_size", [None, 5])
@pytest.mark.parametrize("content", BROKEN_IMAGES.values(), ids=BROKEN_IMAGES)
def test_broken_image_in_a_folder(tmp_path: Path, content: bytes, image_size: int | None, memory: int | None) -> None:
    write_folder(tmp_path)
    path = tmp_path / "train/bee/deep/er/0.png"
    path.write_bytes(content)
    message = refusal(load, "ImageFolder", tmp_path, image_size=image_size, memory=memory, workers=0)
    assert message.startswith(f"cannot read image {path};")


PARTS_OF_SIX = [torch.tensor([3, 0]), torch.tensor([5]), torch.tensor([1, 2, 4])]
workers = pytest.mark.parametrize("workers", [0, 2], ids=["here", "two_workers"])


@pytest.mark.parametrize(("spare", "kind"), [(0, TensorSplit), (-1, FileSplit)], ids=["fits", "exceeds"])
def test_memory_decides(tmp_path: Path, spare: int, kind: type) -> None:
    write_folder(tmp_path)
    dataset = load("ImageFolder", tmp_path, memory=9 * 3 * 5 * 7 + spare, workers=0)
    assert (type(dataset.train), type(dataset.test)) == (kind, kind)


def test_image_files_are_those_of_torchvision() -> None:
    assert listing.IMG_EXTENSIONS == torchvision.datasets.folder.IMG_EXTENSIONS


def test_available_memory() -> None:
    assert 1 << 20 < folders.available_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@workers
def test_files_give_the_batches_that_memory_gives(tmp_path: Path, workers: int) -> None:
    (x, y), _ = write_folder(tmp_path)
    split = load("ImageFolder", tmp_path, memory=0, workers=workers).train
    assert split.workers == workers
    batches = list(split.batches(PARTS_OF_SIX))
    assert len(batches) == len(PARTS_OF_SIX)
    for (images, labels, positions), part in zip(batches, PARTS_OF_SIX, strict=True):
        assert images.dtype == torch.uint8
        assert labels.dtype == positions.dtype == torch.int64
        assert torch.equal(positions, part)
        assert np.array_equal(images.numpy(), x[part.numpy()])
        assert labels.tolist() == [y[i] for i in part]


def test_tensors_give_the_batches_asked_for(tmp_path: Path) -> None:
    (x, y), _ = write_folder(tmp_path)
    batches = list(load("ImageFolder", tmp_path).train.batches(PARTS_OF_SIX))
    assert len(batches) == len(PARTS_OF_SIX)
    for (images, labels, positions), part in zip(batches, PARTS_OF_SIX, strict=True):
        assert torch.equal(positions, part)
        assert np.array_equal(images.numpy(), x[part.numpy()])
        assert labels.tolist() == [y[i] for i in part]


@pytest.mark.parametrize("memory", [None, 0], ids=["memory", "files"])
def test_take_keeps_the_order_asked_for(tmp_path: Path, memory: int | None) -> None:
    (x, y), _ = write_folder(tmp_path)
    split = load("ImageFolder", tmp_path, memory=memory, workers=0).train
    taken = split.take(torch.tensor([5, 0, 3]))
    assert type(taken) is type(split)
    assert (len(taken), taken.image_shape, taken.labels.tolist()) == (3, (3, 5, 7), [y[5], y[0], y[3]])
    ((images, labels, positions),) = taken.batches([torch.tensor([2, 0])])
    assert np.array_equal(images.numpy(), x[[3, 5]])
    assert labels.tolist() == [y[3], y[5]]
    assert positions.tolist() == [2, 0]


def test_files_and_memory_have_equal_statistics(tmp_path: Path) -> None:
    write_folder(tmp_path)
    kept, read = (load("ImageFolder", tmp_path, memory=memory, workers=0) for memory in (None, 0))
    assert (read.mean, read.std) == (kept.mean, kept.std)
    assert (read.name, read.classes, read.image_shape) == (kept.name, kept.classes, kept.image_shape)
    assert torch.equal(read.train.sample(2000), kept.train.images)
    assert read.train.to(torch.device("cpu")) is read.train


@pytest.mark.parametrize("image_size", [None, 4])
def test_files_of_different_sizes(tmp_path: Path, image_size: int | None) -> None:
    put(tmp_path / "train/ant/0.png", encoded(pixels(0, 3, 40, 8)))
    put(tmp_path / "train/ant/1.jpg", encoded(pixels(1, 3, 9, 70), "JPEG"))
    put(tmp_path / "test/ant/0.png", encoded(pixels(2, 3, 64, 64)))
    kept, read = (
        load("ImageFolder", tmp_path, image_size=image_size, memory=memory, workers=0) for memory in (None, 0)
    )
    assert read.image_shape == kept.image_shape == (3, image_size or 64, image_size or 64)
    ((images, _, _),) = read.train.batches([torch.arange(2)])
    assert torch.equal(images, kept.train.images)


@workers
def test_image_damaged_later_is_named(tmp_path: Path, workers: int) -> None:
    write_folder(tmp_path)
    split = load("ImageFolder", tmp_path, memory=0, workers=workers).train
    path = tmp_path / "train/bee/deep/er/0.png"
    halve(path)
    message = refusal(lambda: list(split.batches(PARTS_OF_SIX)))
    assert message == f"cannot read image {path}; replace or remove it"


def test_a_damaged_image_leaves_no_workers_behind(tmp_path: Path) -> None:
    write_folder(tmp_path)
    split = load("ImageFolder", tmp_path, memory=0, workers=2).train
    halve(tmp_path / "train/ant/1.png")
    gc.collect()  # what other tests left
    gc.disable()  # torch waits 5 seconds for each worker that only the garbage collector ends
    try:
        refusal(lambda: list(split.batches(PARTS_OF_SIX)))
        assert multiprocessing.active_children() == []
    finally:
        gc.enable()


def test_fingerprint_does_not_depend_on_the_memory_there_is(tmp_path: Path) -> None:
    write_folder(tmp_path)
    kept, read = (load("ImageFolder", tmp_path, memory=memory, workers=0) for memory in (None, 0))
    assert kept.fingerprint() == read.fingerprint()
    path = tmp_path / "train/ant/1.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # name and size stay the same
    path.write_bytes(content)
    assert read.fingerprint() != kept.fingerprint()


def test_fingerprint_of_files(tmp_path: Path) -> None:
    def fingerprint(folder: str) -> str:
        return load("ImageFolder", tmp_path / folder, memory=0, workers=0).fingerprint()

    write_folder(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    assert fingerprint("one") == fingerprint("moved")
    split = load("ImageFolder", tmp_path / "one", memory=0, workers=0).train
    assert replace(split, labels=split.labels.flip(0)).fingerprint() != split.fingerprint()
    prints = [fingerprint("one")]
    for source, target in (("ant/1.png", "ant/0.png"), ("ant/0.png", "bee/0.png")):
        (tmp_path / "one/train" / source).rename(tmp_path / "one/train" / target)
        prints.append(fingerprint("one"))
    put(tmp_path / "one/train/ant/2.PNG", encoded(flat([1], 7)[0, :, :5]))
    prints.append(fingerprint("one"))
    (tmp_path / "one/test/cow/2.png").unlink()
    prints.append(fingerprint("one"))
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 9])
@pytest.mark.parametrize("memory", [None, 0], ids=["memory", "files"])
def test_sample_takes_no_more_than_asked_for(tmp_path: Path, memory: int | None, count: int) -> None:
    (x, _), _ = write_folder(tmp_path)
    sample = load("ImageFolder", tmp_path, memory=memory, workers=0).train.sample(count)
    assert 1 <= len(sample) <= count
    assert {image.tobytes() for image in sample.numpy()} <= {image.tobytes() for image in x}
    if count >= len(x):
        assert np.array_equal(sample.numpy(), x)
