"""What vouches for each method is said of every one, and leads to what is there."""

import re

import pytest

from lcmat.commands.methods import CERTIFICATES, every
from lcmat.commands.methods import main as list_methods
from lcmat.reports.certificates import certificates_markdown, read_certificates
from tests.harness import ROOT, call

KNOWN = read_certificates(CERTIFICATES)
VERDICTS = re.compile(r"(yes|partly|not|nothing|open|ahead|behind)\b")


def test_every_method_has_a_certificate_and_nothing_else_has() -> None:
    """Of selection, of condensation, and those that draw for each epoch."""
    assert set(KNOWN) == set(every())


def plain(text: str) -> str:
    """A text in lower case, without what names are spelled with or without."""
    return re.sub(r"[-_\s]", "", text.lower())


@pytest.mark.parametrize("name", KNOWN)
def test_certificate_leads_to_a_test_of_the_method_and_to_a_record(name: str) -> None:
    """No column is empty but for what is not checked; a result has its record, unless there is none to have."""
    one = KNOWN[name]
    assert one.oracle
    assert VERDICTS.match(one.reproduced), one.reproduced
    texts = [(ROOT / path).read_text() for path in one.test.split()]
    assert any(plain(name) in plain(text) for text in texts)
    if one.reproduced == "open" or one.reproduced.startswith("nothing to"):
        assert not one.record
    else:
        assert name in (ROOT / one.record).read_text()


def test_methods_readme_has_the_table() -> None:
    """`python -m lcmat methods --table` renews it."""
    assert certificates_markdown(list(KNOWN.values()), "../") in (ROOT / "methods" / "README.md").read_text()


def test_methods_are_listed(capsys: pytest.CaptureFixture) -> None:
    """All, or some, by any spelling; and an unknown one names the nearest."""
    assert call(command=list_methods) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name}: " in f"\n{listed}" for name in every())
    assert call("dual", "rs2", command=list_methods) == 0
    some = capsys.readouterr().out
    assert some.count("compared with") == 2
    assert "window (10)" in some
    assert call("DUALL", command=list_methods) == 2
    assert "did you mean DUAL" in capsys.readouterr().err
