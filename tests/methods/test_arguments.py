"""`select` checks what it is given as the command line does: one line that names the argument."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

import methods
from lcmat import Signals, UserError
from lcmat.selection.subset import Subset
from methods import select
from tests.problems import random_problem

SIGNALS = random_problem(0).signals


def picks(**how: object) -> list[int]:
    """What is selected of a small problem."""
    return select(SIGNALS, **how).indices.tolist()


EQUAL = {
    "a fraction as NumPy's number": ({"fraction": np.float64(0.2)}, {"fraction": 0.2}),
    "a fraction in float32": ({"fraction": np.float32(0.25)}, {"fraction": 0.25}),
    "a fraction as an array without dimensions": ({"fraction": np.array(0.2)}, {"fraction": 0.2}),
    "a fraction as a tensor": ({"fraction": torch.tensor(0.25)}, {"fraction": 0.25}),
    "a fraction as Python's Fraction": ({"fraction": Fraction(1, 4)}, {"fraction": 0.25}),
    "a budget as NumPy's number": ({"budget": np.int16(9)}, {"budget": 9}),
    "a budget as a tensor": ({"budget": torch.tensor(9)}, {"budget": 9}),
    "budgets as a tensor": ({"budget": torch.tensor([2, 3, 1])}, {"budget": [2, 3, 1]}),
    "budgets as an array": ({"budget": np.array([2, 3, 1], np.uint8)}, {"budget": (2, 3, 1)}),
    "a seed as NumPy's number": ({"method": "Uniform", "budget": 9, "seed": np.int64(3)},
                                 {"method": "Uniform", "budget": 9, "seed": 3}),
    "a seed as a tensor": ({"method": "Uniform", "budget": 9, "seed": torch.tensor(3)},
                           {"method": "Uniform", "budget": 9, "seed": 3}),
    "balanced as NumPy's": ({"budget": 9, "balanced": np.bool_(False)}, {"budget": 9, "balanced": False}),
    "an option as NumPy's number": ({"budget": 9, "rho": np.float64(0.7), "K": np.int32(5)},
                                    {"budget": 9, "rho": 0.7, "K": 5}),
    "an option as a tensor": ({"budget": 9, "rho": torch.tensor(0.5)}, {"budget": 9, "rho": 0.5}),
    "a flag as NumPy's": ({"budget": 9, "weights": np.bool_(True)}, {"budget": 9, "weights": True}),
}  # fmt: skip


@pytest.mark.parametrize("case", EQUAL)
def test_numbers_of_other_libraries_are_numbers(case: str) -> None:
    """They decide as Python's own: a seed's draws do not depend on how the number is written."""
    given, plain = EQUAL[case]
    assert picks(**given) == picks(**plain)


REFUSED = {
    "a fraction as text": ({"fraction": "0.1"}, "the fraction must be a number, not '0.1'"),
    "several fractions": ({"fraction": [0.1, 0.2]}, r"the fraction must be a number, not \[0\.1, 0\.2\]"),
    "an array of fractions": ({"fraction": np.array([0.1, 0.2])}, "the fraction must be a number, not"),
    "a fraction that is true": ({"fraction": True}, "the fraction must be a number, not True"),
    "a complex fraction": ({"fraction": 0.1j}, "the fraction must be a number"),
    "no number": ({"fraction": float("nan")}, "a fraction must lie above 0 and at most at 1, not nan"),
    "neither": ({}, "give either a fraction or a budget"),
    "both": ({"fraction": 0.1, "budget": 3}, "give either a fraction or a budget"),
    "a budget that is true": ({"budget": True}, "the budget must be a whole number of samples, not True"),
    "a budget as text": ({"budget": "5"}, "the budget must be a whole number of samples, not '5'"),
    "a budget as bytes": ({"budget": b"5"}, "the budget must be a whole number of samples, not b'5'"),
    "half a sample": ({"budget": 2.5}, "the budget must be a whole number of samples, not 2.5"),
    "a budget as a mapping": ({"budget": {0: 3}}, "the budget must be a whole number of samples"),
    "budgets of truths": ({"budget": [True, 1, 1]}, "True samples are asked for of class 0; ask for whole numbers"),
    "budgets as text": ({"budget": ["1", 1, 1]}, "'1' samples are asked for of class 0"),
    "no method": ({"budget": 9, "method": None}, "the selection method must be a name, such as .*, not None"),
    "a method's number": ({"budget": 9, "method": 3}, "the selection method must be a name, such as .*, not 3"),
    "a list of methods": ({"budget": 9, "method": ["Uniform"]}, r"must be a name, such as .*, not \['Uniform'\]"),
    "a method of two lines": ({"budget": 9, "method": "LCMat\n-S"}, r"unknown selection method 'LCMat\\n-S'"),
    "a method of thousands of letters": ({"budget": 9, "method": "x" * 10**6}, "unknown selection method 'xxx"),
    "no seed": ({"budget": 9, "seed": None}, "the seed must be a whole number, not None"),
    "a seed as text": ({"budget": 9, "seed": "0"}, "the seed must be a whole number, not '0'"),
    "a seed of a half": ({"budget": 9, "seed": 0.5}, "the seed must be a whole number, not 0.5"),
    "a seed that is true": ({"budget": 9, "seed": True}, "the seed must be a whole number, not True"),
    "several seeds": ({"budget": 9, "seed": [0, 1]}, r"the seed must be a whole number, not \[0, 1\]"),
    "balanced as text": ({"budget": 9, "balanced": "no"}, "balanced must be true or false, not 'no'"),
    "balanced as a number": ({"budget": 9, "balanced": 0}, "balanced must be true or false, not 0"),
    "balanced as nothing": ({"budget": 9, "balanced": None}, "balanced must be true or false, not None"),
    "a context that is none": ({"budget": 9, "context": "images"}, "context must be a Context, not str"),
    "a memory of a wrong kind": ({"budget": 9, "memory": "much"}, "a memory size looks like 500MB or 4GB"),
    "a memory that is true": ({"budget": 9, "memory": True}, "a memory size looks like 500MB or 4GB"),
    "an option as text": ({"budget": 9, "rho": "0.1"}, "rho must be a number, not '0.1'"),
    "an option as nothing": ({"budget": 9, "rho": None}, "rho must be a number, not None"),
    "an option as a list": ({"budget": 9, "rho": np.array([0.1, 0.2])}, r"rho must be a number, not \[0\.1, 0\.2\]"),
    "K as text": ({"budget": 9, "K": "5"}, "K must be an integer, not '5'"),
    "K that is true": ({"budget": 9, "K": True}, "K must be an integer, not True"),
    "an option of no name": ({"budget": 9, "rhoo": 1}, "LCMat-S has no option 'rhoo'; did you mean rho"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_kinds_are_refused_by_the_arguments_name(case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        select(SIGNALS, **given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "signals", [None, (1, 2), np.zeros(3), {"labels": [0]}, Signals], ids=lambda x: type(x).__name__
)
def test_what_is_no_signals_is_refused(signals: object) -> None:
    with pytest.raises(UserError, match=r"signals must be Signals\(features=…, logits=…, labels=…\), not"):
        select(signals, budget=1)


NAMED: dict[str, Callable[[object], object]] = {
    "get": methods.get,
    "condenser": methods.condenser,
    "find": methods.find,
}


@pytest.mark.parametrize("name", [None, 3, b"DM", ["DM"]], ids=repr)
@pytest.mark.parametrize("function", NAMED)
def test_names_are_texts(function: str, name: object) -> None:
    with pytest.raises(UserError, match="method must be a name, such as"):
        NAMED[function](name)


@pytest.mark.parametrize("given", [{"fraction": "0.1"}, {"budget": True}, {"budget": "3"}, {}], ids=repr)
def test_prefixes_check_alike(given: dict) -> None:
    subset: Subset = select(SIGNALS, fraction=0.5)
    with pytest.raises(UserError, match=r"must be a|give either"):
        subset.prefix(**given)
