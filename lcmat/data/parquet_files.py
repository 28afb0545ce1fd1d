"""Which Parquet files of a folder belong together: configurations, splits and parts of a split."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import yaml

from lcmat.errors import UserError, shown, suggest

TRAIN_SPLITS = ("train", "training")
TEST_SPLITS = ("test", "validation", "valid", "val")

Splits = dict[str, list[Path]]
PART = re.compile(r"^(.*)-(\d+)-of-(\d+)$")


def parquet_files(folder: Path, configuration: str | None = None) -> Splits | None:
    """Return the Parquet files of each split below `folder`, by their names (`train-00000-of-00001.parquet`); or None.

    Hidden files and folders are left out, which is said. Raises UserError where there are several configurations (the
    folders that files lie in, or what README.md declares) and none is named, or one that is not there.
    """
    files = sorted(folder.rglob("*.parquet")) if folder.is_dir() else []
    visible = [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    if not visible:
        return None
    if len(visible) < len(files):
        warnings.warn(f"{folder}: left out {len(files) - len(visible):,} hidden Parquet files", stacklevel=2)
    found = _declared(folder) or _by_folder(folder, visible)
    if len(found) == 1 and configuration in (None, *found):
        (splits,) = found.values()
    elif configuration in found:
        splits = found[configuration]
    else:
        raise no_such_configuration(str(folder), configuration, found)
    for split, parts in splits.items():
        _check_whole(folder, split, parts)
    return splits


def no_such_configuration(source: str, wanted: str | None, known: object) -> UserError:
    """Return the error that lists the configurations of a dataset: none is named of several, or one it has not."""
    known = list(known)
    if wanted is None:
        listed = ", ".join(known[:20]) + ", …" * (len(known) > 20)
        return UserError(f"{source} holds {len(known)} configurations; name one with --config_name: {listed}")
    return UserError(f"{source} has no configuration {shown(wanted)}{suggest(wanted, known)}")


def _by_folder(folder: Path, files: list[Path]) -> dict[str, Splits]:
    """Return configurations by the folders that their files lie in, without what all share or what names splits."""
    found: dict[tuple[str, ...], Splits] = {}
    for file in files:
        place, split = file.relative_to(folder).parts[:-1], file.stem.split("-")[0]
        above = place[-1] if place else None
        if above is not None and (file.stem.isdigit() or (_is_split(above) and not _is_split(split))):
            split = above  # train/0000.parquet
        place = place[:-1] if split == above else place
        found.setdefault(place, {}).setdefault(split, []).append(file)
    levels = zip(*found, strict=False)
    shared = next((level for level, names in enumerate(levels) if len(set(names)) > 1), min(map(len, found)))
    shared = max(0, shared - 1) if len(found) == 1 else shared
    return {"/".join(place[shared:]) or ".": splits for place, splits in found.items()}


def _is_split(name: str) -> bool:
    return name in (*TRAIN_SPLITS, *TEST_SPLITS)


def _declared(folder: Path) -> dict[str, Splits] | None:
    """Return what README.md declares as several configurations, as on the hub: names, with the files of each split."""
    try:
        header = (folder / "README.md").read_text(errors="replace").split("---\n")
        declared = yaml.safe_load(header[1])["configs"] if header[0] == "" and len(header) > 2 else []
        found = {str(one["config_name"]): _data_files(folder, one["data_files"]) for one in declared}
    except (
        OSError,
        yaml.YAMLError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        NotImplementedError,  # Path.glob's word for a pattern that is an absolute path
        RecursionError,
    ):
        return None  # none, or not of this kind: the folders say
    return found if len(found) > 1 and all(found.values()) else None


def _data_files(folder: Path, declared: object) -> Splits:
    entries = declared if isinstance(declared, list) else [{"split": s, "path": p} for s, p in declared.items()]
    splits: Splits = {}
    for entry in entries:
        patterns = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
        patterns = [pattern for pattern in patterns if ".." not in Path(pattern).parts]
        files = {file for pattern in patterns for file in folder.glob(pattern) if file.suffix == ".parquet"}
        if files:
            splits[str(entry["split"])] = sorted(files)
    return splits


def _check_whole(folder: Path, split: str, files: list[Path]) -> None:
    """Raise UserError where a split's files are of several sets of parts; say where parts of one are missing."""
    named = [PART.match(file.stem) for file in files]
    sets = {None if match is None else (match[1], int(match[3])) for match in named}
    if len(sets) > 1:
        names = ", ".join(sorted(file.name for file in files)[:4])
        raise UserError(f"{folder}: split '{split}' is here in several versions ({names}, …); move all but one away")
    for _, count in sets - {None}:
        if len(files) < count:
            warnings.warn(f"{folder}: {len(files):,} of {count:,} files of split '{split}' are here", stacklevel=3)
