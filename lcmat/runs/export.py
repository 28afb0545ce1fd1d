"""A chosen subset as a folder of images, ready to be used by anything that reads one."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from lcmat.data import Dataset
from lcmat.data.labels import key_of
from lcmat.data.listing import TEST_FOLDERS
from lcmat.errors import UserError, shown
from lcmat.files import check_writable, unfinished_folder
from lcmat.selection import Subset

# A longer name of a folder or file is cut, in bytes: file systems allow 255.
LONGEST = 200
LONGEST_PATH = 4000


def check_export(folder: Path, dataset: Dataset, link: bool = False) -> None:
    """Find before any work what would stop an export of any subset. Raises UserError; writes nothing.

    The folder must be new or empty, its own and not a link, and outside of the dataset's; links need image files.
    """
    longest = max((len(os.fsencode(name)) for name in dataset.train_names or ()), default=2 * LONGEST)
    lengths = [len(os.fsencode(part)) for part in folder.parts]
    if max(lengths, default=0) > LONGEST or sum(lengths) + longest > LONGEST_PATH or "\0" in str(folder):
        raise UserError(f"{shown(str(folder))} is too long or no name of a folder; name another (--export)")
    if folder.is_symlink():
        raise UserError(f"{folder} is a link; name a new folder (--export)")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; name a new folder (--export)")
    if folder.is_dir() and (os.path.ismount(folder) or folder.samefile(Path.cwd())):
        raise UserError(f"{folder} is in use; name a new folder in it (--export)")
    check_writable(folder.parent)
    paths = dataset.train_files
    if paths is None and link:
        raise UserError(f"--link is for image files, and {dataset.name} has none: its images are written; leave it out")
    if paths is None:
        return
    read = [(dataset.train.root / name).resolve() for name in ("train", *TEST_FOLDERS)]
    if any(folder.resolve().is_relative_to(place) for place in read):
        raise UserError(f"{folder} would be taken for a part of the dataset; name a folder elsewhere (--export)")
    lined = [name for name in dataset.train_names if "\n" in str(name)]
    if lined:
        raise UserError(f"chosen.txt has a line for each name, and {shown(str(lined[0]))} has several; rename it")


def export(dataset: Dataset, subset: Subset, folder: Path, link: bool = False) -> int:
    """Write the chosen training images to FOLDER/train/CLASS/ and their list to FOLDER/chosen.txt; return how many.

    Image files of one's own (ImageFolder) are copied, or linked to, under their names; images of other datasets are
    written as PNG, named by their index. CLASS is the label that they are trained on under, also a wrong one
    (--label_noise); then the file's own class stands before its name. Names that no file can have, or that two would
    share, are changed (`safe_names`). The list holds file names below the dataset's train/, or indices, in the order
    chosen. All is put together beside FOLDER and renamed into its place in one step.
    """
    check_export(folder, dataset, link)
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with unfinished_folder(folder.parent) as scratch:
        if dataset.train_files is None:
            names = _write_pixels(dataset, subset, scratch / "train")
        else:
            names = _copy_files(dataset, subset, scratch / "train", link)
        (scratch / "chosen.txt").write_bytes(b"".join(os.fsencode(name) + b"\n" for name in names))
        os.chmod(scratch, 0o755)
        if folder.exists():
            folder.rmdir()
        scratch.rename(folder)
    return len(names)


def _copy_files(dataset: Dataset, subset: Subset, folder: Path, link: bool) -> list[str]:
    paths, own_names = dataset.train_files, dataset.train_names
    labels = [dataset.classes[label] for label in dataset.train.labels.tolist()]
    indices = subset.indices.tolist()
    # Files under their own class keep their names, whatever others come to.
    targets = {i: own_names[i] for i in indices if own_names[i].parts[0] == labels[i]}
    moved = [i for i in indices if i not in targets]
    wanted = [Path(labels[i], "-".join(own_names[i].parts)) for i in moved]
    taken = {_folded(str(name)) for name in targets.values()}
    names = [f"{name.parent}/{file}" for name, file in zip(wanted, (_cut(name.name) for name in wanted), strict=True)]
    targets |= dict(zip(moved, map(Path, _unique(names, taken)), strict=True))
    for i in indices:
        target = folder / targets[i]
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.symlink_to(paths[i].resolve())
        else:
            shutil.copy2(paths[i], target)
    return [own_names[i].as_posix() for i in indices]


def _write_pixels(dataset: Dataset, subset: Subset, folder: Path) -> list[str]:
    chosen = dataset.train.take(torch.from_numpy(subset.indices))
    names = [str(index) for index in subset.indices]
    folders = safe_names(dataset.classes)
    for label in chosen.labels.unique().tolist():
        if folders[label] != dataset.classes[label]:
            warnings.warn(f"class {shown(dataset.classes[label])} is written as {folders[label]}", stacklevel=3)
    for images, labels, positions in chosen.batches(torch.arange(len(chosen)).split(256)):
        for image, label, position in zip(images.cpu(), labels.tolist(), positions.tolist(), strict=True):
            target = folder / folders[label] / f"{int(names[position]):08}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            pixels = image[0].numpy() if image.shape[0] == 1 else image.permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(target)
    return names


def safe_names(classes: Sequence[str]) -> list[str]:
    """Return a folder name for each class, all different, also to file systems that ignore case.

    A class keeps its name where that can be one; else slashes and control characters become "-", dots and spaces at
    its ends are left out, and what is too long is cut; a name that another class has gets a number.
    """
    safe = [_safe(name) for name in classes]
    keep = {_folded(name): i for i, name in reversed(list(enumerate(classes))) if safe[i] == name}
    others = [i for i in range(len(classes)) if keep.get(_folded(classes[i])) != i]
    renamed = dict(zip(others, _unique([safe[i] for i in others], set(keep)), strict=True))
    return [renamed.get(i, name) for i, name in enumerate(classes)]


def _safe(name: str) -> str:
    return _cut(re.sub(r"[/\x00-\x1f\x7f]", "-", name).strip(". ") or "class")


def _folded(name: str) -> str:
    """Return what is equal for names that some file system takes for one."""
    return key_of(name).casefold()


def _cut(name: str) -> str:
    """Return a name of at most LONGEST bytes: of a longer one its beginning, a hash of all of it, and its suffix."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST:
        return name
    suffix = os.fsencode(Path(name).suffix)[-10:]
    short = encoded[: LONGEST - 20].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(encoded).hexdigest()[:8]}{os.fsdecode(suffix)}"


def _unique(names: Sequence[str], taken: set[str]) -> list[str]:
    """Return the names, each with a number before its suffix where another or one of `taken` is the same."""
    taken, result = set(taken), []
    for name in names:
        path, number, unique = Path(name), 1, name
        while _folded(unique) in taken:
            number += 1
            unique = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        taken.add(_folded(unique))
        result.append(unique)
    return result
