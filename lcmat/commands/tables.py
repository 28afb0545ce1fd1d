"""Print the tables of a folder of records, and write them to its tables/ as Markdown and CSV.

python -m lcmat tables result
"""

import sys
from pathlib import Path

from lcmat.errors import UserError
from lcmat.files import check_writable
from lcmat.options import Parser
from lcmat.table_text import accuracy_markdown, write_tables


def existing_folder(argv: list[str], name: str) -> Path:
    """Parse the one argument that commands over records take."""
    parser = Parser(prog=f"python -m lcmat {name}", allow_abbrev=False)
    parser.add_argument("save_path", metavar="SAVE_PATH", nargs="?", default="result", help="folder of records")
    folder = Path(parser.parse_args(argv).save_path)
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}; give the --save_path of the runs")
    check_writable(folder)
    return folder


def report(damaged: list[Path]) -> None:
    """Name damaged records on stderr; they are not counted and left as they are."""
    for path in damaged:
        print(f"warning: {path} is no whole record; left alone and not counted", file=sys.stderr)


def main(argv: list[str]) -> int:
    """Print and write the tables."""
    folder = existing_folder(argv, "tables")
    tables, damaged = write_tables(folder)
    report(damaged)
    if not tables:
        raise UserError(f"no records below {folder}; run main.py with --save_path {folder} first")
    print(accuracy_markdown(tables), end="")
    print(f"\nwritten to {folder / 'tables'}: accuracy.md, accuracy.csv", file=sys.stderr)
    return 0
