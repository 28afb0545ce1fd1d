"""The grids and analyses that left tables or figures beside the records: pictures, captions and settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from lcmat.reports.page.pictures import figure

# What the figures of analyses show, by how their names begin; and those of grids, by how they end.
ANALYSES = {
    "bound": "the two terms of Eq. 6 for each subset, over the last layer",
    "sharpness": "measured sharpness beside what the paper bounds it by",
    "landscape": "loss around the network f_T, on a sample of T and on each subset",
    "variance": "variance of the Hessian diagonal over T, and where the true k of Eq. 8 stands",
    "overlap": "how far subsets agree, and their cost (Eq. 11)",
    "diagonal": "how good the diagonal is for the last layer's Hessian",
}
STATISTICS = {
    "critical-difference": "Mean ranks, and which methods are not separable over all data sets and fractions",
    "continual": "Continual learning",
}
ENDINGS = {
    "-difference": "each method's final accuracy minus Uniform's, with 95% intervals; grey: not separable",
    "-seconds": "seconds of selection alone",
    "-images": "what each method chose or made, class by class",
}


@dataclass(frozen=True)
class Shown:
    """A figure: its caption, the way to the file, a data URI, and its size in pixels."""

    caption: str
    path: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Grid:
    """What a grid or an analysis left: settings: what its table says above the numbers; file: the grid's own text."""

    name: str
    title: str
    settings: list[str]
    table: str | None
    file: str | None
    figures: list[Shown]


def grids_of(save_path: Path, folders: list[Path], configs: Path | None) -> list[Grid]:
    """Return what lies in the folders `tables` and `figures` of each folder; configs: where grids' files are."""
    found = []
    for folder in folders:
        pictures = sorted((folder / "figures").glob("*.png"))
        texts = {path.stem: path for path in sorted((folder / "tables").glob("*.md"))}
        whole = [name for name in texts if name not in ("accuracy", "continual") and not _is_part(name, texts)]
        of = {path: _owner(path.stem, whole) for path in pictures}
        names = dict.fromkeys([*whole, *(owner for owner in of.values() if owner)])
        for name in names:
            mine = [path for path, owner in of.items() if owner == name]
            found.append(_grid(name, texts.get(name), mine, save_path, configs))
    return found


def _is_part(name: str, texts: dict[str, Path]) -> bool:
    return any(name.endswith(ending) and name.removesuffix(ending) in texts for ending in ENDINGS)


def _owner(stem: str, grids: list[str]) -> str:
    """Return the grid that a figure belongs to: the longest name that it begins with; else its own."""
    of_grids = [name for name in grids if stem == name or stem.startswith(f"{name}-")]
    return max(of_grids, key=len, default=stem)


def _grid(name: str, text: Path | None, pictures: list[Path], save_path: Path, configs: Path | None) -> Grid:
    config = None if configs is None else configs / f"{name}.yaml"
    file = config.read_text(encoding="utf-8") if config is not None and config.is_file() else None
    title, settings = (_title(name, file), []) if text is None else _said(text)
    figures = [
        Shown(f"{title}{_ending(path.stem, name)}", path.relative_to(save_path).as_posix(), *figure(path))
        for path in pictures
    ]
    return Grid(
        name,
        title,
        settings,
        None if text is None else text.relative_to(save_path).as_posix(),
        file,
        figures,
    )


def _title(name: str, file: str | None) -> str:
    """Return a title in words: of a grid its file's, of an analysis what it shows, else the name."""
    kind, _, of = name.partition("-")
    if name in STATISTICS:
        return STATISTICS[name]
    if file is not None:
        return str(yaml.safe_load(file).get("title", name))
    if kind in ANALYSES:
        return f"{kind.capitalize()}, {of}: {ANALYSES[kind]}"
    return f"Course of the search {name.rpartition('-')[0]}" if "-LBCS-" in name else name


def _said(text: Path) -> tuple[str, list[str]]:
    """Return a report's title, and what it says beside its tables: settings, and what is missing."""
    lines = text.read_text(encoding="utf-8").splitlines()
    title = next((line.removeprefix("# ") for line in lines if line.startswith("# ")), text.stem)
    said = [line.lstrip("# ") for line in lines if line and not line.startswith(("|", "# "))]
    return title, said


def _ending(stem: str, name: str) -> str:
    rest = stem.removeprefix(name)
    if not rest:
        return ""
    return next((f": {said}" for ending, said in ENDINGS.items() if ending in rest), f", {rest.strip('-')}")
