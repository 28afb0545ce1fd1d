"""Digits, MNIST, SVHN and CIFAR from files in the original format."""

import gzip
import os
import pickle
import struct
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from sklearn.datasets import load_digits

from lcmat.data import archives, load
from tests.data_files import (
    BATCH,
    CIFAR10_NAMES,
    DIGITS,
    IDX_FILES,
    SMALL_PARTS,
    check,
    content_of,
    encoded,
    idx,
    overwrite,
    pixels,
    put,
    python3,
    refusal,
    write_cifar,
    write_cifar10,
    write_mnist,
    write_parquet,
    write_parquet_parts,
    write_svhn,
)

pytestmark = pytest.mark.usefixtures("hosts")


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


def test_the_original_order_is_that_of_the_original_files_alone(tmp_path: Path) -> None:
    """Rows of Parquet files, of folders and of the hub have one of their own, and it is said why that matters."""
    write_parquet_parts(tmp_path / "CIFAR10", SMALL_PARTS)
    message = refusal(load, "CIFAR10", tmp_path, file_order="original")
    assert f"{tmp_path / 'CIFAR10'} holds Parquet files, whose rows stand in another order" in message
    for name in ("digits", "ImageFolder", f"hf:{tmp_path / 'CIFAR10'}"):
        assert "has no archive whose order could be kept" in refusal(load, name, tmp_path, file_order="original")
    assert "'originl'; did you mean original" in refusal(load, "CIFAR10", tmp_path, file_order="originl")
    parts, classes = write_cifar(tmp_path, "CIFAR10")
    check(load("CIFAR10", tmp_path, file_order="original"), parts, classes)


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


@pytest.mark.parametrize("labels", [[3, 0, 10, 3, 7], [255] * 5], ids=str)
def test_labels_out_of_range_in_a_file(tmp_path: Path, labels: list[int]) -> None:
    write_mnist(tmp_path)
    put(tmp_path / IDX_FILES[1], idx(np.array(labels, dtype=np.uint8)))
    message = refusal(load, "MNIST", tmp_path)
    assert message.startswith("the training split of MNIST has labels ")
