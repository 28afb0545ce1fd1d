"""Every dataset loader on small files in the original format, found without a network, refused when damaged."""

import gc
import gzip
import http.client
import io
import json
import multiprocessing
import os
import pickle
import shutil
import socket
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.io
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from lcmat import data
from lcmat.augmentation.images import augment, normalise
from lcmat.data import Dataset, FileSplit, TensorSplit, archives, folders, held_out, load
from lcmat.data.splits import channel_statistics, resized, to_pixels
from lcmat.errors import UserError

Part = tuple[np.ndarray, Sequence[int]]  # images (n, c, h, w) and their labels
Parts = tuple[Part, Part]  # for training, for testing
Writer = Callable[[Path], Parts]

CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS = tuple("0123456789")
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture(autouse=True)
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Cut the network and list the hosts asked for: a test that expects any says so by clearing the list."""
    asked = []

    def refuse(host: str, *args: object, **options: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(archives, "SYSTEM_FOLDERS", {})
    for module in (huggingface_hub.constants, datasets.config):  # the loader switches them off for the process
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", module.HF_HUB_OFFLINE)
    yield asked
    assert asked == []


@pytest.fixture
def offline_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what the `datasets` library caches out of the user's folder."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache


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


# --------------------------------------------------------------------------------------------------------------------
# The original formats
# --------------------------------------------------------------------------------------------------------------------


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


def python2(value: object) -> bytes:
    """Return the pickle that Python 2 wrote, with strings of bytes: what the published CIFAR files consist of."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: object) -> bytes:
    match value:
        case str():
            raw = value.encode("latin1")
            return b"T" + struct.pack("<i", len(raw)) + raw
        case int():
            return b"J" + struct.pack("<i", value)
        case list():
            return b"](" + b"".join(map(_opcodes, value)) + b"e"
        case dict():
            return b"}(" + b"".join(_opcodes(k) + _opcodes(v) for k, v in value.items()) + b"u"
        case np.ndarray():
            empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + _opcodes(-1) * 2 + b"K\x00tb"
            shape = b"(" + b"".join(map(_opcodes, value.shape)) + b"t"
            return empty + b"(K\x01" + shape + kind + b"\x89" + _opcodes(value.tobytes().decode("latin1")) + b"tb"
    raise TypeError(type(value))


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


# --------------------------------------------------------------------------------------------------------------------
# Loading
# --------------------------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns() -> None:
    dataset = load("digits")
    original = load_digits()
    assert dataset.classes == DIGITS
    assert (len(dataset.train), len(dataset.test)) == (1297, 500)
    images = torch.cat([dataset.train.images, dataset.test.images])
    assert images.dtype == torch.uint8
    assert dataset.train.labels.dtype == torch.int64
    found = sorted(
        (image.tobytes(), label)
        for image, label in zip(
            images.numpy(), [*dataset.train.labels.tolist(), *dataset.test.labels.tolist()], strict=True
        )
    )
    scaled = np.rint(original.images * 255 / 16).astype(np.uint8)
    assert found == sorted((image.tobytes(), int(label)) for image, label in zip(scaled, original.target, strict=True))
    assert load("digits").fingerprint() == dataset.fingerprint()


def test_digits_are_split_by_class() -> None:
    dataset = load("digits")
    total = np.bincount(load_digits().target)
    share = np.bincount(dataset.test.labels.numpy()) - 500 * total / total.sum()
    assert np.abs(share).max() < 1


@pytest.mark.parametrize("suffix", ["", ".gz"], ids=["plain", "gz"])
@pytest.mark.parametrize("place", ["{}/raw", "{}", "."])
@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_mnist_from_idx_files(tmp_path: Path, name: str, place: str, suffix: str) -> None:
    parts = write_mnist(tmp_path / place.format(name), suffix)
    classes = getattr(torchvision.datasets, name).classes
    check(load(name, tmp_path), parts, classes)


def test_idx_files_some_compressed(tmp_path: Path) -> None:
    parts = write_mnist(tmp_path)
    for file in IDX_FILES[1:3]:
        put(tmp_path / f"{file}.gz", gzip.compress((tmp_path / file).read_bytes()))
        (tmp_path / file).unlink()
    check(load("MNIST", tmp_path), parts, torchvision.datasets.MNIST.classes)


def test_fashion_mnist_where_the_system_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SYSTEM_FOLDERS", {"FashionMNIST": (tmp_path / "system",)})
    parts = write_mnist(tmp_path / "system", ".gz")
    check(load("FashionMNIST", tmp_path / "data"), parts, torchvision.datasets.FashionMNIST.classes)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("compress", [True, False], ids=["compressed", "uncompressed"])
@pytest.mark.parametrize("place", ["SVHN", "."])
def test_svhn_from_mat_files(tmp_path: Path, place: str, compress: bool) -> None:
    parts = write_svhn(tmp_path / place, compress)
    check(load("SVHN", tmp_path), parts, DIGITS)


@pytest.mark.parametrize("dumps", [python3, python2], ids=["python3", "python2"])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("place", ["own", "."])
@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_cifar_from_pickles(tmp_path: Path, name: str, place: str, packed: bool, dumps: Callable) -> None:
    parts, classes = write_cifar(tmp_path / (name if place == "own" else "."), name, packed, dumps)
    before = content_of(tmp_path)
    check(load(name, tmp_path), parts, classes)
    assert content_of(tmp_path) == before  # the archive is not unpacked


@pytest.mark.parametrize("write", [write_tiny_imagenet, write_tiny_imagenet_zip], ids=["folder", "zip"])
def test_tiny_imagenet(tmp_path: Path, write: Writer) -> None:
    parts = write(tmp_path)
    before = content_of(tmp_path)
    check(load("TinyImageNet", tmp_path), parts, TINY_NAMES)
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("names", [(), CIFAR10_NAMES], ids=["no_metadata", "metadata"])
def test_cifar10_from_parquet(tmp_path: Path, names: Sequence[str]) -> None:
    (x, y), (test_x, test_y) = (pixels(0, 11, 3, 32, 32), [9, *range(10)]), (pixels(1, 2, 3, 32, 32), [3, 9])
    write_parquet_parts(tmp_path / "CIFAR10", ((x, y), (test_x, test_y)), names)
    dataset = load("CIFAR10", tmp_path)
    check(dataset, ((x, y), (test_x, test_y)), names or DIGITS)
    assert dataset.name == "CIFAR10"
    assert dataset.mean == (0.4914, 0.4822, 0.4465)
    assert dataset.augmentation == "crop_flip"


def test_parquet_parts_follow_each_other(tmp_path: Path) -> None:
    (x, y), test = SMALL_PARTS
    write_parquet_parts(tmp_path, SMALL_PARTS)
    for part, piece in enumerate((slice(0, 3), slice(3, 4))):
        write_parquet(tmp_path / f"train-0000{part}-of-00002.parquet", [encoded(i) for i in x[piece]], label=y[piece])
    (tmp_path / "train-00000-of-00001.parquet").unlink()
    check(load(f"hf:{tmp_path}"), ((x, y), test), ("0", "1", "2"))


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("place", ["CIFAR10", "."])
def test_original_files_come_before_parquet(tmp_path: Path, place: str, packed: bool) -> None:
    write_parquet_parts(tmp_path / "CIFAR10", SMALL_PARTS)
    parts, classes = write_cifar(tmp_path / place, "CIFAR10", packed)
    check(load("CIFAR10", tmp_path), parts, classes)


@pytest.mark.parametrize("write", [write_tiny_imagenet, write_tiny_imagenet_zip], ids=["folder", "zip"])
def test_tiny_imagenet_beside_its_parquet_files(tmp_path: Path, write: Writer) -> None:
    write_parquet_parts(tmp_path / "TinyImageNet", SMALL_PARTS)
    parts = write(tmp_path / "TinyImageNet")
    check(load("TinyImageNet", tmp_path), parts, TINY_NAMES)


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


def test_tiny_imagenet_is_scaled_while_decoding(tmp_path: Path) -> None:
    parts = write_tiny_imagenet(tmp_path)
    scaled = tuple((np.stack([shrunk(image, 16) for image in images]), labels) for images, labels in parts)
    check(load("TinyImageNet", tmp_path, image_size=16), scaled, TINY_NAMES)


def test_names_are_those_that_load_knows() -> None:
    known = ["digits", "MNIST", "FashionMNIST", "SVHN", "CIFAR10", "CIFAR100", "TinyImageNet", "ImageFolder"]
    assert data.names() == [*known, "hf:NAME_OR_PATH"]
    assert [data.resolve(name.upper()) for name in known] == known


# --------------------------------------------------------------------------------------------------------------------
# Absent, downloaded, damaged
# --------------------------------------------------------------------------------------------------------------------

EXPECTED_FILES = {
    "MNIST": ("MNIST/raw/train-images-idx3-ubyte[.gz]",),
    "FashionMNIST": ("FashionMNIST/raw/train-images-idx3-ubyte[.gz]",),
    "SVHN": ("SVHN/train_32x32.mat", "test_32x32.mat"),
    "CIFAR10": ("cifar-10-batches-py", "cifar-10-python.tar.gz", "CIFAR10/train-*.parquet"),
    "CIFAR100": ("cifar-100-python", "cifar-100-python.tar.gz", "CIFAR100/train-*.parquet"),
    "TinyImageNet": ("tiny-imagenet-200/", "tiny-imagenet-200.zip"),
}


@pytest.mark.parametrize("folder", ["data", "new/data"])
@pytest.mark.parametrize("name", EXPECTED_FILES)
def test_absent_data_leave_no_folder(tmp_path: Path, hosts: list[str], name: str, folder: str) -> None:
    message = refusal(load, name, tmp_path / folder)
    assert message.startswith(f"{name} is not in {tmp_path / folder} (expected ")
    for file in EXPECTED_FILES[name]:
        assert file in message
    assert hosts  # a download was tried
    hosts.clear()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", EXPECTED_FILES)
def test_absent_data_leave_the_folder_as_it_was(tmp_path: Path, hosts: list[str], name: str) -> None:
    for file in ("notes.txt", "MNIST/raw/train-images-idx3-ubyte", "SVHN/train_32x32.mat", "cifar-10-batches-py/meta"):
        put(tmp_path / file, "kept")
    before = content_of(tmp_path)
    refusal(load, name, tmp_path)
    assert content_of(tmp_path) == before
    assert hosts
    hosts.clear()


@pytest.mark.parametrize("missing", IDX_FILES)
def test_one_file_absent_is_data_absent(tmp_path: Path, hosts: list[str], missing: str) -> None:
    write_mnist(tmp_path)
    (tmp_path / missing).unlink()
    assert refusal(load, "MNIST", tmp_path).startswith(f"MNIST is not in {tmp_path} ")
    hosts.clear()


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


def fake_download(monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[[Path], object]) -> None:
    """Let torchvision's download of a dataset write its files instead, into the folder it is given."""
    targets = {
        "MNIST": "torchvision.datasets.mnist.download_and_extract_archive",
        "SVHN": "torchvision.datasets.svhn.download_url",
    }

    def fetch(url: str, root: str | None = None, *args: object, **options: object) -> None:
        write(Path(root or options["download_root"]))

    monkeypatch.setattr(targets.get(name, "torchvision.datasets.utils.download_url"), fetch)
    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda self: True)


DOWNLOADS = {
    "MNIST": (write_mnist, "MNIST/raw/t10k-labels-idx1-ubyte", torchvision.datasets.MNIST.classes),
    "SVHN": (write_svhn, "SVHN/train_32x32.mat", DIGITS),
    "CIFAR10": (lambda place: write_cifar(place, "CIFAR10", True)[0], "cifar-10-python.tar.gz", CIFAR10_NAMES),
    "TinyImageNet": (write_tiny_imagenet_zip, "tiny-imagenet-200.zip", TINY_NAMES),
}


@pytest.mark.parametrize("name", DOWNLOADS)
def test_downloaded_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write, file, classes = DOWNLOADS[name]
    written = []
    root = tmp_path / "new"

    def download(place: Path) -> None:
        assert root in place.parents  # on the same disk, so that what is whole need only be moved
        written.append(write(place))

    fake_download(monkeypatch, name, download)
    check(load(name, root), write(tmp_path / "again"), classes)
    assert (root / file).is_file()
    assert [path.name for path in root.iterdir()] == [file.split("/")[0]]
    downloads = len(written)
    assert downloads > 0
    load(name, root)
    assert len(written) == downloads


@pytest.mark.parametrize(
    ("name", "present"),
    [
        ("MNIST", "MNIST/raw/t10k-images-idx3-ubyte"),
        ("MNIST", "MNIST/notes.txt"),
        ("SVHN", "SVHN/train_32x32.mat"),
        ("CIFAR10", "cifar-10-batches-py/data_batch_1"),
    ],
    ids=lambda word: word.replace("/", "_"),
)
def test_a_download_completes_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, present: str
) -> None:
    write, _, classes = DOWNLOADS[name]
    fake_download(monkeypatch, name, write)
    parts = write(tmp_path / "again")
    put(tmp_path / "data" / present, "")
    check(load(name, tmp_path / "data"), parts, classes)


@pytest.mark.parametrize(
    "error",
    [OSError("no route\nto host"), RuntimeError("File not found or corrupted."), http.client.IncompleteRead(b"half")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("name", DOWNLOADS)
def test_a_failed_download_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    def fail(place: Path) -> None:
        put(place / "half", "half")
        raise error

    fake_download(monkeypatch, name, fail)
    message = refusal(load, name, tmp_path / "data")
    assert message.startswith(f"{name} is not in {tmp_path / 'data'} (expected ")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_download_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(place: Path) -> None:
        put(place / "half", "half")
        raise KeyboardInterrupt

    timeout = socket.getdefaulttimeout()
    fake_download(monkeypatch, "CIFAR10", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("CIFAR10", tmp_path / "data")
    assert list(tmp_path.glob("data/*")) == []
    assert socket.getdefaulttimeout() == timeout


def halve(path: Path) -> None:
    """Cut a file to its first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shorten(path: Path, count: int = 9) -> None:
    """Cut off a file's last bytes."""
    path.write_bytes(path.read_bytes()[:-count])


def overwrite(content: bytes) -> Callable[[Path], object]:
    """Return what replaces a file's content."""
    return lambda path: path.write_bytes(content)


def append(text: str) -> Callable[[Path], object]:
    """Return what adds a line to a text file."""
    return lambda path: path.write_text(f"{path.read_text()}\n{text}\n")


write_cifar10, write_cifar100 = (partial(write_cifar, name=name) for name in ("CIFAR10", "CIFAR100"))
write_packed10, write_packed100 = (partial(write_cifar, name=name, packed=True) for name in ("CIFAR10", "CIFAR100"))
write_gz = partial(write_mnist, suffix=".gz")
OTHER_IMAGES = {"data": pixels(0, 2, 3000), "labels": [1, 2]}
BATCH = "cifar-10-batches-py/data_batch_3"
FROG = "tiny-imagenet-200/val/images/val_1.JPEG"
FISH = "tiny-imagenet-200/train/n01443537/images/n01443537_2.JPEG"

DAMAGES = {
    "gz_halved": ("MNIST", write_gz, "train-images-idx3-ubyte.gz", halve),
    "gz_shortened": ("FashionMNIST", write_gz, "t10k-labels-idx1-ubyte.gz", shorten),
    "gz_garbage": ("MNIST", write_gz, "train-labels-idx1-ubyte.gz", overwrite(b"<html>not found</html>")),
    "idx_halved": ("MNIST", write_mnist, "train-images-idx3-ubyte", halve),
    "idx_only_header": ("MNIST", write_mnist, "t10k-images-idx3-ubyte", overwrite(b"\0\0\x08\3\0\0")),
    "idx_empty": ("MNIST", write_mnist, "t10k-images-idx3-ubyte", overwrite(b"")),
    "idx_longer": ("MNIST", write_mnist, "t10k-labels-idx1-ubyte", lambda p: p.write_bytes(p.read_bytes() + b"\0")),
    "idx_of_signed": ("MNIST", write_mnist, "t10k-labels-idx1-ubyte", overwrite(b"\0\0\x09\1\0\0\0\2\1\2")),
    "mat_halved": ("SVHN", write_svhn, "train_32x32.mat", halve),
    "mat_uncompressed_halved": ("SVHN", partial(write_svhn, compress=False), "test_32x32.mat", halve),
    "mat_empty": ("SVHN", write_svhn, "test_32x32.mat", overwrite(b"")),
    "mat_garbage": ("SVHN", write_svhn, "test_32x32.mat", overwrite(b"<html>not found</html>" * 20)),
    "mat_without_y": ("SVHN", write_svhn, "test_32x32.mat", lambda p: scipy.io.savemat(p, {"X": np.zeros(3)})),
    "tar_halved": ("CIFAR10", write_packed10, "cifar-10-python.tar.gz", halve),
    "tar_cut_in_the_last_file": ("CIFAR100", write_packed100, "cifar-100-python.tar.gz", partial(shorten, count=2000)),
    "tar_garbage": ("CIFAR100", write_packed100, "cifar-100-python.tar.gz", overwrite(b"<html>not found</html>")),
    "tar_empty": ("CIFAR10", write_packed10, "cifar-10-python.tar.gz", overwrite(b"")),
    "pickle_halved": ("CIFAR10", write_cifar10, BATCH, halve),
    "pickle_empty": ("CIFAR10", write_cifar10, BATCH, overwrite(b"")),
    "pickle_garbage": ("CIFAR100", write_cifar100, "cifar-100-python/test", overwrite(b"<html>not found</html>")),
    "pickle_of_a_list": ("CIFAR10", write_cifar10, BATCH, overwrite(python3([1, 2]))),
    "pickle_without_data": ("CIFAR10", write_cifar10, BATCH, overwrite(python3({"labels": [1]}))),
    "pickle_without_labels": ("CIFAR10", write_cifar10, BATCH, overwrite(python3({"data": pixels(0, 2, 3072)}))),
    "pickle_without_names": ("CIFAR100", write_cifar100, "cifar-100-python/meta", overwrite(python3({"names": []}))),
    "pickle_of_other_images": ("CIFAR10", write_cifar10, BATCH, overwrite(python3(OTHER_IMAGES))),
    "zip_halved": ("TinyImageNet", write_tiny_imagenet_zip, "tiny-imagenet-200.zip", halve),
    "zip_shortened": ("TinyImageNet", write_tiny_imagenet_zip, "tiny-imagenet-200.zip", shorten),
    "zip_garbage": ("TinyImageNet", write_tiny_imagenet_zip, "tiny-imagenet-200.zip", overwrite(b"<html></html>")),
    "jpeg_halved": ("TinyImageNet", write_tiny_imagenet, FISH, halve),
    "jpeg_empty": ("TinyImageNet", write_tiny_imagenet, FISH, overwrite(b"")),
    "jpeg_garbage": ("TinyImageNet", write_tiny_imagenet, FROG, overwrite(b"?" * 99)),
    "text_binary": ("TinyImageNet", write_tiny_imagenet, "tiny-imagenet-200/wnids.txt", overwrite(b"\xff\xfe\x00")),
}


@pytest.mark.parametrize(("name", "write", "file", "harm"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_file_is_named(
    tmp_path: Path, name: str, write: Callable[..., object], file: str, harm: Callable[[Path], object]
) -> None:
    write(tmp_path)
    harm(tmp_path / file)
    before = content_of(tmp_path)
    message = refusal(load, name, tmp_path)
    assert str(tmp_path) in message
    assert Path(file).name in message
    assert content_of(tmp_path) == before


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


def test_archive_without_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("cifar-10-batches-py/readme.html"))
    message = refusal(load, "CIFAR10", tmp_path)
    assert message.startswith(f"{path} is damaged")
    assert "data_batch_1" in message


@pytest.mark.parametrize(
    ("name", "write", "file", "harm"),
    [
        ("MNIST", write_mnist, IDX_FILES[1], overwrite(idx(np.zeros(4, np.uint8)))),
        (
            "SVHN",
            write_svhn,
            "train_32x32.mat",
            lambda p: scipy.io.savemat(p, {"X": np.zeros((32, 32, 3, 3), np.uint8), "y": np.ones((2, 1), np.uint8)}),
        ),
        ("CIFAR10", write_cifar10, BATCH, overwrite(python3({"data": pixels(0, 2, 3072), "labels": [1]}))),
    ],
    ids=["MNIST", "SVHN", "CIFAR10"],
)
def test_images_and_labels_of_different_numbers(
    tmp_path: Path, name: str, write: Callable[..., object], file: str, harm: Callable[[Path], object]
) -> None:
    write(tmp_path)
    harm(tmp_path / file)
    message = refusal(load, name, tmp_path)
    assert "labels" in message
    assert str(tmp_path) in message  # which of the user's folders


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'touch done'\ntR.",
        b"cposix\nsystem\n(S'touch done'\ntR.",
        b'c__builtin__\neval\n(S\'open("done", "w")\'\ntR.',
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x10open('done', 'w')\x85R.",
        b"cnumpy\nsave\n(S'done'\nI1\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'done'\ntR.",
    ],
    ids=["os.system", "posix.system", "eval", "exec", "numpy.save", "numpy.fromfile"],
)
def test_a_pickle_of_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: bytes, packed: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path / "data", "CIFAR10", packed, data_batch_3=code)
    message = refusal(load, "CIFAR10", tmp_path / "data")
    assert "data_batch_3 is damaged (it refers to " in message
    assert str(tmp_path / "data") in message
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_codes_above_do_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(b"cos\nsystem\n(S'touch done'\ntR.")
    assert os.listdir(tmp_path) == ["done"]


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


@pytest.mark.parametrize("memory", [None, 0], ids=["memory", "files"])
@pytest.mark.parametrize("image_size", [None, 5])
@pytest.mark.parametrize("content", BROKEN_IMAGES.values(), ids=BROKEN_IMAGES)
def test_broken_image_in_a_folder(tmp_path: Path, content: bytes, image_size: int | None, memory: int | None) -> None:
    write_folder(tmp_path)
    path = tmp_path / "train/bee/deep/er/0.png"
    path.write_bytes(content)
    message = refusal(load, "ImageFolder", tmp_path, image_size=image_size, memory=memory, workers=0)
    assert message.startswith(f"cannot read image {path};")


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


# --------------------------------------------------------------------------------------------------------------------
# Unknown names
# --------------------------------------------------------------------------------------------------------------------


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


# --------------------------------------------------------------------------------------------------------------------
# Folders that exceed the memory
# --------------------------------------------------------------------------------------------------------------------

PARTS_OF_SIX = [torch.tensor([3, 0]), torch.tensor([5]), torch.tensor([1, 2, 4])]
workers = pytest.mark.parametrize("workers", [0, 2], ids=["here", "two_workers"])


@pytest.mark.parametrize(("spare", "kind"), [(0, TensorSplit), (-1, FileSplit)], ids=["fits", "exceeds"])
def test_memory_decides(tmp_path: Path, spare: int, kind: type) -> None:
    write_folder(tmp_path)
    dataset = load("ImageFolder", tmp_path, memory=9 * 3 * 5 * 7 + spare, workers=0)
    assert (type(dataset.train), type(dataset.test)) == (kind, kind)


def test_image_files_are_those_of_torchvision() -> None:
    assert folders.IMG_EXTENSIONS == torchvision.datasets.folder.IMG_EXTENSIONS


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


# --------------------------------------------------------------------------------------------------------------------
# Splits
# --------------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 9])
@pytest.mark.parametrize("memory", [None, 0], ids=["memory", "files"])
def test_sample_takes_no_more_than_asked_for(tmp_path: Path, memory: int | None, count: int) -> None:
    (x, _), _ = write_folder(tmp_path)
    sample = load("ImageFolder", tmp_path, memory=memory, workers=0).train.sample(count)
    assert 1 <= len(sample) <= count
    assert {image.tobytes() for image in sample.numpy()} <= {image.tobytes() for image in x}
    if count >= len(x):
        assert np.array_equal(sample.numpy(), x)


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


@pytest.mark.parametrize("labels", [[3, 0, 10, 3, 7], [255] * 5], ids=str)
def test_labels_out_of_range_in_a_file(tmp_path: Path, labels: list[int]) -> None:
    write_mnist(tmp_path)
    put(tmp_path / IDX_FILES[1], idx(np.array(labels, dtype=np.uint8)))
    message = refusal(load, "MNIST", tmp_path)
    assert message.startswith("the training split of MNIST has labels ")


# --------------------------------------------------------------------------------------------------------------------
# Augmentation
# --------------------------------------------------------------------------------------------------------------------


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def possible(image: Tensor, rows: int, columns: int) -> dict[bytes, tuple[int, int, bool]]:
    """Return every crop of the image padded by reflection, mirrored or not, with its offsets: the slow way."""
    _, height, width = image.shape
    padding = (columns, columns, rows, rows)
    padded = torch.nn.functional.pad(image[None].float(), padding, mode="reflect")[0].to(torch.uint8)
    crops = {}
    for top in range(2 * rows + 1):
        for left in range(2 * columns + 1):
            crop = padded[:, top : top + height, left : left + width]
            crops[crop.numpy().tobytes()] = (top, left, False)
            crops[crop.flip(2).contiguous().numpy().tobytes()] = (top, left, True)
    return crops


SHAPES = {
    (1, 8, 8): (1, 1),
    (3, 16, 16): (2, 2),
    (1, 31, 31): (3, 3),
    (3, 32, 32): (4, 4),
    (2, 64, 40): (4, 4),
    (1, 8, 24): (1, 3),
    (1, 3, 5): (1, 1),
}


@pytest.mark.parametrize("name", ["crop", "crop_flip"])
@pytest.mark.parametrize(("shape", "padding"), SHAPES.items(), ids=map(str, SHAPES))
def test_every_crop_occurs_and_no_other(shape: tuple[int, ...], padding: tuple[int, int], name: str) -> None:
    image = torch.from_numpy(pixels(0, *shape))
    crops = possible(image, *padding)
    if name == "crop":
        crops = {crop: draw for crop, draw in crops.items() if not draw[2]}
    result = augment(image.expand(2500, *shape), name, seeded())
    assert (result.dtype, result.shape) == (torch.uint8, (2500, *shape))
    drawn = [crops[one.tobytes()] for one in result.contiguous().numpy()]
    assert set(drawn) == set(crops.values())
    if name == "crop_flip":
        assert 0.45 < sum(flip for _, _, flip in drawn) / len(drawn) < 0.55


@pytest.mark.parametrize("name", ["crop", "crop_flip"])
def test_each_image_is_a_crop_of_itself(name: str) -> None:
    images = torch.from_numpy(pixels(0, 40, 3, 12, 12))
    draws = []
    for image, result in zip(images, augment(images, name, seeded()), strict=True):
        draws.append(possible(image, 1, 1)[result.contiguous().numpy().tobytes()])
    assert len(set(draws)) > 5  # each image has a draw of its own


@pytest.mark.parametrize("name", ["crop", "crop_flip"])
def test_augment_is_seeded_and_leaves_its_input(name: str) -> None:
    images = torch.from_numpy(pixels(0, 30, 3, 8, 8))
    before = images.clone()
    first, again, other = (augment(images, name, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, before)


def test_no_augmentation_draws_nothing() -> None:
    images = torch.from_numpy(pixels(0, 3, 1, 8, 8))
    generator = seeded()
    before = generator.get_state()
    assert augment(images, "none", generator) is images
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_normalise_subtracts_and_divides(channels: int, dtype: torch.dtype, tolerance: float) -> None:
    images = pixels(0, 4, channels, 6, 5)
    mean, std = np.array([0.4914, 0.1, 0.9])[:channels], np.array([0.2470, 0.5, 0.1])[:channels]
    result = normalise(torch.from_numpy(images), torch.tensor(mean, dtype=dtype), torch.tensor(std, dtype=dtype))
    assert (result.dtype, result.shape) == (dtype, images.shape)
    assert result.is_contiguous(memory_format=torch.channels_last)
    expected = (images / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(result.numpy(), expected, rtol=0, atol=tolerance)
