"""One run of condensation: learn synthetic images, train fresh networks on them, record.

The images are kept in the cache under a hash of all that determines them, so that other networks and recipes are
evaluated on the same ones.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import torch

from lcmat import records
from lcmat.condensation.condenser import Condenser, Task
from lcmat.condensation.synthetic import Synthetic
from lcmat.errors import UserError
from lcmat.runs.cache import is_locked, lock_of
from lcmat.runs.evaluation import checkpoint_keys, evaluate
from lcmat.runs.job import Run
from lcmat.runs.setup import Bench, Settings
from lcmat.selection.budgets import class_budgets

# Part of every cache key: raise it when the meaning of a cached file changes.
CACHE_FORMAT = 2


def is_condensation(run: Run) -> bool:
    """Tell whether the run makes images, where others choose some."""
    return isinstance(run.method, Condenser)


def sizes_of(bench: Bench, run: Run) -> list[int]:
    """Return how many images of each class to make: a multiple of the number of classes is shared out evenly.

    Other budgets and fractions are shared out as selections are. Raises UserError for impossible ones.
    """
    classes = bench.dataset.num_classes
    counts = torch.bincount(bench.part(run)[1].labels.cpu(), minlength=classes).numpy()
    if run.budget is not None and run.budget > 0 and run.budget % classes == 0 and counts.min() > 0:
        return [run.budget // classes] * classes
    return class_budgets(counts, fraction=run.fraction, budget=run.budget).tolist()


def condensing(bench: Bench, run: Run, options: dict[str, object]) -> dict[str, object]:
    """Return all that determines the synthetic images, and nothing else: its hash is their name in the cache."""
    ratio = bench.ratio(run)
    return {
        "format": CACHE_FORMAT,
        "dataset": bench.fingerprint,
        "name": bench.dataset.name,  # decides whether images are mirrored
        "normalisation": (bench.dataset.mean, bench.dataset.std),
        "validation": None if ratio is None else (ratio, run.seed),
        "model": bench.settings.model if run.method.networks else None,
        "selection": run.method.name,
        "sizes": sizes_of(bench, run),
        "options": run.method.resolved(sizes_of(bench, run), options),
        "seed": run.seed,
    }


def configuration(bench: Bench, run: Run, options: dict[str, object]) -> dict[str, object]:
    """Return all that determines the run's result: that of its images, and how networks are trained on them.

    Under the names that runs of selection use, so that both stand in the same tables.
    """
    settings, dataset = bench.settings, bench.dataset
    sizes = sizes_of(bench, run)
    fraction = sum(sizes) / len(bench.part(run)[0]) if run.fraction is None else run.fraction
    return {
        "dataset": dataset.name,
        "dataset_fingerprint": bench.fingerprint,
        **dataset.variant,
        "image_size": dataset.image_shape[1],
        "validation_ratio": bench.ratio(run),
        "selection": run.method.name,
        "fraction": fraction,
        "budget": run.budget,
        "balance": True,
        "options": run.method.resolved(sizes, options),
        "selection_network": None,
        "test_model": run.test_model or settings.model,
        "training": asdict(settings.recipe),
        "test_interval": settings.test_interval,
        "test_fraction": settings.test_fraction,
        "precision": str(bench.compute.precision).removeprefix("torch."),
        "seed": run.seed,
        "condensing": records.config_hash(condensing(bench, run, options)),
        **evaluations_of(settings),
    }


def evaluations_of(settings: Settings) -> dict[str, int]:
    """Return how many networks are trained, as a configuration says it: nothing for the usual one."""
    return {} if settings.evaluations == 1 else {"evaluations": settings.evaluations}


def check(bench: Bench, run: Run, options: dict[str, object]) -> set[str]:
    """Find before any work what would stop the run later; return the names of its checkpoints. Raises UserError."""
    sizes = sizes_of(bench, run)
    if sum(sizes) < 2:
        raise UserError("one image is too few to train on (BatchNorm); raise --ipc, --fraction or --budget")
    if not bench.settings.balance:
        raise UserError(f"{run.method.name} makes images class by class; leave --balance out")
    known = run.method.resolved(sizes, options)
    _check_network_and_factor(bench, run.method.name, known)
    counts = torch.bincount(bench.part(run)[1].labels.cpu(), minlength=len(sizes)).tolist()
    copies = {"noise": 0, "mixed": known.get("factor", 1) ** 2}.get(str(known.get("init", "real")), 1)
    for label, (count, size) in enumerate(zip(counts, sizes, strict=True)):
        if copies * size > count:
            raise UserError(
                f"{run.method.name} begins with {copies * size} real images of each class, but class "
                f"{bench.dataset.classes[label]} has {count}; ask for fewer"
                + (", or --option init=noise" if "init" in known else "")
            )
    return {records.config_hash(condensing(bench, run, options))}


def _check_network_and_factor(bench: Bench, name: str, known: dict[str, object]) -> None:
    model, side = bench.settings.model, min(bench.dataset.image_shape[1:])
    if known.get("layers") == "convolutions":
        weights = bench.fresh_network(model, "shape").parameters()
        if not any(weight.ndim == 4 for weight in weights):
            raise UserError(f"{name} matches gradients of convolutions, and {model} has none; take --option layers=all")
    if known.get("factor", 1) > side:
        raise UserError(f"--factor must be at most {side}, the side of an image, not {known['factor']}")


def run_one(bench: Bench, run: Run, config: dict[str, object], options: dict[str, object]) -> dict:
    """Do one run, write its record, synthetic images and their picture, and return the record."""
    settings = bench.settings
    key = records.config_hash(config)
    path = records.record_path(settings.save_path, config, settings.model)
    label = f"{run.method.name} {config['fraction']:g} seed {run.seed}"
    synthetic = synthetic_of(bench, run, options, path.with_suffix(""), label)
    split = synthetic.split().to(bench.compute.device)
    evaluation = evaluate(bench, run, split, key, label)
    record = {
        **records.heading(config, settings.model),
        **evaluation.facts,
        "test_interval": settings.test_interval,
        "subset_size": len(synthetic),
        "needs": [],
        "factor": synthetic.factor,
        "curve": [] if synthetic.curve is None else [[int(i), float(f"{loss:.6g}")] for i, loss in synthetic.curve],
        "synthetic": path.with_suffix(".pt").name,
        "seconds": {
            "pretrain": 0.0, "signals": 0.0, "select": round(synthetic.seconds, 3),
            "train": round(evaluation.seconds, 3),
        },
        "config": config,
        "environment": bench.environment,
    }  # fmt: skip
    synthetic.save(path.with_suffix(".pt"))
    synthetic.save_grid(path.with_suffix(".png"))
    records.write_record(path, record)  # last: a record means that the run is complete
    return record


def in_the_making(bench: Bench, run: Run, options: dict[str, object]) -> bool:
    """Tell whether another process is learning the images of this run."""
    return is_locked(_cached(bench, records.config_hash(condensing(bench, run, options))))


def _cached(bench: Bench, key: str) -> Path:
    return bench.settings.cache_path / "synthetic" / f"{key}.pt"


def synthetic_of(
    bench: Bench, run: Run, options: dict[str, object], folder: Path | None = None, label: str | None = None
) -> Synthetic:
    """Return the run's synthetic images, from the cache if they are there; snapshots go to `folder`, if there are any.

    Of several processes one makes them, and the others wait.
    """
    folder, label = folder or bench.settings.cache_path, label or f"{run.method.name} seed {run.seed}"
    what = condensing(bench, run, options)
    path = _cached(bench, records.config_hash(what))
    with lock_of(path):
        synthetic = _kept(path)
        if synthetic is None:
            synthetic = _made(bench, run, what, folder, label)
            synthetic.save(path)
        bench.checkpoint(path.stem).unlink(missing_ok=True)
    return synthetic


def _kept(path: Path) -> Synthetic | None:
    """Return what the cache has; None if nothing, or if it is damaged."""
    if not path.exists():
        return None
    try:
        return Synthetic.load(path)
    except UserError as error:
        warnings.warn(f"{error}; it is made anew", stacklevel=3)
        return None


def _made(bench: Bench, run: Run, what: dict[str, object], folder: Path, label: str) -> Synthetic:
    settings = bench.settings

    def snapshot(iteration: int, synthetic: Synthetic) -> None:
        synthetic.save(folder / f"iteration{iteration:06d}.pt")
        synthetic.save_grid(folder / f"iteration{iteration:06d}.png")

    # Float64 and gradients of gradients, which MPS lacks.
    compute = bench.compute
    if compute.device.type == "mps":
        compute = replace(compute, device=torch.device("cpu"))
    task = Task(
        split=bench.part(run)[1],
        sizes=what["sizes"],
        compute=compute,
        fresh_network=lambda number: bench.fresh_network(settings.model, run.seed, "condense", number),
        seed=run.seed,
        dataset=bench.dataset.name,
        checkpoint=bench.checkpoint(records.config_hash(what)),
        checkpoint_seconds=settings.checkpoint_seconds,
        resume=settings.resume,
        snapshot=snapshot,
        snapshots=settings.snapshots,
        label=f"{label}: condensing",
    )
    started = time.monotonic()
    synthetic = run.method.condense(task, **what["options"])
    return synthetic if synthetic.seconds else replace(synthetic, seconds=time.monotonic() - started)


def checkpoints(key: str, evaluations: int) -> set[str]:
    """Return the names of checkpoints that a run's trainings may leave."""
    return {*checkpoint_keys(key, evaluations), f"{key}-evaluated"}
