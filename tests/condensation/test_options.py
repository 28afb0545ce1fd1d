"""Condensation methods by name, their published defaults and options."""

import json

import pytest

import methods
from lcmat import UserError
from tests import oracles
from tests.condensing import NAMES

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# That one image of a class has no variance is said, which a test of its own checks.
pytestmark = pytest.mark.filterwarnings("ignore:LCMat-C")


def test_registry_keeps_selection_and_condensation_apart() -> None:
    assert sorted(methods.condensers()) == sorted(NAMES)
    assert not set(methods.condensers()) & set(methods.names())
    assert methods.condenser("lcmat-c").name == methods.find("LCMAT-C").name == "LCMat-C"
    assert methods.find("random").name == "Uniform"
    with pytest.raises(UserError, match="did you mean RandomReal"):
        methods.condenser("RandomRael")
    with pytest.raises(UserError, match="did you mean LCMat-S"):
        methods.find("LCMat")


@pytest.mark.parametrize(
    ("name", "ipc", "expected"),
    [
        ("DC", 1, {"steps": 1, "network_epochs": 1, "image_lr": 0.1, "init": "noise", "augmentation": "none"}),
        ("DSA", 10, {"steps": 10, "network_epochs": 50, "image_lr": 0.1, "init": "real", "augmentation": "dsa"}),
        ("DSA", 50, {"steps": 50, "network_epochs": 10, "iterations": 1000, "batch": 256}),
        ("DM", 10, {"image_lr": 1.0, "iterations": 20_000, "batch": 256, "init": "real"}),
        ("DM", 100, {"image_lr": 10.0}),
        ("LCMat-C", 10, {"image_lr": 0.005, "rho": 0.1, "steps": 100, "batch": 64, "init": "noise"}),
        ("LCMat-C", 50, {"image_lr": 0.025, "iterations": 2000, "network_images": 2000, "network_momentum": 0.9}),
        ("KIP", 10, {"image_lr": 0.04, "targets": 5000, "regularisation": 1e-6}),
    ],
)
def test_published_defaults(name: str, ipc: int, expected: dict) -> None:
    found = methods.condenser(name).resolved([ipc] * 10, {})
    assert {key: found[key] for key in expected} == expected
    assert list(found) == list(methods.condenser(name).options)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("DM", {"iteration": 3}, "DM has no option 'iteration'; did you mean iterations"),
        ("DM", {"iterations": 0}, "iterations must be a whole number of at least 1"),
        ("DM", {"iterations": "many"}, "DM: iterations must be a whole number"),
        ("DM", {"image_lr": "fast"}, "image_lr must be above 0"),
        ("DM", {"image_lr": -1.0}, "image_lr must be above 0 and finite"),
        ("DM", {"image_momentum": -0.1}, "image_momentum must be 0 or more"),
        ("DM", {"augmentation": "das"}, "did you mean dsa"),
        ("DC", {"steps": 0}, "steps must be a whole number of at least 1"),
        ("DC", {"network_batch": 1}, "network_batch must be a whole number of at least 2"),
        ("DC", {"metric": "cosinus"}, "did you mean cosine"),
        ("DSA", {"init": "reel"}, "did you mean real"),
        ("LCMat-C", {"rho": -1.0}, "rho must be 0 or more"),
        ("LCMat-C", {"factor": 0}, "factor must be a whole number of at least 1"),
        ("LCMat-C", {"layers": "conv"}, "unknown layers 'conv'"),
        ("LCMat-C", {"network_lr": 0.0}, "network_lr must be above 0"),
        ("LCMat-C", {"backpack": 2}, "LCMat-C: backpack must be true or false"),
        ("RandomReal", {"init": "noise"}, "RandomReal has no option 'init'; it has no options"),
    ],
)
def test_bad_options(name: str, given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        methods.condenser(name).resolved([10] * 10, given)


QUICK = ["--dataset", "digits", "--model", "MLP", "--epochs", "8", "--lr", "0.05", "--test_interval", "4"]
DM = [*QUICK, "--selection", "DM", "--option", "DM.iterations=6", "DM.batch=8"]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("DM", {"image_lr": 1}),
        ("DM", {"image_momentum": 0}),
        ("KIP", {"image_lr": 1}),
        ("LCMat-C", {"rho": 1, "image_lr": 1}),
    ],
)
def test_a_whole_number_and_its_float_are_one_setting(name: str, given: dict[str, int]) -> None:
    """In the record's hash and the cache's, where 1 and 1.0 are written differently."""
    found = [
        methods.condenser(name).resolved([10] * 10, {k: kind(v) for k, v in given.items()}) for kind in (int, float)
    ]
    assert json.dumps(found[0]) == json.dumps(found[1])
    assert all(type(found[0][k]) is float for k in given)
