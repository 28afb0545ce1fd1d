"""How long runs are likely to take, from recorded ones."""

from __future__ import annotations

import statistics

from lcmat.runs import pretrained
from lcmat.runs.job import Job


def estimate(jobs: list[Job], known: list[dict]) -> tuple[float, int]:
    """Return the seconds that jobs are likely to take, from recorded runs, and how many jobs nothing is known about.

    Training is taken to grow with images times epochs, plus the images tested at a third of that; the network that
    selects, with its epochs; once for each network. Known runs count if dataset, networks and precision agree.
    Selection and condensation take what they took with the same method, options and size; selection otherwise what it
    took with the method at all.
    """
    speeds: dict[tuple, list[float]] = {}
    pretraining: dict[tuple, list[float]] = {}
    choosing: dict[tuple, list[float]] = {}
    for record in known:
        config = record["config"]
        if config.get("training") and record["seconds"].get("train"):
            load = _load(record["subset_size"], config, _test_images(jobs, record["dataset"]))
            speeds.setdefault(_kind(config), []).append(record["seconds"]["train"] / load)
        network = config.get("selection_network") or {}
        if "epochs" in network and record["seconds"].get("pretrain"):
            pretraining.setdefault(_origin(config), []).append(record["seconds"]["pretrain"] / network["epochs"])
        for key in (_choice(config), _method(config)):
            choosing.setdefault(key, []).append(record["seconds"].get("select", 0.0))
    total, unknown, networks = 0.0, 0, set()
    made = {record["config"]["condensing"] for record in known if "condensing" in record["config"]}
    for job in jobs:
        config, setup = job.config, job.setup
        size = max(1, round(config["fraction"] * len(setup.part(job.run)[0])))
        speed = speeds.get(_kind(config))
        choice, images = choosing.get(_choice(config)), config.get("condensing")
        if choice is None and images is None:  # the options of condensation change its time a hundredfold
            choice = choosing.get(_method(config))
        unknown += speed is None or (choice is None and images not in made)
        total += 0.0 if images in made else statistics.median(choice or [0.0])
        made |= {images} - {None}
        total += statistics.median(speed) * _load(size, config, len(setup.dataset.test)) if speed else 0.0
        for network_id in pretrained.network_ids(setup, job.run):
            key = pretrained.cache_key(setup, network_id)
            epochs = (config["selection_network"] or {}).get("epochs")
            if key in networks or epochs is None or pretrained.is_taken(setup, network_id):
                continue
            networks.add(key)
            total += epochs * statistics.median(pretraining.get(_origin(config), [0.0]))
    return total, unknown


def _test_images(jobs: list[Job], dataset: str) -> int:
    """Return how many test images the dataset has, or 0 if none of the jobs is on it."""
    return next((len(job.setup.dataset.test) for job in jobs if job.config["dataset"] == dataset), 0)


def _kind(config: dict) -> tuple:
    return (*_place(config), config["test_model"])


def _choice(config: dict) -> tuple:
    options = repr(sorted(config.get("options", {}).items()))
    return (*_method(config), config["fraction"], options)


def _method(config: dict) -> tuple:
    return (*_place(config), config["selection"])


def _origin(config: dict) -> tuple:
    network = config["selection_network"]
    return (*_place(config), network.get("model"))


def _place(config: dict) -> tuple:
    return tuple(config.get(name) for name in ("dataset", "image_size", "precision", "protocol"))


def _load(size: int, config: dict, test_images: int) -> float:
    epochs, interval = config["training"]["epochs"], config.get("test_interval", 0)
    tests = 1 + (epochs - 1) // interval if interval else 1
    size *= config.get("options", {}).get("factor", 1) ** 2  # each image holds so many
    one = size * epochs + tests * test_images * config.get("test_fraction", 1.0) / 3
    return config.get("evaluations", 1) * one


def duration(seconds: float) -> str:
    """Return a time in words: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
