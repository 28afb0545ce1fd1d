"""Write a recorded subset in a form that others load: a Parquet data set, JSON, NumPy, text or CSV.

python -m lcmat export result/digits-ResNet18/LCMat-S/fraction0.1-seed0-….json --format hf --to FOLDER
"""

import argparse
from pathlib import Path

from lcmat.command_line import Parser
from lcmat.errors import UserError
from lcmat.records import read_record
from lcmat.reports.subsets import FORMATS, Taken, check_new, taken, with_files, write_images, write_subset


def main(argv: list[str]) -> int:
    """Write one recorded subset, or the images that a condensation learned."""
    parser = Parser(prog="python -m lcmat export", allow_abbrev=False)
    parser.add_argument("record", metavar="RECORD", type=Path, help="a record, or the .npz file beside it")
    parser.add_argument("--format", choices=FORMATS, default="hf", help="hf: Parquet, for load_dataset(FOLDER)")
    parser.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="a new or empty folder")
    parser.add_argument(
        "--data_path",
        metavar="DIR",
        type=Path,
        help="of an image folder: names come with the indices",
    )
    args = parser.parse_args(argv)
    check_new(args.to)
    if args.record.suffix == ".pt":
        args.record = args.record.with_suffix(".json")
    record = _subset_or_none(args)
    if record is None:
        write_images(args.record, args.to)
        print(f"learned images: {args.to}")
        return 0
    written = write_subset(record, args.format, args.to)
    print(f"{len(record.columns['index'])} samples that were kept: {written}")
    return 0


def _subset_or_none(args: argparse.Namespace) -> Taken | None:
    """Return the subset of the record; None for a record of learned images, which there is one form of."""
    record = read_record(args.record.with_suffix(".json"))
    if record is not None and "synthetic" in record:
        if args.data_path is not None:
            raise UserError("--data_path names chosen images, and learned ones have no names; leave it out")
        if args.format != "hf":
            raise UserError(f"learned images are written as a Parquet data set; leave --format {args.format} out")
        return None
    found = taken(args.record)
    if args.data_path is None:
        return found
    return with_files(found, *_names(args.data_path, found.record))


def _names(folder: Path, record: dict) -> tuple[list[str], str]:
    """Return the names of an image folder's training images, and the data's fingerprint."""
    from lcmat import data  # here: it loads PyTorch

    if not str(record["config"].get("dataset")).startswith("ImageFolder"):
        raise UserError(f"--data_path is for image folders, and this is a record of {record['dataset']}; leave it out")
    size = record["config"].get("image_size")
    dataset = data.load("ImageFolder", folder)
    if dataset.fingerprint() != record["config"].get("dataset_fingerprint") and size is not None:
        dataset = data.load("ImageFolder", folder, image_size=size)
    return list(map(str, dataset.train_names)), dataset.fingerprint()
