"""What the benchmarks measure, each in a process of its own: this file imports no more than that needs.

Each function returns the seconds of its runs, and facts to keep beside them.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import methods
from lcmat.commands.benchmark import plain
from lcmat.commands.benchmark.measuring import one_class, synthetic_signals, timed
from lcmat.distances import LossCurvatureDistance, Matrix
from lcmat.facility_location import facility_location
from lcmat.facility_location.approximate import nearest_distances
from lcmat.files import load_tensors
from lcmat.hardware import peak_memory
from lcmat.memory_limit import limited
from lcmat.runs.sharded import select_from_shards
from lcmat.runs.signal_files import Selected
from lcmat.signals import Signals, open_shards

# ImageNet: images, classes, features of a ResNet-50.
IMAGES, CLASSES, FEATURES = 1_281_167, 1000, 2048
MEMORY = "4GB"


def load(path: Path, count: int | None = None) -> Signals:
    """Return the signals in a file; with a count, those of the first so many samples of class 0."""
    signals = Signals(**load_tensors(path))
    return signals if count is None else signals[(signals.labels == 0).nonzero()[:count, 0]]


def cifar10(path: Path, _: None, runs: int) -> tuple[list[float], dict]:
    """Select 10% of CIFAR-10 with LCMat-S."""
    signals = load(path)
    before = peak_memory()
    return timed(lambda: methods.select(signals, "LCMat-S", fraction=0.1), runs), {"before": before}


def one_cut(path: Path, cut: int, runs: int) -> tuple[list[float], dict]:
    """Select 10% of one class cut to so many samples."""
    signals = load(path, cut)
    picks = methods.select(signals, "LCMat-S", fraction=0.1).indices.tolist()
    return timed(lambda: methods.select(signals, "LCMat-S", fraction=0.1), runs), {"picks": picks}


def plainly(path: Path, cut: int, runs: int) -> tuple[list[float], dict]:
    """Select the same by the plain formulation."""
    signals = load(path, cut)
    arrays = [getattr(signals, name).numpy() for name in ("features", "logits", "labels")]
    stages, picks = [], None
    for _ in range(runs):
        started = time.perf_counter()
        similarity = plain.similarities(*arrays)
        formed = time.perf_counter()
        picks = plain.greedy(similarity, cut // 10)
        stages.append([round(formed - started, 4), round(time.perf_counter() - formed, 4)])
    return [sum(pair) for pair in stages], {"picks": picks, "stages": stages}


def greedy_alone(path: Path, budget: int, runs: int) -> tuple[list[float], dict]:
    """Select by the greedy from a similarity matrix in a file."""
    similarity = torch.from_numpy(np.load(path))
    matrix = None

    def make() -> None:
        nonlocal matrix
        matrix = Matrix(similarity.max() - similarity)

    made = timed(make, runs)
    picks = facility_location(matrix, budget).indices.tolist()
    return timed(lambda: facility_location(matrix, budget), runs), {"made": made, "picks": picks}


def imagenet(classes: int) -> tuple[list[float], dict]:
    """Select 1% of classes of ImageNet's shape, each made up as it comes."""
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(FEATURES, CLASSES, generator=draw) / FEATURES**0.5
    seconds, samples, picks = 0.0, 0, 0
    for label in range(classes):
        count = IMAGES // CLASSES + (label < IMAGES % CLASSES)
        h = torch.relu(0.5 * torch.randn(count, FEATURES, generator=draw) + 0.3 * weights[:, label] * FEATURES**0.5)
        logits = 4 * (h - h.mean(0)) @ weights
        logits[:, label] += 4
        signals = Signals(h, logits, torch.full((count,), label))
        started = time.perf_counter()
        picks += len(methods.select(signals, "LCMat-S", fraction=0.01))
        seconds += time.perf_counter() - started
        samples += count
    return [round(seconds, 2)], {"classes": classes, "samples": samples, "picks": picks}


def large_class(n: int, greedy: str, fraction: float, runs: int) -> tuple[list[float], dict]:
    """Select from one class of n samples."""
    signals = one_class(n, 512, 10)
    found = []

    def work() -> None:
        found.append(methods.select(signals, "LCMat-S", fraction=fraction, greedy=greedy, memory=MEMORY))

    seconds = timed(work, runs)
    return seconds, {"cost": found[0].cost, "cost_error": found[0].cost_error, "bound": found[0].bound}


def one_method(name: str, setting: dict) -> list[float]:
    """Select with one method from synthetic signals."""
    signals = synthetic_signals(setting["samples"], setting["features"], setting["classes"])
    needs = methods.get(name).fields | {"features", "logits", "labels"}
    signals = type(signals)(**{field: getattr(signals, field) for field in needs})
    return timed(lambda: methods.select(signals, name, fraction=setting["fraction"]), setting["runs"])


def from_shards(folder: Path, name: str, options: dict) -> tuple[list[float], dict]:
    """Select with one method from shards, class by class; options: the fraction, and those of the method."""
    shards = open_shards(folder)
    asked = Selected(methods.get(name), {"fraction": options["fraction"]}, {"seed": 0, **options["how"]})
    found = []

    def work() -> None:
        with tempfile.TemporaryDirectory() as place, limited(MEMORY):
            found.append(select_from_shards(shards, asked, Path(place), overwrite=False)[0])

    before = time.process_time()
    seconds = timed(work, 1)
    processor = round(time.process_time() - before, 4)
    return seconds, {
        "processor": processor,
        "picks": len(found[0]),
        "classes": len(shards.class_sizes),
        "chosen": found[0].indices.tolist(),
    }


def cost_of(folder: Path, picks: list[int], how: dict) -> float:
    """Return the cost of picks from shards that hold one class, by every sample's distance to the nearest of them."""
    distance = LossCurvatureDistance(open_shards(folder).part(0), how["rho"], how["K"])
    return float(nearest_distances(distance, torch.tensor(picks), torch.arange(len(distance))).sum())
