"""TinyImageNet: 200 classes of 500 training images, 64×64, from the original folder or its zip file."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from lcmat.data.progress import decode_all
from lcmat.data.sources import damage, download, fetch
from lcmat.data.splits import TensorSplit, to_pixels
from lcmat.errors import UserError

URL, MD5 = "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"
BASE = "tiny-imagenet-200"


def tiny_imagenet(folder: Path, image_size: int | None) -> tuple[TensorSplit, TensorSplit, tuple[str, ...]]:
    """Return its training images, its validation images as the test split (test labels were never published), names."""
    for place in (folder, folder / "TinyImageNet"):
        if (place / BASE).is_dir():
            root = place / BASE
            files = {str(path.relative_to(place)): path for path in root.rglob("*") if path.is_file()}
            return _parse(files, lambda path: path.read_bytes(), root, image_size)
        archive = place / f"{BASE}.zip"
        if archive.exists():
            with damage(archive), zipfile.ZipFile(archive) as opened:
                return _parse({name: name for name in opened.namelist()}, opened.read, archive, image_size)
    expected = f"{folder / BASE}/ or {folder / BASE}.zip"
    download("TinyImageNet", folder, lambda place: fetch(URL, place, MD5), expected)
    return tiny_imagenet(folder, image_size)


def _parse(files: dict, read: Callable, origin: Path, image_size: int | None) -> tuple:
    def lines(name: str) -> list[str]:
        if f"{BASE}/{name}" not in files:
            raise UserError(f"{origin} lacks {name}; unpack or download it again")
        with damage(f"{origin}: {name}"):
            return [line for line in read(files[f"{BASE}/{name}"]).decode().splitlines() if line.strip()]

    def number(wnid: str, where: str) -> int:
        if wnid not in numbers:
            raise UserError(f"{origin}: {where} has class {wnid}, which wnids.txt lacks; unpack or download it again")
        return numbers[wnid]

    def decode(name: str) -> torch.Tensor:
        with damage(f"{origin}: {name}"):
            return to_pixels(Image.open(io.BytesIO(read(files[name]))), "RGB", image_size or 64)

    wnids = sorted(line.strip() for line in lines("wnids.txt"))
    numbers = {wnid: i for i, wnid in enumerate(wnids)}
    words = dict(line.split("\t", 1) for line in lines("words.txt") if "\t" in line)
    train = sorted(name for name in files if name.startswith(f"{BASE}/train/") and name.lower().endswith(".jpeg"))
    train_labels = [number(name.split("/")[2], "train/") for name in train]
    rows = [line.split("\t") for line in lines("val/val_annotations.txt")]
    cut = [row for row in rows if len(row) < 2]
    if cut:
        raise UserError(
            f"{origin}: a line of val/val_annotations.txt is cut ({cut[0][0]}); unpack or download it again"
        )
    test = [f"{BASE}/val/images/{row[0]}" for row in rows]
    test_labels = [number(row[1], "val/val_annotations.txt") for row in rows]
    missing = [name for name in test if name not in files] or ["train/*/images/*.JPEG"] * (not train)
    if missing:
        raise UserError(f"{origin} lacks {missing[0].removeprefix(BASE + '/')}; unpack or download it again")
    return (
        TensorSplit(decode_all(decode, train, "training images"), torch.tensor(train_labels)),
        TensorSplit(decode_all(decode, test, "test images"), torch.tensor(test_labels)),
        tuple(words.get(wnid, wnid) for wnid in wnids),
    )
