"""The reports that a grid may ask for, and how they are written from its jobs."""

import functools
from pathlib import Path

from lcmat.analysis import images
from lcmat.records import read_record
from lcmat.reports import found, grids
from lcmat.runs import Job

# Contact sheets show the data's images, which records do not hold.
KNOWN = (*grids.REPORTS, "images")


def write(name: str, title: str, asked: dict[str, dict[str, object]], jobs: list[Job], save_path: Path) -> list[Path]:
    """Write the reports asked for, by name with options, and return the files. UserError if no run is recorded."""
    there = [read_record(job.path) for job in jobs]
    what = found.Found(name, title, [job.config for job in jobs], there, save_path, alone=len(asked) == 1)
    return found.write(what, asked, grids.REPORTS | {"images": functools.partial(images, jobs=jobs)})
