"""Which methods can be told apart: against formulas written out, published values, and made-up tables."""

import math
from pathlib import Path

import numpy as np
import pytest

from lcmat.commands import tables
from lcmat.errors import UserError
from lcmat.reports.separability import compared, critical_difference_diagram, friedman, holm, in_words
from lcmat.reports.tables import Cell, Table
from tests.harness import call, cli


def made_up(accuracies: np.ndarray, names: list[str]) -> list[Table]:
    """Return a table with a fraction for each block."""
    fractions = [0.01 * (block + 1) for block in range(len(accuracies))]
    cells = {
        (name, fraction): Cell((float(value),), (float(value),), None, (0,))
        for fraction, row in zip(fractions, accuracies, strict=True)
        for name, value in zip(names, row, strict=True)
    }
    return [Table("made up", "", "made-up", 1, cells)]


def test_ranks_count_what_is_better_and_half_of_what_is_equal() -> None:
    draw = np.random.default_rng(0).integers(0, 4, size=(8, 5)).astype(float)
    found = compared(made_up(draw, list("ABCDE")))
    columns = dict(zip("ABCDE", draw.T, strict=True))
    for name, rank in zip(found.methods, found.ranks, strict=True):
        better = sum((other > columns[name]).sum() for other in columns.values())
        equal = sum((other == columns[name]).sum() for other in columns.values()) - 8
        assert rank == pytest.approx(1 + (better + equal / 2) / 8)


def test_critical_difference_is_that_of_the_paper() -> None:
    """Demšar (2006): q = 2.569 for four methods, so 1.25 over 14 data sets; 2.343 for three."""
    draw = np.random.default_rng(0).normal(size=(14, 4))
    assert compared(made_up(draw, list("ABCD"))).critical_difference == pytest.approx(
        2.569 * math.sqrt(4 * 5 / (6 * 14)), abs=1e-3
    )
    assert compared(made_up(draw[:, :3], list("ABC"))).critical_difference == pytest.approx(
        2.343 * math.sqrt(3 * 4 / (6 * 14)), abs=1e-3
    )


def test_friedman_is_its_formula() -> None:
    """χ² = 12 n / (k (k + 1)) Σ (R_j − (k + 1)/2)², where no ranks tie; its tail for k − 1 = 2 is e^(−χ²/2)."""
    accuracies = np.random.default_rng(0).normal([0, 0.5, 1], size=(9, 3))
    ranks = (-accuracies).argsort(1).argsort(1) + 1
    squared = 12 * 9 / (3 * 4) * ((ranks.mean(0) - 2) ** 2).sum()
    assert friedman(accuracies) == pytest.approx(math.exp(-squared / 2), rel=1e-9)
    assert friedman(np.ones((9, 3))) == 1


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.9]) == [1, 1]


def test_a_method_that_always_wins_is_separable_and_noise_is_not() -> None:
    draw = np.random.default_rng(1)
    accuracies = draw.normal([50, 50, 60], size=(20, 3))
    found = compared(made_up(accuracies, ["Uniform", "Noise", "Best"]))
    assert found.separable("Best", "Uniform")
    assert found.separable("Uniform", "Best")
    assert not found.separable("Noise", "Uniform")
    text = in_words(found)
    assert "| Best    | 1.00      | separable     |" in text
    assert "| Noise   | " in text
    assert "not separable" in text


def test_six_blocks_of_a_winner_are_too_few_for_three_pairs() -> None:
    """The least p of six signs is 2/64, and three pairs make three of it: nothing is claimed."""
    accuracies = np.tile([50.0, 51.0, 60.0], (6, 1)) + np.random.default_rng(2).normal(size=(6, 3)) / 100
    found = compared(made_up(accuracies, ["Uniform", "A", "B"]))
    assert not found.separable("B", "Uniform")
    assert "not separable" in in_words(found)


def test_the_methods_that_make_most_cells_are_taken(tmp_path: Path) -> None:
    """Nine blocks of three methods make 27 cells, six of four 24, and a method in two blocks is left out."""
    draw = np.random.default_rng(3).normal(size=(9, 5))
    (table,) = made_up(draw, ["Uniform", "A", "B", "C", "D"])
    for block, fraction in enumerate(table.fractions):
        for name in (["C"] if block >= 6 else []) + (["D"] if block >= 2 else []):
            del table.cells[name, fraction]
    found = compared([table])
    assert sorted(found.methods) == ["A", "B", "Uniform"]
    assert len(found.blocks) == 9
    assert sorted(compared([table], ["Uniform", "A", "C"]).blocks) == sorted(found.blocks[:6])
    paths = critical_difference_diagram(found, tmp_path)
    assert all(path.stat().st_size > 1000 for path in paths)


def test_too_few_blocks_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="3 methods stand together in 5 blocks"):
        compared(made_up(np.random.default_rng(0).normal(size=(5, 3)), ["Uniform", "A", "B"]))
    cli(tmp_path)("--selection", "Uniform")
    assert call(tmp_path / "result", "--statistics", command=tables.main) == 2
    assert "statistics need 3 methods in 6 blocks" in capsys.readouterr().err
