"""The records of a folder and of the folders in it, as settings: cells that may be compared with each other."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from lcmat.records import read_record
from lcmat.records.place import candidates
from lcmat.reports.continual import caption, settings_in
from lcmat.reports.tables import Cell, Paired, Table, accuracy_tables, cell_of, paired, row_names, told_apart

BASELINE, CONTINUAL = "Uniform", "continual learning"


@dataclass(frozen=True)
class Setting:
    """The cells of one table of one folder of records.

    title: tells it from all others. where: what of that is neither the dataset nor the network.
    """

    title: str
    dataset: str
    network: str
    where: str
    table: Table

    def against(self, method: str, fraction: float) -> Paired | None:
        """Return a cell's final accuracy minus Uniform's at the same fraction, seed by seed; None without one."""
        other = self.table.cells.get((BASELINE, fraction))
        return None if other is None or method == BASELINE else paired(self.table.cells[method, fraction], other)


def folders(save_path: Path) -> list[Path]:
    """Return the folder and those directly in it that hold records of their own."""
    inner = sorted(path for path in save_path.iterdir() if path.is_dir())
    return [folder for folder in [save_path, *inner] if any(True for _ in _candidates(folder))]


def read(save_path: Path) -> tuple[list[Setting], list[Path]]:
    """Return the settings of all records below a folder, each record with its "path" from there, and what is damaged.

    Titles that tables share are told apart; a folder in the folder is named in them.
    """
    found: list[tuple[str, Table]] = []
    damaged = []
    for folder in folders(save_path):
        records, spoilt = _records(folder, save_path)
        damaged += spoilt
        within = "" if folder == save_path else f" in {folder.name}"
        whole = [record for record in records if record["config"].get("protocol") != "continual"]
        steps = [record for record in records if record["config"].get("protocol") == "continual"]
        tables = accuracy_tables(whole) + [_continual(group) for group in settings_in(steps)]
        found += [(table.title + within, table) for table in tables]
    settings = []
    for (title, table), more in zip(found, told_apart(found), strict=True):
        where = (title.removeprefix(table.title).removeprefix(" in ") + more).strip(" ,")
        kind = CONTINUAL if table.title.endswith(CONTINUAL) else ""
        settings.append(Setting(title + more, *_what(table), f"{kind} {where}".strip(), table))
    return settings, damaged


def _candidates(folder: Path) -> list[Path]:
    return [path for protocol in ("whole", "continual") for path in candidates(folder, protocol)]


def _records(folder: Path, save_path: Path) -> tuple[list[dict], list[Path]]:
    records, damaged = [], []
    for path in _candidates(folder):
        record = read_record(path)
        if record is None:
            damaged.append(path)
        else:
            records.append(record | {"path": path.relative_to(save_path).as_posix()})
    return records, damaged


def _continual(group: list[dict]) -> Table:
    """Return the accuracies after the last step of continual learning as a table."""
    runs: dict[tuple[str, float], dict[int, dict]] = defaultdict(dict)
    for record, row in zip(group, row_names(group), strict=True):
        last = [{"test_accuracy": value, "best_test_accuracy": value} for value in record["steps"][-1]["each"]]
        runs[row, record["fraction"]][record["seed"]] = record | {"evaluations": last}
    cells: dict[tuple[str, float], Cell] = {key: cell_of(seeds) for key, seeds in runs.items()}
    config = group[0]["config"]
    title = f"{group[0]['dataset']}, {config['test_model']}, {CONTINUAL}"
    said = f"after the last of {config['steps']} steps. {caption(group).rstrip('.')}"
    return Table(title, said, "continual", group[0]["test_interval"], cells)


def _what(table: Table) -> tuple[str, str]:
    first = next(iter(table.cells.values())).records[0]
    selects, trained = first["selection_model"], first["test_model"]
    return first["dataset"], selects if selects == trained else f"{selects} → {trained}"
