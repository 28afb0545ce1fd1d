"""Tables of a terminal: never wider than 120 columns, and nothing of them lost."""

import itertools
import re

import pytest

from lcmat.reports.table_text import markdown
from lcmat.reports.terminal import fitted

OPTIONS = ", ".join(f"option_{number} = {number}" for number in range(14))
WIDE = {
    "options": (["Method", "1%"], [[f"LBCS ({OPTIONS}, tolerance = {t})", f"{t}"] for t in (0.1, 0.2)]),
    "columns": (["Method", *(f"{n}%" for n in range(12))], [[m, *(["<u>98.76 ± 1.23</u>"] * 12)] for m in "AB"]),
    "many": (
        ["Method", "Fraction", *(f"column {n}" for n in range(9))],
        [[m, f, *(f"{m}{f}{n} and more" for n in range(9))] for m, f in itertools.product("AB", "12")],
    ),
    "alike": (
        ["k", "Method", "n", *(f"c{n}" for n in range(8))],
        [["1", m, "3", *(["12.34 ± 5.67"] * 8)] for m in "ABC"],
    ),
}


@pytest.mark.parametrize("name", WIDE)
def test_no_table_is_wider_and_every_value_is_there(name: str) -> None:
    header, rows = WIDE[name]
    table = markdown(header, rows)
    text = f"## A title\n\n{'Words ' * 40}\n\n{table}\nAfter it.\n"
    assert max(map(len, table.splitlines())) > 120
    narrow = fitted(text)
    lines = narrow.splitlines()
    assert max(len(line) for line in lines if line.startswith("|")) <= 120
    assert lines[0] == "## A title"
    assert lines[-1] == "After it."
    letters = re.sub(r"[\s|]", "", narrow)
    for value in {cell for row in rows for cell in row}:
        for word in re.split(r"[\s(),]+", re.sub(r"</?u>", "", value)):
            assert word in letters, word
    assert fitted(text, wide=True) == text


def test_shared_options_stand_once_above() -> None:
    narrow = fitted(markdown(*WIDE["options"]))
    assert narrow.count("option_3 = 3") == 1
    assert narrow.startswith("All rows: LBCS: option_0 = 0, ")
    assert "| LBCS (tolerance = 0.1) | 0.1 |" in narrow


def test_a_name_that_is_too_long_takes_several_lines() -> None:
    narrow = fitted(markdown(["Method", "1%"], [["x" * 200, "1"], ["B", "2"]]))
    assert narrow.count("x") == 200
    assert max(map(len, narrow.splitlines())) <= 120


def test_a_table_that_fits_is_left_alone() -> None:
    table = markdown(["Method", "n"], [["A", "3"], ["B", "3"]])
    assert fitted(table) == table
