"""Write one HTML page of a folder of records, its report.html: findings, every cell, figures, picks, learned images.

python -m lcmat report result
"""

import sys
from collections.abc import Iterable

import numpy as np

from lcmat import data
from lcmat.command_line import Parser
from lcmat.commands.tables import existing_folder
from lcmat.files import PROJECT, check_writable
from lcmat.reports.page import Beside, write_page

# Its images come with a library: no folder, no download.
AT_HAND = "digits"


def main(argv: list[str]) -> int:
    """Write the page, and say where it is and what could not be read."""
    parser = Parser(prog="python -m lcmat report", allow_abbrev=False)
    parser.add_argument("save_path", metavar="SAVE_PATH", nargs="?", default="result", help="folder of records")
    folder = existing_folder(parser.parse_args(argv).save_path)
    check_writable(folder)
    path, unreadable = write_page(folder, Beside(pictures(), PROJECT / "configs"))
    for line in unreadable:
        print(f"warning: {line}", file=sys.stderr)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser without a network")
    return 0


def pictures(sizes: Iterable[int | None] = (None, 16)) -> dict[str, np.ndarray]:
    """Return the training images of digits by the fingerprint of each size that the project's grids use."""
    made = [data.load(AT_HAND, image_size=size) for size in sizes]
    return {one.fingerprint(): made[0].train.images.numpy() for one in made}
