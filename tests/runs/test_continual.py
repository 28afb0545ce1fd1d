"""Continual learning: what each step may see, what it is tested on, and that it can be stopped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import main as script
import methods
import nets
from lcmat.__main__ import main as command
from lcmat.command_line import options
from lcmat.command_line.request import request_of
from lcmat.commands._registry import REGISTRY
from lcmat.condensation.synthetic import Synthetic
from lcmat.data.splits import Dataset, channel_statistics
from lcmat.errors import UserError
from lcmat.records.record import read_records
from lcmat.reports import grids as reports
from lcmat.reports.continual import continual_csv, continual_figure, continual_markdown, steps_of
from lcmat.runs import continual
from lcmat.runs.continual import Continual, Steps
from lcmat.runs.job import Run
from lcmat.runs.kinds import kind_of
from lcmat.runs.setup import Settings, Setup, make_setup
from lcmat.runs.subset_file import read_subset
from lcmat.training import Compute, Recipe
from tests import oracles
from tests.harness import places, records_in

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
QUICK = [
    *("--protocol", "continual", "--dataset", "digits", "--model", "MLP", "--steps", "5", "--memory_per_class", "4"),
    *("--selection_epochs", "1", "--epochs", "4", "--test_interval", "0", "--device", "cpu", "--precision", "float32"),
    *("--threads", "1", "--evaluations", "2"),
]


def setup_of(dataset: Dataset, folder: Path, **settings: object) -> Setup:
    """Return a setup for continual learning of digits with an MLP."""
    chosen = {
        "model": "MLP",
        "selection_recipe": Recipe(1, scheduler="constant"),
        "save_path": folder / "result",
        "cache_path": folder / "cache",
    }
    compute = Compute(torch.device("cpu"), torch.float32, dataset.mean, dataset.std)

    def build(name: str, data: Dataset) -> torch.nn.Module:
        return nets.build(name, data.num_classes, *data.image_shape[:2])

    return make_setup(dataset, compute, build, Settings(**chosen | settings))


def kind(run: Run) -> Continual:
    """Return the kind of a run in five steps, with four images of each class."""
    return kind_of(run.method, Steps(5, 4))


def test_class_order() -> None:
    """A permutation, another for each seed, in steps of nearly equal size."""
    orders = [continual.class_order(10, 4, seed) for seed in range(3)]
    for order in orders:
        assert sorted(label for classes in order for label in classes) == list(range(10))
        assert [len(classes) for classes in order] == [3, 3, 2, 2]
    assert len({str(order) for order in orders}) == 3
    assert orders[1] == continual.class_order(10, 4, 1)


def test_a_step_sees_its_own_training_images_alone(digits: Dataset, tmp_path: Path) -> None:
    whole = setup_of(digits, tmp_path)
    own, positions = continual.step_setup(whole, [3, 7]), continual.positions_of(whole, [3, 7])
    labels = digits.train.labels[positions]
    assert set(labels.tolist()) == {3, 7}
    assert len(positions) == int(((digits.train.labels == 3) | (digits.train.labels == 7)).sum())
    assert torch.equal(own.dataset.train.images, digits.train.images[positions])
    assert torch.equal(torch.tensor([3, 7])[own.dataset.train.labels], labels)
    assert own.dataset.test is own.dataset.train, "no test image is in reach"
    assert own.dataset.classes == ("3", "7")
    assert own.fingerprint != whole.fingerprint
    pixels = own.dataset.train.images.double() / 255
    assert own.compute.mean == own.dataset.mean == (pytest.approx(float(pixels.mean()), abs=1e-4),)
    assert own.compute.std == (pytest.approx(float(pixels.std()), abs=1e-4),)
    published = continual.step_setup(setup_of(replace(digits, measured=False), tmp_path), [3, 7])
    assert published.compute.mean == digits.mean, "statistics that are published stay"


@pytest.mark.parametrize("method", ["LCMat-S", "Craig", "GraNd", "Forgetting", "GradMatch-Val", "DM", "RandomReal"])
def test_nothing_of_later_steps_or_of_the_test_images_leaks(method: str, digits: Dataset, tmp_path: Path) -> None:
    """With noise for the images of later steps and for all test images, the memory of earlier steps is the same."""
    order = continual.class_order(10, 5, 0)
    later = torch.isin(digits.train.labels, torch.tensor([label for step in order[2:] for label in step]))
    noise = torch.randint(256, digits.train.images.shape, dtype=torch.uint8)
    images = torch.where(later[:, None, None, None], noise, digits.train.images)
    of_test = torch.randint(256, digits.test.images.shape, dtype=torch.uint8)
    changed = replace(digits, train=replace(digits.train, images=images), test=replace(digits.test, images=of_test))
    mean, std = channel_statistics(images)
    assert mean != digits.mean
    changed = replace(changed, mean=mean, std=std)
    how = {"iterations": 2} if method == "DM" else {}
    found = []
    for number, dataset in enumerate((digits, changed)):
        own = setup_of(dataset, tmp_path / str(number), initialisations=2)
        run = Run(methods.find(method), 0, budget=40, options=how)
        found.append([continual.filled(own, run, kind(run), classes) for classes in order[:3]])
    for number, (one, other) in enumerate(zip(*found, strict=True)):
        same = torch.equal(one.split.images, other.split.images)
        if one.weights is not None and number < 2:
            assert torch.equal(one.weights, other.weights)
        assert same == (number < 2), "the third step's images are noise, so there they must differ"
        if one.indices is not None and number < 2:
            assert torch.equal(one.indices, other.indices)
            assert torch.equal(digits.train.labels[one.indices], one.split.labels)
            assert torch.bincount(one.split.labels)[order[number]].tolist() == [4, 4]


def test_statistics_of_the_network_are_of_the_classes_seen(digits: Dataset, tmp_path: Path) -> None:
    seen = continual.seen_setup(setup_of(digits, tmp_path), [1, 4, 5])
    labels = digits.train.labels
    pixels = digits.train.images[(labels == 1) | (labels == 4) | (labels == 5)].double() / 255
    assert seen.compute.mean == (pytest.approx(float(pixels.mean()), abs=1e-4),)


@pytest.mark.parametrize("method", ["Uniform", "Craig", "DM"])
def test_each_step_trains_on_the_whole_memory_and_is_tested_on_what_was_seen(
    method: str, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images, labels and weights of all steps so far; test images of their classes, and of no others."""
    calls = []

    def noting(seen, run, reduced, key, label):
        calls.append((seen, reduced.split, reduced.weights))
        return train_and_test(seen, run, reduced, key, label)

    train_and_test = continual.train_and_test
    monkeypatch.setattr(continual, "train_and_test", noting)
    how = {"iterations": 1, "batch": 4} if method == "DM" else {}
    own = setup_of(digits, tmp_path, recipe=Recipe(1, scheduler="constant"))
    run = Run(methods.find(method), 0, budget=40, per_class=4, options=how)
    record = kind(run).make(own, run)
    order = continual.class_order(10, 5, 0)
    kept = [continual.filled(own, run, kind(run), classes) for classes in order]
    for number, (seen, split, weights) in enumerate(calls, 1):
        classes = sorted(label for step in order[:number] for label in step)
        assert torch.equal(split.images, torch.cat([memory.split.images for memory in kept[:number]]))
        assert sorted(split.labels.tolist()) == sorted(classes * 4)
        assert sorted(seen.dataset.test.labels.unique().tolist()) == classes
        assert len(seen.dataset.test.labels) == sum(int((digits.test.labels == label).sum()) for label in classes)
        if method == "Craig":
            assert torch.equal(weights, torch.cat([memory.weights for memory in kept[:number]]))
            assert len(weights.unique()) > 1
        else:
            assert weights is None
    beside = next((tmp_path / "result").glob(f"*/*/{record['memory']}"))
    if method == "DM":
        assert torch.equal(Synthetic.load(beside).images, torch.cat([memory.synthetic.images for memory in kept]))
    else:
        indices, weights = read_subset(beside)
        assert torch.equal(digits.train.labels[torch.from_numpy(indices)], calls[-1][1].labels)
        assert torch.equal(digits.train.images[torch.from_numpy(indices)], calls[-1][1].images)
        assert (weights is None) == (method == "Uniform")


def test_a_step_is_tested_on_the_classes_seen(digits: Dataset, tmp_path: Path) -> None:
    seen = continual.seen_setup(setup_of(digits, tmp_path), [1, 4, 5])
    labels = digits.test.labels
    assert torch.equal(seen.dataset.test.labels, labels[(labels == 1) | (labels == 4) | (labels == 5)])
    assert seen.dataset.num_classes == 10, "the network has an output for every class from the first step on"


def recorded(folder: Path) -> dict[str, dict]:
    """Return the records of the protocol below a folder, without what may differ between equal runs."""
    return records_in(folder / "result", "*/*/continual*.json")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*QUICK, "--selection", "Uniform", "Craig", "RandomReal", "--seed", "0", "1", *places(tmp_path)]
    assert script.main([*words, "--wide"]) == 0
    printed = capsys.readouterr().out
    assert "| 2 classes" in printed
    assert "2 networks for each of 2 class orders" in printed
    records = list(recorded(tmp_path).values())
    assert len(records) == 6
    for record in records:
        assert record["subset_size"] == 40
        assert [step["images"] for step in record["steps"]] == [8, 16, 24, 32, 40]
        assert all(len(step["each"]) == 2 for step in record["steps"])
        assert record["test_accuracy"] == record["steps"][-1]["test_accuracy"]
    memory = np.load(next((tmp_path / "result").glob("*/Craig/continual*.npz")))
    assert np.bincount(memory["classes"]).tolist() == [4] * 10
    assert len(set(memory["indices"])) == len(memory["weights"]) == 40
    assert Synthetic.load(next((tmp_path / "result").glob("*/RandomReal/continual*.pt"))).images.shape == (40, 1, 8, 8)
    written = (tmp_path / "result/tables/continual.md").read_text()
    assert written.split("\n\n", 1)[1] in printed
    assert command(["figures", str(tmp_path / "result")]) == 0
    assert (tmp_path / "result/figures/continual.png").stat().st_size > 1000
    capsys.readouterr()
    assert read_records(tmp_path / "result") == ([], []), "tables of whole datasets leave them out"
    assert len(read_records(tmp_path / "result", "continual")[0]) == 6
    assert script.main(words) == 0
    assert capsys.readouterr().out.count("already recorded") == 6
    damaged = next((tmp_path / "result").glob("*/Craig/continual*-seed1-*.json"))
    damaged.write_text("{")
    assert command(["tables", str(tmp_path / "result")]) == 0
    printed = capsys.readouterr()
    assert "| Craig" in printed.out
    assert f"{damaged} is no whole record" in printed.err
    assert "MLP,5,4,Craig,2," in (tmp_path / "result/tables/continual.csv").read_text()


def test_report_is_of_all_networks_and_orders() -> None:
    """Means and deviations over networks and orders together, from records written by hand."""
    config = {
        "steps": 2, "memory_per_class": 1, "evaluations": 2, "precision": "float32",
        "training": {"epochs": 1, "optimizer": "SGD", "lr": 0.1, "batch": 2, "augmentation": "none"},
    }  # fmt: skip
    records = [
        {
            "dataset": "digits", "test_model": "MLP", "selection": name, "seed": seed, "config": config,
            "class_order": [[0, 1], [2]], "fraction": 0.1, "subset_size": 3,
            "steps": [{"each": [90.0 + seed, 92.0 + seed]}, {"each": [value, value + seed]}],
        }
        for name, value in (("A", 10.0), ("B", 20.0), ("C", 30.0))
        for seed in (0, 2)
    ]  # fmt: skip
    assert steps_of(records)["A"] == [[90, 92, 92, 94], [10, 10, 10, 12]]
    text = continual_markdown(records)
    assert "| A      | 3      | **92.00 ± 1.63** | 10.50 ± 1.00" in text
    assert "**30.50 ± 1.00**" in text
    assert "<u>20.50 ± 1.00</u>" in text
    assert "digits,MLP,2,1,C,3,30.500,1.000,4" in continual_csv(records)
    full = [{**record, "selection": "Full", "subset_size": 1297} for record in records if record["selection"] == "C"]
    text = continual_markdown(records + full)
    assert "| Full   | 1,297  | 92.00 ± 1.63     | 30.50 ± 1.00" in text, "everything is not ranked among memories"
    assert "**30.50 ± 1.00**" in text


def changed(record: dict, **config: object) -> dict:
    return {**record, "config": {**record["config"], **config}}


def test_runs_that_differ_are_not_taken_for_repetitions(tmp_path: Path) -> None:
    """Options have rows of their own; steps, sizes, data, precision, networks and selection networks tables."""
    config = {
        "steps": 2, "memory_per_class": 1, "precision": "float32", "options": {"rho": 0.0}, "dataset": "digits",
        "selection_network": {"model": "MLP", "epochs": 1, "seed": 0},
        "training": {"epochs": 1, "optimizer": "SGD", "lr": 0.1, "batch": 2, "augmentation": "none"},
    }  # fmt: skip
    record = {
        "dataset": "digits", "test_model": "MLP", "selection": "LCMat-S", "seed": 0, "config": config, "fraction": 0.1,
        "subset_size": 3, "class_order": [[0, 1], [2]], "steps": [{"each": [90.0]}, {"each": [10.0]}],
    }  # fmt: skip
    uniform = changed({**record, "selection": "Uniform"}, options={}, selection_network=None)
    again = changed(record, options={"rho": 5.0})
    assert list(steps_of([record, again])) == ["LCMat-S (ρ = 0.0)", "LCMat-S (ρ = 5.0)"]
    assert continual_markdown([record, again, uniform]).count("## ") == 1
    others = [
        {**changed(record, steps=3), "class_order": [[0], [1], [2]], "steps": [{"each": [1.0]}] * 3},
        changed(record, memory_per_class=2),
        changed(record, precision="bfloat16"),
        changed(record, dataset_fingerprint="noise"),
        changed(record, selection_network={"model": "MLP", "epochs": 2, "seed": 0}),
    ]
    for other in others:
        text = continual_markdown([record, other, uniform])
        assert text.count("## ") == 2
        assert "± " not in "".join(line for line in text.splitlines() if line.startswith("|"))
    paths = continual_figure([record, others[0]], lambda name: False, "title", tmp_path, "steps")
    assert [path.name for path in paths] == ["steps.png", "steps.pdf", "steps-2.png", "steps-2.pdf"]
    three = [changed({**record, "seed": seed}, selection_network={"seed": seed}) for seed in range(3)]
    assert "3 class orders" in continual_markdown(three)


def test_stopped_after_two_steps_and_resumed_equals_undisturbed(tmp_path: Path, monkeypatch) -> None:
    words = [*QUICK, "--selection", "LCMat-S"]
    assert script.main([*words, *places(tmp_path / "whole")]) == 0
    train, calls = continual.train_and_test, []

    def stopping(*args: object) -> dict:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*args)

    with monkeypatch.context() as patch:
        patch.setattr(continual, "train_and_test", stopping)
        with pytest.raises(KeyboardInterrupt):
            script.main([*words, *places(tmp_path / "broken")])
    assert recorded(tmp_path / "broken") == {}
    calls.clear()
    monkeypatch.setattr(continual, "train_and_test", lambda *args: calls.append(args) or train(*args))
    assert script.main([*words, *places(tmp_path / "broken"), "--resume"]) == 0
    assert len(calls) == 3, "two steps of five were done"
    assert recorded(tmp_path / "broken") == recorded(tmp_path / "whole") != {}
    assert list((tmp_path / "broken" / "cache" / "checkpoints").glob("*")) == []


def test_resume_from_a_named_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the steps, and of a step's network."""
    words = [*QUICK, "--selection", "LCMat-S", "--checkpoint_interval", "0", "--selection_epochs", "3"]

    def stopping(*_: object) -> dict:
        raise KeyboardInterrupt

    train, calls = continual.train_and_test, []
    with monkeypatch.context() as patch:
        patch.setattr(
            continual, "train_and_test", lambda *a: stopping() if calls.append(a) or len(calls) == 2 else train(*a)
        )
        with pytest.raises(KeyboardInterrupt):
            script.main([*words, *places(tmp_path)])
    (kept,) = (tmp_path / "cache" / "checkpoints").glob("*-steps.pt")
    with pytest.raises(UserError, match="belongs to none of these runs"):
        script.main([*words, *places(tmp_path), "--resume", str(kept), "--seed", "1"])
    calls.clear()
    monkeypatch.setattr(continual, "train_and_test", lambda *a: calls.append(a) or train(*a))
    assert script.main([*words, *places(tmp_path), "--resume", str(kept)]) == 0
    assert len(calls) == 4


def test_an_image_that_holds_several_counts_once(tmp_path: Path) -> None:
    words = [*QUICK, "--selection", "DM", "--factor", "2", "--memory_per_class", "2", "--option", "DM.iterations=1"]
    assert script.main([*words, "DM.batch=4", *places(tmp_path)]) == 0
    ((_, record),) = recorded(tmp_path).items()
    assert record["subset_size"] == 20
    assert [step["images"] for step in record["steps"]] == [4, 8, 12, 16, 20]
    kept = Synthetic.load(next((tmp_path / "result").glob("*/DM/continual*.pt")))
    assert (len(kept), kept.factor) == (20, 2)
    order = continual.class_order(10, 5, 0)
    assert kept.labels.tolist() == [label for classes in order for label in classes for _ in range(2)]


def test_a_search_leaves_nothing_of_its_steps(tmp_path: Path) -> None:
    words = [*QUICK, "--selection", "LBCS", "--trials", "2", "--option", "LBCS.inner_steps=1"]
    assert script.main([*words, *places(tmp_path)]) == 0
    assert list((tmp_path / "cache" / "checkpoints").glob("*")) == []
    assert list((tmp_path / "result").glob("*/*/*.jsonl")) == [], "they would pass for searches on the whole dataset"


def test_the_protocols_network_is_the_default() -> None:
    words = ["--protocol", "continual", "--dataset", "digits", "--image_size", "16"]
    for more, model in (([], "ConvNet3"), (["--model", "MLP"], "MLP")):
        settings = request_of(options.parse([*words, "--selection", "Uniform", *more]), REGISTRY).settings
        assert (settings.model, settings.evaluations) == (model, 3)


def test_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A grid of the protocol, told from its plan to its figure."""
    assert "continual" in reports.REPORTS
    file = tmp_path / "figure5.yaml"
    file.write_text(
        "title: Figure 5\nruns:\n  protocol: continual\n  dataset: digits\n  model: MLP\n  steps: 2\n"
        "  memory_per_class: 2\n  selection: [Uniform, RandomReal]\n  epochs: 2\n  test_interval: 0\n"
        "  device: cpu\nreport: [continual]\n"
    )
    assert command(["grid", str(file), *places(tmp_path)]) == 0
    tables, figures = tmp_path / "result" / "tables", tmp_path / "result" / "figures"
    assert "5 classes" in (tables / "figure5.md").read_text()
    assert (figures / "figure5.png").stat().st_size > 1000
    assert (figures / "figure5.pdf").exists()
    assert "2 runs, 0 recorded, 2 to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "11"], "--steps must be 1 to 10"),
        (["--steps", "0"], "--steps must be 1 to 10"),
        (["--memory_per_class", "0"], "--memory_per_class must be 1 to"),
        (["--memory_per_class", "1000"], "the smallest class"),
        (["--fraction", "0.1"], "--fraction: continual learning keeps"),
        (["--ipc", "1"], "--ipc: continual learning keeps"),
        (["--balance", "False"], "leave --balance out"),
        (["--steps", "10", "--memory_per_class", "1"], "one image is too few to train the first step's network on"),
        (["--selection", "LCMat-S", "--K", "260"], r"only 258 dimensions"),
        (["--val"], "--val has no meaning"),
        (["--select_only"], "--select_only has no meaning"),
        (["--protocol", "continuous"], "unknown protocol 'continuous'.*continual"),
        (["--protocol", "whole"], "is for --protocol continual"),
    ],
)
def test_bad_input_is_one_clear_line(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        script.main([*QUICK, "--selection", "Uniform", *words, *places(tmp_path)])
    assert not (tmp_path / "result").exists()


def test_a_given_network_would_leak(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="have seen all classes"):
        script.main([*QUICK, "--pretrained", str(tmp_path / "weights.pt"), *places(tmp_path)])
