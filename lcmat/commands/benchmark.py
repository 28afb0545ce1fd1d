"""Measure time and memory, and write result/benchmarks/*.md with the machine, versions and medians.

python -m lcmat benchmark selection
"""

from pathlib import Path

import methods
from lcmat.benchmarks import Report, measured, synthetic_signals, timed
from lcmat.errors import UserError, lookup
from lcmat.files import check_writable
from lcmat.options import SWITCH, Parser


def main(argv: list[str]) -> int:
    """Run the benchmarks named, or all."""
    parser = Parser(prog="python -m lcmat benchmark", allow_abbrev=False)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"which of {', '.join(BENCHMARKS)} (default: all)")
    add("--save_path", default="result", metavar="DIR", help="folder whose benchmarks/ is written")
    add("--runs", type=int, default=3, metavar="N", help="runs of each measurement; the median counts")
    add("--samples", type=int, default=50_000, metavar="N", help="selection: samples")
    add("--features", type=int, default=512, metavar="N", help="selection: features of each")
    add("--classes", type=int, default=10, metavar="N", help="selection: classes")
    add("--fraction", type=float, default=0.1, metavar="X", help="selection: share to select")
    add("--methods", nargs="+", metavar="METHOD", help="selection: which methods (default: all on signals alone)")
    add("--overwrite", default=False, **SWITCH, help="measure again what is measured")
    args = parser.parse_args(argv)
    for name in ("runs", "samples", "features", "classes"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    folder = Path(args.save_path) / "benchmarks"
    check_writable(folder)
    for name in dict.fromkeys(lookup("benchmark", name, BENCHMARKS) for name in args.names or BENCHMARKS):
        print(f"{name}: {BENCHMARKS[name](args, folder)}")
    return 0


def _selection(args, folder: Path) -> Path:
    """Measure every method that needs signals only."""
    setting = {name: getattr(args, name) for name in ("samples", "features", "classes", "fraction", "runs")}
    report = Report(folder / "selection.json", setting)
    chosen = [methods.get(name) for name in args.methods or methods.names()]
    for method in chosen:
        if method.needs_context or not method.needs or (method.name in report.rows and not args.overwrite):
            continue
        print(f"  {method.name} …", end=" ", flush=True)
        row = measured(_select, method.name, setting)
        print(f"{row['median']:.1f} s, {row['peak_bytes'] / 2**30:.2f} GiB", flush=True)
        report.add(method.name, row)
    command = " ".join(["python -m lcmat benchmark selection", *_differing(setting)])
    text = (
        f"Selecting {100 * args.fraction:g}% of {args.samples:,} samples × {args.features} features, {args.classes} "
        f"classes, class by class: median of {args.runs} runs, and the peak memory of a process that does nothing "
        f"else, its signals and libraries included. Synthetic signals; `{command}`."
    )
    rows = [
        [
            name,
            f"{row['median']:.2f}",
            f"{min(row['seconds']):.2f}–{max(row['seconds']):.2f}",
            f"{row['peak_bytes'] / 2**30:.2f}",
        ]
        for name, row in sorted(report.rows.items(), key=lambda item: item[1]["median"])
    ]
    return report.write_table("Cost of selection", text, ["Method", "Seconds", "Range", "Peak memory (GiB)"], rows)


def _differing(setting: dict[str, object]) -> list[str]:
    usual = {"samples": 50_000, "features": 512, "classes": 10, "fraction": 0.1, "runs": 3}
    return [f"--{name} {value}" for name, value in setting.items() if value != usual[name]]


def _select(name: str, setting: dict) -> list[float]:
    """Select with one method; runs in a process of its own."""
    signals = synthetic_signals(setting["samples"], setting["features"], setting["classes"])
    needs = methods.get(name).fields | {"features", "logits", "labels"}
    signals = type(signals)(**{field: getattr(signals, field) for field in needs})
    return timed(lambda: methods.select(signals, name, fraction=setting["fraction"]), setting["runs"])


BENCHMARKS = {"selection": _selection}
