"""Small files of every dataset in their original format, and what they hold."""

import gzip
import io
import json
import pickle
import shutil
import struct
import tarfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.io
import torch
from PIL import Image

from lcmat.data import Dataset, TensorSplit
from lcmat.errors import UserError

Part = tuple[np.ndarray, Sequence[int]]  # images (n, c, h, w) and their labels
Parts = tuple[Part, Part]  # for training, for testing
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS = tuple("0123456789")
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def refusal(call: Callable[..., object], *args: object, **options: object) -> str:
    """Return the message of the UserError that the call must raise: one line."""
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert message.splitlines() == [message]
    return message


def check(dataset: Dataset, parts: Parts, classes: Sequence[str]) -> None:
    """Compare both splits and the class names with what was written."""
    assert dataset.classes == tuple(classes)
    for split, (images, labels) in zip((dataset.train, dataset.test), parts, strict=True):
        assert isinstance(split, TensorSplit)
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert split.images.shape == images.shape
        assert split.labels.tolist() == list(labels)
        assert np.array_equal(split.images.numpy(), images)


def pixels(seed: int, *shape: int) -> np.ndarray:
    """Return random pixels, for which no two images, channels, rows or columns agree."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def flat(values: Sequence[int], size: int = 4, channels: int = 3) -> np.ndarray:
    """Return one image for each value, all its pixels of that value."""
    return np.array(values, dtype=np.uint8)[:, None, None, None].repeat(channels, 1).repeat(size, 2).repeat(size, 3)


def picture(image: np.ndarray) -> Image.Image:
    """Return the PIL image of one of (c, h, w)."""
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def encoded(image: np.ndarray, form: str = "PNG") -> bytes:
    """Return the content of an image file."""
    buffer = io.BytesIO()
    picture(image).save(buffer, form)
    return buffer.getvalue()


def shrunk(image: np.ndarray, size: int) -> np.ndarray:
    """Return (3, h, w) as Pillow scales it to (3, size, size)."""
    return np.asarray(picture(image).resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def decoded(path: Path) -> np.ndarray:
    """Return the pixels of an image file, (3, h, w)."""
    return np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)


def put(path: Path, content: bytes | str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def content_of(folder: Path) -> dict[str, bytes]:
    """Return everything below a folder: what must be unchanged after a failure."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def idx(array: np.ndarray) -> bytes:
    """Return an IDX file of bytes."""
    return struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(place: Path, suffix: str = "") -> Parts:
    """Write the four IDX files."""
    parts = (pixels(0, 5, 1, 28, 28), [3, 0, 9, 3, 7]), (pixels(1, 2, 1, 28, 28), [9, 0])
    contents = [idx(array) for x, y in parts for array in (x[:, 0], np.array(y, dtype=np.uint8))]
    for file, content in zip(IDX_FILES, contents, strict=True):
        put(place / f"{file}{suffix}", gzip.compress(content) if suffix else content)
    return parts


def write_svhn(place: Path, compress: bool = True) -> Parts:
    """Write the two MATLAB files, where 10 stands for the digit 0."""
    place.mkdir(parents=True, exist_ok=True)
    parts = (pixels(0, 4, 3, 32, 32), [1, 10, 9, 10]), (pixels(1, 2, 3, 32, 32), [10, 5])
    for split, (x, y) in zip(("train", "test"), parts, strict=True):
        content = {"X": x.transpose(2, 3, 1, 0), "y": np.array(y, dtype=np.uint8)[:, None]}
        scipy.io.savemat(place / f"{split}_32x32.mat", content, do_compression=compress)
    return tuple((x, [label % 10 for label in y]) for x, y in parts)


python3 = partial(pickle.dumps, protocol=2)


def cifar_files(name: str) -> tuple[dict[str, dict], Parts, tuple[str, ...]]:
    """Return the objects in the python version's files, the images and labels in them, and the class names."""
    if name == "CIFAR10":
        classes = CIFAR10_NAMES
        batches = [f"data_batch_{i}" for i in range(1, 6)]
        meta = {"num_cases_per_batch": 2, "label_names": list(classes), "num_vis": 3072}
        files, key = {"batches.meta": meta}, "labels"
    else:
        classes = (*(f"thing_{i}" for i in range(99)), "maïs")
        batches = ["train"]
        files, key = {"meta": {"fine_label_names": list(classes), "coarse_label_names": ["any"]}}, "fine_labels"
    images, labels = pixels(0, 10, 3, 32, 32), [0, 9, 1, 8, 2, 7, 3, len(classes) - 1, 4, 4]
    test_images, test_labels = pixels(1, 3, 3, 32, 32), [5, 0, len(classes) - 1]
    size = len(labels) // len(batches)
    pieces = {b: (images[i * size :][:size], labels[i * size :][:size]) for i, b in enumerate(batches)}
    test = "test_batch" if name == "CIFAR10" else "test"
    for file, (x, y) in (pieces | {test: (test_images, test_labels)}).items():
        files[file] = {"batch_label": file, key: y, "data": x.reshape(len(x), 3072), "filenames": ["é.png"] * len(x)}
        if name == "CIFAR100":
            files[file]["coarse_labels"] = [0] * len(x)
    return files, ((images, labels), (test_images, test_labels)), classes


def write_cifar(
    folder: Path, name: str, packed: bool = False, dumps: Callable = python3, **replaced: bytes
) -> tuple[Parts, tuple[str, ...]]:
    """Write the python version, as a folder or as the archive; `replaced` files have another content."""
    files, parts, classes = cifar_files(name)
    base = "cifar-10-batches-py" if name == "CIFAR10" else "cifar-100-python"
    contents = {file: dumps(content) for file, content in files.items()} | replaced
    folder.mkdir(parents=True, exist_ok=True)
    if not packed:
        for file, content in contents.items():
            put(folder / base / file, content)
        return parts, classes
    with tarfile.open(folder / f"cifar-{name[5:]}-python.tar.gz", "w:gz") as archive:
        for file, content in contents.items():
            info = tarfile.TarInfo(f"{base}/{file}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return parts, classes


TINY_NAMES = ("goldfish, Carassius auratus", "European fire salamander", "bullfrog, Rana catesbeiana")


def write_tiny_imagenet(folder: Path) -> Parts:
    """Write the folder tiny-imagenet-200 with three classes, a grey image and what else the original holds."""
    root = folder / "tiny-imagenet-200"
    wnids = ("n01443537", "n01629819", "n01641577")
    put(root / "wnids.txt", "\n".join((wnids[2], wnids[0], wnids[1])))
    words = [f"{wnid}\t{name}" for wnid, name in zip(wnids, TINY_NAMES, strict=True)]
    put(root / "words.txt", "\n".join(["n00001740\tentity", *words]))
    train, labels = [], []
    for label, wnid in enumerate(wnids):
        put(root / f"train/{wnid}/{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t0\t63\t63\n")
        for number in ("0", "10", "2"):  # in the order of names
            path = root / f"train/{wnid}/images/{wnid}_{number}.JPEG"
            put(path, encoded(pixels(10 * label + int(number), 1 if label == 1 else 3, 64, 64), "JPEG"))
            train.append(decoded(path))
            labels.append(label)
    rows = [("val_1.JPEG", 2), ("val_0.JPEG", 0)]
    for seed, (file, _) in enumerate(rows):
        put(root / "val/images" / file, encoded(pixels(50 + seed, 3, 64, 64), "JPEG"))
    put(root / "test/images/test_0.JPEG", encoded(pixels(60, 3, 64, 64), "JPEG"))
    put(root / "val/val_annotations.txt", "".join(f"{file}\t{wnids[label]}\t0\t0\t62\t62\n" for file, label in rows))
    test = [decoded(root / "val/images" / file) for file, _ in rows]
    return (np.stack(train), labels), (np.stack(test), [label for _, label in rows])


def write_tiny_imagenet_zip(folder: Path) -> Parts:
    """Write the same as tiny-imagenet-200.zip."""
    parts = write_tiny_imagenet(folder)
    pack(folder / "tiny-imagenet-200")
    return parts


def pack(folder: Path) -> None:
    """Replace a folder by a zip file of it."""
    shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
    shutil.rmtree(folder)


def write_parquet(
    path: Path, images: Sequence[bytes | None], names: Sequence[str] = (), column: str = "img", **columns: Sequence
) -> None:
    """Write rows in the Hugging Face layout; with the metadata that its library adds if class `names` are given."""
    rows = [None if image is None else {"bytes": image, "path": f"{i}.png"} for i, image in enumerate(images)]
    struct_type = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({column: pyarrow.array(rows, struct_type)} | {k: list(v) for k, v in columns.items()})
    if names:
        features = {column: {"_type": "Image"}}
        features |= {key: {"_type": "ClassLabel", "names": list(names)} for key in columns}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path)


def write_parquet_parts(folder: Path, parts: Parts, names: Sequence[str] = (), **options: object) -> None:
    """Write one Parquet file for each split, images as PNG."""
    for split, (images, labels) in zip(("train", "test"), parts, strict=True):
        contents = [encoded(image) for image in images]
        write_parquet(folder / f"{split}-00000-of-00001.parquet", contents, names, **{"label": labels} | options)


SMALL_PARTS = (pixels(0, 4, 3, 5, 7), [2, 0, 1, 2]), (pixels(1, 3, 3, 5, 7), [1, 2, 0])
SMALL_NAMES = ("ant", "bee", "cow")


def halve(path: Path) -> None:
    """Cut a file to its first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shorten(path: Path, count: int = 9) -> None:
    """Cut off a file's last bytes."""
    path.write_bytes(path.read_bytes()[:-count])


def overwrite(content: bytes) -> Callable[[Path], object]:
    """Return what replaces a file's content."""
    return lambda path: path.write_bytes(content)


write_cifar10, write_cifar100 = (partial(write_cifar, name=name) for name in ("CIFAR10", "CIFAR100"))
BATCH = "cifar-10-batches-py/data_batch_3"
FISH = "tiny-imagenet-200/train/n01443537/images/n01443537_2.JPEG"


def misplaced_chunk() -> bytes:
    """Return a PNG file whose first chunk of pixels claims to be shorter: the next is found where none is."""
    content = bytearray(encoded(pixels(0, 3, 5, 7)))
    content[33:37] = struct.pack(">I", 20)
    return bytes(content)


def immense() -> bytes:
    """Return a BMP file whose header claims 10¹⁰ pixels."""
    content = bytearray(encoded(pixels(0, 3, 5, 7), "BMP"))
    content[18:26] = struct.pack("<II", 100_000, 100_000)
    return bytes(content)


BROKEN_IMAGES = {
    "empty": b"",
    "garbage": b"<html>not found</html>",
    "halved": encoded(pixels(0, 3, 5, 7))[:80],
    "jpeg_halved": encoded(pixels(0, 3, 7, 5), "JPEG")[:-200],
    "misplaced_chunk": misplaced_chunk(),
    "immense": immense(),
}
