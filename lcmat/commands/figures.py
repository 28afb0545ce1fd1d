"""Draw accuracy against fraction from a folder of records, to its figures/ as PNG and PDF.

python -m lcmat figures result
"""

import methods
from lcmat.command_line import Parser
from lcmat.commands.tables import existing_folder, report
from lcmat.errors import UserError
from lcmat.files import check_writable
from lcmat.records import read_records
from lcmat.reports import accuracy_tables
from lcmat.reports.continual import continual_figure
from lcmat.reports.figures import write_figures


def main(argv: list[str]) -> int:
    """Draw the figures."""
    parser = Parser(prog="python -m lcmat figures", allow_abbrev=False)
    parser.add_argument("save_path", metavar="SAVE_PATH", nargs="?", default="result", help="folder of records")
    folder = existing_folder(parser.parse_args(argv).save_path)
    check_writable(folder)
    (found, damaged), (steps, more) = read_records(folder), read_records(folder, "continual")
    report(damaged + more)
    paths = write_figures(accuracy_tables(found), folder / "figures")
    if steps:
        title, makes_images = "Continual learning: mean ± standard deviation", methods.condensers().__contains__
        paths += continual_figure(steps, makes_images, title, folder / "figures", "continual")
    if not paths:
        raise UserError(f"no method below {folder} has records at two fractions or more: nothing to draw")
    for path in paths:
        print(path)
    return 0
