"""The page from a folder of records."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from lcmat.errors import UserError
from lcmat.files import write_text
from lcmat.reports.page import settings
from lcmat.reports.page.cells import Row, findings, percent, rows, tallies
from lcmat.reports.page.grids import grids_of
from lcmat.reports.page.pictures import Pictures
from lcmat.reports.page.subsets import Sets, sets_of, tiles
from lcmat.reports.table_text import mean_and_std

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Beside:
    """What the page shows beside records. pictures: images of data that are at hand; configs: the grids' files."""

    pictures: Pictures = field(default_factory=dict)
    configs: Path | None = None


def write_page(save_path: Path, beside: Beside | None = None) -> tuple[Path, list[str]]:
    """Write SAVE_PATH/report.html from the records below SAVE_PATH, and return it and what could not be read.

    Raises UserError if there is no record.
    """
    beside = Beside() if beside is None else beside
    found, damaged = settings.read(save_path)
    if not found:
        raise UserError(f"no records below {save_path}; run main.py with --save_path {save_path} first")
    cells = rows(found)
    sets = sets_of(cells, save_path)
    names = [path.relative_to(save_path).as_posix() for path in damaged]
    unreadable = [*(f"{name} is no whole record; left alone and not counted" for name in names), *sets.unreadable]
    text = _template().render(
        settings=found,
        rows=cells,
        with_memory=any(row.memory is not None for row in cells),
        findings=findings(cells),
        totals=_totals(cells),
        tallies=tallies(cells),
        grids=grids_of(save_path, settings.folders(save_path), beside.configs),
        data=_as_json({"folder": save_path.resolve().name} | _for_script(found, sets, beside)),
        with_sets=_places(sets),
        unreadable=unreadable,
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        js=(HERE / "page.js").read_text(encoding="utf-8"),
    )
    path = save_path / "report.html"
    write_text(path, text)
    return path, unreadable


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"percent": percent, "mean_and_std": mean_and_std, "signed": lambda value: f"{value:+.1f}"}
    return environment.get_template("page.html")


def _totals(cells: list[Row]) -> dict[str, float]:
    """Return how much was run, and how many comparisons with Uniform came out how."""
    records = {record["path"]: record for row in cells for record in row.cell.records}
    sides = [row.side for row in cells if row.side is not None and row.method != "Full"]
    return {
        "records": len(records),
        "hours": hours(records.values()),
        "compared": len(sides),
        "above": sides.count(1),
        "below": sides.count(-1),
        "neither": sides.count(0),
    }


def hours(records: Iterable[dict]) -> float:
    """Return the hours of computing behind records; what several say of one network (so many seconds), once."""
    seconds = {}
    for record in records:
        for stage, value in record["seconds"].items():
            network = (record["dataset"], record["seed"], value)
            seconds[stage, *(network if stage in ("pretrain", "signals") else (record["path"],))] = value
    return sum(seconds.values()) / 3600


def _places(sets: Sets) -> set[tuple[int, str, float]]:
    return {(setting, method, fraction) for setting, method, fraction, *_ in sets.entries}


def _for_script(found: list[settings.Setting], sets: Sets, beside: Beside) -> dict[str, object]:
    return {
        "settings": [one.title for one in found],
        "entries": sets.entries,
        "lists": sets.lists,
        "sheets": sets.sheets,
        "tiles": tiles(beside.pictures, sets),
    }


def _as_json(value: object) -> str:
    """Return JSON that may stand inside a script element: nothing in it ends that."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
