"""How long runs are likely to take, from recorded ones, and whether one would end within a time limit."""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable

from lcmat.errors import UserError
from lcmat.runs import Job, pretrained

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Pace:
    """What recorded runs took.

    Training is taken to grow with images times epochs, plus the images tested at a third of that; pretraining with its
    epochs. Runs count if dataset, networks and precision agree. Selection and condensation take what they took with
    the same method, options and size; selection otherwise what it took with the method at all. Where nothing of the
    dataset is recorded, runs on another one with images of the same size count, in proportion to the images.
    """

    def __init__(self, records: Iterable[dict], test_images: dict[str, int]) -> None:
        """Take records; test_images: how many test images each dataset has."""
        self.test_images = test_images
        self.training: dict[tuple, list[float]] = defaultdict(list)  # seconds of a unit of load
        self.pretraining: dict[tuple, list[float]] = defaultdict(list)  # seconds of an epoch
        self.choosing: dict[tuple, list[float]] = defaultdict(list)
        self.elsewhere: dict[tuple, list[float]] = defaultdict(list)  # likewise, of any dataset, for each image of it
        self.made: set[str] = set()  # synthetic images
        for record in records:
            self.learn(record)

    def learn(self, record: dict) -> None:
        """Take one more record."""
        config, seconds = record["config"], record["seconds"]
        if config.get("training") and seconds.get("train"):
            load = _load(record["subset_size"], config, self.test_images.get(config["dataset"], 0))
            self.training[_kind(config)].append(seconds["train"] / load)
            self.elsewhere["train", *_kind(config)[1:]].append(seconds["train"] / load)
        images = max(1.0, record["subset_size"] / config["fraction"]) if config.get("fraction") else None
        network = config.get("selection_network") or {}
        if "epochs" in network and seconds.get("pretrain"):
            self.pretraining[_origin(config)].append(seconds["pretrain"] / network["epochs"])
            if images:
                of_one = seconds["pretrain"] / network["epochs"] / images
                self.elsewhere["pretrain", *_origin(config)[1:]].append(of_one)
        for key in (_choice(config), _method(config)):
            self.choosing[key].append(seconds.get("select", 0.0))
        if images and "condensing" not in config:
            self.elsewhere["select", *_method(config)[1:]].append(seconds.get("select", 0.0) / images)
        self.made |= {config["condensing"]} if "condensing" in config else set()

    def of_training(self, job: Job) -> float | None:
        """Return the seconds of the job's trainings, None if none of the kind is recorded."""
        kind = _kind(job.config)
        speeds = self.training.get(kind) or self.elsewhere.get(("train", *kind[1:]))
        if not speeds:
            return None
        size = max(1, round(job.config["fraction"] * len(job.setup.part(job.run)[0])))
        return statistics.median(speeds) * _load(size, job.config, len(job.setup.dataset.test))

    def of_choice(self, job: Job) -> float | None:
        """Return the seconds of selecting or condensing, None if nothing is known."""
        config, images = job.config, job.config.get("condensing")
        if images in self.made:
            return 0.0
        known = self.choosing.get(_choice(config))
        if known is None and images is None:  # the options of condensation change its time a hundredfold
            known = self.choosing.get(_method(config))
        if known is None and images is None and (of_one := self.elsewhere.get(("select", *_method(config)[1:]))):
            return statistics.median(of_one) * len(job.setup.dataset.train)
        return statistics.median(known) if known else None

    def of_networks(self, job: Job, known: set[str]) -> float:
        """Return the seconds of pretraining what the job reads and neither cache nor `known` has; it joins `known`."""
        total, epochs = 0.0, (job.config["selection_network"] or {}).get("epochs")
        for network_id in pretrained.network_ids(job.setup, job.run):
            key = pretrained.cache_key(job.setup, network_id)
            if key in known or epochs is None or pretrained.is_taken(job.setup, network_id):
                continue
            known.add(key)
            total += epochs * self.of_epoch(job)
        return total

    def of_epoch(self, job: Job) -> float:
        """Return the seconds of an epoch of pretraining, 0 if nothing is known."""
        if not job.config["selection_network"]:
            return 0.0
        known = self.pretraining.get(_origin(job.config))
        if known:
            return statistics.median(known)
        of_one = self.elsewhere.get(("pretrain", *_origin(job.config)[1:])) or [0.0]
        return statistics.median(of_one) * len(job.setup.dataset.train)


def estimate(jobs: list[Job], known: list[dict]) -> tuple[float, int]:
    """Return the seconds that jobs are likely to take, from recorded runs, and how many jobs nothing is known about."""
    pace = Pace(known, {job.config["dataset"]: len(job.setup.dataset.test) for job in jobs})
    total, unknown, networks = 0.0, 0, set()
    for job in jobs:
        training, choice = pace.of_training(job), pace.of_choice(job)
        unknown += training is None or choice is None
        total += (training or 0.0) + (choice or 0.0) + pace.of_networks(job, networks)
        pace.made |= {job.config["condensing"]} if "condensing" in job.config else set()
    return total, unknown


def by_processor(known: Iterable[dict]) -> dict[str, list[dict]]:
    """Return records by the processor that they were made on, "" where they do not say."""
    found: dict[str, list[dict]] = defaultdict(list)
    for record in known:
        found[str(record.get("environment", {}).get("processor", ""))].append(record)
    return dict(found)


class Deadline:
    """A time limit: no run is started that would probably not end within it, by what such runs took on this machine.

    A run of which nothing is known is started as long as there is time at all.
    """

    def __init__(self, seconds: float, jobs: list[Job], known: list[dict]) -> None:
        """Start the clock; known: records, of which those of this machine's processor count."""
        self.end = time.monotonic() + seconds
        self.processor = jobs[0].setup.environment["processor"]
        self.pace = Pace([], {job.config["dataset"]: len(job.setup.dataset.test) for job in jobs})
        for record in known:
            self.learn(record)

    def learn(self, record: dict) -> None:
        """Take one more record, if it was made on such a machine."""
        if record["environment"].get("processor") == self.processor:
            self.pace.learn(record)

    def allows(self, job: Job) -> bool:
        """Tell whether the job would probably end in time."""
        parts = (self.pace.of_training(job), self.pace.of_choice(job), self.pace.of_networks(job, set()))
        return time.monotonic() + sum(part or 0.0 for part in parts) < self.end


def seconds_of(text: str) -> float:
    """Return the seconds of a time such as 90, 10m, 1.5h; raise UserError for what is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    if found is None or not 0 < float(found[1]) <= 1e6:
        raise UserError(f"a time looks like 90, 10m or 1.5h, not {text[:40]!r}")
    return float(found[1]) * UNITS[found[2] or "s"]


def _kind(config: dict) -> tuple:
    return (*_place(config), config["test_model"])


def _choice(config: dict) -> tuple:
    options = repr(sorted(config.get("options", {}).items()))
    return (*_method(config), config["fraction"], options)


def _method(config: dict) -> tuple:
    return (*_place(config), config["selection"])


def _origin(config: dict) -> tuple:
    return (*_place(config), config["selection_network"].get("model"))


def _place(config: dict) -> tuple:
    return tuple(config.get(name) for name in ("dataset", "image_size", "precision", "protocol"))


def _load(size: int, config: dict, test_images: int) -> float:
    training, interval = config["training"], config.get("test_interval", 0)
    epochs = training["epochs"]
    if training.get("total_steps"):
        epochs = training["total_steps"] / -(-size // training["batch"])
    tests = 1 + max(0, epochs - 1) // interval if interval else 1
    size *= config.get("options", {}).get("factor", 1) ** 2  # each image holds so many
    one = size * epochs + tests * test_images * config.get("test_fraction", 1.0) / 3
    return config.get("evaluations", 1) * one
