"""Write signals from files as a folder of shards, which main.py --signals reads class by class.

python -m lcmat shard signals.npz --to FOLDER
python -m lcmat shard features-*.npy logits-*.npy labels-*.npy --to FOLDER
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lcmat.alive import Progress
from lcmat.command_line import Parser
from lcmat.command_line.options import size
from lcmat.errors import UserError
from lcmat.files import check_regular, load_arrays
from lcmat.runs.signal_files import KNOWN, OF_THE_LAYER, VALIDATION, read_arrays
from lcmat.signals import Signals, write_shards
from lcmat.signals.arrays import classes
from lcmat.signals.signals import DYNAMICS

REST = (*VALIDATION, *OF_THE_LAYER)
Arrays = Mapping[str, np.ndarray]
# What one input holds: all of it, or only its labels and what is not by sample.
Part = Callable[[bool], Arrays]


def main(argv: list[str]) -> int:
    """Convert files of signals to shards."""
    parser = Parser(prog="python -m lcmat shard", allow_abbrev=False, description=__doc__.splitlines()[0])
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        type=Path,
        help=".npz as for main.py --signals; or .npy whose names begin with what they hold, the i-th of each together",
    )
    parser.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="a new folder")
    parser.add_argument(
        "--shard_size", type=size, default=2**28, metavar="SIZE", help="of a shard, as 1GB (default: 256 MiB)"
    )
    args = parser.parse_args(argv)
    parts = _parts(args.files)
    labels, rest, each = _looked_through(parts)
    chunks = _chunks(parts, labels, max(1, args.shard_size // each))
    shards = write_shards(args.to, chunks, rest)
    print(f"{len(shards):,} samples in {len(shards.counts)} shards: {args.to}")
    return 0


def _parts(files: Sequence[Path]) -> list[Part]:
    kinds = {path.suffix for path in files}
    if kinds == {".npz"}:
        return [functools.partial(_of_archive, path) for path in files]
    if kinds != {".npy"}:
        raise UserError("give .npz files, or .npy files, and not both")
    by_name: dict[str, list[Path]] = {}
    for path in files:
        found = [name for name in KNOWN if re.match(rf"{name}(?![A-Za-z_])", path.stem)]
        if not found:
            raise UserError(f"{path} is called by no array; let its name begin with one of {', '.join(KNOWN)}")
        by_name.setdefault(found[0], []).append(path)
    counts = {name: len(paths) for name, paths in by_name.items() if name not in REST}
    if "labels" not in counts or len(set(counts.values())) > 1:
        said = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise UserError(f"there must be as many files of each array, and labels: there are {said or 'none'}")
    rest = {name: paths[0] for name, paths in by_name.items() if name in REST}
    return [
        functools.partial(_of_files, {name: by_name[name][i] for name in counts} | (rest if i == 0 else {}))
        for i in range(counts["labels"])
    ]


def _of_archive(path: Path, whole: bool) -> Arrays:
    return read_arrays(path) if whole else load_arrays(path, ("labels", *REST))


def _of_files(paths: Mapping[str, Path], whole: bool) -> Arrays:
    return {name: _mapped(path) for name, path in paths.items() if whole or name in ("labels", *REST)}


def _mapped(path: Path) -> np.ndarray:
    check_regular(path)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (ValueError, EOFError, OSError):
        raise UserError(f"{path} is damaged, no .npy file, or holds Python objects") from None


def _looked_through(parts: Sequence[Part]) -> tuple[np.ndarray, dict[str, np.ndarray], int]:
    """Return the labels of all samples as numbers, what is not by sample, and the bytes that a sample takes."""
    found, rest = [], {}
    for part in parts:
        arrays = dict(part(False))
        if "labels" not in arrays:
            raise UserError("there must be labels in each file, one integer or text per sample")
        found.append(np.asarray(arrays.pop("labels")))
        for name, array in arrays.items():
            if name in rest and not np.array_equal(rest[name], array):
                raise UserError(f"the files hold different {name}; one of them must hold it, or all the same")
            rest[name] = array
    first = _by_sample(parts[0](True))
    labels, names = _numbered(found, rest.get("class_names"), first.get("logits"))
    if names is not None:
        rest["class_names"] = np.array(names)
    return labels, rest, -(-sum(array.nbytes for array in first.values()) // max(1, len(first["labels"])))


def _numbered(
    found: list[np.ndarray], names: np.ndarray | None, logits: np.ndarray | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return labels as the numbers of classes, and the names of these, as `Signals` of all samples would have them."""
    if logits is None:
        signals = Signals(labels=found, class_names=names)
        return signals.labels.numpy(), signals.class_names
    labels, known = classes(found, names)
    if names is None and known is not None:
        Signals(labels=list(known), logits=np.zeros((len(known), logits.shape[1])))  # refuses names that have no column
    return labels.numpy(), known


def _by_sample(arrays: Arrays) -> dict[str, np.ndarray]:
    """Return the arrays that have a row for each sample; raise UserError where one has not."""
    kept = {name: np.asarray(array) for name, array in arrays.items() if name not in REST}
    kept = {name: array.T if name in DYNAMICS else array for name, array in kept.items()}
    for name, array in kept.items():
        if array.ndim == 0 or len(array) != len(kept["labels"]):
            raise UserError(
                f"there are {len(kept['labels'])} labels, and {name} {array.shape}; they go together by row"
            )
    return kept


def _chunks(parts: Sequence[Part], labels: np.ndarray, rows: int) -> Iterator[Arrays]:
    """Yield the arrays of so many samples after another, of one file or several; show how far that is."""
    held: list[Arrays] = []
    begun = count = 0
    with Progress(total=len(labels), desc="samples") as bar:
        for part in parts:
            arrays = _by_sample(part(True))
            size = len(arrays["labels"])
            arrays["labels"] = labels[begun : begun + size]
            begun += size
            at = 0
            while at < size:
                end = min(size, at + rows - count)
                held.append({name: array[at:end] for name, array in arrays.items()})
                count, at = count + end - at, end
                if count == rows:
                    yield _joined(held)
                    bar.update(count)
                    held, count = [], 0
        if held:
            yield _joined(held)


def _joined(held: Sequence[Arrays]) -> Arrays:
    if len({frozenset(arrays) for arrays in held}) > 1:
        raise UserError("the files hold different arrays; let each hold the same")
    try:
        return {name: np.concatenate([arrays[name] for arrays in held]) for name in held[0]}
    except ValueError:
        raise UserError("the files hold arrays of different widths; take them from one network") from None
