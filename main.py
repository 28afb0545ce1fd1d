"""Select a subset of a dataset or condense it, train a fresh network on that, record the test accuracy.

python main.py --dataset digits --selection LCMat-S Uniform --fraction 0.01 0.1 --epochs 60 --seed 0 1 2
python main.py --dataset digits --image_size 16 --selection DM --model ConvNet3 --ipc 10
python main.py --dataset CIFAR10 --data_path data --selection LCMat-S --fraction 0.01 --seed 0
python main.py --help
"""

import sys
from pathlib import Path

from lcmat.command_line import options, planning
from lcmat.command_line.settings import settings_of
from lcmat.commands._registry import REGISTRY
from lcmat.commands.tables import report
from lcmat.reports import table_text, tables
from lcmat.reports.continual import continual_markdown, write_continual
from lcmat.runs import queue as jobs
from lcmat.runs import selection as experiment
from lcmat.runs.export import check_export, export
from lcmat.runs.signal_files import load_signals, select_to_files
from lcmat.selection.subset import Subset


def main(argv: list[str]) -> int:
    """Run the main job once for every method, fraction, seed and network that the command line names."""
    options.warn_in_one_line()
    args = options.parse(argv)
    if args.signals:
        return _select_from_signals(args)
    planned = planning.plan([args], REGISTRY)
    if args.export:
        planning.need_one_run(planned, "--export")
        check_export(Path(args.export))
    print(planning.headline(planned[0].bench), flush=True)
    if args.select_only:
        return _select_only(args, planned)
    done, failed = jobs.work(planned, lambda number, _, record, known: _tell(number, len(planned), record, known))
    if not done:
        jobs.complain(planned, failed)
    if planned[0].bench.settings.steps is not None:
        report(write_continual(planned[0].bench.settings.save_path)[1])
        print(f"\n{continual_markdown(done)}", end="")
        jobs.complain(planned, failed)
        return 0
    _, damaged = table_text.write_tables(planned[0].bench.settings.save_path)
    report(damaged)
    print(f"\n{table_text.accuracy_markdown(tables.accuracy_tables(done))}", end="")
    if args.export:
        _export(args, planned[0], Subset.load(jobs.record_paths(planned)[0].with_suffix(".npz")))
    jobs.complain(planned, failed)
    return 0


def _select_only(args, planned: list[jobs.Job]) -> int:
    """Select, and write the indices, without training on them."""
    for job in planned:
        subset, text = experiment.select_to_files(job.bench, job.run)
        print(f"{job.run.method.name}, seed {job.run.seed}: {len(subset):,} images: {text}", flush=True)
        if args.export:
            _export(args, job, subset)
    return 0


def _export(args, job: jobs.Job, subset: Subset) -> None:
    count = export(job.bench.dataset, subset, Path(args.export), args.link)
    how = "linked to" if args.link else "written"
    print(f"{count:,} images {how} in {args.export}/train, listed in chosen.txt beside it")


def _select_from_signals(args) -> int:
    """Select from a file of signals, without images, networks or training; write the indices."""
    chosen, settings = planning.resolve(args, REGISTRY), settings_of(args)
    path = Path(args.signals)
    signals = load_signals(path)
    for run in planning.runs_of(args, chosen):
        size = {"budget": run.budget} if run.fraction is None else {"fraction": run.fraction}
        how = {"balanced": settings.balance, "seed": run.seed, **experiment.options_of(settings, run.method)}
        subset, text = select_to_files(path, signals, run.method, size, how, settings.save_path, settings.memory)
        cost = "" if subset.cost is None else f", L = {subset.cost:.6g}"
        print(
            f"{run.method.name}, seed {run.seed}: {len(subset):,} of {len(signals):,} samples{cost}: {text}", flush=True
        )
    return 0


def _tell(number: int, total: int, record: dict, known: bool) -> None:
    """Print what a run came to."""
    print(f"[{number + 1}/{total}] {jobs.in_words(record, known)}", flush=True)


if __name__ == "__main__":
    sys.exit(options.run_command_line(main))
