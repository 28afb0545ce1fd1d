"""Records: one JSON file for each run, with all that determines its result, beside the indices it chose."""

from __future__ import annotations

import json
from pathlib import Path

from lcmat.errors import shown
from lcmat.expected import (
    both,
    each,
    either,
    fields,
    mapping,
    matching,
    of,
    optional,
    plain,
    problem,
    real,
    row,
    whole,
)
from lcmat.files import check_regular, write_json
from lcmat.records.keys import config_hash
from lcmat.records.place import candidates

HEADING = ("dataset", "test_model", "selection", "fraction", "seed")


# How names of data of one's own begin in configurations; in what records begin with, these have names of their own.
OWN = ("ImageFolder", "hf:")


def heading(config: dict, selection_model: str, dataset: str | None = None) -> dict[str, object]:
    """Return what every record begins with: what was run on what, as its configuration says it.

    dataset: what data of one's own are called, or None.
    """
    said = {"selection_model": selection_model, **{name: config[name] for name in HEADING}}
    return said if dataset is None else said | {"dataset": dataset}


def write_record(path: Path, record: dict) -> None:
    """Write a record atomically, with a checksum of all but times and environment: equal runs have equal ones."""
    if (wrong := problem(record, RECORD)) is not None:
        raise ValueError(f"no record: {wrong}")
    write_json(path, record | {"checksum": _checksum(record)})


def read_record(path: Path) -> dict | None:
    """Return a record, or None for a file that is no whole record; those of before have no checksum."""
    try:
        check_regular(path)
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if problem(record, RECORD) is not None:
        return None
    return record if record.pop("checksum", None) in (None, _checksum(record)) else None


def _checksum(record: dict) -> str:
    rest = {name: value for name, value in record.items() if name not in ("seconds", "environment", "checksum")}
    return config_hash(json.loads(json.dumps(rest)))  # as it will be read: tuples are lists then


_ACCURACY = real(0, 100)
_TESTS = each(row(whole(1), _ACCURACY))
_FILE = matching(r"[^/\\\0]{3,}")  # beside the record, nowhere else
_NETWORKS = fields({}, {"count": whole(1), "epochs": whole(1)})
_CONFIG = both(
    mapping(either(plain, each(plain), mapping(either(plain, mapping(plain))))),
    fields(
        {},
        {
            "dataset": of(str), "selection": of(str), "test_model": of(str), "fraction": real(0, 1), "seed": whole(),
            "budget": optional(whole()), "precision": of(str), "options": mapping(plain), "protocol": of(str),
            "training": fields({}, {"epochs": whole(1), "batch": whole(1)}), "validation_ratio": optional(real(0, 1)),
            "selection_network": optional(fields({}, {"initialisations": _NETWORKS, "training": fields({})})),
            "evaluations": whole(1), "steps": whole(1), "memory_per_class": whole(1), "condensing": of(str),
            "test_interval": whole(0), "test_fraction": real(0, 1), "balance": of(bool),
            "pixel_mean": each(real()), "pixel_std": each(real()),
        },
    ),
)  # fmt: skip
_FACTS = fields({}, {"given": optional(of(str)), "sha256": of(str), "tests": _TESTS, "train_accuracy": _ACCURACY})
# What a record must hold; what it may hold besides, of which others' may have less.
REQUIRED = {
    "dataset": of(str), "selection_model": of(str), "test_model": of(str), "selection": of(str),
    "fraction": real(0, 1), "seed": whole(), "test_accuracy": _ACCURACY, "best_test_accuracy": _ACCURACY,
    "test_interval": whole(0), "subset_size": whole(0), "seconds": mapping(real(0)), "config": _CONFIG,
    "environment": of(dict),
}  # fmt: skip
_FURTHER = {
    "checksum": of(str), "tests": _TESTS, "train_accuracy": _ACCURACY, "held_out_accuracy": optional(_ACCURACY),
    "evaluations": each(fields({"test_accuracy": _ACCURACY, "best_test_accuracy": _ACCURACY}, {"tests": _TESTS})),
    "worst_class_accuracy": _ACCURACY, "class_accuracy": each(optional(_ACCURACY)),
    "images_per_epoch": each(whole(1)), "images_in_all": whole(1),
    "needs": each(of(str)), "factor": whole(1), "curve": each(row(whole(0), real())),
    "indices": _FILE, "synthetic": _FILE, "memory": _FILE, "cost": optional(real()), "cost_bound": optional(real()),
    "cost_error": optional(real(0)), "selection_network": optional(_FACTS), "class_order": each(each(whole(0))),
    "steps": each(fields({"test_accuracy": _ACCURACY, "each": each(_ACCURACY, 1)}), 1),
}  # fmt: skip


def _agrees(record: dict) -> str | None:
    """Tell whether what a record begins with is what its configuration says."""
    config = record["config"]
    own = str(config.get("dataset")).startswith(OWN)
    for name in HEADING:
        if name in config and config[name] != record[name] and not (own and name == "dataset"):
            return f"has {name} {shown(record[name])} and another one in its configuration"
    if config.get("protocol") == "continual" and not {"steps", "class_order"} <= record.keys():
        return "has no steps"
    return None


# What a file of a record holds.
RECORD = both(fields(REQUIRED, _FURTHER), _agrees)


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
