"""What the pipeline provides to each method: dynamics, validation, initialisations, the network. Tiny networks."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import methods
from lcmat.command_line.method_flags import check_options, options_for
from lcmat.data import Dataset
from lcmat.errors import UserError
from lcmat.runs import pretrained, queue, selection
from lcmat.runs.job import Job, Run
from lcmat.runs.job import check as check_jobs
from lcmat.runs.selection import Selection
from lcmat.runs.setup import Settings, Setup, make_setup
from lcmat.selection.subset import Subset
from lcmat.training import Compute, Recipe, losses
from tests.networks import TinyNet

FAST = {"outer_steps": 2, "inner_epochs": 1, "iterations": 5, "trials": 2, "inner_steps": 1}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache shared by the tests that do not look into it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def setup_of(digits: Dataset, compute: Compute, tmp_path: Path, cache: Path) -> Callable[..., Setup]:
    """Make a Setup with some settings of one's own."""

    def make(**settings: object) -> Setup:
        usual = {
            "model": "Tiny",
            "selection_recipe": Recipe(epochs=3, batch=64, scheduler="constant"),
            "recipe": Recipe(epochs=2, batch=32),
            "initialisations": 3,
            "test_interval": 0,
            "save_path": tmp_path / "result",
            "cache_path": cache,
        }
        return make_setup(digits, compute, lambda name, dataset: TinyNet(), Settings(**{**usual, **settings}))

    return make


def run(name: str, options: dict[str, object] = FAST, **size: object) -> Run:
    method = methods.get(name)
    return Run(method, 0, **{"fraction": 0.05, **size}, options=options_for(method, options))


def check(own: Setup, runs: list[Run]) -> None:
    check_jobs([Job(own, one, Selection()) for one in runs])


def make(own: Setup, one: Run) -> dict:
    """Do a run as the queue does, and return its record."""
    ((record,), _) = queue.work([Job(own, one, Selection())], lambda *_: None)
    return record


@pytest.mark.parametrize("name", methods.names())
def test_every_method_runs_through_the_pipeline(setup_of: Callable, name: str, tmp_path: Path) -> None:
    own = setup_of()
    check(own, [run(name)])
    record = make(own, run(name))
    method = methods.get(name)
    train_size = 1297 if "validation" not in method.fields else 1037
    sizes = np.bincount(own.part(run(name))[1].labels)
    assert sizes.sum() == train_size
    budget = sum(max(1, round(0.05 * int(n))) for n in sizes)
    assert 0 < record["subset_size"] <= 1297
    assert method.chooses_size or record["subset_size"] == (1297 if method.ignores_budget else budget)
    assert record["needs"] == sorted({need.split(".")[0] for need in method.needs})
    path = next((tmp_path / "result").glob("digits-Tiny/*/*.npz"))
    indices = Subset.load(path).indices
    assert len(set(indices.tolist())) == len(indices)
    assert set(indices.tolist()) <= set(own.part(run(name))[0].tolist())
    assert record["config"] == json.loads(json.dumps(record["config"]))
    assert not list((own.settings.cache_path / "checkpoints").glob("*"))


def test_methods_get_what_they_need_and_no_more(setup_of: Callable) -> None:
    own = setup_of()
    given = {name: pretrained.signals_of(own, run(name))[0] for name in ("Herding", "CCS", "GraNd", "Glister-Val")}
    assert given["Herding"].features is not None
    assert given["Herding"].logits is None
    assert given["CCS"].features is None
    assert given["CCS"].dynamics["probability_margin"].shape == (3, 1297)
    assert given["CCS"].dynamics["correctness"].dtype == torch.bool
    assert len(given["GraNd"].initialisations) == 3
    assert given["GraNd"].dynamics is given["GraNd"].validation is None
    glister = given["Glister-Val"]
    assert len(glister) + len(glister.validation) == 1297
    positions, _, held_out = own.split(0, 0.2)
    assert len(set(positions.tolist())) == len(glister) == 1037
    assert torch.equal(glister.validation.labels, held_out.labels)


def test_initialisations_differ_and_the_first_is_the_pretrained_network(setup_of: Callable) -> None:
    own = setup_of()
    several = pretrained.signals_of(own, run("GraNd"))[0].initialisations
    main = pretrained.signals_of(own, run("LCMat-S"))[0]
    assert torch.equal(several[0].logits, main.logits)
    assert not torch.equal(several[1].logits, several[0].logits)
    assert not torch.equal(several[1].logits, several[2].logits)


def test_initialisations_of_other_length_share_nothing_with_pretraining(setup_of: Callable) -> None:
    own = setup_of(initialisation_epochs=1)
    several = pretrained.signals_of(own, run("GraNd"))[0].initialisations
    assert len(several) == 3
    main = pretrained.signals_of(own, run("LCMat-S"))[0]
    assert not any(torch.equal(one.logits, main.logits) for one in several)
    config = Selection().configuration(own, run("GraNd"))["selection_network"]["initialisations"]
    assert (config["count"], config["epochs"]) == (3, 1)


def test_initialisations_are_cached_one_by_one(
    setup_of: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = setup_of(cache_path=tmp_path / "cache", initialisations=4)
    trained = []
    original = pretrained.train

    def interrupted(*arguments: object, **options: object) -> object:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(options["watch"].label)
        return original(*arguments, **options)

    monkeypatch.setattr(pretrained, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrained.signals_of(own, run("EL2N"))
    assert len(list((tmp_path / "cache" / "signals").glob("*.pt"))) == 2
    again = []
    monkeypatch.setattr(pretrained, "train", lambda *a, **o: (again.append(o["watch"].label), original(*a, **o))[1])
    several = pretrained.signals_of(own, run("EL2N"))[0].initialisations
    assert len(several) == 4
    assert len(again) == 2
    assert set(again).isdisjoint(trained)
    # More of them later: the ones that are there serve.
    again.clear()
    pretrained.signals_of(setup_of(cache_path=tmp_path / "cache", initialisations=5), run("GraNd"))
    assert len(again) == 1


@pytest.mark.parametrize("name", ["Forgetting", "CCS"])
def test_dynamics_are_asked_for_when_only_weights_are_given(setup_of: Callable, tmp_path: Path, name: str) -> None:
    torch.save(TinyNet().state_dict(), tmp_path / "given.pt")
    own = setup_of(pretrained=tmp_path / "given.pt")
    with pytest.raises(UserError, match=rf"{name} needs the dynamics of pretraining, which --pretrained"):
        check(own, [run("LCMat-S"), run(name)])
    check(own, [run("LCMat-S"), run("GraNd"), run("DeepFool")])
    record = make(own, run("DeepFool"))
    assert record["selection_network"]["given"] == "given.pt"
    assert "initialisations" in Selection().configuration(own, run("GraNd"))["selection_network"]


def test_validation_samples_are_neither_trained_on_nor_selected(
    setup_of: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = setup_of(cache_path=tmp_path / "cache")
    sizes = []
    original = pretrained.train
    monkeypatch.setattr(pretrained, "train", lambda *a, **o: (sizes.append(len(a[1])), original(*a, **o))[1])
    record = make(own, run("GradMatch-Val"))
    assert sizes == [1037]
    assert record["config"]["validation_ratio"] == 0.2
    # Without the need, nothing is held out, unless it is for all.
    assert Selection().configuration(own, run("GradMatch"))["validation_ratio"] is None
    assert Selection().configuration(setup_of(hold_out=True), run("GradMatch"))["validation_ratio"] == 0.2


def test_training_gets_the_weights_of_a_weighted_subset(setup_of: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    original = losses.weighted_cross_entropy

    def spied(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        used.append(weights)
        return original(logits, labels, weights)

    monkeypatch.setattr(losses, "weighted_cross_entropy", spied)
    own = setup_of(recipe=Recipe(epochs=1, batch=2000))
    make(own, run("LCMat-S"))
    assert used[-1] is None
    record = make(own, run("Craig"))
    path = own.settings.save_path / "digits-Tiny" / "Craig" / record["indices"]
    expected = Subset.load(path).weights
    assert expected.sum() == 1297
    assert float(used[-1].mean()) == pytest.approx(1)
    torch.testing.assert_close(used[-1].sort().values, torch.from_numpy(np.sort(expected / expected.mean())))


def test_orders_that_cost_network_passes_are_made_once(setup_of: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    deep_fool = methods.get("DeepFool")
    pick = deep_fool.pick

    def counted(
        signals: object, budget: int, generator: object, context: object, *,
        overshoot: float = 0.02, iterations: int = 3, classes: int = 10,
    ) -> object:  # fmt: skip
        calls.append(budget)
        return pick(signals, budget, generator, context, overshoot=overshoot, iterations=iterations, classes=classes)

    method = replace(deep_fool, pick=counted)
    own, few = setup_of(), {"iterations": 3}
    whole, _ = selection.select(own, *arguments(own, Run(method, 0, fraction=0.1, options=few)))
    assert len(calls) == 10
    part, _ = selection.select(own, *arguments(own, Run(method, 0, fraction=0.05, options=few)))
    assert len(calls) == 10
    assert set(part.indices.tolist()) < set(whole.indices.tolist())
    by_budget, _ = selection.select(own, *arguments(own, Run(method, 0, budget=30, options=few)))
    assert len(by_budget) == 30
    assert len(calls) == 10
    selection.select(own, *arguments(own, Run(method, 1, fraction=0.05, options=few)))
    assert len(calls) == 20


def arguments(setup_of: Setup, run: Run) -> tuple:
    signals, _, _ = pretrained.signals_of(setup_of, run)
    return run, signals, pretrained.context_of(setup_of, run, "key")


def test_options_reach_their_method(setup_of: Callable) -> None:
    own, given = setup_of(), {"damping": 0.5, "AdaCore.damping": 0.2, "rho": 0.3}
    options = {name: Selection().configuration(own, run(name, given))["options"] for name in ("AdaCore", "Influential")}
    assert options["AdaCore"]["damping"] == 0.2
    assert options["Influential"]["damping"] == 0.5
    chosen = [methods.get("AdaCore"), methods.get("CCS")]
    check_options(chosen, ["damping", "ccs.beta"])
    for wrong, message in (("bta", "did you mean beta"), ("CCS.damping", "no such option"), ("Glister.eta", "none of")):
        with pytest.raises(UserError, match=message):
            check_options(chosen, [wrong])


def test_an_option_that_the_configuration_leaves_out_reaches_its_method(setup_of: Callable) -> None:
    """The sum of Glister's gradients, which records before the option are of: another subset, under their name."""
    own, given, picks = setup_of(overwrite=True), {}, {}
    for step in ("sum", "mean"):
        glister = run("Glister", {"step": step}, fraction=0.3)
        given[step] = Selection().configuration(own, glister)["options"]
        picks[step] = selection.select_to_files(own, glister)[0].indices.tolist()
        signals = pretrained.signals_of(own, glister)[0]
        expected = methods.select(signals, "Glister", fraction=0.3, step=step).indices
        assert picks[step] == expected.tolist()
    assert given == {"sum": {"eta": 0.1, "blocks": 20}, "mean": {"eta": 0.1, "blocks": 20, "step": "mean"}}
    assert picks["sum"] != picks["mean"]


@pytest.mark.parametrize(("method", "entry"), [("CCS", "probability_margin"), ("Dyn-Unc", "loss"), ("TDDS", "change")])
def test_a_network_kept_without_the_dynamics_that_are_needed_is_trained_anew(
    method: str, entry: str, setup_of: Callable, tmp_path: Path
) -> None:
    """A cache of earlier code: it serves whatever it can, and is neither misread nor fatal."""
    own = setup_of(cache_path=tmp_path / "cache")
    expected = pretrained.signals_of(own, run(method))[0].dynamics
    path = next((tmp_path / "cache" / "networks").glob("*.pt"))
    kept = torch.load(path, weights_only=True)
    del kept["dynamics"][entry]
    kept["dynamics"]["correctness"][:] = True  # to see what is read
    torch.save(kept, path)
    assert pretrained.signals_of(own, run("Forgetting"))[0].dynamics["correctness"].all()
    with pytest.warns(UserWarning, match=rf"kept without its {entry}.*anew"):
        anew = pretrained.signals_of(own, run(method))[0].dynamics
    assert all(torch.equal(anew[name], expected[name]) for name in expected)
    assert entry in torch.load(path, weights_only=True)["dynamics"]


def test_probabilistic_keeps_its_state_and_removes_it(setup_of: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    import methods.probabilistic as module

    own, options = setup_of(resume=True, overwrite=True), {"outer_steps": 4, "inner_epochs": 1}
    expected = make(own, run("Probabilistic", options))
    original, done = module.loss_after_training, []

    def interrupted(*words: object) -> float:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return original(*words)

    monkeypatch.setattr(module, "loss_after_training", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(own, run("Probabilistic", options))
    assert len(list((own.settings.cache_path / "checkpoints").glob("*.pt"))) == 1
    count = []
    monkeypatch.setattr(module, "loss_after_training", lambda *w: (count.append(1), original(*w))[1])
    record = make(own, run("Probabilistic", options))
    assert len(count) == 2
    assert record["test_accuracy"] == expected["test_accuracy"]
    assert not list((own.settings.cache_path / "checkpoints").glob("*"))
