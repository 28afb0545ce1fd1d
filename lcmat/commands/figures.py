"""Draw what a folder of records holds, to its figures/ as PNG and PDF: accuracy by method and fraction, and analyses.

python -m lcmat figures result
"""

import sys
from pathlib import Path

import yaml

import methods
from lcmat.analysis.figures import redraw
from lcmat.command_line import Parser
from lcmat.commands._folders import existing_folder, report
from lcmat.errors import UserError
from lcmat.files import PROJECT, check_writable
from lcmat.records import read_records
from lcmat.reports import accuracy_tables
from lcmat.reports.accuracy_figures import write_figures
from lcmat.reports.continual import continual_figure


def main(argv: list[str]) -> int:
    """Draw the figures; those of analyses from their tables, without measuring anew."""
    parser = Parser(prog="python -m lcmat figures", allow_abbrev=False)
    parser.add_argument("save_path", metavar="SAVE_PATH", nargs="?", default="result", help="folder of records")
    folder = existing_folder(parser.parse_args(argv).save_path)
    check_writable(folder)
    (found, damaged), (steps, more) = read_records(folder), read_records(folder, "continual")
    report(damaged + more)
    paths = write_figures(accuracy_tables(found), folder / "figures")
    if steps:
        makes_images = methods.condensers().__contains__
        paths += continual_figure(steps, makes_images, "Continual learning", folder / "figures", "continual")
    drawn, strange = redraw(folder, _title)
    for path in strange:
        print(f"warning: {path} is no table of an analysis; left alone and not drawn", file=sys.stderr)
    paths += drawn
    if not paths:
        raise UserError(f"no method below {folder} has records at two fractions or more, nor is there an analysis or a "
                        "fraction with many methods: nothing to draw")  # fmt: skip
    for path in paths:
        print(path)
    return 0


def _title(name: str) -> str:
    """Return the title of the grid of that name, if the project has one, else the name."""
    file: Path = PROJECT / "configs" / f"{name}.yaml"
    return (
        str(yaml.safe_load(file.read_text(encoding="utf-8")).get("title", name))
        if file.is_file()
        else name.replace("-", ", ", 1)
    )
