"""Markdown as a terminal shows it: no table wider than 120 columns. What is written to files stays as it is."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from lcmat.reports.table_text import markdown

WIDEST = 120
# The longest line of a row's name before that is broken.
LONGEST_NAME = 44
Rows = list[list[str]]


def fitted(text: str, wide: bool = False) -> str:
    """Return Markdown with tables of up to 120 columns, unless `wide`.

    Of a wider table, what all rows share stands once, above: options in the names of a method's rows, and whole
    columns. What is too wide still is cut into several tables, each with the rows' names.
    """
    if wide:
        return text
    return "".join(_fitted(block) if block.startswith("|") else block for block in _blocks(text))


def _blocks(text: str) -> Iterator[str]:
    """Yield tables, and what is between them, in order."""
    for part in re.split(r"((?:^\|.*\n?)+)", text, flags=re.MULTILINE):
        if part:
            yield part


def _width(table: str) -> int:
    return max(map(len, table.splitlines()))


def _fitted(table: str) -> str:
    lines = table.splitlines()
    if _width(table) <= WIDEST or len(lines) < 3:
        return table
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    header, rows = cells[0], cells[2:]
    if any(len(row) != len(header) for row in rows):
        return table
    # Where a file is read as text, an underline takes one letter, not seven.
    rows = [[re.sub(r"</?u>", "_", cell) for cell in row] for row in rows]
    said, rows = _shared_options(rows)
    if _width(markdown(header, rows)) > WIDEST:
        more, header, rows = _shared_columns(header, rows)
        said += more
    above = f"All rows: {'; '.join(said)}.\n\n" if said else ""
    return above + "\n".join(_broken(part) for part in _parts(header, rows))


def _shared_options(rows: Rows) -> tuple[list[str], Rows]:
    """Take out of the rows' names, METHOD (option = value, …), the options that all rows of a method have."""
    found: dict[str, list[list[str]]] = {}
    for row in rows:
        method, options = _taken_apart(row[0])
        found.setdefault(method, []).append(options)
    shared = {
        method: [one for one in several[0] if all(one in options for options in several)]
        for method, several in found.items()
        if len(several) > 1
    }
    said = [f"{method}: {', '.join(options)}" for method, options in shared.items() if options]
    named = []
    for row in rows:
        method, options = _taken_apart(row[0])
        left = [one for one in options if one not in shared.get(method, ())]
        named.append([f"{method} ({', '.join(left)})" if left else method, *row[1:]])
    return said, named


def _taken_apart(name: str) -> tuple[str, list[str]]:
    method, bracket, rest = name.partition(" (")
    return (method, rest.removesuffix(")").split(", ")) if bracket and rest.endswith(")") else (name, [])


def _shared_columns(header: list[str], rows: Rows) -> tuple[list[str], list[str], Rows]:
    """Take out the columns, but for the first, that have one value; of a single row nothing."""
    one = [n for n in range(1, len(header)) if len(rows) > 1 and len({row[n] for row in rows}) == 1]
    said = [f"{header[n]} {rows[0][n]}" for n in one if rows[0][n]]
    keep = [n for n in range(len(header)) if n not in one]
    return said, [header[n] for n in keep], [[row[n] for n in keep] for row in rows]


def _parts(header: list[str], rows: Rows) -> Iterator[tuple[list[str], Rows]]:
    """Yield tables of some columns each, beside those that tell the rows apart."""
    keys = next(
        (n for n in range(1, len(header)) if len({tuple(row[:n]) for row in rows}) == len(rows)), min(1, len(header))
    )
    widths = [max(len(cell) for cell in column) + 3 for column in zip(header, *rows, strict=True)]
    names = sum(min(width, LONGEST_NAME + 3) for width in widths[:keys]) + 1
    here, used = [], names
    for column in range(keys, len(header)):
        if here and used + widths[column] > WIDEST:
            yield _columns(header, rows, [*range(keys), *here])
            here, used = [], names
        here.append(column)
        used += widths[column]
    yield _columns(header, rows, [*range(keys), *here])


def _columns(header: list[str], rows: Rows, some: Sequence[int]) -> tuple[list[str], Rows]:
    return [header[n] for n in some], [[row[n] for n in some] for row in rows]


def _broken(table: tuple[list[str], Rows]) -> str:
    """Return a table whose long cells take several lines, if it would be too wide without."""
    header, rows = table
    text = markdown(header, rows)
    if _width(text) <= WIDEST:
        return text
    room = max(LONGEST_NAME, (WIDEST - 1) // len(header) - 3)
    lines: Rows = []
    for row in rows:
        several = [textwrap.wrap(cell, room) or [""] for cell in row]
        lines += [[cell[n] if n < len(cell) else "" for cell in several] for n in range(max(map(len, several)))]
    return markdown(header, lines)
