"""Any Hugging Face image-classification dataset: by name, from a folder, or from Parquet files."""

from __future__ import annotations

import io
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from PIL import Image

from lcmat.data.depth import DEEP, Depth, depth_of, extremes
from lcmat.data.folders import DEFAULT_SIZE, holds_several, say_several
from lcmat.data.labels import LabelColumn, numbered
from lcmat.data.parquet_files import TEST_SPLITS, TRAIN_SPLITS, no_such_configuration, parquet_files
from lcmat.data.progress import decode_all, in_threads
from lcmat.data.sources import IMAGE_ERRORS, check_allowed, damage
from lcmat.data.splits import TensorSplit, to_pixels
from lcmat.errors import UserError, shown, suggest

LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class")
# image_column, label_column, train_split, test_split, config_name; None finds it
Columns = dict[str, str | None]


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of a split (a `datasets.Dataset`) that one file declares, and the folders that its images may lie in."""

    origin: str
    table: Any
    folders: tuple[Path, ...]


def hub(source: str, image_size: int | None, columns: Columns) -> tuple[TensorSplit, TensorSplit, tuple[str, ...]]:
    """Return the training and test split of a Hugging Face dataset, given by its name or a local path."""
    path, configuration = Path(source), columns.get("config_name")
    files = parquet_files(path, configuration)
    return _splits(source, _read_parquet(path, files) if files else _load(source, configuration), image_size, columns)


def parquet(folder: Path, image_size: int | None) -> tuple[TensorSplit, TensorSplit, tuple[str, ...]]:
    """Return the splits of a folder's Parquet files, `train-*.parquet` and `test-*.parquet`."""
    return _splits(str(folder), _read_parquet(folder, parquet_files(folder)), image_size, {})


def _read_parquet(folder: Path, files: dict[str, list[Path]]) -> dict[str, list[Part]]:
    import pyarrow
    import pyarrow.parquet
    from datasets import Dataset

    splits = {}
    for split, parts in files.items():
        read = []
        for part in parts:
            try:
                table = pyarrow.parquet.read_table(part)
            except (pyarrow.ArrowException, OSError) as error:
                raise UserError(f"{part} is damaged ({str(error).splitlines()[0]}); copy it again") from error
            with damage(part):
                read.append(Part(str(part), Dataset(_without_dictionaries(table)), (folder,)))
        splits[split] = read
    return splits


def _without_dictionaries(table: Any) -> Any:
    """Return a table with categories, as pandas writes them, spelled out: `datasets` does not know them."""
    import pyarrow

    for i, column in enumerate(table.schema):
        if pyarrow.types.is_dictionary(column.type):
            table = table.set_column(i, column.name, table.column(i).cast(column.type.value_type))
    return table


def _load(source: str, configuration: str | None) -> dict[str, list[Part]]:
    if not Path(source).exists():
        check_allowed(f"hf:{source}", "a folder here")
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
        if configuration is None and (Path(source) / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(source)  # what save_to_disk left there
        else:
            loaded = datasets.load_dataset(source, configuration)
    except Exception as error:  # the library raises a dozen types of its own
        known = _configurations(source)
        if len(known) > 1 if configuration is None else configuration not in known:
            raise no_such_configuration(source, configuration, known) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"cannot load Hugging Face dataset '{source}' ({reason}); "
            f"give a name on the hub or a folder with train-*.parquet and test-*.parquet"
        ) from error
    caches = datasets.config.HF_DATASETS_CACHE, datasets.config.EXTRACTED_DATASETS_PATH
    folders = tuple(Path(place) for place in (source, *caches, huggingface_hub.constants.HF_HUB_CACHE))
    return {split: [Part(source, table, folders)] for split, table in loaded.items()}


def _configurations(source: str) -> list[str]:
    import datasets

    try:
        return datasets.get_dataset_config_names(source)
    except Exception:  # as above
        return []


def _splits(source: str, splits: dict[str, list[Part]], image_size: int | None, columns: Columns) -> tuple:
    train = splits[_choose("split", columns.get("train_split"), TRAIN_SPLITS, splits, source)]
    test = splits[_choose("split", columns.get("test_split"), TEST_SPLITS, splits, source)]
    features = train[0].table.features
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    image_column = _choose("column", columns.get("image_column"), (*images, "img", "image"), features, source)
    named = [name for name, feature in features.items() if hasattr(feature, "names")]
    label_column = _choose("column", columns.get("label_column"), (*LABEL_COLUMNS, *named), features, source)
    labels = [[_labels(part, label_column) for part in parts] for parts in (train, test)]
    classes, *numbers = numbered(*labels)
    rows = [[row for part in parts for row in _rows(part, image_column)] for parts in (train, test)]
    read = _format([row for part in rows for row in part], image_size, source)
    return *(
        TensorSplit(decode_all(lambda row: _decode(row, read, source), raw, f"{name} images"), of_split)
        for name, raw, of_split in zip(("training", "test"), rows, numbers, strict=True)
    ), classes


def _choose(kind: str, wanted: str | None, known: tuple[str, ...], present: dict, source: str) -> str:
    flags = "--train_split/--test_split" if kind == "split" else "--image_column/--label_column"
    if wanted is not None and wanted not in present:
        raise UserError(f"{source} has no {kind} '{wanted}'{suggest(wanted, present)}")
    found = wanted or next((name for name in known if name in present), None)
    if found is None:
        raise UserError(f"{source}: none of its {kind}s {list(present)} is one of {list(known)}; name it with {flags}")
    return found


def _feature(part: Part, column: str) -> Any:
    if column not in part.table.features:
        raise UserError(f"{part.origin} has no column '{column}'; its columns are {list(part.table.features)}")
    return part.table.features[column]


def _labels(part: Part, column: str) -> LabelColumn:
    feature = _feature(part, column)
    if type(feature).__name__ not in ("ClassLabel", "Value"):
        raise UserError(f"{part.origin}: column '{column}' holds no labels; name another with --label_column")
    names = getattr(feature, "names", None)
    return LabelColumn(f"{part.origin}: column '{column}'", part.table[column][:], tuple(names) if names else None)


def _rows(part: Part, column: str) -> list[dict | None]:
    """Return the encoded images of a part, {"bytes": …, "path": …}; one without bytes is a file of the dataset's."""
    import datasets

    feature = _feature(part, column)
    if type(feature).__name__ != "Image" and "bytes" not in getattr(feature, "keys", set)():
        raise UserError(f"{part.origin}: column '{column}' holds no images; name another with --image_column")
    rows = part.table.cast_column(column, datasets.Image(decode=False))[column][:]
    return [row if row is None or row["bytes"] is not None else row | {"path": _own_file(part, row)} for row in rows]


def _own_file(part: Part, row: dict) -> Path | None:
    """Return the file that a row names. Raises UserError for one that is not the dataset's own, links followed."""
    if not row["path"]:
        return None
    try:
        places = [(folder.resolve(), (folder / row["path"]).resolve()) for folder in part.folders]
        own = [path for folder, path in places if path.is_relative_to(folder)]
        found = next((path for path in own if path.is_file()), None)
    except (OSError, ValueError, RuntimeError):  # names that no file can have, links that lead to themselves
        own = found = None
    if found is None:
        what = "is not there" if own else "lies outside of the dataset's folder and is not read"
        raise UserError(f"{part.origin}: an image is given as a file, {shown(row['path'])}, that {what}")
    return found


@dataclass(frozen=True)
class _Format:
    """How a dataset's images are read: the pixel mode, the size to scale to (None: as they are), and the depth."""

    mode: str
    size: int | None
    depth: Depth


def _decode(row: dict | None, form: _Format, source: str) -> torch.Tensor:
    with _readable(row, source), _open(row) as image:
        return to_pixels(image, form.mode, form.size, form.depth)


def _open(row: dict) -> Image.Image:
    return Image.open(io.BytesIO(row["bytes"]) if row["bytes"] is not None else row["path"])


@contextmanager
def _readable(row: dict | None, source: str) -> Iterator[None]:
    try:
        yield
    except (*IMAGE_ERRORS, TypeError, AttributeError) as error:  # the latter two: a row without image
        name = (row or {}).get("path") or "(unnamed)"
        raise UserError(f"cannot read image {name} of {source}; copy the files again") from error


def _format(rows: list[dict | None], image_size: int | None, source: str) -> _Format:
    """Return how to read these images: grey only if all are, and scaled only where sizes differ or one is asked for."""
    sizes, grey, deep, several = set(), True, [], 0
    for row in rows:
        with _readable(row, source), _open(row) as image:
            several += holds_several(image)
            sizes.add(image.size)
            grey = grey and image.mode in ("L", "1", *DEEP)
            if image.mode in DEEP:
                deep.append(row)
    say_several(several, source)
    depth = depth_of(in_threads(lambda row: _extremes(row, source), deep, "measuring images"), source)
    return _Format("L" if grey else "RGB", image_size or (None if len(sizes) == 1 else DEFAULT_SIZE), depth)


def _extremes(row: dict, source: str) -> tuple[bool, float, float]:
    with _readable(row, source), _open(row) as image:
        return extremes(image)
