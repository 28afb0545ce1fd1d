"""Which method to use: separable as SciPy's paired test and Holm's correction by hand say, never with too few seeds."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from lcmat.commands import advise
from lcmat.reports.advice import advice, compared
from lcmat.reports.page.settings import Setting
from lcmat.reports.tables import Cell, Table
from tests.harness import call, cli

MEANS = {"Uniform": 70.0, "Good": 76.0, "Bad": 64.0, "Same": 70.2}


def table(seeds: int, epochs: int = 40) -> Table:
    """Return a table of made-up methods at 1%, of which a choice takes as many seconds as its name has letters."""
    draw = np.random.default_rng(1)
    luck, cells = draw.normal(0, 5, seeds), {}
    for name, mean in MEANS.items():
        values = tuple(float(v) for v in mean + luck + draw.normal(0, 1, seeds))
        seconds = {"pretrain": 100.0, "signals": 2.0, "select": float(len(name)), "train": 9.0}
        records = tuple({"seconds": seconds, "config": {"training": {"epochs": epochs}}} for _ in range(seeds))
        cells[name, 0.01] = Cell(values, values, None, tuple(range(seeds)), (), records)
    return Table("digits, MLP", "", "digits-MLP", 0, cells)


def test_sides_are_those_of_the_corrected_paired_test() -> None:
    made = table(10)
    ((fraction, _, found),) = compared(made)
    values = {name: np.array(made.cells[name, 0.01].final) for name in MEANS}
    raw = {name: scipy.stats.ttest_rel(values[name], values["Uniform"]).pvalue for name in MEANS if name != "Uniform"}
    order = sorted(raw, key=raw.get)
    steps = [(3 - place) * raw[name] for place, name in enumerate(order)]
    expected = {name: min(1, max(steps[: place + 1])) for place, name in enumerate(order)}
    assert fraction == 0.01
    assert {one.name: one.p for one in found} == pytest.approx(expected)
    assert {one.name: one.side for one in found} == {"Good": 1, "Bad": -1, "Same": 0}


def test_what_is_said_of_a_setting() -> None:
    said = advice([Setting("digits, MLP", "digits", "MLP", "", table(10))])
    assert "Trained 40 epochs, a short schedule (published: 200)." in said
    assert "f_T and signals: 102 s" in said
    assert "**better**: Good +" in said
    assert "(4.0 s); **worse**: Bad -" in said
    assert "not separable: Same (4.0 s)" in said
    assert "better than Uniform: Good 1 (digits 1%)" in said
    assert "short" not in advice([Setting("digits, MLP", "digits", "MLP", "", table(10, epochs=200))])


def test_two_seeds_claim_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert list(compared(table(2))) == []
    cli(tmp_path)("--selection", "Uniform", "Entropy", "--seed", "0", "1")
    capsys.readouterr()
    assert call(tmp_path / "result", command=advise.main) == 2
    assert "three seeds in common with Uniform" in capsys.readouterr().err
