"""What a parsed command line means: methods, options, recipes and the settings that all runs share."""

from __future__ import annotations

import argparse
from pathlib import Path

from lcmat.command_line.options import true_or_false
from lcmat.errors import UserError, lookup, suggest
from lcmat.facility_location.approximate import GREEDY
from lcmat.runs.evaluation import EVALUATIONS, evaluation_recipe
from lcmat.runs.setup import Settings
from lcmat.selection.budgets import check_fraction
from lcmat.training import Recipe

# Flags of the released code that mean nothing here.
WITHOUT_EFFECT = ("num_exp", "num_eval", "after_analyses", "exact_analyses", "print_freq")
# Flags that are options of LBCS, whose defaults stand there.
OF_LBCS = ("tolerance", "trials", "init_selection")
KERNELS = {"worst": "LCMat-S", "adacore": "AdaCore", "grad_l2": "LCMat-S", "cosine": None}


def methods_of(args: argparse.Namespace) -> list[str]:
    """Return the names of the methods asked for, with the released code's spellings translated."""
    names = []
    for name in args.selection:
        folded = name.casefold()
        if folded == "uncertainty":
            name = args.uncertainty
        elif folded == "submodular":
            kernel = args.kernel or "cosine"
            if kernel not in KERNELS:
                raise UserError(f"unknown kernel '{kernel}'{suggest(kernel, KERNELS)}")
            name = KERNELS[kernel] or args.submodular
        elif folded in ("gradmatch", "glister") and args.val:
            name = f"{name}-Val"
        names.append(name)
    return list(dict.fromkeys(names))


def rho_of(args: argparse.Namespace) -> float:
    """Return ρ: as given, twice the released --eps, or 0 for the released kernel without curvature."""
    if any(name.casefold() == "submodular" for name in args.selection) and args.kernel == "grad_l2":
        if len(args.selection) > 1:
            raise UserError("--kernel grad_l2 sets ρ = 0 for all methods; run it by itself")
        return 0.0
    return 2 * args.eps if args.eps is not None else 0.1 if args.rho is None else args.rho


def options_of(args: argparse.Namespace) -> dict[str, object]:
    """Return what --option says, by NAME or METHOD.NAME; values as numbers or switches where they are such."""
    options = {}
    for item in args.option:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise UserError(f"--option takes NAME=VALUE, not '{item}'")
        options[name] = _value(value)
    return options


def _value(text: str) -> object:
    for parse in (int, float, true_or_false):
        try:
            return parse(text)
        except (ValueError, argparse.ArgumentTypeError):
            continue
    return text


def settings_of(args: argparse.Namespace) -> Settings:
    """Return what the flags say about all runs. Raises UserError for values that cannot be.

    The augmentation is left open: without --augmentation it is the dataset's, which is not loaded yet.
    """
    for fraction in args.fraction or []:
        check_fraction(fraction)
    if any(count < 1 for count in args.ipc or []):
        raise UserError(f"--ipc must be at least 1, not {min(args.ipc)}")
    if args.workers is not None and args.workers < 0:
        raise UserError(f"--workers must be 0 or more, not {args.workers}")
    if args.threads is not None and args.threads < 1:
        raise UserError(f"--threads must be at least 1, not {args.threads}")
    if args.image_size is not None and args.image_size < 1:
        raise UserError(f"--image_size must be at least 1, not {args.image_size}")
    for name in ("save_path", "cache_path"):
        if not getattr(args, name):
            raise UserError(f"--{name} is empty; name a folder")
    for name in ("test_fraction", "selection_test_fraction", "val_ratio"):
        if not 0 < getattr(args, name) <= 1:
            raise UserError(f"--{name} must lie above 0 and at most at 1, not {getattr(args, name):g}")
    for name in ("test_interval", "selection_test_interval", "checkpoint_interval", "snapshots"):
        if getattr(args, name) < 0:
            raise UserError(f"--{name} must be 0 or more, not {getattr(args, name)}")
    for name in ("initialisations", "initialisation_epochs", "evaluations", "factor"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    for name in ("pretrained", "resume"):
        if isinstance(getattr(args, name), str) and not Path(getattr(args, name)).exists():
            raise UserError(f"no such file: {getattr(args, name)} (--{name})")
    return Settings(
        steps=args.steps if args.protocol == "continual" else None,
        memory_per_class=args.memory_per_class,
        model=args.model,
        inner_model=args.inner_model,
        selection_recipe=_recipe(args, "selection_", args.selection_batch, scheduler="constant"),
        pretrained=None if args.pretrained is None else Path(args.pretrained),
        selection_test_interval=args.selection_test_interval,
        selection_test_fraction=args.selection_test_fraction,
        balance=args.balance,
        initialisations=args.initialisations,
        initialisation_epochs=args.initialisation_epochs,
        options={
            "rho": rho_of(args),
            "K": args.K,
            "weights": args.weights,
            "greedy": lookup("greedy", args.greedy, GREEDY),
            "factor": args.factor,
            "backpack": args.backpack,
            **{name: getattr(args, name) for name in OF_LBCS if getattr(args, name) is not None},
            **options_of(args),
        },
        recipe=_training_recipe(args),
        evaluations=args.evaluations,
        snapshots=args.snapshots,
        memory=args.memory,
        test_interval=args.test_interval,
        test_fraction=args.test_fraction,
        hold_out=args.val,
        val_ratio=args.val_ratio,
        save_path=Path(args.save_path),
        cache_path=Path(args.cache_path),
        overwrite=args.overwrite,
        resume=args.resume is not None,
        resume_from=Path(args.resume) if isinstance(args.resume, str) else None,
        checkpoint_seconds=args.checkpoint_interval,
    )  # fmt: skip


def _training_recipe(args: argparse.Namespace) -> Recipe:
    """Return the recipe that --evaluation names, with the flags given over it; without it, what the flags say."""
    rest = {name: getattr(args, name) for name in ("scheduler", "min_lr", "step_size", "gamma")}
    if args.evaluation is None:
        return _recipe(args, "", args.train_batch, **rest)
    shared = ("epochs", "optimizer", "lr", "momentum", "nesterov", "weight_decay")
    rest |= {name: getattr(args, name) for name in shared}
    changes = {name: value for name, value in rest.items() if name in args.given}
    if args.given & {"batch", "train_batch"}:
        changes["batch"] = args.batch if args.train_batch is None else args.train_batch
    return evaluation_recipe(lookup("evaluation", args.evaluation, EVALUATIONS), changes)


def _recipe(args: argparse.Namespace, prefix: str, batch: int | None, **rest: object) -> Recipe:
    shared = ("epochs", "optimizer", "lr", "momentum", "nesterov", "weight_decay")
    try:
        return Recipe(
            batch=args.batch if batch is None else batch, **{n: getattr(args, prefix + n) for n in shared}, **rest
        )
    except UserError as error:
        raise UserError(f"{error} (--{prefix}…)" if prefix else str(error)) from None


def notes(args: argparse.Namespace, loader_used: bool) -> list[str]:
    """Return one line about the flags given that have no effect, if there are any."""
    idle = [f"--{name}" for name in WITHOUT_EFFECT if getattr(args, name) is not None]
    if args.workers is not None and not loader_used:
        idle.append("--workers")
    lines = [f"no effect here: {', '.join(idle)}"] if idle else []
    if args.submodular_greedy is not None:
        lines.append("--submodular_greedy: greedy is exact here, so every variant gives the same picks")
    return lines
