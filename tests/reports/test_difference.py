"""The report of differences from Uniform: against SciPy's paired test, its order, what is told apart, what it draws."""

import csv
from pathlib import Path

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.stats

from lcmat.errors import UserError
from lcmat.reports import dots as module
from lcmat.reports.difference import difference
from lcmat.reports.found import Found

SEEDS = range(6)
MEANS = {"Uniform": 70.0, "Good": 74.0, "Bad": 66.0, "Same": 70.1}
NOISE = {method: np.random.default_rng(number).normal(0, 1, (2, 6)) for number, method in enumerate(MEANS)}
# What the seed itself does, to all methods alike: far more than they differ.
LUCK = np.array([0.0, 30, -30, 10, -20, 5])


def accuracy(method: str, column: int, seed: int) -> float:
    return float(MEANS[method] + LUCK[seed] + NOISE[method][column, seed] + (method == "Bad") * 2 * column)


def record(method: str, fraction: float, seed: int, value: float, **config: object) -> dict:
    """What the report reads of a record."""
    training = {"epochs": 1, "optimizer": "SGD", "lr": 0.1, "scheduler": "constant", "batch": 2, "augmentation": "none"}
    return {
        "dataset": "digits", "selection_model": "MLP", "test_model": "MLP", "selection": method, "fraction": fraction,
        "seed": seed, "test_accuracy": value, "best_test_accuracy": 99.0, "test_interval": 0,
        "config": {"dataset": "digits", "selection": method, "fraction": fraction, "seed": seed, "options": {},
                   "test_model": "MLP", "training": training, "precision": "float32", **config},
    }  # fmt: skip


RECORDS = [
    record(method, fraction, seed, accuracy(method, column, seed))
    for method in MEANS
    for column, fraction in enumerate((0.01, 0.1))
    for seed in SEEDS
]


def found(folder: Path, records: list[dict]) -> Found:
    return Found("mine", "My grid", [one["config"] for one in records], records, folder)


def rows_of(paths: list[Path]) -> list[dict[str, str]]:
    return list(csv.DictReader(paths[1].read_text().splitlines()))


def test_intervals_are_those_of_the_paired_test(tmp_path: Path) -> None:
    paths = difference(found(tmp_path, RECORDS))
    rows = rows_of(paths)
    assert len(rows) == 6
    for row in rows:
        column = (0.01, 0.1).index(float(row["fraction"]))
        one, other = ([accuracy(name, column, seed) for seed in SEEDS] for name in (row["method"], "Uniform"))
        test = scipy.stats.ttest_rel(one, other)
        interval = test.confidence_interval(0.95)
        got = [float(row[name]) for name in ("difference", "low", "high")]
        expected = [np.mean(one) - np.mean(other), interval.low, interval.high]
        np.testing.assert_allclose(got, expected, rtol=1e-9)
        assert int(row["side"]) == (np.sign(got[0]) if test.pvalue < 0.05 else 0)
    assert {row["method"]: row["side"] for row in rows if row["fraction"] == "0.01"} == {
        "Good": "1", "Same": "0", "Bad": "-1",
    }  # fmt: skip


def test_rows_are_sorted_and_only_what_is_told_apart_is_bold(tmp_path: Path) -> None:
    text = difference(found(tmp_path, RECORDS))[0].read_text()
    lines = [line for line in text.splitlines() if line.startswith(("| Good", "| Same", "| Bad"))]
    assert [line.split()[1] for line in lines] == ["Good", "Same", "Bad"]
    assert ["**" in line for line in lines] == [True, False, True]
    assert "over 6 seeds" in text


def test_figure_has_the_best_on_top_and_grey_what_is_not_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[plt.Figure] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, folder, name: drawn.append(figure) or [])
    difference(found(tmp_path, RECORDS))
    (figure,) = drawn
    means = [np.mean([accuracy("Uniform", column, seed) for seed in SEEDS]) for column in (0, 1)]
    headings = [f"{name}\nUniform {mean:.1f}%" for name, mean in zip(("1%", "10%"), means, strict=True)]
    assert [axes.get_title() for axes in figure.axes] == headings
    for axes in figure.axes:
        labels = [label.get_text() for label in axes.get_yticklabels()]
        dots = [(*bars[0].get_xydata()[0].tolist(), bars[0].get_color()) for bars in axes.containers]
        assert labels == ["Good", "Same", "Bad"]
        assert [place for _, place, _ in dots] == [0, 1, 2]
        assert dots[0][0] > dots[1][0] > dots[2][0]
        grey = [np.ptp(matplotlib.colors.to_rgb(colour)) == 0 for *_, colour in dots]
        assert grey == [False, True, False]
        assert dots[0][2] != dots[2][2]
        low, high = axes.get_ylim()
        assert low > high, "the first row is on top"
    plt.close(figure)


def test_missing_seeds_are_left_out_and_counted(tmp_path: Path) -> None:
    """Over the seeds that both have; of a single one there is no interval, and nothing is told apart."""
    kept = [r for r in RECORDS if not (r["selection"] == "Good" and r["fraction"] == 0.1 and r["seed"] > 2)]
    kept = [r for r in kept if not (r["selection"] == "Bad" and r["seed"] > 0)]
    paths = difference(found(tmp_path, kept))
    seeds = {(row["method"], row["fraction"]): (row["seeds"], row["low"], row["side"]) for row in rows_of(paths)}
    assert seeds["Good", "0.1"][0] == "3"
    assert seeds["Bad", "0.01"] == ("1", "", "0")
    line = next(line for line in paths[0].read_text().splitlines() if line.startswith("| Good"))
    assert "(3)" in line


def test_other_baseline_and_settings(tmp_path: Path) -> None:
    """Networks that differ have a table and a figure each; a baseline that is not there is named."""
    other = [
        {**r, "selection_model": "LeNet", "test_model": "LeNet", "config": r["config"] | {"test_model": "LeNet"}}
        for r in RECORDS
    ]
    paths = difference(found(tmp_path, RECORDS + other), baseline="Same")
    assert {row["setting"] for row in rows_of(paths)} == {"digits, LeNet", "digits, MLP"}
    assert {row["method"] for row in rows_of(paths)} == {"Good", "Bad", "Uniform"}
    names = {path.name for path in paths}
    assert {"mine-difference.png", "mine-difference-2.png", "mine-difference.md"} <= names
    assert all(path.stat().st_size for path in paths)
    with pytest.raises(UserError, match=r"'Unifrom'; did you mean Uniform"):
        difference(found(tmp_path, RECORDS), baseline="Unifrom")
