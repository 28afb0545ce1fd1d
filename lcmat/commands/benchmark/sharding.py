"""Selection from shards on a disk, for more samples than memory holds: of a thousand classes, and of one by parts."""

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

import methods
from lcmat.commands.benchmark import work
from lcmat.commands.benchmark.measuring import Report, measured, one_class
from lcmat.errors import UserError
from lcmat.signals import write_shards

SIZES, LARGEST = [100_000, 1_000_000], 10_000_000
METHODS = ["KMedoids", "LCMat-S"]
CLASSES, FRACTION = 1000, 0.01
# Samples of a shard, each with 1 KiB of features.
OF_A_SHARD = 100_000
# One class that is chosen from at once, and by parts: that of the benchmark "scale", which may have done the former.
ONE_CLASS, OF_ONE_CLASS = 100_000, {"features": 512, "outputs": 10}
HOW = {"rho": 0.1, "K": 100}
PARTS = {"exact": {}, "partition": {"greedy": "partition", "rows": None, "parts": 10}}
# What the measurements are extrapolated to.
SAMPLES, NODES = 10**9, 100


def _shards(args: argparse.Namespace, folder: Path) -> Path:
    """Measure selection class by class at growing sizes, and one class at once against by parts."""
    setting = {"features": args.features, "fraction": FRACTION, "memory": work.MEMORY}
    report = Report(folder / "shards.json", setting)
    chosen = [methods.get(name).name for name in args.methods or METHODS]
    for samples in [*args.shard_samples, *([LARGEST] if args.whole else [])]:
        _measure_classes(args, report, samples, chosen)
    _measure_one_class(args, report, min(ONE_CLASS, max(args.shard_samples)))
    rows = sorted((row for row in report.rows.values() if "method" in row), key=lambda r: (r["method"], r["samples"]))
    table = []
    for row in rows:
        table.append([row["method"], f"{row['samples']:,}", f"{row['classes']:,}", f"{row['picks']:,}"])
        table[-1] += [f"{row[name]:.0f}" for name in ("written", "median", "processor")]
        table[-1] += [f"{row['peak_bytes'] / 2**30:.2f}"]
    whole = " --whole" * any(row["samples"] == LARGEST for row in rows)
    chosen_by = f" --methods {' '.join(args.methods)}" if args.methods else ""
    text = (
        f"{100 * FRACTION:g}% of each class from shards on a disk, {args.features} features and as many logits as "
        f"classes in half precision, made up shard by shard; `--memory {work.MEMORY}`. One run, of a process of its "
        f"own, reading included, of files that were just written and may come from the memory of the system; on all "
        f"cores: processor time. Target: 10 million within 8 GB on 2 cores.\n\n"
        f"{_extrapolated(rows)}{_of_one_class(report)}"
        f"`python -m lcmat benchmark shards{whole}{chosen_by}`"
    )
    header = ["Method", "Samples", "Classes", "Picks", "Writing (s)", "Seconds", "On all cores", "Peak memory (GiB)"]
    return report.write_table("Selection from shards", text, header, table)


def _measure_classes(args: argparse.Namespace, report: Report, samples: int, chosen: list[str]) -> None:
    missing = [name for name in chosen if f"{name} {samples}" not in report.rows or args.overwrite]
    if not missing:
        return
    classes = max(1, min(CLASSES, samples // 100))
    with_logits = any("logits" in methods.get(name).fields for name in missing)
    scratch = Path(args.cache_path) / "benchmarks" / "shards"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.parent.mkdir(parents=True, exist_ok=True)
    wanted, free = 2 * samples * (args.features + classes * with_logits + 8), shutil.disk_usage(scratch.parent).free
    if wanted > free:
        raise UserError(f"{samples:,} samples take {wanted:,} bytes in {scratch.parent}, where {free:,} are free")
    try:
        started = time.perf_counter()
        write_shards(scratch, made_up(samples, args.features, classes, with_logits))
        written = time.perf_counter() - started
        for name in missing:
            row = measured(work.from_shards, scratch, name, {"fraction": FRACTION, "how": {}})
            del row["chosen"]
            row |= {"method": name, "samples": samples, "written": written}
            print(f"  {name}, {samples:,}: {row['median']:.0f} s, {row['peak_bytes'] / 2**30:.2f} GiB", flush=True)
            report.add(f"{name} {samples}", row)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def made_up(samples: int, features: int, classes: int, with_logits: bool) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield chunks of made-up signals in half precision, their labels in random order.

    Features are rectified Gaussians around a centre for each class, logits those of the nearest-centre classifier.
    """
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, features, generator=draw)
    for part in torch.arange(samples).split(OF_A_SHARD):
        labels = torch.randint(classes, (len(part),), generator=draw)
        h = torch.relu(0.17 * centres[labels] + torch.randn(len(part), features, generator=draw))
        chunk = {"features": h.half().numpy(), "labels": labels.numpy()}
        if with_logits:
            chunk["logits"] = (100 / features * (h - h.mean(0)) @ centres.T).half().numpy()
        yield chunk


def _measure_one_class(args: argparse.Namespace, report: Report, samples: int) -> None:
    known = _measured_at_once(report.path.with_name("scale.json"), samples)
    if known is not None:
        report.rows["one class, exact"] = known
    wanted = [name for name in PARTS if name != "exact" or known is None]
    missing = [name for name in wanted if f"one class, {name}" not in report.rows or args.overwrite]
    if not missing:
        return
    scratch = Path(args.cache_path) / "benchmarks" / "one-class"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        signals = one_class(samples, *OF_ONE_CLASS.values())
        write_shards(scratch, [{name: getattr(signals, name).numpy() for name in ("features", "logits", "labels")}])
        for name in missing:
            row = measured(work.from_shards, scratch, "LCMat-S", {"fraction": FRACTION, "how": {**HOW, **PARTS[name]}})
            row["cost"] = work.cost_of(scratch, row.pop("chosen"), HOW)
            row["of"] = samples
            print(f"  one class, {name}: {row['median']:.0f} s, L = {row['cost']:.6g}", flush=True)
            report.add(f"one class, {name}", row)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _measured_at_once(scale: Path, samples: int) -> dict | None:
    """Return what the benchmark "scale" measured of the same class, if it did."""
    if not scale.exists():
        return None
    row = json.loads(scale.read_text())["measurements"].get(f"{samples} exact")
    return None if row is None else {**row, "of": samples}


def _extrapolated(rows: list[dict]) -> str:
    """Return in words how the time of each method grows, and what a billion samples would take."""
    found = []
    for name in dict.fromkeys(row["method"] for row in rows):
        *_, before, last = [None, *(row for row in rows if row["method"] == name)]
        there = last["median"] * SAMPLES / last["samples"] / NODES
        said = f"{name}: {_hours(there)} in classes of {last['samples'] // last['classes']:,} as here"
        if before is not None and before["classes"] == last["classes"]:
            growth = math.log(last["median"] / before["median"]) / math.log(last["samples"] / before["samples"])
            said += f" (time last grew with n^{growth:.2f} as these did)"
        found.append(said)
    return (
        f"By that, {SAMPLES:,} samples on {NODES} such machines would take: {'; '.join(found)}. About as much "
        f"in larger classes chosen from by parts of this size (`--greedy partition`), with their second rounds on top; "
        f"at once, time grows with the square of a class.\n\n"
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _of_one_class(report: Report) -> str:
    at_once, by_parts = (report.rows[f"one class, {name}"] for name in PARTS)
    return (
        f"One class of {at_once['of']:,} ({OF_ONE_CLASS['features']} features, {OF_ONE_CLASS['outputs']} outputs, "
        f"LCMat-S, K = {HOW['K']}), {100 * FRACTION:g}%: at once {at_once['median']:.0f} s and "
        f"{at_once['peak_bytes'] / 2**30:.2f} GiB, by {PARTS['partition']['parts']} parts as over several workers "
        f"(`--greedy partition`) {by_parts['median']:.0f} s and {by_parts['peak_bytes'] / 2**30:.2f} GiB, its cost "
        f"{100 * (by_parts['cost'] / at_once['cost'] - 1):+.2f}% of that at once (target: within 1%).\n\n"
    )


BENCHMARKS = {"shards": _shards}
