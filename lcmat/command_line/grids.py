"""Grids: the runs of one table or figure, from a YAML file.

title: what it is. runs: flags of main.py with their values, by name; or a list of such blocks. vary: flags, each with a
list of values, that are combined with each other and with every block. report: which tables and figures come of it (see
`lcmat.reports.grids`), each a name or {name: options}. takes: how long it took, on what, as `--plan` says it.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lcmat.command_line import options, yaml_files
from lcmat.command_line.options import Parser
from lcmat.errors import UserError, one_line, shown, suggest

# The most command lines of a grid.
MOST = 100_000
KEYS = ("title", "runs", "vary", "report", "takes")


@dataclass(frozen=True)
class Grid:
    """The command lines that a file stands for, parsed; the reports asked for, by name, with options; its time."""

    name: str
    title: str
    lines: list[argparse.Namespace]
    reports: dict[str, dict[str, object]]
    takes: str = ""


def read_grid(path: Path, overrides: Sequence[str], parser: Parser, reports: Sequence[str]) -> Grid:
    """Read a grid; flags in `overrides` win over the file's. Raises UserError that names the file and the key."""
    content = yaml_files.read_yaml(path)
    if not isinstance(content, dict) or "runs" not in content:
        raise UserError(f"{path} is no grid: it must hold 'runs:' with flags of main.py below it")
    for key in content:
        if key not in KEYS:
            raise UserError(f"{path}: unknown key {shown(key)}{suggest(str(key), KEYS)}")
    blocks = content["runs"] if isinstance(content["runs"], list) else [content["runs"]]
    vary = content.get("vary") or {}
    if not isinstance(vary, dict) or not all(isinstance(values, list) and values for values in vary.values()):
        raise UserError(f"{path}: vary: takes flags with a list of values each")
    if not blocks:
        raise UserError(f"{path}: runs: holds no runs")
    if len(blocks) * math.prod(map(len, vary.values())) > MOST:
        raise UserError(f"{path} stands for more than {MOST:,} command lines; vary less at once")
    lines = []
    for block in blocks:
        if not isinstance(block, dict):
            raise UserError(f"{path}: runs: takes 'flag: value' lines, or a list of such blocks")
        if both := sorted(map(str, block.keys() & vary.keys())):
            raise UserError(f"{path}: runs: and vary: both give {', '.join(both)}; leave one out")
        for values in itertools.product(*vary.values()):
            words = yaml_files.words_of({**block, **dict(zip(vary, values, strict=True))}, path, parser)
            lines.append(options.parse([*words, *overrides], parser))
    title, takes = (one_line(content.get(name, usual)) for name, usual in (("title", path.stem), ("takes", "")))
    return Grid(path.stem, title, lines, _reports(content, path, reports), takes)


def _reports(content: dict, path: Path, known: Sequence[str]) -> dict[str, dict[str, object]]:
    asked = content.get("report", ["accuracy"])
    found = {}
    for item in asked if isinstance(asked, list) else [asked]:
        name, details = next(iter(item.items())) if isinstance(item, dict) and item else (item, {})
        if name not in known:
            raise UserError(f"{path}: unknown report {shown(name)}{suggest(shown(name), known)}")
        if not isinstance(details or {}, dict):
            raise UserError(f"{path}: report {name} takes 'option: value' lines")
        found[name] = details or {}
    return found
