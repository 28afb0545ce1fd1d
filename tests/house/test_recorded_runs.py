"""Every committed record stays found: under the hash of what it holds, and by the command line that made it."""

import functools
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import nets
from lcmat import data
from lcmat.command_line import grids, options, planning
from lcmat.commands import _reports
from lcmat.commands._registry import REGISTRY
from lcmat.data.splits import Dataset, TensorSplit
from lcmat.records.keys import config_hash
from lcmat.records.place import record_path
from lcmat.runs.setup import Setup
from tests.harness import ROOT

RESULT = ROOT / "result"
# But for what the quick start leaves, which is not committed.
RECORDS = sorted(path for path in RESULT.rglob("*-seed*-*.json") if "quickstart" not in path.parts)
# What made them: a grid of configs/ or flags of main.py, each with the precision and whatever else made that machine's.
# As the quick start was when it made its records.
QUICK = (
    "--dataset digits --selection LCMat-S Uniform --fraction 0.01 0.02 0.05 0.1 --seed 0 1 2 --selection_epochs 5 "
    "--epochs 40 --batch 50 --lr 0.05 --test_interval 0 --rho 0.1"
)
MADE_BY = {
    "figure3": ("configs/figure3_digits.yaml", "--precision float32 --save_path result/figure3_digits"),
    "figure4": ("configs/figure4_digits.yaml", "--precision float32"),
    "figure5": ("configs/figure5_digits.yaml", "--precision float32"),
    "figure5, Fashion-MNIST": ("configs/figure5_fashionmnist.yaml", ""),
    "figure7": ("configs/figure7_digits.yaml", "--precision bfloat16"),
    "table1": ("configs/table1_digits.yaml", "--precision bfloat16"),
    "table1, CIFAR-10": ("configs/table1_cifar10_smallest.yaml", "--pretrained given.pt --precision bfloat16"),
    "table1, CIFAR-10, by main.py": (
        "--dataset CIFAR10 --selection LCMat-S Uniform --fraction 0.001 --seed 0 1 2 --epochs 200",
        "--pretrained given.pt --precision bfloat16",
    ),
    "table2": ("configs/table2_digits.yaml", "--precision float32"),
    "table4": ("configs/table4_digits.yaml", ""),
    "table4, Fashion-MNIST": ("configs/table4_fashionmnist.yaml", ""),
    "lbcs, Fashion-MNIST": ("configs/lbcs_fashionmnist.yaml", ""),
    "quick start": (QUICK, "--precision bfloat16"),
    "why, CIFAR-10": ("configs/why_cifar10.yaml", "--pretrained given.pt --save_path result/why"),
    "why, CIFAR-10, five networks": ("configs/gpu_cifar10.yaml", "--save_path result/why"),
    "why, digits": ("configs/why_digits.yaml", "--fraction 0.01 0.05 --save_path result/why"),
    "why, digits, LeNet": ("configs/why_digits_lenet.yaml", "--save_path result/why"),
    "methods2, digits": ("configs/methods2_digits.yaml", "--save_path result/methods2"),
    "methods2, protocols": ("configs/methods2_protocols_digits.yaml", "--save_path result/methods2"),
}  # fmt: skip
# Recorded when Glister stepped along sums, and CCS read margins of logits: the command lines that find these runs.
GLISTER, CCS = "--selection Glister --option step=sum", "--selection CCS --option margin=logit"
BOTH = "--selection Glister Glister-Val CCS --option step=sum margin=logit"
MADE_BY |= {
    f"{name}, as it was": (MADE_BY[name][0], f"{MADE_BY[name][1]} {further}")
    for name, further in {
        "figure3": GLISTER,
        "figure5": BOTH,
        "figure7": GLISTER,
        "table1": BOTH,
        "table1, CIFAR-10": GLISTER,
        "table2": GLISTER,
        "lbcs, Fashion-MNIST": CCS,
    }.items()
}
# Methods that a grid asks for and that were not run since: none recorded, or with other defaults or networks than now.
STEPPED = {"Glister", "Glister-Val", "CCS"}
CROSSED = {"Uniform", "Craig", "GradMatch", "Glister", "AdaCore", "LCMat-S"}  # on an Inception-v3 and a WRN-16-8
SINCE = {
    "figure3": STEPPED,
    "figure5": STEPPED,
    "figure5, Fashion-MNIST": {"Uniform", "Herding", "Craig", "LCMat-S", "DM"},
    "figure7": STEPPED,
    "table1": {"LBCS", *STEPPED},
    "table1, CIFAR-10": STEPPED,
    "table2": CROSSED,
    "table2, as it was": {"Glister"},
    "table4, Fashion-MNIST": {"LCMat-S", "RandomReal", "DM", "DSA", "LCMat-C"},
    "lbcs, Fashion-MNIST": STEPPED,
    # Campaigns that go on where time is left.
    "why, CIFAR-10": {*REGISTRY.methods},
    "why, CIFAR-10, five networks": {*REGISTRY.methods},
    "why, digits": {*REGISTRY.methods},
}
GIVEN = "1016372f0c79642645e03312f9af7802e1f86fbf21d97224028c1c17eb62dc97"  # sha256 of the network for CIFAR-10


@dataclass(frozen=True)
class StandIn(Dataset):
    """As many labels of each class as a published dataset has, and its fingerprint, without the images."""

    def fingerprint(self) -> str:
        """Return that of the records."""
        return {"CIFAR10": "91d7c59af09bad3c", "FashionMNIST": "2e19b56d5e8aa4b4"}[self.name]


def stand_in(name: str, augmentation: str | None) -> Dataset:
    """Return black images, which take no room, of ten classes."""
    each, shape, mean, std, usual = {
        "CIFAR10": (5000, (3, 32, 32), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "crop_flip"),
        "FashionMNIST": (6000, (1, 28, 28), (0.2861,), (0.3530,), "none"),
    }[name]
    train, test = (
        TensorSplit(torch.zeros(1, dtype=torch.uint8).expand(10 * count, *shape), torch.arange(10).repeat(count))
        for count in (each, 1000)
    )
    return StandIn(name, train, test, tuple("0123456789"), mean, std, augmentation or usual)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[Path]]:
    """Return the records that each command line asks for."""
    folder, load = tmp_path_factory.mktemp("asked"), data.load
    given = functools.cached_property(lambda setup: GIVEN)
    given.__set_name__(Setup, "pretrained_hash")

    def loaded(name: str, *words: object, **flags: object) -> Dataset:
        return load(name, *words, **flags) if name == "digits" else stand_in(name, flags["augmentation"])

    torch.save(nets.build("ResNet18", 10, 3, 32).state_dict(), folder / "given.pt")
    (folder / "result").symlink_to(RESULT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", loaded)
        patch.setattr(Setup, "pretrained_hash", given)
        patch.chdir(folder)
        return {name: {ROOT / path for path in planned(what, flags)} for name, (what, flags) in MADE_BY.items()}


def planned(what: str, flags: str) -> list[Path]:
    """Return the records that a grid's file or a command line, with further flags, asks for."""
    words = ["--cache_path", "cache", "--device", "cpu", *flags.split()]
    if what.startswith("--"):
        lines = [options.parse([*shlex.split(what.replace("\\\n", " ")), *words])]
    else:
        lines = grids.read_grid(ROOT / what, words, options.build_parser(), list(_reports.KNOWN)).lines
    with planning.planned(lines, REGISTRY) as jobs:
        return [job.path for job in jobs]


def test_record_has_the_hash_of_its_configuration() -> None:
    """Of every kind: selections and condensations, of whole datasets and in continual learning."""
    found = {path: json.loads(path.read_text()) for path in RECORDS}
    kinds = {(path.name[:8], "condensing" in record["config"]) for path, record in found.items()}
    assert kinds == {(name, made) for name in ("fraction", "continua") for made in (False, True)}
    assert len(found) >= 773
    for path, record in found.items():
        assert path.stem.rpartition("-")[2] == config_hash(record["config"]), path
        assert path == record_path(path.parents[2], record["config"], record["selection_model"])


@pytest.mark.parametrize("name", MADE_BY)
def test_recorded_grid_has_nothing_left_to_do(name: str, asked: dict[str, set[Path]]) -> None:
    """As `--plan` tells: what the command line asks for today is what it recorded then, digit by digit."""
    left = {path for path in asked[name] if not path.exists()}
    assert {path.parent.name for path in left} <= SINCE.get(name, set())


def of_earlier_networks(path: Path) -> bool:
    """Tell whether a record is of a network whose name is another one's now, so that nothing asks for it."""
    record = json.loads(path.read_text())
    config, shape = record["config"], (3 if record["dataset"] == "CIFAR10" else 1, record["config"]["image_size"])
    trained = config.get("test_model_revision", 1), nets.revision(config["test_model"], *shape)
    selected = (config["selection_network"] or {}).get("revision", 1), nets.revision(record["selection_model"], *shape)
    return trained[0] != trained[1] or (bool(config["selection_network"]) and selected[0] != selected[1])


def test_record_is_asked_for_by_some_command_line(asked: dict[str, set[Path]]) -> None:
    """So that none is lost to a change of what a configuration holds."""
    lost = set(RECORDS) - set().union(*asked.values())
    assert {path for path in lost if not of_earlier_networks(path)} == set()
