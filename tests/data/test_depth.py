"""Images of more than 8 bits a channel come on the scale of those of 8, the same for a whole dataset."""

import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lcmat.data import load
from tests.data_files import put, refusal, write_parquet

pytestmark = pytest.mark.usefixtures("hosts")

# What the images should come to; the parts differ, so that a scale of each image's own would show.
VALUES = {"train": [[0, 1, 2], [50, 51, 52], [128, 254, 200]], "test": [[7, 9, 90], [3, 3, 3], [100, 101, 99]]}


def content(array: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form)
    return buffer.getvalue()


def pgm(array: np.ndarray) -> bytes:
    """A binary PGM of 16 bits, written by hand: big-endian, as the format says."""
    height, width = array.shape
    return f"P5 {width} {height} 65535\n".encode() + struct.pack(f">{array.size}H", *array.flatten().tolist())


KINDS = {
    "png16": ("png", lambda a: content((a * 257).astype("u2"), "PNG"), "65,535 is white"),
    "tif16": ("tif", lambda a: content((a * 257).astype("u2"), "TIFF"), "65,535 is white"),
    "tif16_big_endian": ("tif", lambda a: content((a * 257).astype(">u2"), "TIFF"), "65,535 is white"),
    "pgm16": ("pgm", lambda a: pgm(a * 257), "65,535 is white"),
    "tif32_of_16_bits": ("tif", lambda a: content((a * 257).astype("i4"), "TIFF"), "65,535 is white"),
    "tif32": ("tif", lambda a: content((a * ((2**31 - 1) // 255)).astype("i4"), "TIFF"), "2,147,483,647 is white"),
    "png16_of_8_bits": ("png", lambda a: content(a.astype("u2"), "PNG"), "255 is white"),
    "float_to_1": ("tif", lambda a: content((a / 255).astype("f4"), "TIFF"), "1 is white"),
    "float_to_255": ("tif", lambda a: content(a.astype("f4"), "TIFF"), "255 is white"),
    "float_to_65535": ("tif", lambda a: content((a * 257).astype("f4"), "TIFF"), "65,535 is white"),
}


def images(part: str) -> list[np.ndarray]:
    return [np.array([row, row[::-1]]) for row in VALUES[part]]


def load_folder(folder: Path, make: Callable[[np.ndarray], bytes], suffix: str, memory: int | None) -> torch.Tensor:
    for part in VALUES:
        for i, image in enumerate(images(part)):
            put(folder / part / "ab"[i % 2] / f"{i}.{suffix}", make(image))
    dataset = load("ImageFolder", folder, memory=memory, workers=0)
    order = [0, 2, 1]  # class by class
    parts = [next(split.batches([torch.tensor(order)]))[0][:, 0] for split in (dataset.train, dataset.test)]
    return torch.cat(parts)


@pytest.mark.parametrize("memory", [None, 0], ids=["memory", "files"])
@pytest.mark.parametrize("kind", KINDS)
def test_deep_images_in_a_folder(tmp_path: Path, kind: str, memory: int | None) -> None:
    suffix, make, line = KINDS[kind]
    with pytest.warns(UserWarning, match=line) as said:
        found = load_folder(tmp_path, make, suffix, memory)
    assert np.array_equal(found.numpy(), np.array(images("train") + images("test")))
    assert sum("is white" in str(one.message) for one in said) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_deep_images_of_a_hugging_face_dataset(tmp_path: Path, kind: str) -> None:
    _, make, line = KINDS[kind]
    for part in VALUES:
        write_parquet(tmp_path / f"{part}.parquet", [make(image) for image in images(part)], label=[0, 1, 0])
    with pytest.warns(UserWarning, match=line):
        dataset = load(f"hf:{tmp_path}")
    for split, part in ((dataset.train, "train"), (dataset.test, "test")):
        assert np.array_equal(split.images[:, 0].numpy(), np.array(images(part)))
    assert dataset.image_shape == (1, 2, 3)


@pytest.mark.parametrize("deep", ["train", "test"])
def test_deep_images_beside_those_of_8_bits(tmp_path: Path, deep: str) -> None:
    makers = {part: KINDS["png16"][1] if part == deep else lambda a: content(a.astype("u1"), "PNG") for part in VALUES}
    for part in VALUES:
        for i, image in enumerate(images(part)):
            put(tmp_path / part / "ab"[i % 2] / f"{i}.png", makers[part](image))
    with pytest.warns(UserWarning, match="integers of more than 8 bits: 3, the largest value"):
        dataset = load("ImageFolder", tmp_path)
    assert np.array_equal(dataset.train.images[[0, 2, 1], 0].numpy(), np.array(images("train")))
    assert np.array_equal(dataset.test.images[[0, 2, 1], 0].numpy(), np.array(images("test")))


def test_colour_images_of_16_bits_keep_their_upper_8(tmp_path: Path) -> None:
    """Pillow reads them so; no scale is needed."""
    for part, value in (("train", b"\x12\x34"), ("test", b"\xff\xff")):
        put(tmp_path / part / "a/0.ppm", b"P6 2 1 65535\n" + value * 6)
    dataset = load("ImageFolder", tmp_path)
    assert dataset.train.images.unique().tolist() == [0x12]
    assert dataset.test.images.unique().tolist() == [0xFF]


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ([-1.0, 0.5], "f4", "values from -1 to 1; give values from 0 to 1, 255 or 65535"),
        ([0.0, 1.3], "f4", "values from 0 to 1.3; give"),
        ([0.0, 1e6], "f4", "values from 0 to 1e+06; give"),
        ([-1000, 3000], "i4", "values from -1,000 to 3,000; give values of at least 0"),
        ([0.0, float("nan")], "f4", "cannot read image"),
        ([0.0, float("inf")], "f4", "cannot read image"),
    ],
    ids=["below_0", "overshot", "too_large", "negative_integers", "nan", "inf"],
)
@pytest.mark.parametrize("source", ["folder", "hf"])
def test_values_on_no_scale_are_refused(tmp_path: Path, source: str, values: list, kind: str, message: str) -> None:
    odd, usual = (content(np.array([each] * 2, kind), "TIFF") for each in (values, [0, 1]))
    for part, image in (("train", usual), ("test", odd)):
        if source == "folder":
            put(tmp_path / part / "a/0.tif", image)
        else:
            write_parquet(tmp_path / f"{part}.parquet", [image], label=[0])
    said = refusal(load, "ImageFolder" if source == "folder" else f"hf:{tmp_path}", tmp_path)
    assert message in said
    assert str(tmp_path) in said


def test_few_levels_are_said(tmp_path: Path) -> None:
    """What a camera of 12 bits leaves in a file of 16."""
    for part in ("train", "test"):
        put(tmp_path / part / "a/0.png", content(np.array([[0, 4095]], "u2"), "PNG"))
    with pytest.warns(UserWarning, match="the largest value 4,095; .* which leaves 17 levels of grey"):
        load("ImageFolder", tmp_path)


def test_the_scale_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    """Files of one name, size and beginning mean other pixels on another scale."""
    prints = set()
    for largest in (200, 300):
        folder = tmp_path / str(largest)
        put(folder / "train/a/0.png", content(np.array([[0, 50]], "u2"), "PNG"))
        put(folder / "test/a/0.png", content(np.array([[0, largest]], "u2"), "PNG"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prints.add(load("ImageFolder", folder).train.fingerprint())
    assert len(prints) == 2


def test_a_deep_image_under_another_formats_name(tmp_path: Path) -> None:
    """Where sizes are known JPEG files are not looked into beforehand."""
    for part in ("train", "test"):
        put(tmp_path / part / "a/0.jpg", content(np.array([[0, 300]], "u2"), "PNG"))
    assert refusal(load, "ImageFolder", tmp_path, image_size=8).startswith("cannot read image ")


@pytest.mark.parametrize("form", ["TIFF", "PNG", "WEBP"])
def test_several_pictures_in_a_file_are_counted(tmp_path: Path, form: str) -> None:
    first, second = (Image.new("RGB", (4, 4), (v,) * 3) for v in (9, 99))
    buffer = io.BytesIO()
    first.save(buffer, form, save_all=True, append_images=[second], **({"lossless": True} if form == "WEBP" else {}))
    put(tmp_path / f"train/a/0.{form.lower()}", buffer.getvalue())
    put(tmp_path / "test/a/0.png", content(np.zeros((4, 4), "u1"), "PNG"))
    with pytest.warns(UserWarning, match="1 files hold several pictures, of which the first is used"):
        dataset = load("ImageFolder", tmp_path)
    assert dataset.train.images.unique().tolist() == [9]
