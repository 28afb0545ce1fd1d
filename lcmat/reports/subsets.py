"""Recorded subsets and learned images in forms that others load: Parquet data sets with a card, JSON, NumPy, text.

In every form it is said that these are the samples *kept*, not those removed: tools differ in what a list of indices
means.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lcmat.errors import UserError
from lcmat.files import check_writable, load_arrays, load_tensors, write_atomically, write_text
from lcmat.records import read_record

KEPT = "Positions in the training set, counted from 0, of the samples KEPT, not of those removed"
COLUMNS = {
    "index": "position in the training set, from 0",
    "kept": "true: each row is a sample that was kept",
    "class": "label, as a number",
    "rank": "position in the order chosen, from 0, within the class if the selection was class by class",
    "weight": "of the sample in training",
    "cost": "of the method within the class after this pick",
    "file": "name of the image below the folder of training images",
}


@dataclass(frozen=True, eq=False)
class Taken:
    """A recorded subset. columns: by the names of `COLUMNS`, each of m values, in the order chosen."""

    record: dict
    columns: dict[str, list]

    @property
    def name(self) -> str:
        """What tells it from others: data, network, method, fraction, seed, and the record's hash."""
        parts = [self.record[key] for key in ("dataset", "selection_model", "selection")]
        return "-".join([*map(str, parts), Path(self.record["indices"]).stem])

    @property
    def facts(self) -> dict[str, object]:
        """What it is a subset of, and how it came about."""
        config = self.record["config"]
        return {
            "dataset": self.record["dataset"],
            "dataset_fingerprint": config.get("dataset_fingerprint"),
            "method": self.record["selection"],
            "options": config.get("options", {}),
            "fraction": self.record["fraction"],
            "seed": self.record["seed"],
            "network": self.record["selection_model"],
            "samples": len(self.columns["index"]),
            "test_model": self.record["test_model"],
            "test_accuracy": self.record["test_accuracy"],
        }


def taken(path: Path) -> Taken:
    """Read the subset that a record, or the .npz file beside it, tells of. Raises UserError if there is none."""
    path = path.with_suffix(".json") if path.suffix == ".npz" else path
    record = read_record(path)
    if record is None:
        raise UserError(f"{path} is no whole record; name a .json file below a result folder")
    if "indices" not in record:
        raise UserError(f"{path} records no subset; a record of selection has one, in the .npz file beside it")
    arrays = load_arrays(path.parent / record["indices"])
    names = {"index": "indices", "class": "classes", "rank": "rank", "weight": "weights", "cost": "costs"}
    columns = {name: arrays[field].tolist() for name, field in names.items() if field in arrays}
    columns["kept"] = [True] * len(columns["index"])
    return Taken(record, {name: columns[name] for name in COLUMNS if name in columns})


def with_files(subset: Taken, names: list[str], fingerprint: str) -> Taken:
    """Return the subset with a column of file names, given those of all training images.

    Raises UserError if the images are not those that it was chosen from.
    """
    wanted = subset.record["config"].get("dataset_fingerprint")
    if fingerprint != wanted:
        raise UserError(f"these images (fingerprint {fingerprint}) are not those of the record ({wanted})")
    return Taken(subset.record, subset.columns | {"file": [str(names[index]) for index in subset.columns["index"]]})


def _as_json(subset: Taken) -> bytes:
    """A JSON object: the subset's name → its indices, sorted; beside it in words what these are."""
    value = {"meaning": KEPT, subset.name: sorted(subset.columns["index"]), "about": subset.facts}
    if "file" in subset.columns:
        value["files"] = sorted(subset.columns["file"])
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def _as_array(subset: Taken) -> bytes:
    """A .npy file of the indices, int64, sorted."""
    file = io.BytesIO()
    np.save(file, np.sort(np.array(subset.columns["index"], dtype=np.int64)))
    return file.getvalue()


def _as_text(subset: Taken) -> bytes:
    """A line for each index, or file name, in the order chosen; --subset reads it."""
    lines = [f"# {KEPT}.", f"# {json.dumps(subset.facts, ensure_ascii=False)}"]
    if "file" in subset.columns:
        lines[0] = "# Names of the training images KEPT, not of those removed."
    return "\n".join([*lines, *map(str, subset.columns.get("file", subset.columns["index"])), ""]).encode()


def _as_csv(subset: Taken) -> bytes:
    """A line for each sample, with all columns; `kept` says in each what the list is of."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(subset.columns)
    writer.writerows(zip(*subset.columns.values(), strict=True))
    return text.getvalue().encode()


# By format: the file's name, and what is in it.
FILES: dict[str, tuple[str, Callable[[Taken], bytes]]] = {
    "json": ("kept.json", _as_json),
    "npy": ("kept.npy", _as_array),
    "txt": ("kept.txt", _as_text),
    "csv": ("kept.csv", _as_csv),
}
FORMATS = ("hf", *FILES)


def write_subset(subset: Taken, kind: str, folder: Path) -> Path:
    """Write a subset to a folder in one of `FORMATS`; return the file, or the folder of a Parquet data set."""
    if kind == "hf":
        _write_dataset(folder, subset.columns, _card(subset))
        return folder
    name, content = FILES[kind]
    data = content(subset)
    write_atomically(folder / name, lambda file: file.write(data))
    return folder / name


def check_new(folder: Path) -> None:
    """Raise UserError unless a folder is new or empty, and OSError unless it can be written."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; name a new folder (--to)")
    check_writable(folder.parent)


def _card(subset: Taken) -> str:
    """Return the card of a Parquet data set, with what `datasets` reads at its head."""
    facts = "\n".join(f"- {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in subset.facts.items())
    columns = "\n".join(f"- `{name}`: {COLUMNS[name]}" for name in subset.columns)
    return f"{_HEAD}# {subset.name}\n\n{KEPT}.\n\n{facts}\n\nColumns:\n\n{columns}\n"


_HEAD = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data.parquet\n---\n\n"


def _write_dataset(folder: Path, columns: dict[str, list], card: str, features: object = None) -> None:
    """Put a Parquet data set with its card at `folder` in one step."""
    import datasets  # here: it takes seconds

    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    try:
        quiet = datasets.utils.logging.is_progress_bar_enabled()
        datasets.disable_progress_bars()
        datasets.Dataset.from_dict(columns, features=features).to_parquet(unfinished / "data.parquet")
        if quiet:
            datasets.enable_progress_bars()
        write_text(unfinished / "README.md", card)
        unfinished.chmod(0o755)
        unfinished.replace(folder)  # an empty folder may be there
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


LEARNED = """Columns:

- `image`: to look at, 8 bits a pixel
- `pixels`: as it was learned, float32 (channels, height, width), 0 for black and 1 for white, and beyond these
- `label`: as a number"""


def write_images(path: Path, folder: Path) -> None:
    """Write the learned images that a record tells of as a Parquet data set, with the columns of `LEARNED`."""
    import datasets
    from PIL import Image

    record = read_record(path)
    stored = load_tensors(path.parent / record["synthetic"])
    pixels, labels = stored["images"].float().numpy(), stored["labels"].tolist()
    levels = np.clip(pixels * 255, 0, 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    images = [Image.fromarray(one[:, :, 0] if one.shape[2] == 1 else one) for one in levels]
    shape = datasets.Array3D(pixels.shape[1:], "float32")
    features = datasets.Features({"image": datasets.Image(), "pixels": shape, "label": datasets.Value("int64")})
    facts = {name: record[name] for name in ("dataset", "selection", "selection_model", "seed", "test_accuracy")}
    facts |= {"options": record["config"].get("options", {}), "images stored in each": stored["factor"] ** 2}
    said = "\n".join(f"- {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in facts.items())
    card = f"{_HEAD}# Learned images: {record['dataset']}, {record['selection']}\n\n{said}\n\n{LEARNED}\n"
    _write_dataset(folder, {"image": images, "pixels": list(pixels), "label": labels}, card, features)
