"""What figures show, apart from drawing it: order, what is grey, intervals, titles, colours; and which figure it is."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.stats

from lcmat.reports import accuracy_figures, continual, dots, tables
from lcmat.reports.accuracy_figures import write_figures
from lcmat.reports.continual import continual_figure, step_panels
from lcmat.reports.cross import cross
from lcmat.reports.figures import styles
from lcmat.reports.found import Found
from lcmat.reports.grid_figures import seconds_by_method
from lcmat.reports.tables import Paired, told_apart

TRAINING = {"epochs": 1, "optimizer": "SGD", "lr": 0.1, "scheduler": "constant", "batch": 2, "augmentation": "none"}


def record(method: str, seed: int, accuracy: float, *, fraction: float = 0.1, **config: object) -> dict:
    """What tables and figures read of a record."""
    return {
        "dataset": "digits", "selection_model": "MLP", "test_model": "MLP", "selection": method, "fraction": fraction,
        "seed": seed, "test_accuracy": accuracy, "best_test_accuracy": 99.0, "test_interval": 0,
        "config": {"selection": method, "fraction": fraction, "seed": seed, "options": {}, "training": TRAINING,
                   "precision": "float32", **config},
    }  # fmt: skip


def made(methods: Iterable[str], fractions: tuple[float, ...] = (0.1, 0.2), **config: object) -> list[dict]:
    """Return records of three seeds."""
    return [record(m, seed, 50 + seed, fraction=f, **config) for m in methods for f in fractions for seed in range(3)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, plt.Figure]:
    """Return the figures that are drawn meanwhile, by name, in place of their files."""
    found: dict[str, plt.Figure] = {}

    def keep(figure: plt.Figure, folder: Path, name: str) -> list[Path]:
        found[name] = figure
        plt.close(figure)
        return [folder / name]

    for module in (accuracy_figures, dots, continual):
        monkeypatch.setattr(module, "save_figure", keep)
    return found


def test_dots_are_sorted_and_say_on_which_side_their_interval_lies() -> None:
    """What touches nothing is on neither side; of a single seed there is no interval."""
    cells = {
        "touches": Paired(-2, 2.0, 3),
        "below": Paired(-5, 1.0, 3),
        "above": Paired(3, 1.0, 3),
        "one": Paired(9, None, 1),
    }
    found = dots.panel("10%", cells).dots
    assert [(dot.row, dot.low, dot.high, dot.side) for dot in found] == [
        ("one", 9, 9, 0), ("above", 2, 4, 1), ("touches", -4, 0, 0), ("below", -6, -4, -1),
    ]  # fmt: skip


def test_networks_trained_on_the_same_subsets_have_a_panel_each(drawn: dict[str, plt.Figure], tmp_path: Path) -> None:
    """For each fraction, of methods minus Uniform on that network; none of a network that has no Uniform."""
    accuracies = {("Uniform", "A"): 50, ("Good", "A"): 60, ("Bad", "A"): 45, ("Uniform", "B"): 70, ("Good", "B"): 69}
    several = [
        record(method, seed, value + seed, test_model=network) | {"test_model": network}
        for (method, network), value in {**accuracies, ("Good", "C"): 80}.items()
        for seed in range(3)
    ]
    cross(Found("mine", "My networks", [one["config"] for one in several], several, tmp_path))
    first, second = drawn["mine-difference"].axes
    assert [axes.get_title() for axes in (first, second)] == ["A, 10%\nUniform 51.0%", "B, 10%\nUniform 71.0%"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["Good", "Bad"]
    assert [label.get_text() for label in second.get_yticklabels()] == ["Good"]
    assert [float(line.get_xdata()[0]) for line in first.lines if line.get_marker() == "o"] == [10, -5]


def test_intervals_of_accuracies_end_at_0_and_100() -> None:
    found = dots.accuracy_panel("10%", {"a": Paired(99, 3.0, 3), "b": Paired(1, 3.0, 3)}).dots
    assert [(dot.low, dot.high, dot.side) for dot in found] == [(96, 100, None), (0, 4, None)]


def test_an_axis_holds_all_but_the_widest_intervals_that_tell_nothing_apart() -> None:
    """Every mean and every interval that is told apart lies within; intervals that are wide alike are not cut."""
    some = {str(place): Paired(place, 2.0, 3) for place in range(-5, 5)}
    wide, apart = {"wide": Paired(-3, 90.0, 3)}, {"apart": Paired(40, 30.0, 3)}
    low, high = dots.scale([dots.panel("", some | wide | apart)])
    assert -12 < low < -7
    assert 70 < high < 75
    low, high = dots.scale([dots.panel("", {str(place): Paired(place, 90.0, 3) for place in range(5)})])
    assert low < -90
    assert high > 94


def test_few_methods_are_lines_and_many_are_dots(drawn: dict[str, plt.Figure], tmp_path: Path) -> None:
    """Minus Uniform where it stands, at a single fraction, too; legends cover no axes."""
    few, many = ["Uniform", *"abc"], ["Uniform", *"abcdef"]
    cases = [(few, (0.1, 0.2)), (few, (0.1,)), (many, (0.1,)), ([*many[1:], "g"], (0.1, 0.2))]
    names = []
    for methods, fractions in cases:
        drawn.clear()
        write_figures(tables.accuracy_tables(made(methods, fractions)), tmp_path)
        names.append(list(drawn))
        for figure in drawn.values():
            assert all(axes.get_legend() is None for axes in figure.axes)
    assert names == [["digits-MLP"], [], ["digits-MLP-difference"], ["digits-MLP"]]
    (figure,) = drawn.values()
    assert [axes.get_xlabel() for axes in figure.axes] == ["test accuracy (%)"] * 2


def test_figures_of_tables_that_share_a_title_say_how_they_differ(drawn: dict[str, plt.Figure], tmp_path: Path) -> None:
    records = made("ab") + made("ab", precision="bfloat16")
    write_figures(tables.accuracy_tables(records), tmp_path)
    assert list(drawn) == ["digits-MLP", "digits-MLP-2"]
    titles = {figure.axes[0].get_title().splitlines()[0] for figure in drawn.values()}
    assert titles == {"digits, MLP, float32", "digits, MLP, bfloat16"}


def test_tables_of_one_title_are_told_apart_by_what_differs_or_by_number() -> None:
    """Of what they share nothing is said; more differences than three are a number."""
    steps = {"training": TRAINING | {"total_steps": 7}}
    found = tables.accuracy_tables(made("a") + made("a", **steps))
    assert sorted(told_apart([("one", table) for table in found])) == [", epochs 1", ", total steps 7"]
    other = {"training": {"epochs": 2, "optimizer": "Adam", "lr": 0.2, "scheduler": "none", "batch": 2}}
    found = tables.accuracy_tables(made("a") + made("a", **other))
    assert told_apart([("one", table) for table in found]) == [" (1 of 2)", " (2 of 2)"]
    assert told_apart([("one", found[0]), ("two", found[1])]) == ["", ""]


def test_a_method_looks_the_same_in_every_figure() -> None:
    """Whatever stands beside it; rows of one method share its colour and differ in the line."""
    first, other = styles(["Uniform", "Craig", "LCMat-S"]), styles(["LCMat-S (ρ = 0.1)", "LCMat-S (ρ = 0.2)", "Craig"])
    assert first["Craig"] == other["Craig"]
    assert first["LCMat-S"] == other["LCMat-S (ρ = 0.1)"] != other["LCMat-S (ρ = 0.2)"]
    assert len({style["color"] for style in other.values()}) == 2
    assert styles(["nobody's"]) == styles(["nobody's"])


def test_quick_methods_share_a_line() -> None:
    rows = [["slow", 0.1, 1, 0, 0, 3.0], ["slow", 0.2, 1, 0, 0, 0.01], ["slower", 0.1, 1, 0, 0, 4.0],
            ["quick", 0.1, 1, 0, 0, 0.09], ["slow", 1.0, 1, 0, 0, 99.0]]  # fmt: skip
    slow, quick = seconds_by_method(rows)
    assert list(slow.items()) == [("slower", {0.1: 4.0}), ("slow", {0.1: 3.0, 0.2: 0.01})]
    assert quick == ["quick"]
    assert seconds_by_method(rows[3:4]) == ({"quick": {0.1: 0.09}}, [])


def steps(method: str, seed: int) -> dict:
    """Return a record of two steps with two networks each."""
    noise = np.random.default_rng([len(method), seed]).normal(0, 1, (2, 2))
    each = [(50 + 10 * seed + len(method) * place + noise[place]).tolist() for place in range(2)]
    config = {"steps": 2, "memory_per_class": 1, "precision": "float32"}
    return record(method, seed, each[-1][0], **config) | {
        "class_order": [[0, 1], [2, 3]], "steps": [{"each": one} for one in each],
    }  # fmt: skip


def test_steps_are_compared_with_uniform_by_class_order(drawn: dict[str, plt.Figure], tmp_path: Path) -> None:
    """As SciPy's paired test has it; many methods are dots, with a panel for each step, few are lines with bands."""
    methods = ["Uniform", "Full", *("x" * length for length in range(12, 18))]
    records = [steps(method, seed) for method in methods for seed in range(4)]
    panels = step_panels(records)
    assert [one.heading.splitlines()[0] for one in panels] == ["2 classes", "4 classes"]
    for place, one in enumerate(panels):
        assert {dot.row for dot in one.dots} == {*methods[2:]}
        for dot in one.dots:
            mine, base = (
                [np.mean(steps(m, s)["steps"][place]["each"]) for s in range(4)] for m in (dot.row, "Uniform")
            )
            interval = scipy.stats.ttest_rel(mine, base).confidence_interval(0.95)
            np.testing.assert_allclose([dot.low, dot.high], [interval.low, interval.high])
    few = [r for r in records if len(r["selection"]) < 15]
    for name, some in (("many", records), ("few", few)):
        continual_figure(some, lambda name: name == methods[2], "Steps", tmp_path, name)
    assert [len(drawn[name].axes) for name in ("many", "few")] == [2, 2]
    assert drawn["few"].axes[1].get_title() == "(b) condensation"
    assert "standard deviation" in drawn["few"].get_suptitle()
    assert "not separable" in drawn["many"].get_suptitle()
