"""Folders of records, as commands are given them. Apart from what draws and writes, which takes seconds to import."""

import sys
from pathlib import Path

from lcmat.errors import UserError


def existing_folder(folder: str) -> Path:
    """Return a folder of records; raise UserError if there is none."""
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"no such folder: {path}; give the --save_path of the runs")
    return path


def report(damaged: list[Path]) -> None:
    """Name damaged records on stderr; they are not counted and left as they are."""
    for path in damaged:
        print(f"warning: {path} is no whole record; left alone and not counted", file=sys.stderr)
