"""Signals and training against the plain ways: the pass over all images, a training step, a run, LBCS's inner loop."""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap
from torch.utils.flop_counter import FlopCounterMode

import nets
from lcmat import data
from lcmat.bilevel import train_full_batch
from lcmat.bilevel.inner_loop import Images, mean_loss, prepared
from lcmat.commands.benchmark import plain_loop
from lcmat.commands.benchmark.measuring import Report
from lcmat.data import Dataset, TensorSplit
from lcmat.hardware import choose_precision, make_repeatable
from lcmat.signals import take_signals
from lcmat.training import Compute, Recipe, Watch, accuracy, predictions, train

CPU = torch.device("cpu")
# The whole run: 0.1% of CIFAR-10, five images of each class.
EPOCHS, TEST_INTERVAL, PLAIN_EPOCHS = 200, 10, 10
BLOCKS = 5
# LBCS's inner loop on Fashion-MNIST: samples, full-batch steps of Adam, learning rate, trials of a search.
CHOSEN, STEPS, LR, TRIALS = 1000, 20, 1e-3, 500
COPIES, TOGETHER = 4, "4 trials at once (vmap)"


def _cifar10(args: argparse.Namespace) -> tuple[Dataset, Compute]:
    make_repeatable()
    dataset = data.load("CIFAR10", args.data_path)
    return dataset, Compute(CPU, torch.float32, dataset.mean, dataset.std)


def _reduced(args: argparse.Namespace) -> str:
    return "" if args.images == 50_000 else f" --images {args.images}"


def _network() -> torch.nn.Module:
    torch.manual_seed(0)
    return nets.build("ResNet18", 10, 3, 32)


def _signals(args: argparse.Namespace, folder: Path) -> Path:
    """Measure taking signals against the forward pass alone, in alternating blocks of images."""
    report = Report(folder / "signals.json", {"images": args.images})
    if not report.rows or args.overwrite:
        dataset, compute = _cifar10(args)
        network = _network()
        for block in torch.arange(min(args.images, len(dataset.train))).chunk(BLOCKS):
            split = dataset.train.take(block)
            seconds = []
            for work in (
                lambda s=split: take_signals(network, s, compute),
                lambda s=split: _forward(network, s, compute),
            ):
                started = time.perf_counter()
                work()
                seconds.append(round(time.perf_counter() - started, 3))
            name = f"{int(block[0])}–{int(block[-1])}"
            report.add(name, {"signals": seconds[0], "forward": seconds[1], "images": len(block)})
            print(f"  images {name}: {seconds[0]:.1f} s, forward alone {seconds[1]:.1f} s", flush=True)
    rows = [_signals_row(name, row) for name, row in report.rows.items()]
    total = {key: sum(row[key] for row in report.rows.values()) for key in ("signals", "forward", "images")}
    rows.append(_signals_row("all", total))
    text = (
        "Taking the signals (features, logits, labels) of CIFAR-10's training images with a ResNet-18 in float32, "
        "against the forward pass alone, block by block in turn. Target: at most 1.2 times.\n\n"
        f"`python -m lcmat benchmark signals --data_path DIR{_reduced(args)}`"
    )
    return report.write_table("Signals", text, ["Images", "Signals (s)", "Forward alone (s)", "Ratio"], rows)


def _signals_row(name: str, row: dict) -> list[str]:
    return [name, f"{row['signals']:.1f}", f"{row['forward']:.1f}", f"{row['signals'] / row['forward']:.3f}"]


@torch.no_grad()
def _forward(network: torch.nn.Module, split: TensorSplit, compute: Compute) -> None:
    for _ in predictions(network, split, compute):
        pass


def _step(args: argparse.Namespace, folder: Path) -> Path:
    """Measure images per second while training, against the plain loop and the machine's peak."""
    images = max(256, args.images // 25 // 128 * 128)
    report = Report(folder / "step.json", {"images": images, "runs": args.runs})
    if len(report.rows) < 3 or args.overwrite:
        dataset, compute = _cifar10(args)
        precision = choose_precision("auto", CPU)
        split = dataset.train.take(torch.arange(images))
        usual = plain_loop.Images(split.images, split.labels, True, dataset.mean, dataset.std)
        recipe = Recipe(epochs=1, augmentation="crop_flip")
        compute = Compute(CPU, precision, dataset.mean, dataset.std)
        train(_network(), split.take(torch.arange(256)), recipe, compute, seed=0)  # the first steps set things up
        ours, theirs, peak = [], [], []
        for run in range(args.runs):
            ours.append(images / train(_network(), split, recipe, compute, seed=0).seconds)
            theirs.append(images / plain_loop.train(_network(), usual, 1, 128))
            peak.append(_peak(precision))
            print(f"  run {run + 1}: {ours[-1]:.1f} images/s, the plain loop {theirs[-1]:.1f}", flush=True)
        for name, values in (("LCMat", ours), ("plain loop", theirs), ("peak", peak)):
            report.add(name, {"values": [round(value, 2) for value in values], "precision": str(precision)})
    ours, theirs, peak = (statistics.median(report.rows[key]["values"]) for key in ("LCMat", "plain loop", "peak"))
    operations = _operations()
    share = ours * operations / (peak * 1e9)
    precision = report.rows["LCMat"]["precision"].removeprefix("torch.")
    rows = [
        ["this library", precision, f"{ours:.1f}", f"{ours / theirs:.2f}", f"{ours * operations / 1e9:.0f}"],
        ["plain loop", "float32", f"{theirs:.1f}", "1", f"{theirs * operations / 1e9:.0f}"],
        [f"matrix product, 4096 × 4096, {precision}", precision, "", "", f"{peak:.0f}"],
    ]
    text = (
        f"Training a ResNet-18 on CIFAR-10's images, batch 128, crops and flips: one epoch of {images} images, median "
        f"of {args.runs} runs that alternate with those of the plain loop (float32, NCHW, a DataLoader with "
        f"torchvision's transforms in the main process). {operations / 1e9:.2f} GFLOP an image, forward and backward. "
        f"Share of the measured peak: {100 * share:.0f}%. Target: at least 2.2 times the plain loop.\n\n"
        f"`python -m lcmat benchmark step --data_path DIR{_reduced(args)}`"
    )
    return report.write_table("Training step", text, ["", "Precision", "Images/s", "Times plain", "GFLOP/s"], rows)


def _peak(precision: torch.dtype, size: int = 4096) -> float:
    """Return the GFLOP/s of a large matrix product, the best of five."""
    a, b = torch.randn(size, size, dtype=precision), torch.randn(size, size, dtype=precision)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds) / 1e9


def _operations() -> float:
    """Return the floating-point operations of a training step on one image, of two at once."""
    network, images = _network(), torch.zeros(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return counter.get_total_flops() / 2


def _run(args: argparse.Namespace, folder: Path) -> Path:
    """Measure training on 0.1% of CIFAR-10 and its tests, against the plain loop."""
    tested = max(500, args.images // 5)
    report = Report(folder / "run.json", {"epochs": EPOCHS, "test_interval": TEST_INTERVAL, "test_images": tested})
    if len(report.rows) < 2 or args.overwrite:
        dataset, _ = _cifar10(args)
        compute = Compute(CPU, choose_precision("auto", CPU), dataset.mean, dataset.std)
        chosen = torch.cat([(dataset.train.labels == c).nonzero()[:5, 0] for c in range(10)])
        split, test = dataset.train.take(chosen), dataset.test.take(torch.arange(min(tested, len(dataset.test))))
        few, all_ = (
            plain_loop.Images(part.images, part.labels, train, dataset.mean, dataset.std)
            for part, train in ((split, True), (test, False))
        )
        seconds = plain_loop.train(_network(), few, PLAIN_EPOCHS, 128, all_)
        report.add("plain loop", {"seconds": round(seconds, 2), "epochs": PLAIN_EPOCHS})
        print(f"  plain loop, {PLAIN_EPOCHS} epochs and a test: {seconds:.1f} s", flush=True)
        recipe = Recipe(epochs=EPOCHS, augmentation="crop_flip")
        history = train(_network(), split, recipe, compute, seed=0, watch=Watch(test, interval=TEST_INTERVAL))
        started = time.perf_counter()
        accuracy(_network(), test, compute)
        one_test = time.perf_counter() - started
        report.add("LCMat", {"seconds": round(history.seconds, 2), "epochs": EPOCHS, "test": round(one_test, 2)})
    ours, theirs = report.rows["LCMat"]["seconds"], report.rows["plain loop"]["seconds"] * EPOCHS / PLAIN_EPOCHS
    rows = [
        ["this library", f"{ours:.0f}", f"{theirs / ours:.2f}"],
        [f"plain loop (extrapolated from {PLAIN_EPOCHS} epochs and one test)", f"{theirs:.0f}", "1"],
    ]
    text = (
        f"Training a ResNet-18 on 0.1% of CIFAR-10 (50 images) for {EPOCHS} epochs, with a test on {tested:,} images "
        f"every {TEST_INTERVAL}; no pretraining, no selection. One run each. Target: at least 2.2 times as fast.\n\n"
        f"`python -m lcmat benchmark run --data_path DIR{_reduced(args)}`"
    )
    return report.write_table("A whole run", text, ["", "Seconds", "Times plain"], rows)


def _inner(args: argparse.Namespace, folder: Path) -> Path:
    """Measure trials of LBCS's inner loop, against the training loop of the library and the plain one."""
    share = args.images / 50_000
    images, chosen = round(60_000 * share), max(2, round(CHOSEN * share))
    report = Report(folder / "inner.json", {"images": args.images, "chosen": chosen, "runs": args.runs})
    if len(report.rows) < 4 or args.overwrite:
        make_repeatable()
        dataset = data.load("FashionMNIST", args.data_path)
        split = dataset.train.take(torch.arange(min(images, len(dataset.train))))
        compute = Compute(CPU, choose_precision("auto", CPU), dataset.mean, dataset.std)
        ways = trials_of_each_way(split, compute, torch.randperm(len(split))[:chosen])
        seconds: dict[str, list] = {name: [] for name in ways}
        for run in range(args.runs + 1):  # the first sets things up, and does not count
            for name, trial in ways.items():
                started, used = time.perf_counter(), time.process_time()
                trial()
                took = [round(time.perf_counter() - started, 3), round(time.process_time() - used, 3)]
                seconds[name] += [took] * (run > 0)
                print(f"  run {run}, {name}: {took[0]:.2f} s a trial", flush=True)
        for name, values in seconds.items():
            report.add(name, {"values": values, "precision": str(compute.precision)})
    plain = statistics.median(s for s, _ in report.rows["plain loop"]["values"])
    rows = []
    for name, row in report.rows.items():
        trials = COPIES if name == TOGETHER else 1
        wall, cpu = (statistics.median(pair[i] for pair in row["values"]) / trials for i in (0, 1))
        rows.append(
            [name, f"{wall:.2f}", f"{1 / wall:.3f}", f"{TRIALS * wall / 60:.0f}", f"{cpu:.2f}", f"{plain / wall:.2f}"]
        )
    text = (
        f"One trial of LBCS on Fashion-MNIST: a LeNet takes {STEPS} full-batch steps of Adam on {chosen:,} images, "
        f"then passes once over all {images:,}. Median of {args.runs} runs in turn, after one to warm "
        f"up. {COPIES} trials at once: networks stacked by torch.func.vmap, the time divided by {COPIES}. The "
        f"library's usual training loop normalises at each trial; the plain loop has a DataLoader with torchvision's "
        f"transforms in the main process. Target: {TRIALS} trials of 60,000 images in 30 minutes on 2 "
        f"cores.\n\n"
        f"`python -m lcmat benchmark inner --data_path DIR --runs {args.runs}{_reduced(args)}`"
    )
    header = ["", "Seconds a trial", "Trials/s", f"Minutes for {TRIALS}", "CPU seconds a trial", "Times plain"]
    return report.write_table("LBCS's inner loop", text, header, rows)


def trials_of_each_way(split: TensorSplit, compute: Compute, index: torch.Tensor) -> dict[str, Callable[[], float]]:
    """Return the ways to make one trial, all of the same network on the same images; each returns the loss."""
    torch.manual_seed(0)
    start = nets.build("LeNet", 10, 1, 28)
    images = prepared(split, compute)
    usual = plain_loop.Images(split.images, split.labels, False, compute.mean, compute.std)
    recipe = Recipe(STEPS, len(index), "Adam", LR, weight_decay=0, scheduler="constant")

    def ours() -> float:
        network = copy.deepcopy(start)
        train_full_batch(network, *images.take(index), compute, steps=STEPS, lr=LR, seed=0)
        return mean_loss(network, images)

    @torch.no_grad()
    def loss_of(network: torch.nn.Module) -> float:
        parts = predictions(network, split, compute)
        return sum(float(F.cross_entropy(z.float(), y, reduction="sum")) for z, y, _ in parts) / len(split)

    def theirs() -> float:
        network = copy.deepcopy(start)
        train(network, split.take(index), recipe, compute, seed=0)
        return loss_of(network)

    return {
        "this library": ours,
        TOGETHER: lambda: _together(start, images, index),
        "its usual training loop": theirs,
        "plain loop": lambda: plain_loop.trial(copy.deepcopy(start), usual, index.tolist(), STEPS, LR),
    }


def _together(start: torch.nn.Module, images: Images, index: torch.Tensor) -> float:
    """Make COPIES trials at once, their networks stacked by torch.func.vmap; return a loss."""
    network, parameters = copy.deepcopy(start).eval(), dict(start.named_parameters())
    stacked = {name: p.detach().repeat(COPIES, *[1] * p.ndim).requires_grad_() for name, p in parameters.items()}
    optimizer = torch.optim.Adam(stacked.values(), lr=LR)
    x, y = (part.expand(COPIES, *part.shape) for part in images.take(index))

    def loss(own: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(network, own, (x,)), y)

    for _ in range(STEPS):
        for name, slope in vmap(grad(loss))(stacked, x, y).items():
            stacked[name].grad = slope
        optimizer.step()
    with torch.no_grad():
        total = sum(len(b) * vmap(loss, (0, None, None))(stacked, a, b) for a, b in images.batches())
    return float(total[0]) / len(images.labels)


BENCHMARKS = {"signals": _signals, "step": _step, "run": _run, "inner": _inner}
