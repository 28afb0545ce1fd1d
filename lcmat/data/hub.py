"""Any Hugging Face image-classification dataset: by name, from a folder, or from Parquet files."""

from __future__ import annotations

import io
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import torch
from PIL import Image

from lcmat.data.folders import DEFAULT_SIZE
from lcmat.data.progress import decode_all
from lcmat.data.sources import IMAGE_ERRORS, damage
from lcmat.data.splits import TensorSplit, to_pixels
from lcmat.errors import UserError, suggest

LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class")
TRAIN_SPLITS = ("train", "training")
TEST_SPLITS = ("test", "validation", "valid", "val")

Columns = dict[str, str | None]  # image_column, label_column, train_split, test_split; None finds it


def hub(source: str, image_size: int | None, columns: Columns) -> tuple[TensorSplit, TensorSplit, tuple[str, ...]]:
    """Return the training and test split of a Hugging Face dataset, given by its name or a local path."""
    path = Path(source)
    parts = parquet_files(path) if path.exists() else None
    tables = _read_parquet(parts) if parts else _load(source)
    return _splits(source, tables, image_size, columns)


def parquet(folder: Path, image_size: int | None) -> tuple[TensorSplit, TensorSplit, tuple[str, ...]]:
    """Return the splits of a folder's Parquet files, `train-*.parquet` and `test-*.parquet`."""
    return _splits(str(folder), _read_parquet(parquet_files(folder)), image_size, {})


def parquet_files(folder: Path) -> dict[str, list[Path]] | None:
    """Return the Parquet files of each split below `folder`, by their names (`train-00000-of-00001.parquet`)."""
    files = sorted(folder.rglob("*.parquet")) if folder.is_dir() else []
    splits: dict[str, list[Path]] = {}
    for file in files:
        split = file.parent.name if file.stem.isdigit() else file.stem.split("-")[0]  # train/0000.parquet
        splits.setdefault(split, []).append(file)
    return splits or None


def _read_parquet(files: dict[str, list[Path]]) -> dict:
    import pyarrow
    import pyarrow.parquet
    from datasets import Dataset

    tables = {}
    for split, parts in files.items():
        read = []
        for part in parts:
            try:
                read.append(pyarrow.parquet.read_table(part))
            except (pyarrow.ArrowException, OSError) as error:
                raise UserError(f"{part} is damaged ({str(error).splitlines()[0]}); copy it again") from error
        with damage(", ".join(str(part) for part in parts)):
            tables[split] = Dataset(pyarrow.concat_tables(read))
    return tables


def _load(source: str) -> dict:
    import datasets
    import huggingface_hub

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    huggingface_hub.utils.logging.set_verbosity_error()
    host = urlparse(huggingface_hub.constants.ENDPOINT).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:  # no network: what is cached may still serve; else fail now and not after five retries
        huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        return dict(datasets.load_dataset(source))
    except Exception as error:  # the library raises a dozen types of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"cannot load Hugging Face dataset '{source}' ({reason}); "
            f"give a name on the hub or a folder with train-*.parquet and test-*.parquet"
        ) from error


def _splits(source: str, tables: dict, image_size: int | None, columns: Columns) -> tuple:
    train = tables[_choose("split", columns.get("train_split"), TRAIN_SPLITS, tables, source)]
    test = tables[_choose("split", columns.get("test_split"), TEST_SPLITS, tables, source)]
    images = [name for name, feature in train.features.items() if type(feature).__name__ == "Image"]
    image_column = _choose("column", columns.get("image_column"), (*images, "img", "image"), train.features, source)
    named = [name for name, feature in train.features.items() if hasattr(feature, "names")]
    label_column = _choose("column", columns.get("label_column"), (*LABEL_COLUMNS, *named), train.features, source)
    classes, numbers = _classes(train, label_column, source)
    if image_column not in images and "bytes" not in getattr(train.features[image_column], "keys", set)():
        raise UserError(f"{source}: column '{image_column}' holds no images; name another with --image_column")
    image_mode, size = _format([train, test], image_column, image_size, source)
    return *(
        TensorSplit(
            decode_all(lambda row: _decode(row, image_mode, size, source), _raw(table, image_column), f"{part} images"),
            _labels(table, label_column, numbers, source),
        )
        for part, table in (("training", train), ("test", test))
    ), classes


def _choose(kind: str, wanted: str | None, known: tuple[str, ...], present: dict, source: str) -> str:
    flags = "--train_split/--test_split" if kind == "split" else "--image_column/--label_column"
    if wanted is not None and wanted not in present:
        raise UserError(f"{source} has no {kind} '{wanted}'{suggest(wanted, present)}")
    found = wanted or next((name for name in known if name in present), None)
    if found is None:
        raise UserError(f"{source}: none of its {kind}s {list(present)} is one of {list(known)}; name it with {flags}")
    return found


def _classes(train: object, column: str, source: str) -> tuple[tuple[str, ...], dict]:
    """Return the class names and the number of each label that may occur."""
    names = getattr(train.features[column], "names", None)
    if names:
        return tuple(names), {i: i for i in range(len(names))}
    try:
        values = sorted(set(train[column][:]))
    except TypeError:  # a missing label among others, or no labels at all but images, lists, …
        raise UserError(f"{source}: column '{column}' holds no labels; name another with --label_column") from None
    return tuple(str(value) for value in values), {value: i for i, value in enumerate(values)}


def _labels(table: object, column: str, numbers: dict, source: str) -> torch.Tensor:
    labels = table[column][:]
    unknown = [label for label in labels if label not in numbers]
    if unknown:
        raise UserError(f"{source}: label {unknown[0]!r} in column '{column}' is none of the training classes")
    return torch.tensor([numbers[label] for label in labels], dtype=torch.int64)


def _raw(table: object, column: str) -> list[dict]:
    import datasets

    return table.cast_column(column, datasets.Image(decode=False))[column][:]


def _decode(row: dict | None, mode: str, size: int | None, source: str) -> torch.Tensor:
    with _readable(row, source):
        return to_pixels(_open(row), mode, size)


def _open(row: dict) -> Image.Image:
    return Image.open(io.BytesIO(row["bytes"]) if row["bytes"] is not None else row["path"])


@contextmanager
def _readable(row: dict | None, source: str) -> Iterator[None]:
    try:
        yield
    except (*IMAGE_ERRORS, TypeError) as error:  # TypeError: a row without image
        name = (row or {}).get("path") or "(unnamed)"
        raise UserError(f"cannot read image {name} of {source}; copy the files again") from error


def _format(tables: list, column: str, image_size: int | None, source: str) -> tuple[str, int | None]:
    """Return the pixel mode (grey only if all images are) and the size to scale to, None if all agree already."""
    sizes, grey = set(), True
    for table in tables:
        for row in _raw(table, column):
            with _readable(row, source):
                image = _open(row)
            sizes.add(image.size)
            grey = grey and image.mode in ("L", "1")
    return "L" if grey else "RGB", image_size or (None if len(sizes) == 1 else DEFAULT_SIZE)
