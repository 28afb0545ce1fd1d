"""More of the classes that are recalled less (DRoP): the shares, every method under them, and runs."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcmat import Signals, UserError
from lcmat.selection.budgets import recall_budgets
from methods import get
from tests import oracles
from tests.every_method import chosen, every_method, make
from tests.harness import call, cli

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)


def densities(sizes: np.ndarray, recall: np.ndarray, total: int) -> np.ndarray:
    """The shares d_k = min(1, z (1 − recall_k)) with Σ d_k n_k = total, z found by bisection."""
    weight, low, high = 1 - recall, 0.0, 1e12
    for _ in range(400):
        z = (low + high) / 2
        low, high = (z, high) if (np.minimum(1, z * weight) * sizes).sum() < total else (low, z)
    return np.minimum(1, high * weight)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(data=st.data())
def test_shares_are_those_that_a_common_factor_gives(data: st.DataObject) -> None:
    """But for whole numbers, and one sample of each class at least."""
    classes = data.draw(st.integers(1, 6))
    sizes = np.array(data.draw(st.lists(st.integers(0, 40), min_size=classes, max_size=classes).filter(any)))
    recall = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.9]), min_size=classes, max_size=classes)))
    total = data.draw(st.integers(int((sizes > 0).sum()), int(sizes.sum())))
    counts = recall_budgets(sizes, recall, total)
    assert counts.sum() == total
    assert (counts <= sizes).all()
    assert (counts[sizes > 0] >= 1).all()
    wanted = densities(sizes, recall, total) * sizes
    raised = (wanted < 1).sum()  # what these get the others lack
    assert (counts <= np.maximum(np.ceil(wanted + 1e-6), sizes > 0)).all()
    assert (counts >= np.floor(wanted - 1e-6) - raised).all()


def test_classes_that_are_all_recalled_share_alike() -> None:
    """Then nothing speaks for one of them; and what is full leaves the rest to them."""
    assert recall_budgets(np.array([20, 10, 30]), np.ones(3), 12).tolist() == [4, 2, 6]
    assert recall_budgets(np.array([4, 20, 20]), np.array([0.0, 1.0, 1.0]), 14).tolist() == [4, 5, 5]


@every_method
def test_every_method_takes_more_of_what_is_recalled_less(method: str) -> None:
    """As many in all as before; a method without a say in it takes everything."""
    problem = make([20, 20, 20], seed=1)
    labels = np.repeat(np.arange(3), 20)
    right = np.arange(60) % 20 < np.array([4, 12, 18])[labels]  # recalls of 0.2, 0.6 and 0.9
    logits = np.eye(3)[np.where(right, labels, (labels + 1) % 3)]
    held_out = Signals(features=np.random.default_rng(0).normal(size=(60, 4)), logits=logits, labels=labels)
    if get(method).chooses_size:
        with pytest.raises(UserError, match="quota"):
            chosen(method, problem, problem.signals_as(validation=held_out), budget=13, quota="recall")
        return
    subset = chosen(method, problem, problem.signals_as(validation=held_out), budget=13, quota="recall")
    counts = np.bincount(subset.classes, minlength=3).tolist()
    assert counts == ([20, 20, 20] if get(method).ignores_budget else [8, 4, 1])


def test_what_a_quota_cannot_be_is_said() -> None:
    """By one line each."""
    problem = make([9, 8])
    with pytest.raises(UserError, match=r"needs validation"):
        chosen("Herding", problem, problem.signals_as(validation=None), fraction=0.3, quota="recall")
    with pytest.raises(UserError, match="class by class"):
        chosen("Herding", problem, fraction=0.3, balanced=False, quota="recall")
    with pytest.raises(UserError, match="class by class already"):
        chosen("Herding", problem, budget=[3, 3], quota="recall")
    with pytest.raises(UserError, match="recall"):
        chosen("Herding", problem, fraction=0.3, quota="recal")
    h, z, y = problem.validation
    alone = Signals(features=h[y == 0], logits=z[y == 0], labels=y[y == 0])
    with pytest.raises(UserError, match="class 1"):
        chosen("Herding", problem, problem.signals_as(validation=alone), fraction=0.3, quota="recall")


def test_a_run_by_recall_says_so_and_others_do_not(tmp_path: Path) -> None:
    """The subset has as many samples of each class as its held-out recall asks for."""
    run = cli(tmp_path)
    run("--selection", "Herding", "--fraction", "0.1", "--val")
    records = run("--selection", "Herding", "--fraction", "0.1", "--quota", "recall")
    assert len(records) == 2
    by_recall, even = sorted(records, key=lambda record: "quota" not in record["config"])
    assert by_recall["config"]["quota"] == "recall"
    assert by_recall["subset_size"] == even["subset_size"]
    assert by_recall["config"]["validation_ratio"] == even["config"]["validation_ratio"] == 0.2
    counts = []
    for record in (by_recall, even):
        found = np.load(next((tmp_path / "result").glob(f"*/Herding/{record['indices']}")))
        counts.append(np.bincount(found["classes"], minlength=10))
    assert (counts[0] != counts[1]).any()


@pytest.mark.parametrize("words", ["--selection DM --ipc 1", "--ipc 2", "--balance False", "--protocol continual"])
def test_a_quota_where_there_is_nothing_to_share_is_refused(words: str, capsys: pytest.CaptureFixture) -> None:
    """With exit code 2."""
    assert call("--dataset", "digits", "--quota", "recall", *words.split()) == 2
    assert "quota" in capsys.readouterr().err
