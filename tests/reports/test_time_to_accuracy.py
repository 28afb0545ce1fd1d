"""Seconds to an accuracy; and published figures of several sources, of which one is asked for."""

import csv
from pathlib import Path

import pytest

from lcmat.errors import UserError
from lcmat.reports import tables
from lcmat.reports.found import Found
from lcmat.reports.table_text import accuracy_markdown
from lcmat.reports.time_to_accuracy import seconds_to, time_to_accuracy


def record(method: str = "Uniform", seed: int = 0, tests: tuple = ((5, 40.0), (10, 60.0)), **changed: object) -> dict:
    """A record of ten epochs, with 3 s of selection and 10 s of training."""
    return {
        "selection": method, "fraction": 0.1, "seed": seed, "dataset": "CIFAR10", "selection_model": "ResNet18",
        "test_model": "ResNet18", "test_accuracy": tests[-1][1] if tests else 60.0, "best_test_accuracy": 60.0,
        "test_interval": 5, "tests": [list(pair) for pair in tests],
        "seconds": {"pretrain": 1.0, "signals": 0.5, "select": 1.5, "train": 10.0},
        "environment": {"processor": "some", "threads": 1}, "config": {"options": {}},
    } | changed  # fmt: skip


@pytest.mark.parametrize(("accuracy", "seconds"), [(30.0, 8.0), (40.0, 8.0), (40.1, 13.0), (60.0, 13.0), (60.1, None)])
def test_seconds_are_those_of_selection_and_of_the_epochs_until_a_test_shows_it(
    accuracy: float, seconds: float | None
) -> None:
    """Five of ten epochs are half of the training."""
    assert seconds_to(record(), accuracy) == seconds


def test_of_several_networks_the_first_counts() -> None:
    """With its share of the training's seconds."""
    assert seconds_to(record(evaluations=[{}, {}]), 60.0) == 8.0


def test_report_says_how_many_runs_reach_an_accuracy(tmp_path: Path) -> None:
    """And the median over those that do."""
    slow = record(seed=1, tests=((5, 10.0), (10, 45.0)))
    never = record("Herding", tests=((5, 10.0), (10, 20.0)))
    records = [record(), slow, never, None]
    paths = time_to_accuracy(Found("grid", "A grid", [{}] * 4, records, tmp_path), accuracies=[40, 50])
    rows = list(csv.DictReader(paths[1].open()))
    assert [(row["method"], row["accuracy"], row["reached"], row["median_seconds"]) for row in rows] == [
        ("Uniform", "40", "2", "10.5"), ("Uniform", "50", "1", "13.0"), ("Herding", "40", "0", ""),
        ("Herding", "50", "0", ""),
    ]  # fmt: skip
    assert "13.0 (1 of 2)" in paths[0].read_text()
    text = time_to_accuracy(Found("grid", "A grid", [{}] * 4, records, tmp_path))[0].read_text()
    assert "| 42%" in text  # 80% of the best mean, of 60 and 45


def test_runs_that_were_not_tested_have_no_such_report(tmp_path: Path) -> None:
    """One line says what to do."""
    with pytest.raises(UserError, match="test_interval"):
        time_to_accuracy(Found("grid", "A grid", [{}], [record(tests=())], tmp_path))


def test_figures_of_other_papers_stand_only_where_they_are_asked_for_or_alone() -> None:
    """And say whose they are, and which are read off a figure."""
    cell = ("CIFAR10", "ResNet18", "ResNet18", "Uniform", 0.1)
    assert tables.read_published()[cell].table == "1"
    asked = tables.read_published(prefer="DUAL")
    assert (asked[cell].mean, asked[cell].read_off, asked[cell].last) == (83.7, True, True)
    assert asked["CIFAR10", "ResNet18", "ResNet18", "RS2", 0.1].in_words == "≈ 91.50 (RS2 figure)"
    rerun = tables.read_published(prefer="DeepCore")[cell]
    assert (rerun.mean, rerun.read_off, rerun.last) == (76.4, False, False)
    both = [record(), record("DUAL")]
    text = accuracy_markdown(tables.accuracy_tables(both, "DUAL"))
    assert "≈ 83.70 (DUAL and CCS figure)" in text
    assert "read off a figure" in text
    assert "read off a figure" not in accuracy_markdown(tables.accuracy_tables([record()]))
