"""Measure subsets in the light of LCMat's theory: bound, sharpness, landscape, variance, overlap, diagonal.

python -m lcmat analysis bound configs/table2_digits.yaml [flags of main.py]   # the subsets of a grid
python -m lcmat analysis bound --dataset digits --selection Uniform LCMat-S --fraction 0.01 --seed 0 1 2
"""

import argparse
import copy
import csv
import io
import statistics
from pathlib import Path

import torch

import methods
from lcmat.analysis import analyses, groups_of, networks
from lcmat.analysis.figures import draw
from lcmat.command_line import grids, options, planning, program
from lcmat.command_line.released_flags import rho_of
from lcmat.commands import _reports
from lcmat.commands._registry import REGISTRY
from lcmat.errors import UserError, lookup, shown
from lcmat.files import write_text
from lcmat.records import slug
from lcmat.reports import markdown
from lcmat.reports.terminal import fitted
from lcmat.runs import Job

KEYS = ("method", "fraction", "seed", "samples", "class", "other", "x", "y")


def main(argv: list[str]) -> int:
    """Choose or find the subsets, measure them, and write CSV, PNG and PDF."""
    program.warn_in_one_line()
    parser = _parser()
    if argv and argv[0] in ("-h", "--help"):
        parser.parse_args(["--help"])
    if not argv or argv[0].startswith("-"):
        raise UserError(f"name an analysis first: {', '.join(analyses.ANALYSES)}")
    analysis = lookup("analysis", argv[0], list(analyses.ANALYSES))
    lines, title, name = _asked(argv[1:], parser)
    if lines[0].plan:
        raise UserError("--plan is for runs, and an analysis has none; leave it out")
    how = _how(lines[0])
    with planning.planned(lines, REGISTRY) as jobs:
        return _measured(analysis, how, jobs, (lines[0].name or name, title), lines[0].wide)


def _measured(analysis: str, how: analyses.How, jobs: list[Job], named: tuple[str, str], wide: bool) -> int:
    """Measure the subsets of the jobs, and write and print what came of it; named: name and title, or empty."""
    name, title = (given or _slug(jobs[0]) for given in named)
    save_path = jobs[0].setup.settings.save_path
    print(planning.headline(jobs[0].setup), flush=True)
    groups, name = groups_of(jobs), f"{analysis}-{name}"
    networks.check_networks(name, groups, save_path / "tables")
    rows = analyses.ANALYSES[analysis](groups, how)
    paths = [_write(some, save_path / "tables" / f"{name}{suffix}.csv") for suffix, some in rows.items()]
    paths += draw(analysis, rows, (title, how.radius), save_path / "figures", name)
    networks.note_networks(name, groups, save_path / "tables")
    print(fitted(_summary(rows[""]), wide))
    print("\n".join(str(path) for path in paths))
    return 0


def _parser() -> options.Parser:
    parser = options.build_parser("-m lcmat analysis NAME [FILE.yaml]")
    parser.description = __doc__.splitlines()[0] + " Flags of main.py, or a grid of configs/, say which subsets."
    group = parser.add_argument_group("analyses")
    add, default = group.add_argument, analyses.How()
    add("--name", metavar="WORD", help="what the files are called after the analysis (default: the grid or the data)")
    add(
        "--subset",
        nargs="+",
        metavar="FILE",
        help="subsets by their indices, .npz or text, beside those of --selection",
    )
    add("--radius", type=float, default=default.radius, metavar="RHO", help="ρ of Eq. 4 and 6 (Fig. 2: 0.5)")
    add("--starts", type=int, default=default.starts, metavar="N", help="starts of the ascent over the last layer")
    add("--ascent_steps", type=int, default=default.steps, metavar="N", help="its steps")
    add("--network_starts", type=int, default=default.network_starts, metavar="N",
        help="starts of the ascent over all parameters")  # fmt: skip
    add("--network_steps", type=int, default=default.network_steps, metavar="N",
        help="steps of the ascent over all parameters; 0: without it")  # fmt: skip
    add("--network_precision", default="float32",
        help="what networks compute in where all their parameters move: float32 or bfloat16")  # fmt: skip
    add("--images", type=int, default=default.images, metavar="N", help="of T's fixed sample, for all parameters")
    add("--points", type=int, default=default.points, metavar="N", help="of the landscape's grid, each way")
    add("--span", type=float, default=default.span, metavar="X", help="how far it goes, in filter norms")
    return parser


def _asked(words: list[str], parser: options.Parser) -> tuple[list, str, str]:
    """Return parsed command lines, a title and a name: of a grid if the first word is a file, else of the flags."""
    if words and not words[0].startswith("-"):
        grid = grids.read_grid(Path(words[0]), words[1:], parser, list(_reports.KNOWN))
        lines, title, name = grid.lines, grid.title, grid.name
    else:
        lines, title, name = [options.parse(words, parser)], "", ""
    if any(line.protocol != "whole" for line in lines):
        raise UserError(
            "analyses are of subsets of the whole dataset; of a memory give the file beside its record: --subset"
        )
    return _with_files(lines), title, name


def _with_files(lines: list) -> list:
    """Return the command lines, with one more for each file of indices; files alone, if no method was named."""
    first, found = lines[0], []
    files = first.subset or []
    for line in lines:
        line.subset = None
        found += [line] if not files or "selection" in line.explicit else []
    for file in files:
        found.append(copy.copy(first))
        found[-1].subset = file
    return found


# Least and greatest values of the flags that are whole numbers.
BOUNDS = {
    "starts": (1, 10_000), "ascent_steps": (1, 1_000_000), "network_starts": (1, 10_000),
    "network_steps": (0, 1_000_000), "images": (1, 10**9), "points": (2, 1_000),
}  # fmt: skip


def _how(args: argparse.Namespace) -> analyses.How:
    """Return the measure that the flags give; raise UserError for one that cannot be."""
    for name, (least, most) in BOUNDS.items():
        if not least <= getattr(args, name) <= most:
            raise UserError(f"--{name} must be at least {least} and at most {most:,}, not {shown(getattr(args, name))}")
    for name in ("radius", "span"):
        if not 0 < getattr(args, name) < float("inf"):
            raise UserError(f"--{name} must be a positive number, not {getattr(args, name)}")
    precision = lookup("precision", args.network_precision, ("float32", "bfloat16"))
    rho, usual = rho_of(args), methods.get("LCMat-S").options["rho"]
    return analyses.How(
        radius=args.radius,
        objective=(usual if rho is None else rho, args.K),
        starts=args.starts,
        steps=args.ascent_steps,
        network_starts=args.network_starts,
        network_steps=args.network_steps,
        images=args.images,
        points=args.points,
        span=args.span,
        network_precision=getattr(torch, precision),
    )


def _slug(job: Job) -> str:
    return f"{slug(job.setup.dataset.title)}-{job.setup.settings.model}"


def _write(rows: list[dict], path: Path) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_text(path, text.getvalue())
    return path


def _summary(rows: list[dict]) -> str:
    """Return means over seeds and whatever else is averaged, by method and fraction, and of all rows."""
    columns = [name for name in rows[0] if name not in KEYS]
    cells: dict[tuple, list[dict]] = {}
    for row in rows:
        cells.setdefault((row["method"], row["fraction"]), []).append(row)
    body = []
    named = [(method, f"{100 * fraction:.4g}%", some) for (method, fraction), some in cells.items()]
    for method, fraction, some in [*named, ("all", "", rows)]:
        numbers = [[row[name] for row in some if row[name] is not None] for name in columns]
        body.append([method, fraction, *(f"{statistics.fmean(x):.4g}" if x else "" for x in numbers)])
    return markdown(["Method", "Fraction", *columns], body)
