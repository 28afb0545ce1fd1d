"""A subset from a file, in the place of a method: anyone's selection can be trained on and tabulated."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import torch

from lcmat.errors import UserError
from lcmat.files import check_regular, load_arrays
from lcmat.records.keys import bytes_hash
from lcmat.selection import Method, Picks
from lcmat.signals import Signals


def read_subset(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return indices (m,) int64 into the training set, in the file's order, and weights (m,) or None.

    A text file holds an index on each line (# starts a comment), a .npz file arrays `indices` and perhaps `weights`, as
    this project writes them. Raises UserError that names the file and what is wrong with it.
    """
    try:
        check_regular(path)
        if zipfile.is_zipfile(path):
            arrays = load_arrays(path)
            if "indices" not in arrays:
                raise UserError(f"{path} holds no array 'indices'")
            indices, weights = arrays["indices"], arrays.get("weights")
        else:
            words = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
            indices, weights = np.array([_index(word) for word in words if word], dtype=np.int64), None
    except (FileNotFoundError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is neither .npz nor text in UTF-8"
        raise UserError(f"cannot read {path}: {reason} (--subset)") from None
    except UserError as error:
        raise UserError(f"{error} (--subset)") from None
    except ValueError as error:
        raise UserError(f"{path} must hold one index on each line: {error} (--subset)") from None
    if not indices.size:
        raise UserError(f"{path} names no sample (--subset)")
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise UserError(f"{path}: indices must be a list of integers, not {indices.dtype} {indices.shape} (--subset)")
    if len(np.unique(indices)) != len(indices):
        raise UserError(f"{path} names a sample twice; each index may come once (--subset)")
    if weights is not None and not (
        weights.shape == indices.shape
        and weights.dtype.kind in "fiub"
        and np.isfinite(weights).all()
        and (weights >= 0).all()
    ):
        raise UserError(f"{path}: weights must be finite, not negative, one for each index (--subset)")
    return indices.astype(np.int64), weights


def _index(word: str) -> int:
    if not re.fullmatch(r"[-+]?[0-9]{1,18}", word):
        raise ValueError(f"'{word if len(word) <= 40 else word[:40] + '…'}' is none")
    return int(word)


def subset_as_method(path: Path) -> tuple[Method, int]:
    """Return a method that chooses what the file says, over all classes together, and how many samples that is."""
    indices, weights = read_subset(path)
    digest = bytes_hash(indices.tobytes(), b"" if weights is None else weights.astype(np.float32).tobytes())

    def pick(signals: Signals, budget: int, generator: torch.Generator, sha256: str = digest) -> Picks:
        """Return the file's indices."""
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(signals):
            bad = indices[(indices < 0) | (indices >= len(signals))][0]
            raise UserError(f"{path} names sample {bad}, but there are {len(signals):,} (0 to {len(signals) - 1})")
        return Picks(torch.from_numpy(indices), None if weights is None else torch.from_numpy(weights).float())

    # The name of a folder and of a row: of files that are called by what neither can hold, without that.
    name = "".join(letter if letter.isprintable() and letter not in "|/\\" else "-" for letter in path.stem)
    return Method(name, pick, needs=(), nested=False, weighted=weights is not None), len(indices)
