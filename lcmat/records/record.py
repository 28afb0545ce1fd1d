"""Records: one JSON file for each run, with all that determines its result, beside the indices it chose."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from lcmat.files import PROJECT, write_json
from lcmat.hardware import processor

REQUIRED = (
    "dataset", "selection_model", "test_model", "selection", "fraction", "seed", "test_accuracy",
    "best_test_accuracy", "test_interval", "subset_size", "seconds", "config", "environment",
)  # fmt: skip


def config_hash(config: object) -> str:
    """Return twelve hexadecimal digits that depend on every value of a JSON-like configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def record_path(save_path: Path, config: dict, selection_model: str) -> Path:
    """Return SAVE_PATH/<dataset>-<model>/<method>/fraction<f>-seed<s>-<config hash>.json.

    Continual learning has continual<steps>x<images a class> in place of the fraction: it stands in tables of its own.
    """
    dataset = config["dataset"].replace(":", "-").replace("/", "-")
    what = f"fraction{config['fraction']:g}"
    if config.get("protocol") == "continual":
        what = f"continual{config['steps']}x{config['memory_per_class']}"
    name = f"{what}-seed{config['seed']}-{config_hash(config)}.json"
    return Path(save_path) / f"{dataset}-{selection_model}" / config["selection"] / name


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
    for path in _candidates(Path(save_path), protocol):
        record = read_record(path)
        if record is None:
            damaged.append(path)
        else:
            records.append(record)
    return records, damaged


def _candidates(save_path: Path, protocol: str) -> Iterator[Path]:
    begin = {"whole": "fraction", "continual": "continual"}[protocol]
    yield from sorted(save_path.glob(f"*/*/{begin}*-seed*-*.json"))


def environment(device: torch.device) -> dict[str, object]:
    """Return what a result may depend on beyond its configuration: versions, processor, threads, commit."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "processor": processor(device),
        "threads": torch.get_num_threads(),
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """Return the commit of the code that runs, with "+changes" if the work tree differs, or None outside of git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(PROJECT), *words], capture_output=True, text=True, check=True).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        # What runs leave in result/ is no change of the code.
        changed = git("status", "--porcelain", "--", *("*.py",)).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + "+changes" * bool(changed)
