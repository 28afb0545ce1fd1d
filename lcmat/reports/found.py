"""What a grid asked for and what is there of it: the one argument of every report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lcmat.errors import UserError

# Called as report(found, **options); writes files and returns their paths.
Report = Callable[..., list[Path]]


@dataclass(frozen=True)
class Found:
    """What was asked for, and what is there of it.

    name, title: of the grid. configs: the configuration of each of its runs; records: the record of each, None where
    there is none. save_path: the folder that reports go to. alone: whether the grid has one report only.
    """

    name: str
    title: str
    configs: list[dict]
    records: list[dict | None]
    save_path: Path
    alone: bool = True

    @property
    def there(self) -> list[dict]:
        """The records that are there."""
        return [record for record in self.records if record is not None]

    @property
    def missing(self) -> int:
        """How many are not."""
        return len(self.records) - len(self.there)

    def path(self, suffix: str, name: str = "") -> Path:
        """Return where a table goes."""
        return self.save_path / "tables" / f"{self.name}{name}{suffix}"

    @property
    def figures(self) -> Path:
        """The folder of figures."""
        return self.save_path / "figures"

    def titled(self, setting: str) -> str:
        """Return the title of a figure of one setting: in a line, if that is not long."""
        words = f"{self.title} ({setting})"
        return words if len(words) < 90 else f"{self.title}\n({setting})"

    def heading(self) -> str:
        """Return the title, and what is missing."""
        lacking = f"\n\n{self.missing} of {len(self.records)} runs are missing." if self.missing else ""
        return f"# {self.title}{lacking}\n\n"


def write(found: Found, asked: Mapping[str, Mapping[str, object]], known: Mapping[str, Report]) -> list[Path]:
    """Write the reports asked for, by name with options, and return the files; UserError if no run is recorded."""
    if not found.there:
        count = len(found.records)
        raise UserError(f"none of the {count} runs of {found.name} is recorded below {found.save_path}; run it first")
    paths = [path for name, details in asked.items() for path in known[name](found, **details)]
    return list(dict.fromkeys(paths))  # two reports may come to the same figure
