"""What the flags say about all runs of a command: recipes, and the settings that they share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lcmat.errors import UserError, lookup, shown
from lcmat.journal import BOARDS
from lcmat.runs import Settings
from lcmat.runs.evaluation import EVALUATIONS, evaluation_recipe
from lcmat.selection.budgets import check_fraction
from lcmat.selection.quota import QUOTAS
from lcmat.training import Recipe

RECIPE = ("epochs", "optimizer", "lr", "momentum", "nesterov", "weight_decay")
SCHEDULE = ("scheduler", "min_lr", "step_size", "gamma", "total_steps")
# Least values of flags that are numbers; others are checked where their meaning is.
LEAST = {
    1: ("ipc", "threads", "image_size", "initialisations", "initialisation_epochs", "evaluations", "factor"),
    0: ("workers", "test_interval", "selection_test_interval", "checkpoint_interval", "snapshots"),
}
# Greatest ones: far beyond what anybody can wait for or store, they bound what is counted out before any work.
MOST = {
    1_000: ("initialisations", "evaluations", "factor", "steps", "workers", "threads", "gpu"),
    10_000: ("snapshots",),
    1_000_000: ("image_size", "epochs", "selection_epochs", "initialisation_epochs", "trials"),
    10**9: ("budget", "ipc", "memory_per_class", "K", "batch", "train_batch", "selection_batch", "test_interval",
            "selection_test_interval", "checkpoint_interval"),
    2**63 - 1: ("seed",),
}  # fmt: skip
SHARES = ("test_fraction", "selection_test_fraction", "val_ratio")


def settings_of(args: argparse.Namespace) -> Settings:
    """Return what the flags say about all runs. Raises UserError for values that cannot be.

    The augmentation is left open: without --augmentation it is the dataset's, which is not loaded yet.
    """
    _check_numbers(args)
    _check_paths(args)
    same = ("model", "inner_model", "balance", "evaluations", "snapshots", "val_ratio", "overwrite")
    tests = ("test_interval", "test_fraction", "selection_test_interval", "selection_test_fraction")
    counts = ("initialisations", "initialisation_epochs")
    quota = lookup("quota", args.quota or "even", QUOTAS)
    if quota != "even" and not args.balance:
        raise UserError(f"--quota {quota} says how much is taken of each class; leave --balance False out")
    return Settings(
        quota=quota,
        **{name: getattr(args, name) for name in (*same, *tests, *counts)},
        selection_recipe=_recipe(args, "selection_", args.selection_batch, scheduler="constant"),
        pretrained=None if args.pretrained is None else Path(args.pretrained),
        recipe=replace(_training_recipe(args), sync_batchnorm=args.sync_batchnorm),
        hold_out=args.val,
        save_path=Path(args.save_path),
        cache_path=Path(args.cache_path),
        resume=args.resume is not None,
        resume_from=Path(args.resume) if isinstance(args.resume, str) else None,
        checkpoint_seconds=args.checkpoint_interval,
        log=None if args.log is None else lookup("log", args.log, BOARDS),
    )


def _check_numbers(args: argparse.Namespace) -> None:
    for fraction in args.fraction or []:
        check_fraction(fraction)
    for least, names in LEAST.items():
        for name, value in _values(args, names):
            if not value >= least:
                raise UserError(f"--{name} must be {'at least 1' if least else '0 or more'}, not {value}")
    for most, names in MOST.items():
        for name, value in _values(args, names):
            if not -most - 1 <= value <= most:
                raise UserError(f"--{name} must be at most {most:,}, not {shown(value)}")
    for name in SHARES:
        if not 0 < getattr(args, name) <= 1:
            raise UserError(f"--{name} must lie above 0 and at most at 1, not {getattr(args, name):g}")


def _values(args: argparse.Namespace, names: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield the numbers that flags were given, with the names of these."""
    for name in names:
        given = getattr(args, name)
        yield from ((name, value) for value in (given if isinstance(given, list) else [given]) if value is not None)


def _check_paths(args: argparse.Namespace) -> None:
    for name in ("save_path", "cache_path"):
        if not getattr(args, name):
            raise UserError(f"--{name} is empty; name a folder")
    for name in ("pretrained", "resume"):
        if isinstance(getattr(args, name), str) and not Path(getattr(args, name)).exists():
            raise UserError(f"no such file: {getattr(args, name)} (--{name})")


def _training_recipe(args: argparse.Namespace) -> Recipe:
    """Return the recipe that --evaluation names, with the flags given over it; without it, what the flags say."""
    if args.evaluation is None:
        return _recipe(args, "", args.train_batch, **{name: getattr(args, name) for name in SCHEDULE})
    changes = {name: getattr(args, name) for name in (*SCHEDULE, *RECIPE) if name in args.explicit}
    if args.explicit & {"batch", "train_batch"}:
        changes["batch"] = args.batch if args.train_batch is None else args.train_batch
    return evaluation_recipe(lookup("evaluation", args.evaluation, EVALUATIONS), changes)


def _recipe(args: argparse.Namespace, prefix: str, batch: int | None, **rest: object) -> Recipe:
    values = {name: getattr(args, prefix + name) for name in RECIPE} | {"sync_batchnorm": args.sync_batchnorm}
    try:
        return Recipe(batch=args.batch if batch is None else batch, **values, **rest)
    except UserError as error:
        raise UserError(f"{error} (--{prefix}…)" if prefix else str(error)) from None
