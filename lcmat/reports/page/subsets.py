"""What was chosen and what was learned: the sets behind the records, as the page's script reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from lcmat.errors import UserError
from lcmat.expected import array, fields, of, optional, problem
from lcmat.files import load_arrays, load_tensors
from lcmat.reports.page.cells import Row
from lcmat.reports.page.pictures import Pictures, sheet

_INTEGERS, _NUMBERS = array(None, kinds="i"), optional(array(None, kinds="F"))
# What the page reads of a file of chosen samples, and of one of learned images.
CHOSEN = fields(
    {"indices": _INTEGERS, "classes": _INTEGERS}, {"balanced": of(bool), "weights": _NUMBERS, "costs": _NUMBERS}
)
LEARNED = fields({"images": array(None, None, None, None, kinds="F"), "labels": _INTEGERS})


@dataclass
class Sets:
    """The sets of all records.

    entries: for each record [setting, method, fraction, seed, path, list or None, sheet or None, the data's
    fingerprint]. lists: chosen samples, each once: {"i": indices, "c": [class, how many] in their order, "b": whether
    ranks count class by class, and where there are such: "w": weights, "k": the method's cost in its group after each
    pick}. sheets: learned images, each with its {"l": labels}.
    """

    entries: list[list] = field(default_factory=list)
    lists: list[dict] = field(default_factory=list)
    sheets: list[dict] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def sets_of(rows: list[Row], save_path: Path) -> Sets:
    """Read what lies beside the records of all rows; a file that is absent or damaged is named and left out."""
    found, known = Sets(), {}
    for row in rows:
        for record in row.cell.records:
            files = {record[name] for name in ("indices", "synthetic", "memory") if name in record}
            for name in sorted(files):
                path = save_path / Path(record["path"]).with_name(name)
                try:
                    place = _add(found, known, path)
                except UserError as error:
                    found.unreadable.append(str(error))
                    continue
                what = [row.setting, row.method, row.fraction, record["seed"], record["path"]]
                found.entries.append([*what, *place, record["config"].get("dataset_fingerprint")])
    return found


def _add(found: Sets, known: dict, path: Path) -> tuple[int | None, int | None]:
    if path.suffix == ".pt":
        values = load_tensors(path, LEARNED)
        labels = values["labels"].tolist()
        pixels = values["images"].float().clamp(0, 1).mul(255).round().byte().numpy()
        found.sheets.append(sheet(pixels).described() | {"l": labels})
        return None, len(found.sheets) - 1
    values = chosen(path)
    key = repr(values)
    if key not in known:
        known[key] = len(found.lists)
        found.lists.append(values)
    return known[key], None


def chosen(path: Path) -> dict[str, object]:
    """Return the chosen samples of a .npz file as an entry of `Sets.lists`; UserError if it holds something else."""
    arrays = load_arrays(path)
    plain = {name: value.item() if value.ndim == 0 else value for name, value in arrays.items()}
    if (wrong := problem(plain, CHOSEN)) is not None:
        raise UserError(f"{path} holds no subset: {wrong}")
    classes = [[name, len(list(group))] for name, group in groupby(plain["classes"].tolist())]
    found = {"i": plain["indices"].tolist(), "c": classes, "b": plain.get("balanced", True)}
    for key, name in (("w", "weights"), ("k", "costs")):
        if name in plain and len(set(plain[name].tolist())) > 1:  # even weights say nothing
            found[key] = [float(f"{value:.4g}") for value in plain[name].tolist()]
    return found


# Where an entry of `Sets.entries` has its list.
LIST = 5
# The most images of a dataset that the page holds; indices stand for the rest.
MOST_IMAGES = 2000


def tiles(pictures: Pictures, sets: Sets, most: int = MOST_IMAGES) -> dict[str, dict]:
    """Return a sheet of images of each dataset (by fingerprint) that is used.

    Of a large one only what was chosen, the first of each class of every subset before the second, with the indices as
    "i", in order; photographs with some loss.
    """
    found = {}
    for key, images in sorted(pictures.items()):
        places = {entry[LIST] for entry in sets.entries if entry[-1] == key} - {None}
        if not places:
            continue
        if len(images) <= most:
            found[key] = sheet(images).described()
            continue
        ranked = sorted((pair for place in sorted(places) for pair in _ranked(sets.lists[place])), key=lambda p: p[0])
        indices = sorted(list(dict.fromkeys(index for _, index in ranked))[:most])
        found[key] = sheet(images[indices], lossy=images.shape[1] == 3).described() | {"i": indices}
    return found


def _ranked(chosen: dict) -> Iterator[tuple[int, int]]:
    """Yield how many of its class come before each sample, and its index."""
    seen: Counter[int] = Counter()
    labels = (label for label, count in chosen["c"] for _ in range(count))
    for label, index in zip(labels, chosen["i"], strict=True):
        yield seen[label], index
        seen[label] += 1
