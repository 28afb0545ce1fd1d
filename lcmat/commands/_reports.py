"""The reports that a grid may ask for, and how they are written from its jobs."""

from __future__ import annotations

import functools
from pathlib import Path

from lcmat.records import read_record
from lcmat.runs import Job

# Those of `lcmat.reports.grids`, which takes seconds to import, and contact sheets, which show the data's images.
KNOWN = (
    "accuracy", "cross", "difference", "heatmap", "sensitivity", "time_to_accuracy", "tuning", "wallclock",
    "continual", "lbcs", "images",
)  # fmt: skip


def write(name: str, title: str, asked: dict[str, dict[str, object]], jobs: list[Job], save_path: Path) -> list[Path]:
    """Write the reports asked for, by name with options, and return the files. UserError if no run is recorded."""
    from lcmat.analysis import images
    from lcmat.reports import found, grids

    there = [read_record(job.path) for job in jobs]
    what = found.Found(name, title, [job.config for job in jobs], there, save_path, alone=len(asked) == 1)
    return found.write(what, asked, grids.REPORTS | {"images": functools.partial(images, jobs=jobs)})
