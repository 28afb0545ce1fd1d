"""A run of condensation: learn synthetic images, train fresh networks on them, record.

The images are kept in the cache under a hash of all that determines them, so that other networks and recipes are
evaluated on the same ones.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lcmat import records
from lcmat.condensation import Synthetic, Task
from lcmat.errors import UserError
from lcmat.expected import array, fields, one_of
from lcmat.records.keys import FORMATS
from lcmat.runs import checkpoints
from lcmat.runs.cache import held_lock, lock_of
from lcmat.runs.checkpoints import Names
from lcmat.runs.configuration import Reduction, configuration
from lcmat.runs.evaluation import Reduced, record_of, train_and_test
from lcmat.runs.job import Run, record_path
from lcmat.runs.kind import Exemplars
from lcmat.runs.setup import Setup
from lcmat.selection import class_budgets


@dataclass(frozen=True)
class Condensation:
    """Runs that make images, where others choose some (see `runs.kind.Kind`)."""

    protocol: str = "whole"

    def configuration(self, setup: Setup, run: Run) -> dict[str, object]:
        """Return all that determines the run's result: that of its images, and how networks are trained on them."""
        sizes = sizes_of(setup, run)
        reduction = Reduction(
            fraction=sum(sizes) / len(setup.part(run)[0]) if run.fraction is None else run.fraction,
            budget=run.budget,
            balance=True,
            options=run.method.resolved(sizes, run.options),
            further={"condensing": records.config_hash(condensing(setup, run))},
        )
        return configuration(setup, run, reduction)

    def check(self, setup: Setup, run: Run) -> None:
        """Find before any work what would stop the run later."""
        sizes, name = sizes_of(setup, run), run.method.name
        if sum(sizes) < 2:
            raise UserError("one image is too few to train on (BatchNorm); raise --ipc, --fraction or --budget")
        if not setup.settings.balance:
            raise UserError(f"{name} makes images class by class; leave --balance out")
        known = run.method.resolved(sizes, run.options)
        _check_network_and_factor(setup, name, known)
        copies = {"noise": 0, "mixed": known.get("factor", 1) ** 2}.get(str(known.get("init", "real")), 1)
        for label, (count, size) in enumerate(zip(setup.class_counts(run).tolist(), sizes, strict=True)):
            if copies * size > count:
                raise UserError(
                    f"{name} begins with {copies * size} real images of each class, but class "
                    f"{setup.dataset.classes[label]} has {count}; ask for fewer"
                    + (", or --option init=noise" if "init" in known else "")
                )

    def checkpoints(self, setup: Setup, run: Run) -> Names:
        """Return those of the images while they are learned, and of the trainings on them."""
        key = records.config_hash(self.configuration(setup, run))
        learning = {records.config_hash(condensing(setup, run))}
        return Names(checkpoints.of_trainings(key, setup.settings.evaluations), frozenset(learning))

    def busy(self, setup: Setup, run: Run) -> Path | None:
        """Return the lock that another process holds which is learning the images of this run, or None."""
        return held_lock([_cached(setup, run)])

    def make(self, setup: Setup, run: Run) -> dict:
        """Learn the images, train on them, and write them, their picture and the record."""
        config = self.configuration(setup, run)
        path = record_path(setup, config)
        label = f"{run.method.name} {config['fraction']:g} seed {run.seed}"
        synthetic = synthetic_of(setup, run, path.with_suffix(""), label)
        reduced = Reduced(synthetic.split().to(setup.compute.device))
        evaluation = train_and_test(setup, run, reduced, records.config_hash(config), label)
        facts = {
            "subset_size": len(synthetic),
            "needs": [],
            "factor": synthetic.factor,
            "curve": [] if synthetic.curve is None else [[int(i), float(f"{loss:.6g}")] for i, loss in synthetic.curve],
            "synthetic": path.with_suffix(".pt").name,
        }
        seconds = {"pretrain": 0.0, "signals": 0.0, "select": synthetic.seconds, "train": evaluation.seconds}
        record = record_of(setup, config, evaluation.facts, facts, seconds)
        synthetic.save(path.with_suffix(".pt"))
        synthetic.save_grid(path.with_suffix(".png"))
        records.write_record(path, record)  # last: a record means that the run is complete
        return record

    def keep(self, setup: Setup, run: Run) -> Exemplars:
        """Return the images made."""
        synthetic = synthetic_of(setup, run)
        split = synthetic.split().to(setup.compute.device)
        return Exemplars(split, None, None, {"select": synthetic.seconds}, synthetic)


def sizes_of(setup: Setup, run: Run) -> list[int]:
    """Return how many images of each class to make: a multiple of the number of classes is shared out evenly.

    Other budgets and fractions are shared out as selections are. Raises UserError for impossible ones.
    """
    classes, counts = setup.dataset.num_classes, setup.class_counts(run).numpy()
    if run.budget is not None and run.budget > 0 and run.budget % classes == 0 and counts.min() > 0:
        return [run.budget // classes] * classes
    return class_budgets(counts, fraction=run.fraction, budget=run.budget).tolist()


def condensing(setup: Setup, run: Run) -> dict[str, object]:
    """Return all that determines the synthetic images, and nothing else: its hash is their name in the cache."""
    ratio, sizes = setup.ratio(run), sizes_of(setup, run)
    return {
        "format": FORMATS["synthetic"],
        "dataset": setup.fingerprint,
        "name": setup.dataset.name,  # decides whether images are mirrored
        "normalisation": (setup.dataset.mean, setup.dataset.std),
        "validation": None if ratio is None else (ratio, run.seed),
        "model": setup.settings.model if run.method.networks else None,
        **(setup.revised(setup.settings.model) if run.method.networks else {}),
        "selection": run.method.name,
        "sizes": sizes,
        "options": run.method.resolved(sizes, run.options),
        "seed": run.seed,
    }


def _check_network_and_factor(setup: Setup, name: str, known: dict[str, object]) -> None:
    model, side = setup.settings.model, min(setup.dataset.image_shape[1:])
    if known.get("layers") == "convolutions":
        weights = setup.fresh_network(model, "shape").parameters()
        if not any(weight.ndim == 4 for weight in weights):
            raise UserError(f"{name} matches gradients of convolutions, and {model} has none; take --option layers=all")
    if known.get("factor", 1) > side:
        raise UserError(f"--factor must be at most {side}, the side of an image, not {known['factor']}")


def _cached(setup: Setup, run: Run) -> Path:
    return setup.settings.cache_path / "synthetic" / f"{records.config_hash(condensing(setup, run))}.pt"


def synthetic_of(setup: Setup, run: Run, folder: Path | None = None, label: str | None = None) -> Synthetic:
    """Return the run's synthetic images, from the cache if they are there; snapshots go to `folder`, if there are any.

    Of several processes one makes them, and the others wait.
    """
    path = _cached(setup, run)
    with lock_of(path):
        synthetic = _kept(path, condensing(setup, run), setup.dataset.image_shape)
        if synthetic is None:
            folder, label = folder or setup.settings.cache_path, label or f"{run.method.name} seed {run.seed}"
            synthetic = _made(setup, run, folder, label)
            synthetic.save(path)
        checkpoints.remove(setup, [path.stem])
    return synthetic


def _kept(path: Path, what: dict[str, object], shape: tuple[int, ...]) -> Synthetic | None:
    """Return what the cache has; None if nothing, or if it is damaged."""
    if not path.exists():
        return None
    images = array(sum(what["sizes"]), *shape)
    try:
        return Synthetic.load(path, fields({"images": images, "factor": one_of(what["options"].get("factor", 1))}))
    except UserError as error:
        warnings.warn(f"{error}; it is made anew", stacklevel=3)
        return None


def _made(setup: Setup, run: Run, folder: Path, label: str) -> Synthetic:
    settings, what = setup.settings, condensing(setup, run)

    def snapshot(iteration: int, synthetic: Synthetic) -> None:
        synthetic.save(folder / f"iteration{iteration:06d}.pt")
        synthetic.save_grid(folder / f"iteration{iteration:06d}.png")

    # Float64 and gradients of gradients, which MPS lacks.
    compute = setup.compute
    if compute.device.type == "mps":
        compute = replace(compute, device=torch.device("cpu"))
    task = Task(
        split=setup.part(run)[1],
        sizes=what["sizes"],
        compute=compute,
        fresh_network=lambda number: setup.fresh_network(settings.model, run.seed, "condense", number),
        seed=run.seed,
        dataset=setup.dataset.name,
        checkpoint=setup.checkpoint(records.config_hash(what)),
        checkpoint_seconds=settings.checkpoint_seconds,
        resume=settings.resume,
        snapshot=snapshot,
        snapshots=settings.snapshots,
        label=f"{label}: condensing",
    )
    started = time.monotonic()
    synthetic = run.method.condense(task, **what["options"])
    return synthetic if synthetic.seconds else replace(synthetic, seconds=time.monotonic() - started)
