"""The released code's spellings, translated: its methods, kernels and ε, and its flags that mean nothing here."""

from __future__ import annotations

import argparse

from lcmat.errors import UserError, suggest

# Flags of the released code that mean nothing here.
WITHOUT_EFFECT = ("num_exp", "num_eval", "after_analyses", "exact_analyses", "print_freq")
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


def rho_of(args: argparse.Namespace) -> float | None:
    """Return ρ: as given, twice the released --eps, 0 for the released kernel without curvature, or None: not given."""
    if any(name.casefold() == "submodular" for name in args.selection) and args.kernel == "grad_l2":
        if len(args.selection) > 1:
            raise UserError("--kernel grad_l2 sets ρ = 0 for all methods; run it by itself")
        return 0.0
    return 2 * args.eps if args.eps is not None else args.rho


def idle_flags(args: argparse.Namespace) -> list[str]:
    """Return the flags given that have no effect."""
    return [f"--{name}" for name in WITHOUT_EFFECT if getattr(args, name) is not None]


def notes(args: argparse.Namespace) -> list[str]:
    """Return what else is to be said of the flags given."""
    if args.submodular_greedy is None:
        return []
    return ["--submodular_greedy: greedy is exact here, so every variant gives the same picks"]
