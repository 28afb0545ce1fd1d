"""Select a subset of a dataset or condense it, train a fresh network on that, record the test accuracy.

python main.py --dataset digits --selection LCMat-S Uniform --fraction 0.01 0.1 --epochs 60 --seed 0 1 2
python main.py --dataset digits --image_size 16 --selection DM --model ConvNet3 --ipc 10
python main.py --dataset CIFAR10 --data_path data --selection LCMat-S --fraction 0.01 --seed 0
python main.py --help
"""

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import methods
import nets
from lcmat import data, experiment, options, tables
from lcmat.bench import Bench, Run, Settings, make_bench
from lcmat.commands.tables import report
from lcmat.condensation import Condenser
from lcmat.errors import UserError, lookup
from lcmat.evaluation import suited
from lcmat.hardware import choose_device, choose_precision
from lcmat.signal_files import load_signals, select_to_files
from lcmat.training import Compute


def main(argv: list[str]) -> int:
    """Run the main job once for every method, fraction, seed and network that the command line names."""
    warnings.showwarning = _once()
    args = options.parse(argv)
    args.dataset = data.resolve(args.dataset)
    args.model, *args.cross = (lookup("network", name, nets.names()) for name in (args.model, *args.cross))
    chosen = [methods.find(name) for name in _expanded(options.methods_of(args))]
    condensing = any(isinstance(method, Condenser) for method in chosen)
    if condensing and args.evaluation is None:
        args.evaluation = "zhao"
    device = choose_device(_device_name(args))
    settings = options.settings_of(args)
    experiment.check_options(settings, chosen, list(options.options_of(args)))
    experiment.check_paths(settings)
    if args.signals:
        if condensing or args.ipc:
            raise UserError("--signals hold no images: condensation and --ipc need a --dataset")
        return _select_from_signals(args, chosen, settings)
    columns = {name: getattr(args, name) for name in ("image_column", "label_column", "train_split", "test_split")}
    dataset = data.load(
        args.dataset,
        args.data_path,
        image_size=args.image_size,
        augmentation=args.augmentation,
        columns=columns,
        workers=args.workers,
    )
    if args.ipc:
        args.budget = [count * dataset.num_classes for count in args.ipc]
    if args.evaluation is None or args.augmentation is not None:
        recipe = replace(settings.recipe, augmentation=dataset.augmentation)
    else:
        recipe = suited(settings.recipe, dataset.name)
    settings = replace(settings, recipe=recipe)
    compute = Compute(device, choose_precision(args.precision, device), dataset.mean, dataset.std)
    bench = make_bench(dataset, compute, _build, settings)
    for line in options.notes(args, loader_used=isinstance(dataset.train, data.FileSplit)):
        print(f"note: {line}", file=sys.stderr)
    runs = _runs(args, chosen)
    experiment.check(bench, runs)
    print(_headline(dataset, compute), flush=True)
    done = [_one(bench, run, f"[{i}/{len(runs)}]") for i, run in enumerate(runs, 1)]
    _, damaged = tables.write_tables(settings.save_path)
    report(damaged)
    print(f"\n{tables.accuracy_markdown(tables.accuracy_tables(done))}", end="")
    return 0


def _select_from_signals(args, chosen: list, settings: Settings) -> int:
    """Select from a file of signals, without images, networks or training; write the indices."""
    path = Path(args.signals)
    signals = load_signals(path)
    for run in _runs(args, chosen):
        size = {"budget": run.budget} if run.fraction is None else {"fraction": run.fraction}
        how = {"balanced": settings.balance, "seed": run.seed, **experiment.options_of(settings, run.method)}
        subset, text = select_to_files(path, signals, run.method, size, how, settings.save_path, settings.memory)
        cost = "" if subset.cost is None else f", L = {subset.cost:.6g}"
        print(
            f"{run.method.name}, seed {run.seed}: {len(subset):,} of {len(signals):,} samples{cost}: {text}", flush=True
        )
    return 0


def _expanded(names: list[str]) -> list[str]:
    """Return the names with "all" replaced by every method."""
    return [one for name in names for one in (methods.names() if name.casefold() == "all" else [name])]


def _once():
    """Return a printer of warnings, each text in one line and one time."""
    said = set()

    def show(message: Warning, *_: object) -> None:
        if str(message) not in said:
            said.add(str(message))
            print(f"warning: {message}", file=sys.stderr)

    return show


def _device_name(args) -> str:
    if args.gpu is None or args.device != "auto":
        return args.device
    if choose_device("auto").type == "cpu":
        print("note: --gpu: there is no GPU here, so the CPU is used", file=sys.stderr)
        return "cpu"
    return f"cuda:{args.gpu[0]}"


def _build(name: str, dataset: data.Dataset):
    channels, size, _ = dataset.image_shape
    return nets.build(name, dataset.num_classes, channels, size)


def _runs(args, chosen: list) -> list[Run]:
    sizes = [{"budget": n} for n in args.budget] if args.budget else [{"fraction": f} for f in args.fraction or [0.1]]
    runs = [
        Run(method, seed, test_model=model, **size)
        for seed in args.seed  # outermost: one network and its signals serve all methods and fractions
        for method in chosen
        for size in (sizes[:1] if method.everything else sizes)
        for model in (args.model, *args.cross)
    ]
    return list(dict.fromkeys(runs))


def _headline(dataset: data.Dataset, compute: Compute) -> str:
    shape = "×".join(str(n) for n in dataset.image_shape)
    precision = str(compute.precision).removeprefix("torch.")
    return (
        f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.test):,} test images of {shape}, "
        f"{dataset.num_classes} classes; on {compute.device}, training in {precision}"
    )


def _one(bench: Bench, run: Run, position: str) -> dict:
    record = None if bench.settings.overwrite else experiment.recorded(bench, run)
    known = record is not None
    record = record or experiment.run_one(bench, run)
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in record["seconds"].items() if value)
    print(
        f"{position} {record['selection']} fraction {record['fraction']:g} seed {record['seed']} "
        f"({record['subset_size']:,} images) {record['test_model']}: {record['test_accuracy']:.2f}% final, "
        f"{record['best_test_accuracy']:.2f}% best; " + ("already recorded" if known else seconds),
        flush=True,
    )
    return record


if __name__ == "__main__":
    sys.exit(options.run_command_line(main))
