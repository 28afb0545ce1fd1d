"""Methods by name, and their options: any spelling, and what is near to a wrong one."""

import pytest

from lcmat import UserError
from methods import get, names, select
from tests import oracles
from tests.problems import equal, random_problem

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# Small fractions of small classes round to nothing, which the library says; one test below checks that it does.
pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("lcmat-s", "LCMat-S"),
        ("LCMAT-S", "LCMat-S"),
        ("uniform", "Uniform"),
        ("Random", "Uniform"),
        ("rAnDoM", "Uniform"),
    ],
)
def test_names_ignore_case_and_random_means_uniform(name: str, canonical: str) -> None:
    signals = random_problem(0).signals
    subset = select(signals, name, fraction=0.2, seed=3)
    assert subset.method == canonical
    assert equal(subset, select(signals, canonical, fraction=0.2, seed=3))


def test_canonical_names() -> None:
    assert {"Uniform", "LCMat-S", "Full"} <= set(names())
    assert "Random" not in names()
    assert len(set(names())) == len(names())
    assert all(get(name.upper()).name == name for name in names())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("LCMat", "LCMat-[SC]"), ("lcmat_s", "LCMat-S"), ("LCMATS", "LCMat-S"), ("Unifrom", "Uniform"), ("ful", "Full")],
)
def test_unknown_method_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=rf"'{name}'.*did you mean {nearest}\?"):
        select(random_problem(0).signals, name, fraction=0.1)


def test_unknown_option_is_named() -> None:
    signals = random_problem(0).signals
    with pytest.raises(UserError, match=r"LCMat-S.*'roh'.*did you mean rho\?"):
        select(signals, fraction=0.1, roh=0.1)
    with pytest.raises(UserError, match=r"LCMat-S.*'temperature'.*rho.*K.*weights"):
        select(signals, fraction=0.1, temperature=0.1)
    for method in ("Uniform", "Full"):
        with pytest.raises(UserError, match=rf"{method}.*'rho'"):
            select(signals, method, fraction=0.1, rho=0.1)


@pytest.mark.parametrize(
    "options",
    [{"rho": -0.1}, {"rho": float("nan")}, {"rho": float("inf")}, {"K": 0}, {"K": -5}, {"K": 19}, {"K": 2.5}],
    ids=str,
)
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(UserError, match=name):
        select(random_problem(0).signals, fraction=0.1, **options)
