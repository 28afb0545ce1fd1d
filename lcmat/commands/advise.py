"""Say from records alone which methods were separable from Uniform, at which fraction, on which data, and their cost.

python -m lcmat advise result
"""

from lcmat.command_line import Parser
from lcmat.commands._folders import existing_folder, report
from lcmat.errors import UserError
from lcmat.reports.advice import advice
from lcmat.reports.page import settings


def main(argv: list[str]) -> int:
    """Print it; nothing is written."""
    parser = Parser(prog="python -m lcmat advise", allow_abbrev=False)
    parser.add_argument("save_path", metavar="SAVE_PATH", nargs="?", default="result", help="folder of records")
    folder = existing_folder(parser.parse_args(argv).save_path)
    found, damaged = settings.read(folder)
    report(damaged)
    if not found:
        raise UserError(f"no records below {folder}; run main.py with --save_path {folder} first")
    text = advice(found)
    if not text:
        raise UserError(f"below {folder} no method has three seeds in common with Uniform; run more seeds first")
    print(text, end="")
    return 0
