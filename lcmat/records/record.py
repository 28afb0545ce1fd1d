"""Records: one JSON file for each run, with all that determines its result, beside the indices it chose."""

from __future__ import annotations

import json
from pathlib import Path

from lcmat.files import write_json
from lcmat.records.place import candidates

REQUIRED = (
    "dataset", "selection_model", "test_model", "selection", "fraction", "seed", "test_accuracy",
    "best_test_accuracy", "test_interval", "subset_size", "seconds", "config", "environment",
)  # fmt: skip


def heading(config: dict, selection_model: str) -> dict[str, object]:
    """Return what every record begins with: what was run on what, as its configuration says it."""
    names = ("dataset", "test_model", "selection", "fraction", "seed")
    return {"selection_model": selection_model, **{name: config[name] for name in names}}


def write_record(path: Path, record: dict) -> None:
    """Write a record atomically."""
    missing = [key for key in REQUIRED if key not in record]
    if missing:
        raise KeyError(f"a record needs {missing}")
    write_json(path, record)


def read_record(path: Path) -> dict | None:
    """Return a record, or None for a file that is no whole record."""
    try:
        record = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and all(key in record for key in REQUIRED) else None


def read_records(save_path: Path, protocol: str = "whole") -> tuple[list[dict], list[Path]]:
    """Return all records below a folder, in order of their paths, and the files that look like records but are not.

    protocol: "whole" for those of a whole dataset at once, "continual" for those of continual learning.
    """
    records, damaged = [], []
    for path in candidates(Path(save_path), protocol):
        record = read_record(path)
        if record is None:
            damaged.append(path)
        else:
            records.append(record)
    return records, damaged
