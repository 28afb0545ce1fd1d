"""Draw the course of LBCS searches: loss, size and incumbent of every trial, as PNG and PDF.

python -m lcmat lbcs result      # every search below a folder of records, to its figures/; also while one runs
python -m lcmat lbcs FILE.jsonl  # one search, beside its file
"""

import re
from pathlib import Path

from lcmat.bilevel import read_trials
from lcmat.bilevel.lexicographic import best_index
from lcmat.command_line import Parser
from lcmat.errors import UserError
from lcmat.files import check_writable
from lcmat.reports.figures import search_figure


def main(argv: list[str]) -> int:
    """Draw the searches, and say in a line each what they found."""
    parser = Parser(prog="python -m lcmat lbcs", allow_abbrev=False)
    parser.add_argument("path", metavar="PATH", nargs="?", default="result", help="folder of records, or one search")
    given = Path(parser.parse_args(argv).path)
    if not given.exists():
        raise UserError(f"no such file or folder: {given}; name a file of trials, or the --save_path of the runs")
    paths = sorted(given.glob("*/*/fraction*-seed*-*.jsonl")) if given.is_dir() else [given]
    folder = given / "figures" if given.is_dir() else given.parent
    check_writable(folder)
    searches = {path: read_trials(path) for path in paths}
    searches = {path: (search, trials) for path, (search, trials) in searches.items() if trials}
    if not searches:
        raise UserError(f"no trial of a search at {given}; run main.py --selection LBCS first")
    for path, (search, trials) in searches.items():
        name = f"{path.parent.parent.name}-{path.parent.name}-{path.stem}" if given.is_dir() else path.stem
        figures = search_figure(trials, search["tolerance"], _title(path), folder, name)
        print(f"{path}: {_summary(search, trials)}: {figures[0]}")
    return 0


def _summary(search: dict, trials: list[dict]) -> str:
    found = trials[best_index([(one["f1"], one["f2"]) for one in trials], search["tolerance"])]
    accepted, seconds, size = (sum(one[name] for one in trials) for name in ("accepted", "seconds", "f2"))
    losses = [one["f1"] for one in trials]
    return (
        f"{len(trials)} trials in {seconds:.0f} s, {accepted} accepted; from {search['init_size']:,} to "
        f"{found['f2']:,} samples, f₁ from {trials[0]['f1']:.4f} to {found['f1']:.4f}, in trial {found['trial']}; "
        f"tried: f₁ from {min(losses):.4f} to {max(losses):.4f}, {size / len(trials):,.0f} samples in the mean"
    )


def _title(path: Path) -> str:
    """Return what a search was of, as its place and name say."""
    path = path.resolve()
    what = f"{path.parent.name} on {path.parent.parent.name}"
    found = re.fullmatch(r"fraction(\d+(?:\.\d+)?(?:e-\d+)?)-seed(\d+)-\w+", path.stem)
    return what if found is None else f"{what}, from {100 * float(found[1]):.4g}%, seed {found[2]}"
