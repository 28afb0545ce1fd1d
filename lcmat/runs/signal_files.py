"""Selection without images or networks: signals from a .npz file, indices into files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lcmat import records
from lcmat.errors import UserError, suggest
from lcmat.files import load_arrays, sha256_of
from lcmat.runs.job import Run
from lcmat.selection import Method, Subset, select_with
from lcmat.signals import Signals
from lcmat.signals.signals import DYNAMICS

MAIN = ("features", "logits", "labels", "scale")
VALIDATION = tuple(f"validation_{name}" for name in MAIN)
OF_THE_LAYER = ("bias", "class_names")
KNOWN = (*MAIN, *DYNAMICS, *VALIDATION, *OF_THE_LAYER)


def load_signals(path: Path) -> Signals:
    """Read signals from a .npz file with arrays named as the fields of `Signals`.

    features (n, d), logits (n, C) and labels (n,), of which a method may need some only; scale (n,) of gradients;
    correctness, margin, error_norm, probability_margin, loss and change (E, n) of the dynamics; validation_features,
    validation_logits, validation_labels and validation_scale; bias, false for a last layer without one; class_names
    (C,) of labels that are text, in the order of the logits' columns.
    Raises UserError that names what is wrong.
    """
    path = Path(path)
    arrays = read_arrays(path)
    dynamics = {name: arrays[name] for name in DYNAMICS if name in arrays}
    validation = {name.removeprefix("validation_"): arrays[name] for name in VALIDATION if name in arrays}
    layer = {name: arrays[name] for name in OF_THE_LAYER if name in arrays}
    try:
        signals = Signals(**{name: arrays[name] for name in MAIN if name in arrays}, **layer, dynamics=dynamics or None)
        if validation:
            # Its labels may lack a class: they are numbered as those of the training samples.
            layer = {"bias": signals.bias, "class_names": signals.class_names}
            signals = replace(signals, validation=Signals(**validation, **layer))
        return signals
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a .npz file of signals; raise UserError for one that holds other things, or no labels."""
    try:
        arrays = load_arrays(path)
    except UserError as error:
        if "Python objects" in str(error):
            how = "an array in it holds Python objects: make numbers of them, or text by .astype(str)"
            raise UserError(f"cannot read {path} (--signals): {how}") from None
        raise UserError(f"{error} (--signals); save it by numpy.savez(…, features=…)") from None
    for name in arrays:
        if name not in KNOWN:
            raise UserError(f"{path} holds an unknown array '{name}'{suggest(name, KNOWN)}")
    if "labels" not in arrays:
        raise UserError(f"{path} holds no array 'labels', one integer per sample")
    return arrays


@dataclass(frozen=True)
class Selected:
    """A selection asked for: by which method, how much, and what else determines it (arguments of `select_with`)."""

    method: Method
    size: Mapping[str, object]
    how: Mapping[str, object]

    @staticmethod
    def of(run: Run, balanced: bool, quota: str = "even") -> Selected:
        """Return what a run asks for."""
        size = {"budget": run.budget} if run.fraction is None else {"fraction": run.fraction}
        shares = {} if quota == "even" else {"quota": quota}
        return Selected(run.method, size, {"balanced": balanced, "seed": run.seed, **shares, **run.options})


def select_from(path: Path, signals: Signals, asked: Selected, save_path: Path) -> tuple[Subset, Path]:
    """Select from the signals of the file at `path`; write the subset (.npz) and its indices (.txt, one a line).

    Both files lie at SAVE_PATH/<name of the file>/<method>/fraction<f>-seed<s>-<hash of all that determines them>,
    without a suffix. Returns the subset and the path of the indices.
    """
    subset = select_with(asked.method, signals, **asked.size, **asked.how)
    stem = place_of(path, sha256_of(path), len(signals), asked, save_path)
    subset.save(stem.with_name(f"{stem.name}.npz"))
    text = stem.with_name(f"{stem.name}.txt")
    subset.save_text(text)
    return subset, text


def place_of(path: Path, digest: str, count: int, asked: Selected, save_path: Path) -> Path:
    """Return where a selection lies, without a suffix; path, digest, count: of the signals."""
    size, how, name = asked.size, asked.how, asked.method.name
    key = records.config_hash({"signals": digest, "selection": name, **size, **how})
    share = f"{size['fraction']:g}" if "fraction" in size else f"{size['budget'] / count:g}"
    return Path(save_path) / f"signals-{path.stem}" / name / f"fraction{share}-seed{how['seed']}-{key}"
