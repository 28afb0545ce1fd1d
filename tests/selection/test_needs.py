"""What methods may need, by name."""

import pytest

from lcmat import Method, UserError
from lcmat.selection.method import KNOWN_NEEDS, Picks
from lcmat.signals import needs
from lcmat.signals.signals import DYNAMICS, Signals


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("dynamics.margn", "dynamics.margin"), ("feature", "features"), ("trainig", "training")],
)
def test_a_need_that_nothing_holds_is_refused_when_the_method_is_defined(typo: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"method Mine needs '{typo}', which nothing holds; did you mean {meant}\?"):
        Method("Mine", lambda *given: Picks(None), needs=("logits", typo))


def test_needs_under_options_are_checked_too() -> None:
    method = Method("Mine", lambda *given: Picks(None), needs_under=lambda options: ("dynamics",))
    with pytest.raises(UserError, match="needs 'dynamics', which nothing holds"):
        method.under({})


def test_known_needs_are_fields_of_signals_and_contexts() -> None:
    """Every entry of dynamics is a need, and every need names a field that there is."""
    assert {need.partition(".")[2] for need in needs.OF_DYNAMICS} == set(DYNAMICS)
    fields = Signals.__dataclass_fields__
    assert all(need.partition(".")[0] in fields for need in needs.OF_SIGNALS)
    assert needs.OF_SIGNALS < KNOWN_NEEDS
