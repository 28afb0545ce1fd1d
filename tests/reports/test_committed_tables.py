"""The tables that are committed are those that the records give."""

import shutil
from pathlib import Path

from lcmat.commands import tables
from tests.harness import ROOT, call


def test_tables_of_the_committed_records_are_committed(tmp_path: Path) -> None:
    """`python -m lcmat tables result --statistics` leaves the tree as it is."""
    for path in (ROOT / "result").glob("*/*/*.json"):
        to = tmp_path / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    assert call(tmp_path / "result", "--statistics", command=tables.main) == 0
    written = sorted((tmp_path / "result" / "tables").iterdir())
    assert {path.name for path in written} >= {"accuracy.md", "accuracy.csv", "continual.md", "statistics.md"}
    for path in written:
        committed = ROOT / "result" / "tables" / path.name
        assert path.read_text() == committed.read_text(), f"{path.name}: run python -m lcmat tables result --statistics"
