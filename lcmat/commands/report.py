"""Write one HTML page of a folder of records, its report.html: findings, every cell, figures, picks, learned images.

python -m lcmat report result
python -m lcmat report result --data_path data    # also the images chosen of datasets that are there
"""

import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from lcmat import data
from lcmat.command_line import Parser
from lcmat.commands._folders import existing_folder
from lcmat.data.sources import without_downloads
from lcmat.errors import UserError
from lcmat.files import PROJECT, check_writable
from lcmat.reports.page import Beside, write_page
from lcmat.reports.page.settings import folders

# Datasets whose images memory holds whole.
SMALL = ("MNIST", "FashionMNIST", "SVHN", "CIFAR10", "CIFAR100")


def main(argv: list[str]) -> int:
    """Write the page, and say where it is and what could not be read."""
    parser = Parser(prog="python -m lcmat report", allow_abbrev=False)
    parser.add_argument("save_path", metavar="SAVE_PATH", nargs="?", default="result", help="folder of records")
    parser.add_argument(
        "--data_path", metavar="DIR", default="data", help="folder of datasets, as main.py's; nothing is downloaded"
    )
    args = parser.parse_args(argv)
    folder = existing_folder(args.save_path)
    check_writable(folder)
    path, unreadable = write_page(folder, Beside(pictures(folder, args.data_path), PROJECT / "configs"))
    for line in unreadable:
        print(f"warning: {line}", file=sys.stderr)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser without a network")
    return 0


def pictures(folder: Path, data_path: str = "data") -> dict[str, np.ndarray]:
    """Return the training images that records below a folder may be of, by fingerprint, as far as they are at hand.

    Those of digits come with a library, in each size that the project's grids use.
    """
    made = [data.load("digits", image_size=size) for size in (None, 16)]
    found = {one.fingerprint(): made[0].train.images.numpy() for one in made}
    for name in SMALL:
        if any(True for place in folders(folder) for _ in place.glob(f"{name}-*")):
            with without_downloads(), suppress(UserError):
                of = data.load(name, data_path)
                found[of.fingerprint()] = of.train.images.numpy()
    return found
