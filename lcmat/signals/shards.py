"""Signals as a folder of memory-mapped arrays, cut into shards, which is read class by class.

signals.json         what there is: samples, shards, arrays with type and shape of a sample, each file with its size
index.npz            how many samples of each class each shard holds, and a checksum of each such run of each array
features-00000.npy   (n, d) of the n samples of shard 0, its classes one after the other; logits, scale likewise
labels-00000.npy     (n,) their classes; positions-00000.npy, (n,) where each stands in the whole
rest.npz             what is not by sample: validation_features and so on, bias, class_names

A class is a run of rows in each shard, so that to read it takes no more memory than it has samples, and no look at any
label; runs are compared with their checksums as they are read. Dynamics are kept by sample, (n, E).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lcmat.errors import UserError
from lcmat.expected import each, fields, mapping, matching, one_of, problem, row, whole
from lcmat.files import load_arrays, sha256_of, unfinished_folder, write_atomically, write_json
from lcmat.signals.arrays import ClassNames
from lcmat.signals.signals import DYNAMICS, Signals

FORMAT, MANIFEST, INDEX, REST = 1, "signals.json", "index.npz", "rest.npz"
OF_A_SHARD = ("labels", "positions", "features", "logits", "scale", *DYNAMICS)
OF_VALIDATION = "validation_"
# What the manifest holds; of the index and the rest, the sha256, so that its own one tells all that is in the folder.
STORED = fields(
    {
        "format": one_of(FORMAT),
        "samples": whole(1),
        "shards": whole(1),
        "arrays": mapping(row(matching(r"bool|u?int\d+|float\d+"), each(whole(1)))),
        "files": mapping(whole(1)),
        "sha256": mapping(matching("[0-9a-f]{64}")),
    }
)


@dataclass(frozen=True, eq=False)
class Shards:
    """Signals in a folder, of which no sample is in memory before its class is asked for.

    arrays: by name, the type and shape of what there is of one sample. counts: (S, C) samples of each class in each
    shard. checksums: (S, C) of each array, by name. What `Signals` have by sample is described here by tensors without
    content, so that a selection can be planned.
    """

    folder: Path
    arrays: Mapping[str, tuple[np.dtype, tuple[int, ...]]]
    counts: np.ndarray
    checksums: Mapping[str, np.ndarray]
    bias: bool = True
    class_names: Sequence[str] | None = None
    validation: Signals | None = None
    initialisations: None = None

    def __len__(self) -> int:
        return int(self.counts.sum())

    @property
    def class_sizes(self) -> np.ndarray:
        """How many samples of each class there are, (C,)."""
        return self.counts.sum(0)

    @property
    def features(self) -> Tensor | None:
        """What features there are: (n, d), without content."""
        return self._described("features")

    @property
    def logits(self) -> Tensor | None:
        """What logits there are: (n, C), without content."""
        return self._described("logits")

    @property
    def scale(self) -> Tensor | None:
        """What scale there is: (n,), without content."""
        return self._described("scale")

    @property
    def dynamics(self) -> dict[str, Tensor] | None:
        """What dynamics there are: (n, E) each, without content."""
        return {name: self._described(name) for name in DYNAMICS if name in self.arrays} or None

    def part(self, label: int, rows: np.ndarray | None = None) -> Signals:
        """Return the signals of a class, in the order of the whole.

        rows: numbers of some of its samples, ascending, to read these alone; they are not compared with checksums.
        Raises UserError for files that are damaged or gone.
        """
        size = self.class_sizes[label] if rows is None else len(rows)
        names = self.arrays.keys() - {"labels", "positions"}
        arrays = {name: self._read(name, label, rows) for name in names}
        return self._signals({**arrays, "labels": np.full(size, label)})

    def positions(self, label: int, rows: np.ndarray | None = None) -> Tensor:
        """Return where the samples of a class, or some rows of it, stand in the whole, (n,)."""
        return torch.from_numpy(self._read("positions", label, rows))

    def everything(self) -> Signals:
        """Return the signals of all samples, in their order: for what does not select class by class."""
        there = self.class_sizes.nonzero()[0]
        arrays = {name: np.concatenate([self._read(name, label) for label in there]) for name in self.arrays}
        order = arrays.pop("positions").argsort()
        return self._signals({name: array[order] for name, array in arrays.items()})

    def _described(self, name: str) -> Tensor | None:
        if name not in self.arrays:
            return None
        return torch.empty((len(self), *self.arrays[name][1]), device="meta")

    def _signals(self, arrays: dict[str, np.ndarray]) -> Signals:
        dynamics = {name: arrays.pop(name).T for name in DYNAMICS if name in arrays}
        layer = {"bias": self.bias, "class_names": self.class_names, "validation": self.validation}
        try:
            return Signals(**arrays, dynamics=dynamics or None, **layer)
        except UserError as error:
            raise UserError(f"{self.folder}: {error}") from None

    def _read(self, name: str, label: int, rows: np.ndarray | None = None) -> np.ndarray:
        """Return an array of one class, or of some of its samples; half precision widened where it comes to lie."""
        sizes, (dtype, shape) = self.counts[:, label], self.arrays[name]
        before = np.cumsum(sizes) - sizes
        out = np.empty(
            (sizes.sum() if rows is None else len(rows), *shape), np.float32 if dtype == np.float16 else dtype
        )
        filled = 0
        for shard in sizes.nonzero()[0]:
            start = int(self.counts[shard, :label].sum())
            run = self._mapped(name, shard)[start : start + sizes[shard]]
            if rows is None:
                if zlib.crc32(run) != self.checksums[name][shard, label]:
                    raise UserError(f"{self.folder / file_of(name, shard)} is damaged: a checksum is wrong")
            else:
                run = run[
                    rows[slice(*rows.searchsorted([before[shard], before[shard] + sizes[shard]]))] - before[shard]
                ]
            out[filled : filled + len(run)] = run
            filled += len(run)
        return out

    def _mapped(self, name: str, shard: int) -> np.ndarray:
        path, (dtype, shape) = self.folder / file_of(name, shard), self.arrays[name]
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, FileNotFoundError):
            raise UserError(f"{path} is damaged or gone; convert the signals again") from None
        if array.dtype != dtype or array.shape != (int(self.counts[shard].sum()), *shape):
            raise UserError(f"{path} is damaged: it holds {array.dtype} {array.shape}; convert the signals again")
        return array


def file_of(name: str, shard: int) -> str:
    """Return the name of the file of an array of one shard."""
    return f"{name}-{shard:05}.npy"


def open_shards(folder: Path) -> Shards:
    """Return the signals in a folder that `write_shards` wrote.

    Raises UserError for a folder that is none or is not whole: every file has its size, and is looked into when it is
    read.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        wrong = problem(manifest, STORED)
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no whole signals: there is no {MANIFEST} in it (python -m lcmat shard)"
        ) from None
    except ValueError:
        wrong = "it is no JSON"
    if wrong is not None:
        raise UserError(f"{folder / MANIFEST} is damaged or of another version: {wrong}")
    for name, size in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            found = f"has {path.stat().st_size:,} bytes" if path.is_file() else "is gone"
            raise UserError(f"{path} {found}, and should have {size:,}; convert the signals again")
    for name, digest in manifest["sha256"].items():
        if sha256_of(folder / name) != digest:
            raise UserError(f"{folder / name} is damaged: its checksum is wrong; convert the signals again")
    arrays = {name: (np.dtype(kind), tuple(shape)) for name, (kind, shape) in manifest["arrays"].items()}
    index = load_arrays(folder / INDEX)
    counts, checksums = index.pop("counts"), index
    rest = load_arrays(folder / REST)
    names = rest.get("class_names")
    layer = {
        "bias": bool(rest.get("bias", True)),
        "class_names": None if names is None else ClassNames(map(str, names.tolist())),
    }
    held_out = {name.removeprefix(OF_VALIDATION): rest[name] for name in rest if name.startswith(OF_VALIDATION)}
    try:
        validation = Signals(**held_out, **layer) if held_out else None
    except UserError as error:
        raise UserError(f"{folder / REST}: {error}") from None
    return Shards(folder, arrays, counts, checksums, **layer, validation=validation)


def write_shards(
    folder: Path, chunks: Iterable[Mapping[str, np.ndarray]], rest: Mapping[str, np.ndarray] | None = None
) -> Shards:
    """Write signals as a new folder of shards, whole or not at all, and return them.

    chunks: one for each shard, with arrays of consecutive samples by the names of `Signals`: labels (n,), integers from
    0, and what else there is, in half, single or double precision; dynamics by sample, (n, E). rest: bias, class_names
    and validation_… arrays. No more than one chunk is in memory at once.
    Raises UserError for a folder in use, and for what are no signals.
    """
    folder, rest = Path(folder).absolute(), dict(rest or {})
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with unfinished_folder(folder.parent) as scratch:
        counts, checksums, arrays = [], [], {}
        for number, chunk in enumerate(chunks):
            labels, held = _checked(chunk, rest)
            held |= {"labels": labels, "positions": np.arange(len(labels)) + sum(int(c.sum()) for c in counts)}
            shapes = {name: (held[name].dtype, held[name].shape[1:]) for name in OF_A_SHARD if name in held}
            arrays = arrays or shapes
            if shapes != arrays:
                raise UserError(f"samples have {_in_words(arrays)} at first, and later {_in_words(shapes)}")
            counts.append(np.bincount(labels, minlength=held["logits"].shape[1] if "logits" in held else 0))
            checksums.append(_write_shard(scratch, number, held, counts[-1]))
        if not counts:
            raise UserError("there are no samples to write")
        _write_index(scratch, counts, checksums, rest)
        _write_manifest(scratch, arrays, [int(one.sum()) for one in counts])
        scratch.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        scratch.rename(folder)
    return open_shards(folder)


def _checked(
    chunk: Mapping[str, np.ndarray], rest: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return labels and what else a chunk holds, as it is to be written; raise UserError for what are no signals."""
    if other := chunk.keys() - set(OF_A_SHARD):
        raise UserError(f"'{min(other)}' is nothing that shards hold; they hold {', '.join(OF_A_SHARD)}")
    dynamics = {name: chunk[name].T for name in DYNAMICS if name in chunk}
    main = {name: chunk[name] for name in chunk if name not in DYNAMICS}
    layer = {name: rest[name] for name in ("bias", "class_names") if name in rest}
    signals = Signals(**main, dynamics=dynamics or None, **layer)
    labels = signals.labels.numpy()
    if not np.array_equal(labels, chunk["labels"]):
        raise UserError("labels must be integers from 0 to below 1,000,000, or come with class_names")
    floats = {name: getattr(signals, name).numpy() for name in ("features", "logits", "scale") if name in chunk}
    half = {name: chunk[name] for name in floats if name != "scale" and chunk[name].dtype == np.float16}
    return labels, floats | half | {name: signals.dynamics[name].numpy().T for name in dynamics}


def _write_shard(
    folder: Path, number: int, held: Mapping[str, np.ndarray], counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Write the files of one shard, class by class; return the checksums of each class's run, by array."""
    order = held["labels"].argsort(kind="stable")
    ends = np.cumsum(counts)
    found = {}
    for name, array in held.items():
        array = np.ascontiguousarray(array[order])
        write_atomically(folder / file_of(name, number), lambda file, array=array: np.save(file, array))
        runs = zip(ends - counts, ends, strict=True)
        found[name] = np.array([zlib.crc32(array[start:end]) if end > start else 0 for start, end in runs], np.uint32)
    return found


def _write_index(
    folder: Path, counts: list[np.ndarray], checksums: list[dict[str, np.ndarray]], rest: Mapping[str, np.ndarray]
) -> None:
    classes = max(map(len, counts))

    def joined(rows: list[np.ndarray]) -> np.ndarray:
        return np.stack([np.pad(row, (0, classes - len(row))) for row in rows])

    index = {name: joined([one[name] for one in checksums]) for name in checksums[0]}
    write_atomically(folder / INDEX, lambda file: np.savez(file, counts=joined(counts), **index))
    write_atomically(folder / REST, lambda file: np.savez(file, **rest))


def _write_manifest(
    folder: Path, arrays: Mapping[str, tuple[np.dtype, tuple[int, ...]]], samples: Sequence[int]
) -> None:
    manifest = {
        "format": FORMAT,
        "samples": sum(samples),
        "shards": len(samples),
        "arrays": {name: [dtype.name, list(shape)] for name, (dtype, shape) in arrays.items()},
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        "sha256": {name: sha256_of(folder / name) for name in (INDEX, REST)},
    }
    write_json(folder / MANIFEST, manifest)


def _in_words(arrays: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {dtype} {shape}" for name, (dtype, shape) in arrays.items() if name != "positions")
