"""Train other networks on subsets that one network selected (cross-architecture generalisation, LCMat Table 2).

python cross_network_generalization.py --dataset digits --selection LCMat-S Uniform --fraction 0.05 \
    --model ResNet18 --test_models VGG16 InceptionV3 WRN-16-8 --seed 0 1 2
python cross_network_generalization.py --dataset CIFAR10 --subset my_indices.txt --test_models ResNet18 VGG16

Subsets that earlier runs recorded are read again, others are made first. All flags of main.py hold.
"""

import sys
from pathlib import Path

from lcmat.command_line import options, planning
from lcmat.commands import _reports
from lcmat.commands._registry import REGISTRY
from lcmat.records import slug
from lcmat.runs import queue
from lcmat.runs.job import Job

TEST_MODELS = ["VGG16", "InceptionV3", "WRN-16-8"]


def main(argv: list[str]) -> int:
    """Train every network named on every subset, record, and print and write the table."""
    options.warn_in_one_line()
    parser = options.build_parser("cross_network_generalization.py")
    parser.description = "Train other networks on subsets that one network selected, and record their test accuracies."
    group = parser.add_argument_group("other networks")
    group.add_argument("--test_models", nargs="+", metavar="NET", default=TEST_MODELS, help="networks to train")
    group.add_argument("--subset", metavar="FILE", help="indices to train on, .npz or text, in place of --selection")
    args = options.parse(argv, parser)
    with planning.planned([args], REGISTRY) as jobs:
        return _run(args, jobs)


def _run(args, jobs: list[Job]) -> int:
    """Do the runs, and write and print the table."""
    print(planning.headline(jobs[0].setup), flush=True)

    def tell(number: int, _: Job, record: dict, known: bool) -> None:
        print(f"[{number + 1}/{len(jobs)}] {queue.in_words(record, known)}", flush=True)

    done, failed = queue.work(jobs, tell)
    if not done:
        queue.raise_if_any_diverged(jobs, failed)
    dataset, model = jobs[0].config["dataset"], jobs[0].setup.settings.model
    name = f"cross-{slug(dataset)}-{model}"
    title = f"Cross-architecture generalisation: {dataset}, selected with {args.subset or model}"
    if args.subset:
        name, title = f"{name}-{Path(args.subset).stem}", f"Networks on the subset {Path(args.subset).name}: {dataset}"
    paths = _reports.write(name, title, {"cross": {}}, jobs, Path(args.save_path))
    print(f"\n{paths[0].read_text()}\nwritten to {', '.join(str(path) for path in paths)}")
    queue.raise_if_any_diverged(jobs, failed)
    return 0


if __name__ == "__main__":
    sys.exit(options.run_command_line(main))
