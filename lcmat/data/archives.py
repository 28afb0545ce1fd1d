"""The published image datasets, read from their original files: found locally first, else downloaded and checked."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
import torch

from lcmat.data.sources import damage, download, fetch
from lcmat.data.splits import TensorSplit, held_out
from lcmat.errors import UserError

Splits = tuple[TensorSplit, TensorSplit, tuple[str, ...]]

# Where Debian's dataset-fashion-mnist puts the original files.
SYSTEM_FOLDERS = {"FashionMNIST": (Path("/usr/share/datasets/fashion-mnist"),)}


def digits(folder: Path, image_size: int | None) -> Splits:
    """Return scikit-learn's 1,797 digits of 8×8 pixels, always split the same: 1,297 for training, 500 for testing."""
    from sklearn.datasets import load_digits  # costs seconds and 120 MB, which only digits need

    data = load_digits()
    images = torch.from_numpy((data.images * (255 / 16)).round().astype(np.uint8))[:, None]
    labels = torch.from_numpy(data.target.astype(np.int64))
    train, test = held_out(labels, ratio=500, seed=0)
    names = tuple(str(name) for name in data.target_names)
    return TensorSplit(images[train], labels[train]), TensorSplit(images[test], labels[test]), names


def mnist(name: str) -> Callable[[Path, int | None], Splits]:
    """Return the loader of MNIST or FashionMNIST: four IDX files, gzipped or not."""

    def load(folder: Path, image_size: int | None) -> Splits:
        from torchvision import datasets  # here and below: takes seconds, which other datasets need not pay

        source = getattr(datasets, name)
        places = [folder / name / "raw", folder / name, folder, *SYSTEM_FOLDERS.get(name, ())]
        files = (
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        )
        place = _first_with(places, files)
        if place is None:
            download(
                name, folder, lambda root: source(root, download=True), f"{folder / name / 'raw'}/{files[0]}[.gz] …"
            )
            place = folder / name / "raw"
        train_x, train_y, test_x, test_y = (_read_idx(_plain_or_gz(place, file)) for file in files)
        names = tuple(source.classes)
        return _split(train_x[:, None], train_y, place), _split(test_x[:, None], test_y, place), names

    return load


def svhn(folder: Path, image_size: int | None) -> Splits:
    """Return SVHN's cropped digits: train_32x32.mat and test_32x32.mat."""
    files = ("train_32x32.mat", "test_32x32.mat")
    place = next((p for p in (folder / "SVHN", folder) if all((p / file).exists() for file in files)), None)
    if place is None:

        def both(root: Path) -> None:
            from torchvision.datasets import SVHN

            for split in ("train", "test"):
                SVHN(root / "SVHN", split, download=True)

        download("SVHN", folder, both, f"{folder / 'SVHN'}/train_32x32.mat and test_32x32.mat")
        place = folder / "SVHN"
    parts = []
    for file in files:
        with damage(place / file):
            content = scipy.io.loadmat(place / file)
            labels = content["y"].reshape(-1).astype(np.int64) % 10  # the files write the digit 0 as 10
            parts.append(_split(content["X"].transpose(3, 2, 0, 1), labels, place / file))
    return *parts, tuple(str(digit) for digit in range(10))


def cifar(name: str) -> Callable[[Path, int | None], Splits]:
    """Return the loader of CIFAR10 or CIFAR100, python version: the folder, or the archive, which is not unpacked."""
    ten = name == "CIFAR10"
    train = [f"data_batch_{i}" for i in range(1, 6)] if ten else ["train"]
    test, meta = ("test_batch", "batches.meta") if ten else ("test", "meta")
    label_key, names_key = ("labels", "label_names") if ten else ("fine_labels", "fine_label_names")

    def load(folder: Path, image_size: int | None) -> Splits:
        from torchvision import datasets

        source = getattr(datasets, name)
        files = [*train, test, meta]
        contents = _cifar_contents(folder, name, source, files)
        if contents is None:
            expected = f"{folder}/{source.base_folder}/, {folder}/{source.filename} or {folder}/{name}/train-*.parquet"
            download(name, folder, lambda root: fetch(source.url, root, source.tgz_md5), expected)
            contents = _cifar_contents(folder, name, source, files)
        parts = {}
        for file in files[:-1]:
            origin, content = contents[file]
            with damage(origin):
                parts[file] = _split(content["data"].reshape(-1, 3, 32, 32), content[label_key], origin)
        origin, content = contents[meta]
        with damage(origin):
            names = tuple(content[names_key])
        images, labels = (torch.cat([getattr(parts[file], part) for file in train]) for part in ("images", "labels"))
        return TensorSplit(images, labels), parts[test], names

    return load


def _cifar_contents(folder: Path, name: str, source: type, files: list[str]) -> dict[str, tuple[object, dict]] | None:
    """Return where each file was found and its unpickled content, or None if neither folder nor archive is there."""
    for place in (folder / source.base_folder, folder / name / source.base_folder):
        if all((place / file).exists() for file in files):
            return {file: (place / file, _unpickle((place / file).read_bytes(), place / file)) for file in files}
    for archive in (folder / source.filename, folder / name / source.filename):
        if archive.exists():
            with damage(archive), tarfile.open(archive) as opened:
                raw = {file: opened.extractfile(f"{source.base_folder}/{file}").read() for file in files}
            origins = {file: f"{archive}: {file}" for file in files}
            return {file: (origins[file], _unpickle(raw[file], origins[file])) for file in files}
    return None


class _ArraysOnly(pickle.Unpickler):
    """Loads NumPy arrays and plain containers, never code: the files have no checksum unless we downloaded them."""

    def find_class(self, module: str, name: str) -> object:
        allowed = {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct")}
        if (module.replace("numpy._core", "numpy.core"), name) in allowed:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 pickles bytes for protocol 2
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


def _unpickle(content: bytes, origin: object) -> dict:
    with damage(origin):
        return _ArraysOnly(io.BytesIO(content), encoding="latin1").load()


def _read_idx(path: Path) -> np.ndarray:
    """Return the array of an IDX file: two zero bytes, type 8 (uint8), the rank, the sizes in big-endian, the data."""
    with damage(path):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if content[:3] != b"\0\0\x08":
            raise ValueError("not an IDX file of bytes")
        rank = content[3]
        shape = np.frombuffer(content, ">i4", rank, 4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _plain_or_gz(folder: Path, file: str) -> Path | None:
    return next((p for p in (folder / file, folder / f"{file}.gz") if p.exists()), None)


def _first_with(places: list[Path], files: tuple[str, ...]) -> Path | None:
    return next((place for place in places if all(_plain_or_gz(place, file) for file in files)), None)


def _split(images: np.ndarray, labels: object, origin: object) -> TensorSplit:
    if len(images) != len(labels):
        raise UserError(f"{origin} has {len(images)} images but {len(labels)} labels; download or copy it again")
    # Copied: buffers of files are read-only.
    return TensorSplit(torch.from_numpy(np.array(images)), torch.from_numpy(np.array(labels, dtype=np.int64)))
