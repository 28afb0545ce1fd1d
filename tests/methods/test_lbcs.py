"""LBCS as a method: its start, its answer, its options, and what it may read."""

import copy
import functools
import gc
import json
import math
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods.lbcs
from lcmat import Signals, data
from lcmat.bilevel.inner_loop import prepared
from lcmat.bilevel.lexicographic import Rules, ask, initial_state
from lcmat.bilevel.trials import read_trials
from lcmat.data.splits import TensorSplit
from lcmat.errors import UserError
from lcmat.reports.figures import search_figure
from lcmat.runs import pretrained
from lcmat.runs.job import Run
from lcmat.runs.selection import Selection, selection_key
from lcmat.runs.setup import Settings, make_setup
from lcmat.selection.budgets import class_budgets
from lcmat.selection.context import Context
from lcmat.training import Compute, Recipe
from methods import get, select
from tests import oracles
from tests.networks import TinyNet
from tests.searches import (
    QUICK,
    Killed,
    fed,
    first_digits,
    labels_only,
    lbcs,
    start_of,
    tiny_networks_on,
    without_seconds,
)

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
split = pytest.fixture(first_digits, scope="module", name="split")
context = pytest.fixture(tiny_networks_on, scope="module", name="context")


def test_lbcs_restarts_where_its_step_is_too_small(context: Context, tmp_path: Path) -> None:
    """Trained networks, and the course of the search drawn."""
    how = {"budget": 20, "trials": 30, "step": 1.0, "inner_steps": 2, "stall_limit": 1, "least_step": 0.5}
    subset = select(labels_only(), "LBCS", context=replace(context, log=tmp_path / "t.jsonl"), **how)
    lines = read_trials(tmp_path / "t.jsonl")[1]
    assert len(lines) == 30
    assert any(one["incumbent"] is None for one in lines)
    assert len(subset) in {one["f2"] for one in lines}
    assert len(search_figure(lines, 0.2, "restarts", tmp_path, "restarts")) == 2


def loss_function(context: Context, starts: list[nn.Module], seed: int = 0) -> methods.lbcs.TrainingLoss:
    images = prepared(context.split, context.compute)
    return methods.lbcs.TrainingLoss(images, starts, context, 3, 1e-2, seed)


def test_one_network_makes_the_loss_a_function_of_the_set(context: Context) -> None:
    """Dropout included, so that accepting a mask is no luck; other sets have other losses."""
    objective = loss_function(context, [TinyNet(0, extra=True)])
    state = {k: v.clone() for k, v in objective.starts[0].state_dict().items()}
    torch.manual_seed(1)
    one = objective(torch.arange(30), 0)
    torch.manual_seed(2)
    assert objective(torch.arange(30), 7) == one
    assert objective(torch.arange(31), 0) != one
    assert all(torch.equal(v, state[k]) for k, v in objective.starts[0].state_dict().items()), "the start was trained"


def test_other_numbers_of_networks(context: Context) -> None:
    """Of several, each trial draws one, by a seed; of none, each has its own. Both are repeatable."""
    several = loss_function(context, [TinyNet(0), TinyNet(1), TinyNet(2)])
    losses = [several(torch.arange(30), trial) for trial in range(12)]
    assert len(set(losses)) == 3
    assert losses == [several(torch.arange(30), trial) for trial in range(12)]
    own = loss_function(context, [])
    losses = [own(torch.arange(30), trial) for trial in range(5)]
    assert len(set(losses)) == 5
    assert losses == [own(torch.arange(30), trial) for trial in range(5)]


def trained_sets(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Note all sets that are trained on from now on."""
    sets, original = [], methods.lbcs.TrainingLoss.__call__

    def noted(self: object, chosen: Tensor, trial: int) -> float:
        sets.append(chosen.tolist())
        return original(self, chosen, trial)

    monkeypatch.setattr(methods.lbcs.TrainingLoss, "__call__", noted)
    return sets


@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("init_balance", [None, True])
def test_the_budget_is_the_start_and_the_answer_is_a_set_that_was_tried(
    balanced: bool, init_balance: bool | None, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random as in the paper, or with as many of each class as any method takes; the answer is in order of classes."""
    sets = trained_sets(monkeypatch)
    subset = lbcs(context, balanced=balanced, init_balance=init_balance)
    assert len(sets) == 6
    assert len(sets[0]) == 40
    counts = np.bincount(labels_only().labels[sets[0]], minlength=10)
    share = class_budgets(np.bincount(labels_only().labels), budget=40)
    assert (counts.tolist() == share.tolist()) == (balanced and init_balance is True)
    assert sorted(subset.indices.tolist()) in sets
    assert subset.balanced == balanced
    assert not subset.nested
    assert (np.diff(subset.classes) >= 0).all() == balanced
    with pytest.raises(UserError, match="not nested"):
        subset.prefix(0.01)


def test_a_budget_for_each_class_is_where_it_starts(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where classes are left out: what is returned was trained on, whichever classes it went to."""
    sets = trained_sets(monkeypatch)
    for budget in ([8] * 10, [20, 20, *[0] * 8], [1, 2, *[0] * 8]):
        sets.clear()
        subset = lbcs(context, budget=budget, init_balance=True, step=3.0)
        assert np.bincount(labels_only().labels[sets[0]], minlength=10).tolist() == budget
        assert sorted(subset.indices.tolist()) in sets


def test_another_methods_start_is_balanced(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that method chooses by itself, unless the option says otherwise; a random one is not."""
    asked = []
    original = methods.lbcs.select_with
    noted = lambda *a, **k: asked.append((a[0].name, k["budget"], k["balanced"])) or original(*a, **k)  # noqa: E731
    monkeypatch.setattr(methods.lbcs, "select_with", noted)
    generator = torch.Generator().manual_seed(0)
    labels = labels_only().labels
    signals = Signals(torch.randn(300, 5, generator=generator), torch.randn(300, 10, generator=generator), labels)
    share = class_budgets(np.bincount(labels), budget=40).tolist()
    for more, expected in (
        ({}, ("Moderate", share, True)),
        ({"init_balance": False}, ("Moderate", 40, False)),
        ({"init_selection": "Uniform"}, ("Uniform", 40, False)),
        ({"init_selection": "Uniform", "init_balance": True}, ("Uniform", share, True)),
    ):
        how = {**QUICK, "trials": 1, "init_selection": "Moderate", **more}
        select(signals, "LBCS", context=context, budget=40, **how)
        assert asked[-1] == expected


def test_f1_is_the_loss_on_all_samples(context: Context, split: TensorSplit, compute: Compute) -> None:
    """Of a fresh network that was trained on the chosen ones, written out."""
    chosen = torch.arange(0, 300, 7)
    loss = methods.lbcs.TrainingLoss(prepared(split, compute), [TinyNet(0)], context, 3, 0.01, 0)
    expected = copy.deepcopy(loss.starts[0])
    x, y = compute.inputs(split.images), split.labels
    optimizer = torch.optim.Adam(expected.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(expected(x[chosen]), y[chosen]).backward()
        optimizer.step()
    with torch.no_grad():
        of_all, of_chosen = (float(F.cross_entropy(expected(x[i]), y[i])) for i in (slice(None), chosen))
    assert loss(chosen, 0) == pytest.approx(of_all, rel=1e-4)
    assert abs(of_all - of_chosen) > 0.05


def test_trainings_are_counted_and_seeds_decide(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = trained_sets(monkeypatch)
    one = lbcs(context, trials=9, seed=1)
    first = list(sets)
    sets.clear()
    assert np.array_equal(one.indices, lbcs(context, trials=9, seed=1).indices)
    assert sets == first
    assert len(first) == 9
    sets.clear()
    lbcs(context, trials=9, seed=2)
    assert sets != first


def test_the_limit_holds_for_every_training(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = trained_sets(monkeypatch)
    lbcs(context, slack=2, bias=0.5, step=3.0, trials=15)
    assert len(sets) == 15
    assert max(map(len, sets)) < 42
    sets.clear()
    lbcs(context, bias=0.5, step=3.0, trials=15)
    assert max(map(len, sets)) >= 42, "the limit has to bind somewhere for the test to mean anything"


def test_samples_without_their_signal_are_dropped(split: TensorSplit, compute: Compute) -> None:
    """All that is learnt, with labels of which a third are wrong: the loss falls, and the set gets smaller."""
    labels = split.labels.clone()
    labels[::3] = (labels[::3] + 1) % 10
    noisy = Context(TensorSplit(split.images, labels), compute, fresh_network=TinyNet, recipe=Recipe())
    subset = select(
        Signals(labels=labels), "LBCS", context=noisy, budget=120, trials=60, inner_steps=10, inner_lr=0.02,
        tolerance=0.02,
    )  # fmt: skip
    assert len(subset) < 115


def test_the_usual_step_drops_a_sample_a_move() -> None:
    """Measured; and it is the released 8 where that was chosen."""
    assert methods.lbcs.usual_step(1000, 60_000, 0.2) == pytest.approx(7.9, abs=0.1)
    for n, k in ((60_000, 1000), (2000, 50)):
        start, dropped = start_of(n, k), []
        rules = Rules(0.2, 2 * methods.lbcs.usual_step(k, n, 0.2))
        state = fed(initial_state(start, rules), rules, [(1.0, k)])
        for number in range(200):
            point = ask(replace(state, tried=number), rules, 3)
            dropped.append(int(((point < 0) & (start >= 0)).sum()))
        assert np.mean(dropped) == pytest.approx(1, abs=0.25)
    assert math.isfinite(methods.lbcs.usual_step(2, 2, 0.2))


def test_published_settings_are_options(context: Context) -> None:
    """As the released code has them for Fashion-MNIST, from its own start values."""
    released = {"tolerance": 0.15, "bias": -0.1, "slack": 200, "step": 8.0, "stall_limit": 512, "inner_lr": 5e-3}
    subset = lbcs(context, **released, inside=0.2, outside=-0.5, networks=0)
    assert 2 <= len(subset) < 240
    defaults = get("LBCS").resolved(0, 0, {})
    assert defaults["tolerance"] == 0.2
    assert defaults["bias"] == 0
    assert defaults["slack"] is defaults["stall_limit"] is None
    assert (defaults["trials"], defaults["inner_steps"], defaults["inner_lr"]) == (500, 20, 1e-3)


WRONG = {
    "trials": (0, "trials must be a whole number of at least 1, not 0"),
    "trials of another kind": ({"trials": "many"}, "LBCS: trials must be a whole number, not 'many'"),
    "inner_steps": (0, "inner_steps must be a whole number of at least 1"),
    "networks": (-1, "networks must be a whole number of at least 0"),
    "pretrain_epochs": (-1, "pretrain_epochs must be a whole number of at least 0"),
    "pretraining of none": ({"pretrain_epochs": 2, "networks": 0}, "give networks, at least 1"),
    "tolerance": (-0.1, "tolerance must be 0 or more and finite, not -0.1"),
    "infinite tolerance": ({"tolerance": math.inf}, "tolerance must be 0 or more and finite"),
    "step": (0.0, "step must be above 0 and finite"),
    "step of another kind": ({"step": "large"}, "step must be a number, not large"),
    "step nan": ({"step": math.nan}, "step must be above 0 and finite"),
    "least_step": (-1.0, "least_step must be 0 or more"),
    "inner_lr": (0.0, "inner_lr must be above 0"),
    "bias": (math.nan, "bias must be finite"),
    "inside": (0.0, "inside must lie above 0 and at most at 1"),
    "outside": (0.0, "outside must lie below 0 and at least at -1"),
    "slack": (0, "slack must be a whole number of at least 1, not 0"),
    "slack of another kind": ({"slack": 2.5}, "slack must be a whole number of at least 1, not 2.5"),
    "slack True": ({"slack": True}, "slack must be a whole number"),
    "stall_limit": (0, "stall_limit must be a whole number of at least 1"),
    "init_selection": ("LCMat", "did you mean LCMat-S"),
    "init_selection of itself": ({"init_selection": "lbcs"}, "cannot start from LBCS"),
    "init_selection of everything": ({"init_selection": "Full"}, "cannot start from Full"),
    "init_selection of another kind": (
        {"init_selection": 3},
        "the selection method must be a name, such as 'Uniform', not 3",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_impossible_options_are_refused_in_one_line(case: str, context: Context) -> None:
    value, message = WRONG[case]
    with pytest.raises(UserError) as caught:
        lbcs(context, **(value if isinstance(value, dict) else {case: value}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def signals() -> Signals:
    """Signals of a kind for the 300 digits: pixels, and a random last layer."""
    images = data.load("digits").train.images[:300].flatten(1).float() / 255
    draw = torch.Generator().manual_seed(0)
    return Signals(features=images, logits=images @ torch.randn(64, 10, generator=draw), labels=labels_only().labels)


@pytest.mark.parametrize("method", ["LCMat-S", "herding", "Probabilistic"])
@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
def test_the_start_may_be_any_methods_subset(
    method: str, balanced: bool, context: Context, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = trained_sets(monkeypatch)
    cheap = {"outer_steps": 2, "inner_epochs": 1} if method == "Probabilistic" else {}
    if cheap:
        own = replace(get(method), pick=functools.partial(get(method).pick, **cheap))
        find = methods.get
        monkeypatch.setattr(methods, "get", lambda name: own if name == method else find(name))
    select(signals, "LBCS", budget=40, balanced=balanced, context=context, init_selection=method, **QUICK)
    if not cheap:
        expected = select(signals, method, budget=40, balanced=balanced)
        assert sets[0] == sorted(expected.indices.tolist())
    assert len(sets[0]) == 40


def test_what_the_start_needs_is_named_and_provided(context: Context) -> None:
    with pytest.raises(UserError, match="LBCS needs features"):
        lbcs(context, init_selection="LCMat-S")
    method = get("LBCS").under({"init_selection": "GraNd"})
    assert method.needs == ("training", *get("GraNd").needs)
    assert method.fields == {"training", "initialisations"}
    assert get("LBCS").under({}).needs == ("training",)
    assert get("Craig").under({"anything": 1}) == get("Craig")


def test_networks_to_start_with_are_trained_first_and_kept(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second training dies; a resumed selection makes that one and the third, and ends as an undisturbed one."""
    more = {"networks": 3, "pretrain_epochs": 2}
    whole = replace(context, checkpoint=tmp_path / "whole.pt", log=tmp_path / "whole" / "t.jsonl")
    expected = lbcs(whole, **more)
    original, made = methods.lbcs.train, []

    def dying(*words: object, **named: object) -> object:
        if len(made) == 1 and not resumed:
            raise Killed
        made.append(named["seed"])
        return original(*words, **named)

    monkeypatch.setattr(methods.lbcs, "train", dying)
    log = tmp_path / "killed" / "trials.jsonl"
    took = []
    killed = replace(context, checkpoint=tmp_path / "killed.pt", log=log, took=took.append)
    resumed = False
    with pytest.raises(Killed):
        lbcs(killed, **more)
    resumed = True
    found = lbcs(replace(killed, resume=True), **more)
    assert len(made) == len(set(made)) == 3
    assert np.array_equal(found.indices, expected.indices)
    assert without_seconds(killed.log) == without_seconds(whole.log)
    state = torch.load(killed.checkpoint, weights_only=True)
    trained = state["networks"]
    assert took[0] == 0 < took[1] < state["seconds"], "of the first network only"
    assert took[2:] == [0], "no trial had been made"
    fresh = [TinyNet(number).state_dict() for number in range(3)]
    assert not any(torch.equal(a["head.weight"], b["head.weight"]) for a, b in zip(trained, fresh, strict=True))


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_killed_selection_goes_on(stop: int, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = replace(context, checkpoint=tmp_path / "whole.pt", log=tmp_path / "whole" / "trials.jsonl")
    expected = lbcs(whole)
    original, done = methods.lbcs.TrainingLoss.__call__, []

    def dying(self: object, chosen: Tensor, trial: int) -> float:
        if trial == stop and not resumed:
            raise Killed
        done.append(trial)
        return original(self, chosen, trial)

    monkeypatch.setattr(methods.lbcs.TrainingLoss, "__call__", dying)
    log = tmp_path / "killed" / "trials.jsonl"
    killed, resumed = replace(context, checkpoint=tmp_path / "killed.pt", log=log), False
    with pytest.raises(Killed):
        lbcs(killed)
    resumed = True
    found = lbcs(replace(killed, resume=True))
    assert done == list(range(6))
    assert np.array_equal(found.indices, expected.indices)
    assert without_seconds(killed.log) == without_seconds(whole.log)


def test_a_longer_search_goes_on_from_the_shorter_ones_file(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another record, beside its own; and a shorter one takes what a longer one found."""
    sets = trained_sets(monkeypatch)
    whole = lbcs(replace(context, log=tmp_path / "whole" / "8.jsonl"), trials=8)
    lbcs(replace(context, log=tmp_path / "5.jsonl"), trials=5)
    (tmp_path / "6.jsonl").write_text("no search\n")
    sets.clear()
    longer = lbcs(replace(context, log=tmp_path / "8.jsonl", resume=True), trials=8)
    assert len(sets) == 3
    assert np.array_equal(longer.indices, whole.indices)
    assert len(read_trials(tmp_path / "8.jsonl")[1]) == 8
    assert len(read_trials(tmp_path / "5.jsonl")[1]) == 5
    sets.clear()
    lbcs(replace(context, log=tmp_path / "7.jsonl", resume=True), trials=7)
    assert sets == []
    lbcs(replace(context, log=tmp_path / "4.jsonl"), trials=4)
    assert len(sets) == 4, "without resume nothing is taken"


@pytest.mark.parametrize("more", [{"batch": 7}, {"lr": 0.7}, {"weight_decay": 0.7}], ids=str)
def test_a_recipe_that_no_training_follows_does_not_matter(more: dict, context: Context, tmp_path: Path) -> None:
    """The inner loop has its own; networks that are trained first follow it."""
    other = replace(context, recipe=replace(context.recipe, **more))
    for number, how in enumerate(({}, {"pretrain_epochs": 1})):
        log = tmp_path / str(number) / "trials.jsonl"
        lbcs(replace(context, log=log), trials=2, **how)
        if how:
            with pytest.raises(UserError, match="another search"):
                lbcs(replace(other, log=log, resume=True), trials=2, **how)
        else:
            lbcs(replace(other, log=log, resume=True), trials=2)


def test_flags_that_lbcs_does_not_read_leave_its_search_alone(setup_of: Callable) -> None:
    """The selection's key; and the released code's whole numbers are the same settings as ours with a point."""
    keys, runs = [], {}
    for more in ({}, {"pretrain_epochs": 1}):
        for batch in (64, 32):
            own, how = setup_of(), {**QUICK, **more}
            own = replace(own, settings=replace(own.settings, selection_recipe=Recipe(epochs=1, batch=batch)))
            run = Run(get("LBCS").under(how), 0, budget=50, options=how)
            keys.append(selection_key(Selection().configuration(own, run)))
    assert keys[0] == keys[1]
    assert keys[2] != keys[3]
    for value in (0, 0.0, 8, 8.0):
        runs[repr(value)] = json.dumps(get("LBCS").resolved(0, 0, {"bias": value, "step": value or 1}))
    assert runs["0"] == runs["0.0"] != runs["8"] == runs["8.0"]


OTHERS = {
    "seed": {"seed": 9},
    "budget": {"budget": 41},
    "tolerance": {"tolerance": 0.3},
    "learning rate": {"inner_lr": 0.02},
    "bias": {"bias": -0.1},
    "images": {},
    "network": {},
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("kept", ["checkpoint", "log"])
def test_trials_of_another_selection_are_refused(case: str, kept: str, context: Context, tmp_path: Path) -> None:
    own = replace(context, **{kept: tmp_path / "kept"})
    lbcs(own, trials=2)
    other = replace(own, resume=True)
    if case == "images":
        other = replace(other, split=TensorSplit(255 - own.split.images, own.split.labels))
    if case == "network":
        other = replace(other, fresh_network=lambda number: TinyNet(number + 1))
    with pytest.raises(UserError, match=r"kept .*another (search|selection); remove it or leave --resume out"):
        lbcs(other, trials=2, **OTHERS[case])
    assert len(lbcs(replace(own, resume=True), trials=3)) > 0, "the same selection, but longer, goes on"


def reached(start: object) -> Iterator[object]:
    """Yield all objects that one leads to: by attributes, items, closures, defaults; not by what modules hold."""
    seen, left = set(), [start]
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, type | types.ModuleType):
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, types.FunctionType):
            left += [cell.cell_contents for cell in one.__closure__ or ()] + list(one.__defaults__ or ())
        else:
            left += gc.get_referents(one)


@pytest.fixture
def setup_of(digits: data.Dataset, compute: Compute, tmp_path: Path) -> Callable:
    """A Setup on digits with a small network."""

    def make(dataset: data.Dataset = digits, folder: str = "one"):
        settings = Settings(
            model="Net", recipe=Recipe(epochs=1, batch=64), test_interval=0, save_path=tmp_path / folder / "result",
            cache_path=tmp_path / folder / "cache",
        )  # fmt: skip
        return make_setup(dataset, compute, lambda name, dataset: TinyNet(0), settings)

    return make


def test_nothing_leads_from_the_context_to_the_test_images(setup_of: Callable, digits: data.Dataset) -> None:
    own = setup_of()
    run = Run(get("LBCS"), 0, budget=50, options=QUICK)
    pointers = {part.data_ptr() for part in (own.dataset.test.images, own.dataset.test.labels)}

    def leads_to_test(start: object) -> bool:
        return any(isinstance(one, Tensor) and one.data_ptr() in pointers for one in reached(start))

    made = pretrained.context_of(own, run, "key", own.settings.save_path / "t.jsonl")
    assert not leads_to_test(made)
    assert not leads_to_test(methods.lbcs.TrainingLoss(prepared(made.split, made.compute), [], made, 1, 0.1, 0))
    assert leads_to_test(own), "the test would not see it"
    assert leads_to_test(lambda: own)


@pytest.mark.parametrize("more", [{}, {"networks": 0}, {"networks": 2, "pretrain_epochs": 1}], ids=str)
def test_trials_are_the_same_whatever_the_test_set(setup_of: Callable, digits: data.Dataset, more: dict) -> None:
    test = digits.test
    other = replace(digits, test=TensorSplit(255 - test.images, test.labels.flip(0)))
    run = Run(get("LBCS"), 0, budget=50, options={**QUICK, **more})
    found = []
    for name, dataset in (("one", digits), ("other", other)):
        own = setup_of(dataset, name)
        record = Selection().make(own, run)
        (path,) = own.settings.save_path.glob("*/LBCS/*.jsonl")
        found.append((without_seconds(path)[1:], record["subset_size"], record["test_accuracy"]))
    assert found[0][:2] == found[1][:2]
    assert found[0][2] != found[1][2]
