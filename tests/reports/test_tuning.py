"""What tuning on the test set adds: against brute force, ties, missing runs, and end to end with --val."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from lcmat import data
from lcmat.data import held_out
from lcmat.errors import UserError
from lcmat.reports.found import Found
from lcmat.reports.tuning import tuned, tuning
from tests.harness import call, records

VALUES, SEEDS = (0.01, 0.1, 0.5), range(5)


def random_accuracies(seed: int) -> dict[tuple[float, int], tuple[float, float]]:
    rng = np.random.default_rng(seed)
    return {(value, s): tuple(rng.integers(0, 100, 2).astype(float)) for value in VALUES for s in SEEDS}


@pytest.mark.parametrize("seed", range(10))
def test_choices_are_those_of_brute_force(seed: int) -> None:
    of = random_accuracies(seed)
    table = np.array([[of[value, s] for s in SEEDS] for value in VALUES])  # (values, seeds, held out or test)
    by_held_out, by_test = table.mean(axis=1).argmax(axis=0)
    cell = tuned(of)
    assert cell.held_out == pytest.approx((VALUES[by_held_out], table[by_held_out, :, 1].mean()))
    assert cell.test == pytest.approx((VALUES[by_test], table[by_test, :, 1].mean()))
    assert cell.bonus >= 0
    each = np.array([[table[table[:, s, which].argmax(), s, 1] for s in SEEDS] for which in (0, 1)])
    interval = scipy.stats.ttest_rel(each[1], each[0]).confidence_interval(0.95)
    assert cell.by_seed.mean == pytest.approx((each[1] - each[0]).mean())
    assert cell.by_seed.half == pytest.approx((interval.high - interval.low) / 2)


def test_smallest_of_equally_good_values_is_chosen() -> None:
    cell = tuned({(value, 0): (50.0, 10 * value) for value in VALUES})
    assert cell.held_out == (0.01, 0.1)
    assert cell.test == (0.5, 5.0)


def test_seeds_without_all_values_do_not_count() -> None:
    of = random_accuracies(3)
    kept = {key: value for key, value in of.items() if key != (0.1, 2)}
    assert tuned(kept).seeds == (0, 1, 3, 4)
    assert tuned({key: value for key, value in of.items() if key[0] == 0.1}) is None
    assert tuned(dict.fromkeys(zip(VALUES, itertools.count(), strict=False), (1.0, 1.0))) is None


def record(value: float, seed: int, accuracies: tuple[float, float] | None, **network: object) -> dict:
    """What the report reads of a record."""
    options = {"K": 100, "rho": value}
    tested = {} if accuracies is None else {"held_out_accuracy": accuracies[0], "test_accuracy": accuracies[1]}
    config = {"options": options, "selection_network": {"seed": seed, **network}}
    return {"selection": "LCMat-S", "fraction": 0.05, "seed": seed, "test_accuracy": 1.0, "config": config, **tested}


def found(folder: Path, made: list[dict]) -> Found:
    return Found("mine", "My grid", [one["config"] for one in made], made, folder)


def test_what_else_differs_has_rows_of_its_own(tmp_path: Path) -> None:
    modes = {"eval": {}, "train": {"signals_mode": "train"}}
    several = {mode: random_accuracies(number) for number, mode in enumerate(modes)}
    made = [record(v, s, of, **modes[mode]) for mode in modes for (v, s), of in several[mode].items()]
    paths = tuning(found(tmp_path, made))
    rows = {row["method"]: row for row in csv.DictReader(paths[1].read_text().splitlines())}
    assert set(rows) == {"LCMat-S", "LCMat-S (training mode)"}
    for name, mode in zip(sorted(rows), modes, strict=True):
        assert float(rows[name]["bonus"]) == pytest.approx(tuned(several[mode]).bonus)
        assert rows[name]["seeds"] == "5"
    assert "| ρ by held-out |" in paths[0].read_text()


def test_records_without_held_out_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--val"):
        tuning(found(tmp_path, [record(value, 0, None) for value in VALUES]))


def test_val_tests_on_what_is_held_out_and_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that has learned its subset by heart is right about it; on what is held out it is right more seldom."""
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "digits", "--model", "MLP", "--selection", "Uniform", "--budget", "200", "--epochs", "20"]
    assert call(*words, "--val", "--batch", "50") == 0
    assert call(*words, "--batch", "50") == 0
    assert call(*words, "--val", "--batch", "50", "--evaluations", "2") == 0
    one, plain, two = sorted(
        records(tmp_path / "result"), key=lambda r: ("evaluations" in r, "held_out_accuracy" not in r)
    )
    assert "held_out_accuracy" not in plain
    labels = data.load("digits").train.labels
    _, out = held_out(labels, 0.2, 0)
    share = one["held_out_accuracy"] * len(out) / 100
    assert share == pytest.approx(round(share)), "right about a whole number of those held out"
    assert 50 < one["held_out_accuracy"] < one["train_accuracy"]
    assert two["held_out_accuracy"] == pytest.approx(np.mean([e["held_out_accuracy"] for e in two["evaluations"]]))
    assert two["evaluations"][0]["held_out_accuracy"] == one["held_out_accuracy"]
    assert one["config"]["validation_ratio"] == 0.2
    subset = np.load(next((tmp_path / "result").glob(f"*/*/*{one['indices']}")))["indices"]
    assert not set(subset.tolist()) & set(out.tolist())
    assert torch.is_tensor(labels)
