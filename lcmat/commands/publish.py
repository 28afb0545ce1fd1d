"""Write all recorded subsets and learned images of a folder in a form that others load, with an index.

python -m lcmat publish result --to FOLDER
"""

import json
import sys
from pathlib import Path

from lcmat.alive import Progress
from lcmat.command_line import Parser
from lcmat.commands._folders import existing_folder
from lcmat.errors import UserError
from lcmat.files import check_writable, write_json
from lcmat.records import read_record
from lcmat.reports.subsets import FORMATS, KEPT, taken, write_images, write_subset

INDEX = "index.json"


def main(argv: list[str]) -> int:
    """Write what was recorded; go on where an earlier call was stopped."""
    parser = Parser(prog="python -m lcmat publish", allow_abbrev=False)
    parser.add_argument("save_path", metavar="SAVE_PATH", nargs="?", default="result", help="folder of records")
    parser.add_argument("--format", choices=FORMATS, default="hf", help="of subsets (default: hf, Parquet data sets)")
    parser.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="a new folder, or one begun before")
    args = parser.parse_args(argv)
    folder = existing_folder(args.save_path)
    _check_begun(args.to, args.format)
    beyond = args.to.resolve()
    found = [path for path in sorted(folder.rglob("*.json")) if beyond not in path.resolve().parents]
    records = {path: read_record(path) for path in found}
    kept = {path: record for path, record in records.items() if record and {"indices", "synthetic"} & record.keys()}
    if not kept:
        raise UserError(f"no record of a subset or of learned images below {folder}; run main.py first")
    write_json(args.to / INDEX, {"meaning": KEPT, "format": args.format, "complete": False})
    entries = []
    for path, record in Progress(kept.items(), desc="publishing"):
        place = path.relative_to(folder).with_suffix("")
        to = args.to / place
        if not (to.is_dir() and any(to.iterdir())):
            write_images(path, to) if "synthetic" in record else write_subset(taken(path), args.format, to)
        entries.append(_entry(place, record))
    write_json(args.to / INDEX, {"meaning": KEPT, "format": args.format, "complete": True, "sets": entries})
    print(f"{len(entries)} sets: {args.to / INDEX}", file=sys.stderr)
    return 0


def _check_begun(folder: Path, kind: str) -> None:
    """Raise UserError for a folder that holds other things than what a call before wrote, in the same format."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / INDEX).is_file())):
        raise UserError(f"{folder} exists and is not empty; name a new folder (--to)")
    if (folder / INDEX).is_file() and (begun := _format_of(folder / INDEX)) != kind:
        raise UserError(f"{folder} was begun with --format {begun}; give that, or a new folder (--to)")
    check_writable(folder)


def _format_of(index: Path) -> object:
    try:
        return json.loads(index.read_text(encoding="utf-8"))["format"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{index} is no index of published sets; name a new folder (--to)") from None


def _entry(place: Path, record: dict) -> dict[str, object]:
    kind = "learned images" if "synthetic" in record else "subset"
    names = ("dataset", "selection", "selection_model", "fraction", "seed", "test_model", "test_accuracy")
    fingerprint = record["config"].get("dataset_fingerprint")
    options = record["config"].get("options", {})
    heading = {name: record[name] for name in names}
    return {"folder": str(place), "kind": kind, **heading, "options": options, "dataset_fingerprint": fingerprint}
