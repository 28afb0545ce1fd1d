"""Files that are absent, downloaded in part, incomplete or damaged: one clear line, and the folder as it was."""

import http.client
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torchvision

from lcmat.data import load
from tests.data_files import (
    BATCH,
    CIFAR10_NAMES,
    DIGITS,
    FISH,
    IDX_FILES,
    TINY_NAMES,
    check,
    content_of,
    halve,
    overwrite,
    pixels,
    put,
    python3,
    refusal,
    shorten,
    write_cifar,
    write_cifar10,
    write_cifar100,
    write_mnist,
    write_svhn,
    write_tiny_imagenet,
    write_tiny_imagenet_zip,
)

pytestmark = pytest.mark.usefixtures("hosts")


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


write_packed10, write_packed100 = (partial(write_cifar, name=name, packed=True) for name in ("CIFAR10", "CIFAR100"))
write_gz = partial(write_mnist, suffix=".gz")
OTHER_IMAGES = {"data": pixels(0, 2, 3000), "labels": [1, 2]}
FROG = "tiny-imagenet-200/val/images/val_1.JPEG"
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
