"""What vouches for each method: its test's oracle, its paper's result here with the record, and what is not checked."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """What vouches for a method.

    oracle: what its test compares with, independent of it; test: the files, with spaces between. reproduced: whether
    the qualitative result of its paper shows here, in words, or "open"; record: the table that says so, below the
    project's folder, or "". unchecked: what cannot be checked, or "".
    """

    method: str
    oracle: str
    test: str
    reproduced: str
    record: str
    unchecked: str


def read_certificates(path: Path) -> dict[str, Certificate]:
    """Return the certificates of a CSV file with the fields above, by method, in its order."""
    with open(path, encoding="utf-8", newline="") as file:
        return {row["method"]: Certificate(**row) for row in csv.DictReader(file)}


def certificates_markdown(certificates: list[Certificate], above: str = "") -> str:
    """Return a table of certificates; above: what links to records begin with ("../" from a folder of the project)."""
    header = ["Method", "Compared with", "Its paper's result here", "Not checked"]
    rows = [
        [
            one.method,
            f"{one.oracle} ({', '.join(f'`{path}`' for path in one.test.split())})",
            f"[{one.reproduced}]({above}{one.record})" if one.record else one.reproduced,
            one.unchecked,
        ]
        for one in certificates
    ]
    # Without padding: some cells are long.
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
