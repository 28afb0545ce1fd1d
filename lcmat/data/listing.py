"""Which image files an image folder holds, and of which class: train/CLASS/… and test/CLASS/….

What is no image, has a hidden name (one that begins with a dot) or is a link to a folder below a class folder is left
out. One line says how much of it there is, and how many images come from subfolders of class folders.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lcmat.data.labels import key_of
from lcmat.errors import UserError

# As torchvision's ImageFolder, which takes seconds to import.
IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
TEST_FOLDERS = ("test", "val", "valid", "validation")  # the first that there is


@dataclass(frozen=True, eq=False)
class Part:
    """A split's folder, its image files in order of their names within each class, and their labels (n,) int64."""

    root: Path
    paths: list[Path]
    labels: Tensor


def listed(folder: Path) -> tuple[tuple[str, ...], Part, Part]:
    """Return the class names and the files to train and to test on; test folders are matched by name.

    Raises UserError for a class without training images, and for one that only the test folder has.
    """
    seen = _Seen()
    train_root, test_root = _roots(folder, seen)
    classes = _class_folders(train_root, seen)
    keys = [key_of(name) for name in classes]
    if len(set(keys)) < len(classes):
        raise UserError(f"{train_root} has two class folders whose names differ in how letters are encoded alone")
    of_test = {key_of(name): name for name in _class_folders(test_root, seen)}
    if unknown := sorted(of_test.keys() - set(keys)):
        raise UserError(f"{test_root} has a class {unknown[0]} that {train_root} lacks; make one folder for each class")
    train = _part(train_root, classes, seen)
    test = _part(test_root, [of_test.get(key) for key in keys], seen)
    if empty := set(range(len(classes))) - set(train.labels.tolist()):
        raise UserError(f"{train_root / classes[min(empty)]} {NO_IMAGES}; add some or remove it")
    if not test.paths:
        raise UserError(f"{test_root} {NO_IMAGES}")
    seen.say(folder)
    _hint_at_a_level_too_many(train, classes)
    return classes, train, test


NO_IMAGES = f"holds no images ({', '.join(IMG_EXTENSIONS)})"
OTHER_FORMAT, OTHER_TEST = "of other formats", "further test folders"


@dataclass
class _Seen:
    """What was left out, by kind, and how many images lie in subfolders of class folders."""

    left_out: Counter = field(default_factory=Counter)
    formats: set[str] = field(default_factory=set)
    tests: set[str] = field(default_factory=set)
    nested: int = 0

    def say(self, folder: Path) -> None:
        which = {OTHER_FORMAT: self.formats, OTHER_TEST: self.tests}
        parts = []
        for kind, count in sorted(self.left_out.items()):
            names = f" ({', '.join(sorted(which[kind])[:5])})" if kind in which else ""
            parts.append(f"{kind}{names}: {count:,}")
        lines = [f"left out, {', '.join(parts)}"] if parts else []
        if self.nested:
            lines.append(f"taken from subfolders of class folders: {self.nested:,}")
        if lines:
            warnings.warn(f"{folder}: {'; '.join(lines)}", stacklevel=3)


def _roots(folder: Path, seen: _Seen) -> tuple[Path, Path]:
    train_root, tests = folder / "train", [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()]
    for root in (train_root, *(tests[:1] or [folder / "test"])):
        if not root.is_dir():
            raise UserError(
                f"{root} is missing; ImageFolder expects {folder}/train/CLASS/*.png and {folder}/test/CLASS/… "
                f"(or {', '.join(TEST_FOLDERS[1:])})"
            )
    for other in tests[1:]:
        seen.left_out[OTHER_TEST] += 1
        seen.tests.add(other.name)
    return train_root, tests[0]


def _class_folders(root: Path, seen: _Seen) -> tuple[str, ...]:
    names, beside = [], []
    for entry in _entries(root, seen):
        (names if entry.is_dir() else beside).append(entry.name)
    if not names:
        count = sum(Path(name).suffix.lower() in IMG_EXTENSIONS for name in beside)
        loose = f", but {count:,} images of its own" if count else ""
        raise UserError(f"{root} has no class folders{loose}; make one folder for each class")
    seen.left_out.update({"beside the class folders": len(beside)} if beside else {})
    return tuple(sorted(names))


def _part(root: Path, class_folders: Sequence[str | None], seen: _Seen) -> Part:
    """Return the image files in each of these folders below a root; None: the class has none."""
    paths, labels = [], []
    for number, name in enumerate(class_folders):
        found = [] if name is None else sorted(_images(root / name, seen))
        seen.nested += sum(path.parent != root / name for path in found)
        paths += found
        labels += [number] * len(found)
    return Part(root, paths, torch.tensor(labels, dtype=torch.int64))


def _images(folder: Path, seen: _Seen) -> Iterator[Path]:
    for entry in _entries(folder, seen):
        path = folder / entry.name
        if entry.is_dir() and entry.is_symlink():
            seen.left_out["linked folders in class folders"] += 1
        elif entry.is_dir():
            yield from _images(path, seen)
        elif path.suffix.lower() not in IMG_EXTENSIONS:
            seen.left_out[OTHER_FORMAT] += 1
            seen.formats.add(path.suffix.lower() or "no suffix")
        elif entry.is_file():
            yield path
        else:
            seen.left_out["neither file nor folder"] += 1  # a FIFO would be waited for


def _entries(folder: Path, seen: _Seen) -> Iterator[os.DirEntry]:
    """Yield what a folder holds under names that are not hidden. Raises UserError for a link to nothing."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"cannot read folder {folder}: {error.strerror}") from None
    for entry in entries:
        if entry.name.startswith("."):
            seen.left_out["hidden"] += 1
        elif entry.is_symlink() and not os.path.exists(entry.path):
            raise UserError(f"{entry.path} is a link to nothing; mend or remove it")
        else:
            yield entry


def _hint_at_a_level_too_many(train: Part, classes: tuple[str, ...]) -> None:
    """Say it where the only class folder holds none but further folders: these may be meant as the classes."""
    if len(classes) == 1 and all(path.parent != train.root / classes[0] for path in train.paths):
        below = sorted({path.relative_to(train.root).parts[1] for path in train.paths})
        more = ", …" if len(below) > 5 else ""
        warnings.warn(
            f"{train.root} has one class, {classes[0]}, and all of its images lie in subfolders "
            f"({', '.join(below[:5])}{more}); if these are the classes, move them up to {train.root}",
            stacklevel=4,
        )
