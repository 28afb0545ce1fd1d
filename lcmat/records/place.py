"""Where records and what lies beside them are: paths, and how they are found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lcmat.records.keys import config_hash


def slug(name: str) -> str:
    """Return a dataset's name as part of a file's name."""
    return name.replace(":", "-").replace("/", "-")


def record_path(save_path: Path, config: dict, selection_model: str, dataset: str | None = None) -> Path:
    """Return SAVE_PATH/<dataset>-<model>/<method>/fraction<f>-seed<s>-<config hash>.json.

    dataset: what data of one's own are called, None where the configuration has the name; the hash is the same.
    Continual learning has continual<steps>x<images a class> in place of the fraction: it stands in tables of its own.
    """
    what = f"fraction{config['fraction']:g}"
    if config.get("protocol") == "continual":
        what = f"continual{config['steps']}x{config['memory_per_class']}"
    name = f"{what}-seed{config['seed']}-{config_hash(config)}.json"
    # A subset's file may be called ".....npz", and its record would lie a folder too high.
    method = slug(config["selection"]) if config["selection"].strip(".") else "-" * max(1, len(config["selection"]))
    return Path(save_path) / f"{slug(dataset or config['dataset'])}-{selection_model}" / method / name


def candidates(save_path: Path, protocol: str) -> Iterator[Path]:
    """Yield the files that may be records of a protocol, whole or continual, below a folder."""
    begin = {"whole": "fraction", "continual": "continual"}[protocol]
    yield from sorted(save_path.glob(f"*/*/{begin}*-seed*-*.json"))
