"""What --help lists is what there is."""

import pytest

import methods
import nets
from lcmat import data
from lcmat.command_line import listed
from lcmat.commands import _reports
from lcmat.reports import grids
from tests.command_lines import parser_of

EVERY = {
    "methods": ([*listed.SELECTION.values()], methods.names()),
    "condensers": ([listed.CONDENSATION], methods.condensers()),
    "samplers": ([listed.SAMPLERS], methods.samplers()),
    "networks": ([*listed.NETWORKS.values()], nets.names()),
    "reports": ([*_reports.KNOWN], [*grids.REPORTS, "images"]),
    "datasets": ([*listed.DATASETS.values()], data.names()),
}


@pytest.mark.parametrize("kind", EVERY)
def test_names_in_the_help_are_those_that_there_are(kind: str) -> None:
    told, known = EVERY[kind]
    assert sorted(" ".join(told).split()) == sorted(known)


def test_help_names_them_and_says_what_recipes_are() -> None:
    text = parser_of("main.py").format_help()
    assert all(name in text for kind, (_, known) in EVERY.items() if kind != "reports" for name in known)
    assert all(
        word in " ".join(text.split()) for word in ("zhao: 1000 epochs, batch 256", "idc: 1000 epochs, batch 64")
    )
    assert max(map(len, text.splitlines())) <= 120
