"""A chosen subset as a folder of images, ready to be used by anything that reads one."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch
from PIL import Image

from lcmat.data.splits import Dataset
from lcmat.errors import UserError
from lcmat.selection.subset import Subset


def check_export(folder: Path) -> None:
    """Raise UserError unless the folder is new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; name a new folder (--export)")


def export(dataset: Dataset, subset: Subset, folder: Path, link: bool = False) -> int:
    """Write the chosen training images to FOLDER/train/CLASS/ and their list to FOLDER/chosen.txt; return how many.

    Image files of one's own (ImageFolder) are copied, or linked to, under their names; images of other datasets are
    written as PNG, named by their index. CLASS is the label that they are trained on under, also a wrong one
    (--label_noise); then the file's own class stands before its name. The list holds file names below the dataset's
    train/, or indices, in the order chosen. All is put together beside FOLDER and renamed into its place in one step.
    """
    check_export(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        paths = dataset.train_files
        place = _write_pixels if paths is None else _copy_files
        names = place(dataset, subset, scratch / "train", *(() if paths is None else (paths, link)))
        (scratch / "chosen.txt").write_text("".join(f"{name}\n" for name in names))
        os.chmod(scratch, 0o755)
        if folder.exists():
            folder.rmdir()
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return len(names)


def _copy_files(dataset: Dataset, subset: Subset, folder: Path, paths: list[Path], link: bool) -> list[str]:
    root = _root_of(paths, dataset.classes)
    names = [paths[index].relative_to(root).as_posix() for index in subset.indices]
    for index, name in zip(subset.indices, names, strict=True):
        own, label = name.partition("/")[0], dataset.classes[int(dataset.train.labels[index])]
        target = folder / (name if own == label else f"{label}/{own}-{name.partition('/')[2].replace('/', '-')}")
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.symlink_to(paths[index].resolve())
        else:
            shutil.copy2(paths[index], target)
    return names


def _root_of(paths: list[Path], classes: tuple[str, ...]) -> Path:
    """Return the folder that the class folders lie in."""
    return next(parent.parent for parent in paths[0].parents if parent.name == classes[0])


def _write_pixels(dataset: Dataset, subset: Subset, folder: Path) -> list[str]:
    chosen = dataset.train.take(torch.from_numpy(subset.indices))
    names = [str(index) for index in subset.indices]
    for images, labels, positions in chosen.batches(torch.arange(len(chosen)).split(256)):
        for image, label, position in zip(images.cpu(), labels.tolist(), positions.tolist(), strict=True):
            target = folder / _safe(dataset.classes[label]) / f"{int(names[position]):08}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            pixels = image[0].numpy() if image.shape[0] == 1 else image.permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(target)
    return names


def _safe(name: str) -> str:
    """Return a class name as the name of a folder."""
    return name.replace("/", "-").strip(". ") or "class"
