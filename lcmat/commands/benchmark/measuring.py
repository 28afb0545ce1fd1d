"""Measurements: each in a process of its own, so that its peak memory is its own; kept as JSON, shown as Markdown."""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch

from lcmat import records
from lcmat.alive import Progress
from lcmat.files import write_json, write_text
from lcmat.hardware import peak_memory
from lcmat.reports import markdown
from lcmat.signals import Signals


def synthetic_signals(samples: int, features: int, classes: int, seed: int = 0) -> Signals:
    """Return signals of the size of a real network's, with everything that a method may read.

    Features are rectified Gaussians around a centre for each class, logits those of the nearest-centre classifier, some
    nine in ten right. A tenth as many validation samples, ten initialisations, ten epochs of dynamics.
    """
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, features, generator=draw)

    def outputs(count: int) -> Signals:
        labels = torch.arange(count) % classes
        h = torch.relu(0.17 * centres[labels] + torch.randn(count, features, generator=draw))
        h = h * (0.5 + torch.rand(count, 1, generator=draw))
        # Scaled so that a fifth of the predictions are sure.
        return Signals(h, 100 * (h - h.mean(0)) @ centres.T / features, labels)

    main = outputs(samples)
    dynamics = {
        "correctness": torch.rand(10, samples, generator=draw) < 0.9,
        "probability_margin": (torch.randn(10, samples, generator=draw) + 3).tanh(),
    }
    more = torch.Generator().manual_seed(1)  # so that the rest stays as it was
    dynamics |= {name: torch.rand(10, samples, generator=more) for name in ("error_norm", "loss", "change")}
    several = [
        Signals(main.features, main.logits + torch.randn(main.logits.shape, generator=draw), main.labels)
        for _ in range(10)
    ]
    return Signals(main.features, main.logits, main.labels, dynamics, outputs(samples // 10), several)


def one_class(samples: int, features: int, outputs: int, seed: int = 0) -> Signals:
    """Return made-up signals of one class: rectified Gaussians around ten centres, the first of which is the class's.

    Made in blocks, so that it takes no more memory than the signals.
    """
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, features, generator=draw)
    weights = torch.randn(features, outputs, generator=draw) / features**0.5
    h, logits = torch.empty(samples, features), torch.empty(samples, outputs)
    for part in torch.arange(samples).split(10_000):
        around = 0.2 * centres[0] + 0.2 * centres[part % 10]
        block = torch.relu(around + torch.randn(len(part), features, generator=draw))
        h[part] = block * (0.5 + torch.rand(len(part), 1, generator=draw))
        logits[part] = 3 * (h[part] - 0.4) @ weights
        logits[part, 0] += 3
    return Signals(h, logits, torch.zeros(samples, dtype=torch.int64))


def measured(function: Callable[..., object], *arguments: object, threads: int | None = None) -> dict[str, object]:
    """Call a function of a module in a fresh process; return the seconds it returns and its peak memory in bytes.

    The function returns the seconds of each of its runs, whatever it had to prepare before them left out; and if it
    likes, facts to keep beside them. threads: of PyTorch there, and the most workers; by default as many as here.
    """
    threads = torch.get_num_threads() if threads is None else threads
    alive = Progress(desc=f"measuring {function.__name__}")
    with alive, ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        result, memory = pool.submit(_run, function, arguments, threads).result()
    seconds, facts = result if isinstance(result, tuple) else (result, {})
    return {"seconds": seconds, "median": statistics.median(seconds), "peak_bytes": memory, **facts}


def _run(function: Callable[..., object], arguments: tuple, threads: int) -> tuple[object, int]:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    return function(*arguments), peak_memory()


# What keeps one core busy as long as the process lives whose number it is given.
BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    sum(range(10**6))"
_beside: ContextVar[bool] = ContextVar("beside", default=False)


@contextmanager
def neighbour(wanted: bool) -> Iterator[int | None]:
    """Keep one of the cores that this process may use busy for a while, as another's program would; yield who does."""
    if not wanted:
        yield None
        return
    token = _beside.set(True)
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())])
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        yield process.pid
    finally:
        process.kill()
        process.wait()
        _beside.reset(token)


def _end_with_parent() -> None:
    """Do not go on for an hour when the command that asked for it was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


def timed(function: Callable[[], object], runs: int) -> list[float]:
    """Return the seconds of `runs` calls of a function."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        function()
        seconds.append(round(time.perf_counter() - started, 4))
    return seconds


class Report:
    """A file of measurements that grows one by one; what it holds already, under the same setting, stays."""

    def __init__(self, path: Path, setting: dict[str, object]) -> None:
        """Open the JSON file at `path`; measurements made under another setting are forgotten."""
        self.path, self.setting = Path(path), setting
        self.rows: dict[str, dict] = {}
        self.environment = records.environment(torch.device("cpu"))
        if self.path.exists():
            try:
                kept = json.loads(self.path.read_text())
                if kept["setting"] == setting:
                    self.rows = kept["measurements"]
            except (ValueError, KeyError, TypeError):
                pass  # damaged: measured anew

    def add(self, name: str, row: dict) -> None:
        """Keep a measurement, with the machine and code that it comes from, and write the file."""
        self.rows[name] = {**row, "environment": self.environment} | ({"neighbour": True} if _beside.get() else {})
        write_json(self.path, {"setting": self.setting, "measurements": self.rows})

    def write_table(self, title: str, text: str, header: list[str], rows: Iterable[list[str]]) -> Path:
        """Write the table beside the JSON file as Markdown and return its path."""
        path = self.path.with_suffix(".md")
        machines = sorted({machine(row["environment"]) for row in self.rows.values()})
        beside = any(row.get("neighbour") for row in self.rows.values())
        where = "Measured beside a busy process on one core (`--neighbour`), on" if beside else "Measured on"
        write_text(path, f"# {title}\n\n{text}\n\n{markdown(header, list(rows))}\n{where} {'; '.join(machines)}.\n")
        return path


def machine(environment: dict[str, object]) -> str:
    """Return in words what a measurement was made on."""
    commit, _, changes = str(environment["git_commit"]).partition("+")
    return (
        f"{environment['processor']}, {environment['threads']} threads, {environment['system']}, Python "
        f"{environment['python']}, torch {environment['torch']}, commit {commit[:12]}{' with changes' * bool(changes)}"
    )
