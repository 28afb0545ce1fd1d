"""A name that came to stand for another network: records and caches of the two are told apart."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import methods
from lcmat.command_line.method_flags import options_for
from lcmat.commands._registry import REGISTRY
from lcmat.condensation import Condenser
from lcmat.data import Dataset
from lcmat.runs import pretrained
from lcmat.runs.condensation import Condensation
from lcmat.runs.continual import Continual, Steps
from lcmat.runs.job import Run
from lcmat.runs.selection import Selection, selection_key
from lcmat.runs.setup import Settings, Setup, make_setup
from lcmat.training import Compute, Recipe


@pytest.fixture
def of(digits: Dataset, compute: Compute, tmp_path: Path) -> Callable[..., Setup]:
    """Make a setup in which some networks, by name, are second ones."""

    def make(*second: str) -> Setup:
        settings = Settings(
            model="LeNet",
            inner_model="MLP",
            selection_recipe=Recipe(epochs=1, batch=64, scheduler="constant"),
            save_path=tmp_path / "result",
            cache_path=tmp_path / "cache",
        )
        return make_setup(digits, compute, REGISTRY.network, settings, lambda name, dataset: 1 + (name in second))

    return make


def run(name: str, test_model: str | None = None) -> Run:
    method = methods.find(name)
    return Run(method, 0, budget=20, test_model=test_model, options=options_for(method, {}))


def configuration(setup: Setup, one: Run) -> dict[str, object]:
    kind = Condensation() if isinstance(one.method, Condenser) else Selection()
    return kind.configuration(setup, one)


def test_first_networks_are_not_mentioned(of: Callable) -> None:
    """So that records made before any network changed keep their hashes."""
    for name in ("Uniform", "LCMat-S", "GraNd", "LBCS", "DM"):
        for one in (run(name), run(name, "VGG16")):
            assert "revision" not in repr(configuration(of(), one))


@pytest.mark.parametrize("name", ["Uniform", "LCMat-S", "GraNd", "DM"])
def test_second_network_that_is_trained_is_said(of: Callable, name: str) -> None:
    before, after = configuration(of(), run(name, "VGG16")), configuration(of("VGG16"), run(name, "VGG16"))
    assert after == before | {"test_model_revision": 2}


def test_subset_does_not_depend_on_the_network_that_is_trained_on_it(of: Callable) -> None:
    """So one recorded before is read, not chosen anew."""
    keys = {selection_key(configuration(of(*second), run("Herding", "VGG16"))) for second in ((), ("VGG16",))}
    assert len(keys) == 1
    assert selection_key(configuration(of("LeNet"), run("Herding", "VGG16"))) not in keys


@pytest.mark.parametrize(("name", "second"), [("LCMat-S", "LeNet"), ("GraNd", "LeNet"), ("LBCS", "MLP")])
def test_second_network_that_chooses_is_said_where_it_is(of: Callable, name: str, second: str) -> None:
    config = configuration(of(second), run(name, "VGG16"))
    network = config["selection_network"]
    part = {"LCMat-S": network, "GraNd": network.get("initialisations"), "LBCS": network.get("training")}[name]
    assert part["model"] == second
    assert part["revision"] == 2
    assert "test_model_revision" not in config


def test_caches_of_both_are_apart(of: Callable) -> None:
    """Networks and signals of the selection network, of initialisations, and synthetic images."""
    first, second = of(), of("LeNet")
    for name in ("LCMat-S", "GraNd"):
        assert not pretrained.checkpoints(first, run(name)) & pretrained.checkpoints(second, run(name))
    images = {configuration(setup, run("DM", "VGG16"))["condensing"] for setup in (first, second)}
    assert len(images) == 2
    # Random images know no network.
    real = {configuration(setup, run("RandomReal", "VGG16"))["condensing"] for setup in (first, second)}
    assert len(real) == 1


def test_steps_of_continual_learning_say_it(of: Callable) -> None:
    kind = Continual(Selection(), Steps(2, 2))
    config = kind.configuration(of("LeNet"), replace(run("LCMat-S"), per_class=2))
    assert config["test_model_revision"] == config["selection_network"]["revision"] == 2
