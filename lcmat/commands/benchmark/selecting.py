"""Selection: every method, LCMat-S against the plain formulation and other libraries, ImageNet's shape, size."""

import argparse
import json
import statistics
import subprocess
import venv
from pathlib import Path

import matplotlib
import numpy as np
import torch

import methods
import nets
from lcmat import data, memory_limit
from lcmat.commands.benchmark import others, work
from lcmat.commands.benchmark.measuring import Report, measured
from lcmat.distances import LossCurvatureDistance
from lcmat.errors import UserError
from lcmat.facility_location.exact import hold
from lcmat.files import save_tensors, sha256_of
from lcmat.reports import save_figure
from lcmat.selection import Method
from lcmat.signals import load_weights, take_signals
from lcmat.training import Compute

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Cuts of a class that the plain formulation is measured on; a class of CIFAR-10 has 5,000 images.
CUTS = (1250, 2500)
OTHERS = {"apricot": "apricot-select", "submodlib": "submodlib-py"}
SIZES = [5_000, 10_000, 20_000, 50_000, 100_000]
MILLION = 1_000_000
ONE_WORKER = "LCMat, one worker"
GREEDY = ("exact", "stochastic", "partition")


def _selection(args: argparse.Namespace, folder: Path) -> Path:
    """Measure every method that needs signals only."""
    setting = {name: getattr(args, name) for name in ("samples", "features", "classes", "fraction", "runs")}
    report = Report(folder / "selection.json", setting)
    for method in _on_signals(args.methods):
        if method.name in report.rows and not args.overwrite:
            continue
        print(f"  {method.name} …", end=" ", flush=True)
        row = measured(work.one_method, method.name, setting)
        print(f"{row['median']:.1f} s, {row['peak_bytes'] / 2**30:.2f} GiB", flush=True)
        report.add(method.name, row)
    command = " ".join(["python -m lcmat benchmark selection", *_differing(setting)])
    text = (
        f"Selecting {100 * args.fraction:g}% of {args.samples:,} samples × {args.features} features, {args.classes} "
        f"classes, class by class: median of {args.runs} runs, and the peak memory of a process that does nothing "
        f"else, its signals and libraries included. Synthetic signals; `{command}`."
    )
    rows = [
        [
            name,
            f"{row['median']:.2f}",
            f"{min(row['seconds']):.2f}–{max(row['seconds']):.2f}",
            f"{row['peak_bytes'] / 2**30:.2f}",
        ]
        for name, row in sorted(report.rows.items(), key=lambda item: item[1]["median"])
    ]
    return report.write_table("Cost of selection", text, ["Method", "Seconds", "Range", "Peak memory (GiB)"], rows)


def _on_signals(names: list[str] | None) -> list[Method]:
    """Return the methods named, or all, that read signals and nothing else; UserError that names the others."""
    chosen = [methods.get(name) for name in names or methods.names()]
    suited = [method for method in chosen if method.needs and not method.needs_context]
    others = ", ".join(method.name for method in chosen if method not in suited)
    if names and others:
        raise UserError(f"the benchmark selection measures methods that read signals alone, not {others}; leave it out")
    return suited


def _differing(setting: dict[str, object]) -> list[str]:
    usual = {"samples": 50_000, "features": 512, "classes": 10, "fraction": 0.1, "runs": 3}
    return [f"--{name} {value}" for name, value in setting.items() if value != usual[name]]


def real_signals(args: argparse.Namespace) -> Path:
    """Return the file of the signals of CIFAR-10's training images under the network given, taken once."""
    path = Path(args.cache_path) / "benchmarks" / f"signals-{sha256_of(Path(args.pretrained))[:12]}.pt"
    if not path.exists():
        print("  taking the signals of CIFAR-10 (once, minutes) …", flush=True)
        dataset = data.load("CIFAR10", args.data_path)
        network = nets.build("ResNet18", 10, 3, 32)
        load_weights(network, Path(args.pretrained))
        compute = Compute(torch.device("cpu"), torch.float32, dataset.mean, dataset.std)
        signals = take_signals(network, dataset.train, compute)
        save_tensors(path, {name: getattr(signals, name) for name in ("features", "logits", "labels")})
    return path


def _lcmat(args: argparse.Namespace, folder: Path) -> Path:
    """Measure LCMat-S on real signals against the plain formulation."""
    path = real_signals(args)
    report = Report(folder / "lcmat.json", {"runs": args.runs, "signals": path.stem})
    for name, function, argument, threads in [
        ("LCMat", work.cifar10, None, None),
        (ONE_WORKER, work.cifar10, None, 1),
        *((f"plain {cut}", work.plainly, cut, None) for cut in CUTS),
        *((f"LCMat {cut}", work.one_cut, cut, None) for cut in CUTS),
    ]:
        if name not in report.rows or args.overwrite:
            row = measured(function, path, argument, args.runs, threads=threads)
            print(f"  {name}: {row['median']:.2f} s, {row['peak_bytes'] / 2**30:.2f} GiB", flush=True)
            report.add(name, row)
    rows, (small, large) = report.rows, (report.rows[f"plain {cut}"] for cut in CUTS)
    forming, choosing = (statistics.median(stage) for stage in zip(*large["stages"], strict=True))
    times = 5000 / CUTS[1]
    whole = 10 * (forming * times**2 + choosing * times**3)  # picks grow with n, too
    growth = (large["peak_bytes"] - small["peak_bytes"]) / (CUTS[1] ** 2 - CUTS[0] ** 2)
    peak = large["peak_bytes"] + growth * (5000**2 - CUTS[1] ** 2)
    ours, base = rows["LCMat"], rows["LCMat"]["before"]
    text = (
        "LCMat-S (ρ = 0.1, K = 100), 10% of each class, on the signals of CIFAR-10's 50,000 training images under a "
        "ResNet-18 (512 features) after ten epochs. The plain formulation (`lcmat/commands/benchmark/plain.py`: naive "
        "greedy over a full NumPy matrix, L1 by broadcasting n × n × K, float32) is measured on the first images of "
        f"class 0, and extrapolated from the larger cut: forming the matrix ({forming:.1f} s) and memory in n², the "
        f"greedy ({choosing:.1f} s) in n³, since it passes over the matrix for each pick. Median of {args.runs} runs; "
        "peak memory of a process of its own, libraries and all signals included. "
        f"Targets: 100 times as fast, a twentieth of the memory. Found: **{whole / ours['median']:.0f} times as fast, "
        f"1/{peak / ours['peak_bytes']:.1f} of the memory** (beyond the {base / 2**30:.2f} GiB that libraries and "
        f"signals take in both: 1/{(peak - base) / (ours['peak_bytes'] - base):.0f}). The picks of both on the larger "
        f"cut: {_agreement(rows[f'LCMat {CUTS[1]}']['picks'], large['picks'])}.\n\n"
        "`python -m lcmat benchmark lcmat --data_path DIR --pretrained FILE`"
    )
    table = [_timed_row("this library, all of CIFAR-10", ours)]
    table.append(_timed_row("this library, all of CIFAR-10, one worker", rows[ONE_WORKER]))
    for cut in CUTS:
        table.append(_timed_row(f"this library, one class cut to {cut:,}", rows[f"LCMat {cut}"]))
        table.append(_timed_row(f"plain, one class cut to {cut:,}", rows[f"plain {cut}"]))
    table.append(["plain, all of CIFAR-10 (extrapolated)", f"{whole:.0f}", "", f"{peak / 2**30:.1f}"])
    return report.write_table("LCMat-S on CIFAR-10", text, ["", "Seconds", "Range", "Peak memory (GiB)"], table)


def _timed_row(name: str, row: dict) -> list[str]:
    span = f"{min(row['seconds']):.2f}–{max(row['seconds']):.2f}"
    return [name, f"{row['median']:.2f}", span, f"{row['peak_bytes'] / 2**30:.2f}"]


def _agreement(picks: list[int], others: list[int]) -> str:
    same = sum(a == b for a, b in zip(picks, others, strict=True))
    shared = len(set(picks) & set(others))
    return "the same, in the same order" if same == len(picks) else f"{shared} of {len(picks)} the same"


def _greedy(args: argparse.Namespace, folder: Path) -> Path:
    """Measure the greedy alone, on one similarity matrix, against apricot and submodlib."""
    path = real_signals(args)
    report = Report(folder / "greedy.json", {"runs": args.runs, "signals": path.stem})
    if len(report.rows) < 1 + len(OTHERS) or args.overwrite:
        scratch = Path(args.cache_path) / "benchmarks"
        python, file = _environment(scratch / "libraries"), scratch / "similarity.npy"
        distances = hold(LossCurvatureDistance(work.load(path, 5000), 0.1)).values
        similarity = (distances.max() - distances).numpy()
        np.save(file, similarity)
        budget = len(similarity) // 10
        words = [python, others.__file__, file, budget, 3]
        rows: dict[str, dict] = {}
        try:
            for _ in range(args.runs):  # in turn: the machine's speed varies from minute to minute
                for name in ("LCMat", *OTHERS):
                    row = measured(work.greedy_alone, file, budget, 3) if name == "LCMat" else _library(name, words)
                    earlier = rows.setdefault(name, {**row, "seconds": [], "made": []})
                    rows[name] = row | {key: [*earlier[key], *row[key]] for key in ("seconds", "made")}
        finally:
            file.unlink(missing_ok=True)
        for name, row in rows.items():
            cost = float(distances[row["picks"]].amin(0).sum())
            report.add(name, row | {"cost": cost, "median": statistics.median(row["seconds"])})
    ours = report.rows["LCMat"]
    fastest = min(report.rows[name]["median"] for name in OTHERS)
    table = []
    for name, row in report.rows.items():
        seconds, made = row["median"], statistics.median(row["made"])
        label = "this library" if name == "LCMat" else f"{OTHERS[name]} {row['version']}"
        span = f"{min(row['seconds']):.3f}–{max(row['seconds']):.3f}"
        agreement = "" if name == "LCMat" else _agreement(ours["picks"], row["picks"])
        table.append([label, f"{seconds:.3f}", span, f"{made:.3f}", f"{seconds / ours['median']:.1f}"])
        table[-1] += [f"{row['cost']:.8g}", agreement]
    text = (
        "Greedy facility location on one similarity matrix in memory: class 0 of CIFAR-10, n = 5,000, 500 picks. Each "
        "library has first made its own object of the matrix (the column beside; ours: distances). Median of "
        f"{3 * args.runs} runs, in turn. apricot: two-stage, submodlib: LazyGreedy. Where picks differ at one "
        "cost L, another of several equal samples was taken. Target: 10 times as fast as the faster of them; found: "
        f"**{fastest / ours['median']:.1f} times**.\n\n"
        "`python -m lcmat benchmark greedy --data_path DIR --pretrained FILE` (installs both into a temporary place)"
    )
    header = ["", "Seconds", "Range", "Making its object (s)", "Times ours", "L", "Picks"]
    return report.write_table("Greedy alone", text, header, table)


def _library(name: str, words: list[object]) -> dict:
    """Run others.py with one library in the environment that has it."""
    done = subprocess.run([str(word) for word in (*words[:2], name, *words[2:])], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{name} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _environment(folder: Path) -> Path:
    """Return the interpreter of a virtual environment with the libraries compared with, made when it is missing."""
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        print("  installing apricot-select and submodlib-py for the comparison …", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        words = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *OTHERS.values()]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"cannot install {' and '.join(OTHERS.values())}: {done.stderr.strip().splitlines()[-1]}")
        (folder / "installed").touch()
    return python


def _imagenet(args: argparse.Namespace, folder: Path) -> Path:
    """Measure selection on made-up signals of ImageNet's shape, made class by class."""
    report = Report(folder / "imagenet.json", {"fraction": 0.01})
    for name, classes in [("a tenth", work.CLASSES // 10), ("all", work.CLASSES)]:
        if (name in report.rows and not args.overwrite) or (name == "all" and not args.whole):
            continue
        row = measured(work.imagenet, classes)
        print(f"  {name}: {row['median']:.0f} s, {row['peak_bytes'] / 2**30:.2f} GiB", flush=True)
        report.add(name, row)
    table = []
    for row in report.rows.values():
        table.append([f"{row[name]:,}" for name in ("classes", "samples", "picks")] + [f"{row['median']:.0f}"])
        table[-1] += [f"{1000 * row['median'] / row['classes']:.0f}", f"{row['peak_bytes'] / 2**30:.2f}"]
    text = (
        f"LCMat-S, 1% of each class, on signals of ImageNet's shape: {work.IMAGES:,} samples, {work.CLASSES:,} "
        f"classes, {work.FEATURES:,} features. Made up class by class, as they would be read from a disk (not timed). "
        "One run. Target for all: 15 minutes and 8 GB.\n\n"
        f"`python -m lcmat benchmark imagenet{' --whole' * ('all' in report.rows)}`"
    )
    header = ["Classes", "Samples", "Picks", "Seconds", "ms a class", "Peak memory (GiB)"]
    return report.write_table("ImageNet's shape", text, header, table)


def _scale(args: argparse.Namespace, folder: Path) -> Path:
    """Measure one class of growing size: exact, and the approximations against it."""
    report = Report(folder / "scale.json", {"fraction": 0.01, "features": 512, "classes": 10, "K": 100})
    tasks = [(n, greedy, 0.01) for n in args.sizes for greedy in GREEDY]
    if args.whole:
        tasks += [(MILLION, greedy, 0.001) for greedy in ("partition", "stochastic")]
    for n, greedy, fraction in tasks:
        name = f"{n} {greedy}"
        if name in report.rows and not args.overwrite:
            continue
        row = measured(work.large_class, n, greedy, fraction, args.runs if n <= 10_000 else 1)
        row |= {"n": n, "greedy": greedy, "fraction": fraction}
        print(
            f"  {name}: {row['median']:.1f} s, {row['peak_bytes'] / 2**30:.2f} GiB, L = {row['cost']:.6g}", flush=True
        )
        report.add(name, row)
    rows = sorted(report.rows.values(), key=lambda row: (row["n"], GREEDY.index(row["greedy"])))
    exact = {row["n"]: row for row in rows if row["greedy"] == "exact"}
    table = []
    for row in rows:
        error = f" ± {row['cost_error']:.3g} (estimate)" if row["cost_error"] else ""
        known = exact.get(row["n"])
        above = "" if known is None else f"{100 * (row['cost'] / known['cost'] - 1):+.2f}%"
        bound = f"{row['bound']:.6g}" if row["bound"] else ""
        table.append([f"{row['n']:,}", f"{100 * row['fraction']:g}%", row["greedy"], f"{row['median']:.1f}"])
        table[-1] += [f"{row['peak_bytes'] / 2**30:.2f}", f"{row['cost']:.6g}{error}", above, bound]
    exponents = _scale_figure(list(exact.values()), folder) if exact else ""
    sizes = "" if sorted(exact) == SIZES else " --sizes " + " ".join(str(n) for n in sorted(exact))
    text = (
        "LCMat-S (ρ = 0.1) from one class of made-up signals, 512 features, 10 outputs, K = 100, with `--memory 4GB`: "
        f"median of {args.runs} runs up to 10,000 samples, one run beyond. Peak memory of a process of its own, the "
        f"signals (2 KB each) included. L is the cost (Eq. 11), with a bound below which no selection lies.{exponents} "
        "Targets: 100,000 exact within 30 minutes, a million within 60, each in 4 GB.\n\n"
        f"`python -m lcmat benchmark scale{sizes}{' --whole' * any(row['n'] == MILLION for row in rows)}`"
    )
    header = ["Samples", "Chosen", "Greedy", "Seconds", "Peak memory (GiB)", "L", "Above exact", "L(OPT) ≥"]
    return report.write_table("One large class", text, header, table)


def _scale_figure(rows: list[dict], folder: Path) -> str:
    """Draw time and memory against the size, and return a sentence with the exponents.

    In two regimes: as long as the matrix is held, and where distances are formed as they are needed.
    """
    most = memory_limit.OF_A_MATRIX * memory_limit.parse_size(work.MEMORY)
    regimes = {
        "matrix held": [row for row in rows if row["n"] ** 2 * 8 <= most],
        "distances formed as needed": [row for row in rows if row["n"] ** 2 * 8 > most],
    }
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    found = []
    for (name, part), marker in zip(regimes.items(), "os", strict=True):
        n, seconds = [row["n"] for row in part], [row["median"] for row in part]
        axes[0].loglog(n, seconds, f"{marker}-", label=name)
        axes[1].semilogx(n, [row["peak_bytes"] / 2**30 for row in part], f"{marker}-", label=name)
        if len(part) > 1:
            found.append(f"n^{np.polyfit(np.log(n), np.log(seconds), 1)[0]:.2f} ({name}, {n[0]:,} to {n[-1]:,})")
    sizes = [row["n"] for row in rows]
    for axis, name in zip(axes, ("seconds", "peak memory (GiB)"), strict=True):
        axis.set_xlabel("samples of the class")
        axis.set_ylabel(name)
        axis.set_xticks(sizes, [f"{size / 1000:g}k" for size in sizes])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[1].set_ylim(bottom=0)
    axes[0].legend()
    figure.suptitle("Exact LCMat-S, 1% of one class, --memory 4GB", fontsize=10)
    save_figure(figure, folder, "scale")
    growth = f" Time grows as {' and '.join(found)} for the exact greedy." if found else ""
    return f"{growth} ([Figure](scale.png).)"


BENCHMARKS = {"selection": _selection, "lcmat": _lcmat, "greedy": _greedy, "imagenet": _imagenet, "scale": _scale}
ON_REAL_SIGNALS = ("lcmat", "greedy")
