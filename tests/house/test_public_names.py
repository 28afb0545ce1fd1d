"""The names that others import hold."""

import lcmat
import methods


def test_names_that_documents_use_are_exported() -> None:
    """What README and DESIGN import from the library and from the methods."""
    expected = {"Context", "Method", "Picks", "Signals", "Subset", "UserError", "signals_of_batches"}
    assert expected <= set(lcmat.__all__)
    assert all(getattr(lcmat, name) is not None for name in expected)
    assert callable(methods.select)
    assert "LCMat-S" in methods.names()
