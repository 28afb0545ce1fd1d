"""Print the tables of a folder of records, and write them to its tables/; or compare two folders.

python -m lcmat tables result
python -m lcmat tables result others_result
"""

import sys
from pathlib import Path

from lcmat.command_line import Parser
from lcmat.commands._folders import existing_folder, report
from lcmat.errors import UserError
from lcmat.files import check_writable, write_text
from lcmat.records import read_records
from lcmat.reports.comparison import compare, comparison_markdown
from lcmat.reports.continual import write_continual
from lcmat.reports.separability import compared, critical_difference_diagram, in_words
from lcmat.reports.table_text import accuracy_markdown, write_tables
from lcmat.reports.tables import Table
from lcmat.reports.terminal import fitted


def main(argv: list[str]) -> int:
    """Print and write the tables of one folder, or print two folders side by side."""
    parser = Parser(prog="python -m lcmat tables", allow_abbrev=False)
    parser.add_argument("save_path", metavar="SAVE_PATH", nargs="?", default="result", help="folder of records")
    parser.add_argument("other", metavar="OTHER", nargs="?", help="another, to be shown beside it; nothing is written")
    parser.add_argument(
        "--statistics", action="store_true", help="which methods are separable over six or more data sets and fractions"
    )
    parser.add_argument("--wide", action="store_true", help="print tables as wide as they are, beyond 120 columns")
    args = parser.parse_args(argv)
    folder = existing_folder(args.save_path)
    if args.other is not None and args.statistics:
        raise UserError("--statistics is of one folder; leave it out, or the other folder")
    if args.other is not None:
        return _side_by_side((folder, existing_folder(args.other)), args.wide)
    check_writable(folder)
    tables, damaged = write_tables(folder)
    continual, more = write_continual(folder)
    report(damaged + more)
    if not tables and not continual:
        raise UserError(f"no records below {folder}; run main.py with --save_path {folder} first")
    written = ["accuracy.md", "accuracy.csv"]
    print(fitted(accuracy_markdown(tables), args.wide), end="")
    if args.statistics:
        print(fitted(_statistics(tables, folder), args.wide), end="")
        written += ["statistics.md"]
    if continual:
        print(fitted(continual, args.wide), end="")
        written += ["continual.md", "continual.csv"]
    print(f"\nwritten to {folder / 'tables'}: {', '.join(written)}", file=sys.stderr)
    return 0


def _statistics(tables: list[Table], folder: Path) -> str:
    comparison = compared(tables)
    text = in_words(comparison)
    write_text(folder / "tables" / "statistics.md", text)
    for path in critical_difference_diagram(comparison, folder / "figures"):
        print(path, file=sys.stderr)
    return text


def _side_by_side(folders: tuple[Path, Path], wide: bool) -> int:
    found = []
    for folder in folders:
        records, damaged = read_records(folder)
        report(damaged)
        if not records:
            raise UserError(f"no records below {folder}; run main.py with --save_path {folder} first")
        found.append(records)
    names = [str(folder) for folder in folders]
    print(fitted(comparison_markdown(compare(*found), (names[0], names[1])), wide), end="")
    return 0
