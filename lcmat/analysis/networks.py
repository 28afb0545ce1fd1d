"""Which networks tables of an analysis are of: noted beside them, so that none replaces those of other networks."""

from __future__ import annotations

import json
from pathlib import Path

from lcmat.analysis.groups import Group
from lcmat.errors import UserError
from lcmat.files import PROJECT, write_json
from lcmat.locks import locked
from lcmat.runs import pretrained

FILE = "networks.json"
COMMITTED = PROJECT / "result"
# What tells a network from another one of the same recipe and seed: its file's hash if it was given, else how it did.
FACTS = ("sha256", "train_accuracy")
Known = dict[str, dict[str, object]]


def known_by(groups: list[Group]) -> Known:
    """Return what tells each group's network from others, by its name and seed."""
    found = {}
    for group in groups:
        facts = pretrained.facts_of_network(group.setup, group.seed)
        name = next(name for name in FACTS if name in facts)
        found[group.named(f"seed {group.seed}")] = {name: facts[name]}
    return found


def check_networks(name: str, groups: list[Group], folder: Path) -> None:
    """Raise UserError if a folder has tables of this name that are of other networks, or may be.

    Networks of one seed are compared; in the project's own result/, those of other seeds are others, too.
    """
    kept, own = _read(folder).get(name), known_by(groups)
    there = (folder / f"{name}.csv").exists()
    if kept is None:
        other = there and any(group.differing for group in groups)
    else:
        common = kept.keys() & own.keys()
        strangers = not common and folder.resolve().is_relative_to(COMMITTED)
        other = there and (strangers or any(kept[seed] != own[seed] for seed in common))
    if other:
        raise UserError(
            f"{folder / name}.csv is of other networks than those of this --cache_path, and is left as it is; give "
            f"--name WORD for tables beside it, or another --save_path"
        )


def note_networks(name: str, groups: list[Group], folder: Path) -> None:
    """Note beside tables of this name which networks they are of."""
    with locked(folder / ".lock"):
        write_json(folder / FILE, _read(folder) | {name: known_by(groups)})


def _read(folder: Path) -> dict[str, Known]:
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and all(isinstance(one, dict) for one in found.values()) else {}
