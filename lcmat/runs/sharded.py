"""Selection from a folder of shards by any number of processes at once: each class by exactly one of them.

The same command, started as often as wanted on machines that see the folders, shares the work out: whoever is free
claims the next class by a lock, reads it, and writes what was chosen of it (map); who finds all of them there puts them
together (reduce). What a killed process leaves is taken over by the others, or by the next call. The picks are those of
one process, since every class has random numbers of its own.

A class that the partition greedy chooses from in parts (GreeDi) is shared out by parts: each takes one to choose from,
and one of them goes on from what all of these chose, with no more of the class than that and some random samples.
"""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lcmat import locks, seeds
from lcmat.alive import Progress
from lcmat.errors import UserError
from lcmat.expected import array, fields, problem
from lcmat.facility_location.approximate import Rounds, SecondRound, some
from lcmat.files import load_arrays, sha256_of, write_atomically
from lcmat.memory_limit import shared_by
from lcmat.records import config_hash
from lcmat.runs.queue import PATIENCE
from lcmat.runs.signal_files import Selected, place_of
from lcmat.selection import Picks, Subset, select_with
from lcmat.selection.plan import Plan, planned
from lcmat.signals import Shards
from lcmat.signals.shards import MANIFEST
from lcmat.workers import as_done

# What is kept of picks until all are there, and more of them where they have it.
OF_PICKS = fields({"indices": array(None, kinds="i"), "nested": array(kinds="b")})


@dataclass(frozen=True)
class Unit:
    """What one worker does at once: a class, or the choice from one of the parts of a class."""

    label: int
    part: int | None = None

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"class{self.label:06}" if self.part is None else f"class{self.label:06}-part{self.part:05}"


@dataclass(frozen=True, eq=False)
class Work:
    """A selection from shards: what is asked for, where it is put together, and where locks on its units lie."""

    shards: Shards
    plan: Plan
    result: Path
    locks: Path

    @property
    def folder(self) -> Path:
        """Where what was chosen of each class lies until all are there."""
        return self.result.with_suffix(".parts")

    def file(self, unit: Unit) -> Path:
        """Return where what was chosen of a unit lies."""
        return self.folder / f"{unit.name}.npz"

    def lock(self, name: str) -> Path:
        """Return the file whose lock whoever works on a unit, or puts all together, holds."""
        return self.locks / f"{config_hash([self.result.name, name])}.lock"

    def rounds(self, label: int) -> Rounds | None:
        """Return how a class is chosen from in parts; None of one that is chosen from at once."""
        options = self.plan.options
        if options.get("greedy") != "partition":
            return None
        size = int(self.shards.class_sizes[label])
        rounds = Rounds.of(size, self.plan.budgets[label], options["rows"], options["parts"])
        return rounds if rounds.parts > 1 else None

    def units(self) -> list[Unit]:
        """Return all there is to do, the parts of classes first, then the largest classes."""
        labels = sorted(self.plan.budgets, key=lambda label: -self.shards.class_sizes[label])
        parts = [Unit(label, part) for label in labels for part in range(_count(self.rounds(label)))]
        return [*parts, *map(Unit, labels)]

    def is_ready(self, unit: Unit) -> bool:
        """Tell whether what a unit goes on from is there."""
        parts = 0 if unit.part is not None else _count(self.rounds(unit.label))
        return all(self.file(Unit(unit.label, part)).exists() for part in range(parts))

    def attempt(self, unit: Unit) -> bool:
        """Do a unit unless another process does; return whether it is done."""
        if self.is_done(unit):
            return True
        with locks.claimed(self.lock(unit.name)) as mine:
            if mine and not self.is_done(unit):
                _save(self.file(unit), self.picks(unit))
            return mine

    def is_done(self, unit: Unit) -> bool:
        """Tell whether what was chosen of a unit is there, or everything put together already."""
        return self.file(unit).exists() or self.result.exists()

    def picks(self, unit: Unit) -> Picks:
        """Return what is chosen of a class, as positions in the whole, or of a part, as positions in the class."""
        rounds = self.rounds(unit.label)
        if unit.part is not None:
            rows = rounds.random_parts(self._generator(unit.label))[unit.part]
            return self._chosen(unit.label, rows, rounds.wanted(len(rows)), greedy="exact")
        if rounds is None:
            picks = self.plan.pick(unit.label, self.shards.part(unit.label))
        else:
            picks = self._second_round(unit.label, rounds)
        return replace(picks, indices=self.shards.positions(unit.label)[picks.indices])

    def _second_round(self, label: int, rounds: Rounds) -> Picks:
        """Return what is chosen of a class from what its parts offer, as positions in it."""
        found = [_load(self.file(Unit(label, part))).indices for part in range(rounds.parts)]
        # Beyond what is offered, only what is a solution by itself is looked at.
        found = [picks if len(picks) == rounds.budget else picks[: rounds.offered] for picks in found]
        draw = self._generator(label)
        rounds.random_parts(draw)  # so that what follows is drawn as by one process
        rows = [*found, *rounds.clients_and_judges(found, draw), some(rounds.n, rounds.rows + rounds.budget, draw)]
        together, places = torch.cat(rows).unique(return_inverse=True)
        *chosen, clients, judges, sample = places.split(list(map(len, rows)))
        greedy = SecondRound(rounds, list(chosen), clients, judges, sample)
        return self._chosen(label, together, rounds.budget, greedy=greedy)

    def _chosen(self, label: int, rows: Tensor, budget: int, greedy: object) -> Picks:
        """Return what is chosen of some rows of a class by another greedy, as positions in the class."""
        options = {**self.plan.options, "greedy": greedy, "rows": None, "parts": None}
        signals = self.shards.part(label, rows.numpy())
        picks = self.plan.method.pick(signals, budget, self._generator(label), **options)
        return replace(picks, indices=rows[picks.indices])

    def _generator(self, label: int) -> torch.Generator:
        return seeds.generator(self.plan.seed, "select", label)

    def do(self) -> None:
        """Do what no other process does, and wait for these; largest classes first."""
        pending, said = self.units(), False
        most = self.plan.side_by_side([self._size(unit) for unit in pending])
        bar = Progress(total=len(pending), desc=self.plan.method.name)
        with bar, shared_by(most):
            while pending and not self.result.exists():
                ready = [unit for unit in pending if self.is_done(unit) or self.is_ready(unit)]
                done: set[Unit] = set()
                with closing(as_done(self.attempt, ready, most)) as attempts:
                    for number, ended in attempts:
                        done |= {ready[number]} if ended else set()
                        bar.update(ended)
                pending = [unit for unit in pending if unit not in done]
                if not done and pending:
                    if not said:
                        print(f"waiting for {len(pending)} classes or parts that other processes take", file=sys.stderr)
                    said = True
                    time.sleep(PATIENCE)

    def _size(self, unit: Unit) -> int:
        size, rounds = int(self.shards.class_sizes[unit.label]), self.rounds(unit.label)
        return size if rounds is None else -(-size // rounds.parts)

    def put_together(self) -> None:
        """Write the subset from what was chosen of each class, unless another process does, and clear that away."""
        with locks.locked(self.lock("all")):
            if self.result.exists():
                return
            labels = list(self.plan.budgets)
            picks = [_load(self.file(Unit(label))) for label in labels]
            classes = np.repeat(labels, [len(one.indices) for one in picks])
            subset = self.plan.subset(picks, classes, self.shards.class_names)
            subset.save_text(self.result.with_suffix(".txt"))
            subset.save(self.result)  # last: it means that all is there
            shutil.rmtree(self.folder, ignore_errors=True)


def select_from_shards(shards: Shards, asked: Selected, save_path: Path, overwrite: bool) -> tuple[Subset, Path]:
    """Select from shards, together with other processes that are asked for the same; write and return as `select_from`.

    What is there already is read, unless overwrite, which is for one process alone. A method that looks at all classes
    at once, or selects over all together, has everything in memory.
    """
    place = place_of(shards.folder, sha256_of(shards.folder / MANIFEST), len(shards), asked, save_path)
    result = place.with_name(f"{place.name}.npz")
    plan = planned(asked.method, shards, **asked.size, **asked.how)
    work = Work(shards, plan, result, Path(save_path) / ".locks")
    if overwrite:
        result.unlink(missing_ok=True)
        shutil.rmtree(work.folder, ignore_errors=True)
    if not result.exists() and plan.balanced and not plan.method.picks_all_groups:
        work.do()
        work.put_together()
    elif not result.exists():
        subset = select_with(asked.method, shards.everything(), **asked.size, **asked.how)
        subset.save_text(result.with_suffix(".txt"))
        subset.save(result)
    try:
        return Subset.load(result), result.with_suffix(".txt")
    except UserError as error:
        raise UserError(f"{error}; give --overwrite to select anew") from None


def _count(rounds: Rounds | None) -> int:
    return 0 if rounds is None else rounds.parts


def _save(path: Path, picks: Picks) -> None:
    values = {name: getattr(picks, name) for name in Picks.__dataclass_fields__}
    arrays = {name: np.asarray(value) for name, value in values.items() if value is not None}
    write_atomically(path, lambda file: np.savez(file, **arrays))


def _load(path: Path) -> Picks:
    """Read the picks of a unit; raise UserError for anything else."""
    arrays = load_arrays(path)
    if (wrong := problem(arrays, OF_PICKS)) is not None:
        raise UserError(f"{path} holds no picks: {wrong}; remove it, and give the same command again")
    kept = {name: arrays[name] for name in Picks.__dataclass_fields__ if name in arrays}
    return Picks(**{name: torch.from_numpy(value) if value.ndim else value.item() for name, value in kept.items()})
