"""How runs take signals as the released code does: caches and configurations of their own, and nothing by default."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import methods
from lcmat import Signals
from lcmat.command_line import options
from lcmat.command_line.request import request_of
from lcmat.commands._registry import REGISTRY
from lcmat.data import Dataset
from lcmat.reports.table_text import accuracy_markdown
from lcmat.reports.tables import accuracy_tables
from lcmat.runs import pretrained as provision
from lcmat.runs.job import Run
from lcmat.runs.selection import Selection, selection_key
from lcmat.runs.setup import Settings, Setup, make_setup
from lcmat.signals import Taking
from lcmat.signals.released import batch_scale, take_in_training_mode
from lcmat.training import Compute, Recipe
from tests.harness import call, cli


class Tiny(nn.Module):
    """One hidden layer, normalised by batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        return self.head(self.body(x))


@pytest.fixture
def setup(digits: Dataset, compute: Compute, tmp_path: Path) -> Callable[..., Setup]:
    """Make a setup with some settings of one's own; all of a test share a cache."""

    def make(**settings: object) -> Setup:
        usual = {
            "model": "Tiny",
            "selection_recipe": Recipe(epochs=2, batch=60, scheduler="constant"),
            "recipe": Recipe(epochs=1, batch=32),
            "initialisations": 2,
            "test_interval": 0,
            "save_path": tmp_path / "result",
            "cache_path": tmp_path / "cache",
        }
        return make_setup(digits, compute, lambda name, dataset: Tiny(), Settings(**{**usual, **settings}))

    return make


def run(name: str, *taking: object) -> Run:
    """A run of a method."""
    return Run(methods.get(name), 0, fraction=0.05, taking=Taking(*taking))


def signals(setup: Setup, name: str, *taking: object) -> Signals:
    """What a method gets."""
    return provision.signals_of(setup, run(name, *taking))[0]


TRAIN, BATCH = ("train", "sample", 60), ("eval", "batch", 60)


def test_training_mode_is_a_pass_of_its_own_under_the_same_network(setup: Callable, tmp_path: Path) -> None:
    usual = setup()
    first, second = signals(usual, "LCMat-S"), signals(usual, "LCMat-S", *TRAIN)
    network = provision.network_of(usual, 0)
    expected = take_in_training_mode(network, usual.dataset.train, usual.compute, 60)
    assert torch.equal(second.logits, expected.logits)
    assert torch.equal(second.features, expected.features)
    assert not torch.allclose(first.logits, second.logits, atol=1e-2)
    assert second.scale is None
    assert len(list((tmp_path / "cache/networks").glob("*.pt"))) == 1
    assert len(list((tmp_path / "cache/signals").glob("*.pt"))) == 2
    # Whichever comes first, each is found again.
    assert torch.equal(signals(setup(), "Craig").logits, first.logits)
    assert torch.equal(signals(setup(), "Herding", *TRAIN).features, second.features)
    # Batches of another size have other statistics, also under a given network, whose recipe is in no key.
    torch.save(network.state_dict(), tmp_path / "given.pt")
    given = setup(pretrained=tmp_path / "given.pt")
    assert torch.equal(signals(given, "Craig", *TRAIN).logits, second.logits)
    assert not torch.equal(signals(given, "Craig", "train", "sample", 30).logits, second.logits)


def test_validation_and_initialisations_are_taken_likewise(setup: Callable) -> None:
    for part, name in (("validation", "GradMatch-Val"), ("initialisations", "GraNd")):
        one, other = (getattr(signals(setup(), name, *taking), part) for taking in ((), TRAIN))
        pairs = [(one, other)] if part == "validation" else list(zip(one, other, strict=True))
        assert pairs
        assert not any(torch.allclose(a.logits, b.logits, atol=1e-2) for a, b in pairs)


def test_gradients_are_scaled_by_the_batches_of_a_class_and_of_everything_for_grand(setup: Callable) -> None:
    own = setup()
    labels = own.dataset.train.labels
    assert torch.equal(signals(own, "LCMat-S", *BATCH).scale, batch_scale(labels, 60))
    assert torch.equal(signals(own, "LCMat-S", *BATCH).logits, signals(own, "LCMat-S").logits)
    several = signals(own, "GraNd", *BATCH).initialisations
    assert all(torch.equal(one.scale, batch_scale(labels, 60, by_class=False)) for one in several)
    glister = signals(own, "Glister-Val", *BATCH)
    assert torch.equal(glister.scale, batch_scale(glister.labels, 60))
    assert torch.equal(glister.validation.scale, batch_scale(glister.validation.labels, 60))


# Whether the configuration of a method depends on the mode, and on the scale.
DEPENDS = {
    "LCMat-S": (True, True),
    "Craig": (True, True),
    "GraNd": (True, True),
    "Herding": (True, False),
    "EL2N": (True, False),
    "DeepFool": (False, False),
    "Forgetting": (False, False),
    "Uniform": (False, False),
}


@pytest.fixture
def configuration(setup: Callable) -> Callable[..., dict[str, object]]:
    """What determines the run of a command line's only method."""

    def of(*words: str) -> dict[str, object]:
        request = request_of(options.parse(["--dataset", "digits", "--selection_batch", "60", *words]), REGISTRY)
        return Selection().configuration(setup(), request.runs(10)[0])

    return of


@pytest.mark.parametrize("name", DEPENDS)
def test_a_configuration_says_what_its_method_reads_and_nothing_of_the_usual(
    configuration: Callable, name: str
) -> None:
    usual = configuration("--selection", name)
    assert not {"signals_mode", "gradient_scale", "signals_batch"} & set(usual["selection_network"] or {})
    assert configuration("--selection", name, "--signals_mode", "eval", "--gradient_scale", "sample") == usual
    assert configuration("--selection", name, "--numerics", "paper") == usual
    for depends, flag, value in zip(DEPENDS[name], ("signals_mode", "gradient_scale"), ("train", "batch"), strict=True):
        other = configuration("--selection", name, f"--{flag}", value)
        network = {**(usual["selection_network"] or {}), flag: value, "signals_batch": 60}
        assert other == ({**usual, "selection_network": network} if depends else usual)


def test_released_numerics_set_every_part_and_flags_win(configuration: Callable) -> None:
    usual = configuration("--selection", "LCMat-S")
    network = {**usual["selection_network"], "signals_mode": "train", "gradient_scale": "batch", "signals_batch": 60}
    parts = {"rho": 0.02, "K": 100, "weights": False, "float32": True, "ten": True}
    released = {**usual, "options": parts, "selection_network": network}
    assert configuration("--selection", "LCMat-S", "--numerics", "released") == released
    assert configuration("--selection", "LCMat-S", "--option", "LCMat-S.numerics=released") == released
    by_parts = ["--rho", "0.02", "--signals_mode", "train", "--gradient_scale", "batch"]
    assert configuration("--selection", "LCMat-S", *by_parts, "--option", "float32=True", "ten=True") == released
    other = configuration("--selection", "LCMat-S", "--numerics", "released", "--rho", "0.1", "--signals_mode", "eval")
    assert other["options"] == {**parts, "rho": 0.1}
    assert other["selection_network"] == {**usual["selection_network"], "gradient_scale": "batch", "signals_batch": 60}
    adacore = configuration("--selection", "AdaCore", "--numerics", "released")
    assert adacore["options"]["damping"] == 0
    assert adacore["selection_network"] == network


def test_what_one_method_is_given_another_is_not(configuration: Callable) -> None:
    words = ["LCMat-S.numerics=released", "AdaCore.signals_mode=train"]
    both = ["--selection", "Herding", "LCMat-S", "AdaCore", "--option", *words]
    assert configuration(*both) == configuration("--selection", "Herding")
    one = request_of(options.parse(["--dataset", "digits", *both]), REGISTRY).runs(10)
    assert [run.taking.mode for run in one] == ["eval", "train", "train"]
    assert [run.taking.scale for run in one] == ["sample", "batch", "sample"]
    assert configuration("--selection", "Uniform", "--numerics", "released") == configuration("--selection", "Uniform")


def test_weights_by_the_batch_are_said_of_methods_that_give_some(configuration: Callable) -> None:
    for name, more, weighs in (
        ("Craig", [], True),
        ("Craig", ["--weights", "False"], False),
        ("GradMatch", [], True),
        ("LCMat-S", [], False),
        ("LCMat-S", ["--weights"], True),
        ("Uniform", [], False),
    ):
        usual = configuration("--selection", name, *more)
        assert "weights_by" not in usual
        other = configuration("--selection", name, *more, "--weights_by", "batch")
        assert other == ({**usual, "weights_by": "batch"} if weighs else usual)
        assert selection_key(other) == selection_key(usual)
    released = configuration("--selection", "Craig", "--numerics", "released")
    assert released["weights_by"] == "batch"
    assert released["options"] == {"softmax_twice": True, "one_more": True}


def test_craig_without_weights_is_another_run(configuration: Callable) -> None:
    usual, without, told = (
        configuration("--selection", "Craig", *w) for w in ([], ["--weights", "False"], ["--weights"])
    )
    assert usual == told
    assert "weights" not in usual["options"]
    assert without == {**usual, "options": {"weights": False}}


def test_runs_of_the_command_line(tmp_path: Path) -> None:
    """Two modes are two records under one network; what the mode does not concern is one record."""
    run = cli(tmp_path)
    for more in ([], ["--signals_mode", "Train"], ["--gradient_scale", "batch"], ["--signals_mode", "eval"]):
        kept = run("--selection", "LCMat-S", "Uniform", "--selection_batch", "50", *more)
    assert sorted(record["selection"] for record in kept) == ["LCMat-S"] * 3 + ["Uniform"]
    networks = [record["config"]["selection_network"] for record in kept if record["selection"] == "LCMat-S"]
    assert [network.get("signals_mode") for network in networks].count("train") == 1
    assert [network.get("gradient_scale") for network in networks].count("batch") == 1
    assert len(list((tmp_path / "cache/networks").glob("*.pt"))) == 1


def test_a_table_has_a_row_for_each_way(tmp_path: Path) -> None:
    """None is averaged with another, and all stand beside one Uniform."""
    run = cli(tmp_path)
    words = ["--selection", "Craig", "Uniform", "--fraction", "0.02"]
    for more in ([], ["--signals_mode", "train"], ["--weights_by", "batch"], ["--numerics", "released"]):
        found = run(*words, *more)
    assert len(found) == 5
    text = accuracy_markdown(accuracy_tables(found))
    rows = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")} - {"Method"}
    assert len(rows) == 5
    assert any("weights_by = batch" in row and "softmax_twice" not in row for row in rows)
    assert any("softmax_twice = True" in row for row in rows)


def test_bad_words_are_named_and_signals_of_a_file_are_taken_already(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["--dataset", "digits", "--selection", "LCMat-S", "--save_path", tmp_path / "r"]
    for flag, value in (("signals_mode", "trian"), ("gradient_scale", "bach"), ("numerics", "relased")):
        assert call(*words, f"--{flag}", value) == 2
        assert f"'{value}'; did you mean" in capsys.readouterr().err
    assert call(*words, "--file_order", "original") == 2
    assert "--file_order original: digits has no archive" in capsys.readouterr().err
    (tmp_path / "s.npz").touch()
    assert call(*words, "--signals", tmp_path / "s.npz", "--signals_mode", "train") == 2
    assert "--signals_mode says how signals are taken" in capsys.readouterr().err
