"""One step of condensation over all classes, against the plain loop over classes."""

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import nets
from lcmat.augmentation import siamese
from lcmat.commands.benchmark import plain_condensing
from lcmat.commands.benchmark.measuring import Report
from lcmat.condensation.matching import Matching, curvature_matching, feature_matching
from lcmat.condensation.matching_step import Pair, Stored, matching_gradient, unit_map
from lcmat.hardware import make_repeatable

CPU = torch.device("cpu")
# CIFAR-10's shape; ten images of each class; real batches and augmentation as published.
CLASSES, PER_CLASS, SHAPE, RHO = 10, 10, (3, 32, 32), 0.1
METHODS = {"DM": (256, siamese.DSA), "LCMat-C": (64, siamese.IDC_MATCHING)}


def same(x: Tensor) -> Tensor:
    """Return what is stored as what a network reads."""
    return x


def problem(name: str, classes: int = CLASSES, batch: int | None = None) -> tuple[nn.Module, Matching, Tensor, list]:
    """Return a ConvNet-3, the method's loss, synthetic images, and for each class random real images and a draw."""
    torch.manual_seed(0)
    usual, strategy = METHODS[name]
    network = nets.build("ConvNet3", CLASSES, *SHAPE[:2]).eval()
    images = torch.randn(classes * PER_CLASS, *SHAPE)
    draw = torch.Generator().manual_seed(0)
    pairs = [
        Pair(
            label,
            torch.randn(batch or usual, *SHAPE),
            slice(label * PER_CLASS, (label + 1) * PER_CLASS),
            siamese.drawn(strategy, draw),
        )
        for label in range(classes)
    ]
    return network, feature_matching() if name == "DM" else curvature_matching(RHO), images, pairs


def plain_step(name: str, network: nn.Module, images: Tensor, pairs: list[Pair]) -> Tensor:
    """Return the gradient in the synthetic images by the plain loop."""
    if name == "DM":
        return plain_condensing.dm_gradient(network, images, pairs)
    return plain_condensing.lcmat_c_gradient(network, images, pairs, RHO)


def _condense(args: argparse.Namespace, folder: Path) -> Path:
    """Measure the gradient of one step in all synthetic images, in turn with the plain loop."""
    report = Report(folder / "condense.json", {"runs": args.runs, "images": CLASSES * PER_CLASS})
    for name in METHODS:
        if name in report.rows and not args.overwrite:
            continue
        make_repeatable()
        network, matching, images, pairs = problem(name)
        seconds: dict[str, list[float]] = {"ours": [], "plain": []}
        with unit_map(CPU, CLASSES) as map_units:
            steps = {
                "ours": lambda: matching_gradient(network, matching, Stored(images, same), pairs, map_units)[1],  # noqa: B023
                "plain": lambda: plain_step(name, network, images, pairs),  # noqa: B023
            }
            for run in range(args.runs + 1):  # the first sets things up
                for way, step in steps.items():
                    started = time.perf_counter()
                    step()
                    seconds[way] += [round(time.perf_counter() - started, 3)] * (run > 0)
                if run:
                    print(f"  {name}: {seconds['ours'][-1]:.2f} s, plain {seconds['plain'][-1]:.2f} s", flush=True)
        share = _convolutions(network, matching, images, pairs)
        report.add(
            name, {**seconds, "operations": _operations(network, name, images, pairs), "convolutions": round(share, 3)}
        )
    rows = []
    for name, row in report.rows.items():
        ours, plain = (statistics.median(row[way]) for way in ("ours", "plain"))
        count = CLASSES * PER_CLASS
        speed = f"{row['operations'] / ours / 1e9:.0f}"
        share = f"{100 * row['convolutions']:.0f}%"
        rows.append([name, f"{count / ours:.1f}", f"{count / plain:.1f}", f"**{plain / ours:.2f}**", speed, share])
    header = ["Method", "Images · steps/s", "Plain loop", "Times plain", "GFLOP/s", "In convolutions"]
    text = (
        f"The gradient of one step in all synthetic images, {PER_CLASS} of each of {CLASSES} classes, ConvNet-3 on "
        f"3×32×32, float32, with the shared augmentation; real batches of {METHODS['DM'][0]} (DM) and "
        f"{METHODS['LCMat-C'][0]} (LCMat-C) of each class; without the training of LCMat-C's network, which is the "
        f"same either way. Median of {args.runs} runs in turn with the plain loop: class after class on all cores, "
        f"whole batches at once, and for LCMat-C gradients of all parameters. GFLOP/s: of the convolutions and "
        f"products that the plain loop does. In convolutions: their share of our step's time on one core, by the "
        f"profiler; of these no batching saves any. Target: at least 1.5 times the plain loop.\n\n"
        f"`python -m lcmat benchmark condense --runs {args.runs}`"
    )
    return report.write_table("Condensation step", text, header, rows)


def _convolutions(network: nn.Module, matching: Matching, images: Tensor, pairs: list[Pair]) -> float:
    """Return the share of our step's time that convolutions take, classes one after another."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        matching_gradient(network, matching, Stored(images, lambda x: x), pairs)
    times = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    return sum(time for name, time in times.items() if "convolution" in name) / sum(times.values())


def _operations(network: nn.Module, name: str, images: Tensor, pairs: list[Pair]) -> int:
    """Return the floating-point operations of a step, from those of one class."""
    first = pairs[0]
    with FlopCounterMode(display=False) as counter:
        plain_step(name, network, images[first.rows], [first])
    return counter.get_total_flops() * len(pairs)


BENCHMARKS = {"condense": _condense}
