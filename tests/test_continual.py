"""Continual learning: what each step may see, what it is tested on, and that it can be stopped."""

import json
from dataclasses import replace
from pathlib import Path

import oracles
import pytest
import torch

import main as script
import methods
import nets
from lcmat import continual, experiment, reports
from lcmat.__main__ import main as command
from lcmat.bench import Bench, Run, Settings, make_bench
from lcmat.continual_report import continual_csv, continual_markdown, steps_of
from lcmat.data.splits import Dataset
from lcmat.errors import UserError
from lcmat.records import read_records
from lcmat.training import Compute, Recipe

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
QUICK = [
    *("--protocol", "continual", "--dataset", "digits", "--model", "MLP", "--steps", "5", "--memory_per_class", "4"),
    *("--selection_epochs", "1", "--epochs", "4", "--test_interval", "0", "--device", "cpu", "--precision", "float32"),
    *("--threads", "1", "--evaluations", "2"),
]


def places(folder: Path) -> list[str]:
    return ["--save_path", str(folder / "result"), "--cache_path", str(folder / "cache")]


def bench_of(dataset: Dataset, folder: Path, **settings: object) -> Bench:
    """Return a bench for continual learning of digits with an MLP."""
    chosen = {
        "model": "MLP",
        "steps": 5,
        "memory_per_class": 4,
        "selection_recipe": Recipe(1, scheduler="constant"),
        "save_path": folder / "result",
        "cache_path": folder / "cache",
    }
    compute = Compute(torch.device("cpu"), torch.float32, dataset.mean, dataset.std)

    def build(name: str, data: Dataset) -> torch.nn.Module:
        return nets.build(name, data.num_classes, *data.image_shape[:2])

    return make_bench(dataset, compute, build, Settings(**chosen | settings))


def test_class_order() -> None:
    """A permutation, another for each seed, in steps of nearly equal size."""
    orders = [continual.class_order(10, 4, seed) for seed in range(3)]
    for order in orders:
        assert sorted(label for classes in order for label in classes) == list(range(10))
        assert [len(classes) for classes in order] == [3, 3, 2, 2]
    assert len({str(order) for order in orders}) == 3
    assert orders[1] == continual.class_order(10, 4, 1)


def test_a_step_sees_its_own_training_images_alone(digits: Dataset, tmp_path: Path) -> None:
    bench = bench_of(digits, tmp_path)
    own, positions = continual.step_bench(bench, [3, 7])
    labels = digits.train.labels[positions]
    assert set(labels.tolist()) == {3, 7}
    assert len(positions) == int(((digits.train.labels == 3) | (digits.train.labels == 7)).sum())
    assert torch.equal(own.dataset.train.images, digits.train.images[positions])
    assert torch.equal(torch.tensor([3, 7])[own.dataset.train.labels], labels)
    assert own.dataset.test is own.dataset.train, "no test image is in reach"
    assert own.dataset.classes == ("3", "7")
    assert own.fingerprint != bench.fingerprint


@pytest.mark.parametrize("method", ["LCMat-S", "GraNd", "Forgetting", "GradMatch-Val", "DM", "RandomReal"])
def test_nothing_of_later_steps_or_of_the_test_images_leaks(method: str, digits: Dataset, tmp_path: Path) -> None:
    """With noise for the images of later steps and for all test images, the memory of earlier steps is the same."""
    order = continual.class_order(10, 5, 0)
    later = torch.isin(digits.train.labels, torch.tensor([label for step in order[2:] for label in step]))
    noise = torch.randint(256, digits.train.images.shape, dtype=torch.uint8)
    images = torch.where(later[:, None, None, None], noise, digits.train.images)
    of_test = torch.randint(256, digits.test.images.shape, dtype=torch.uint8)
    changed = replace(digits, train=replace(digits.train, images=images), test=replace(digits.test, images=of_test))
    options = {"iterations": 2} if method == "DM" else {}
    found = []
    for number, dataset in enumerate((digits, changed)):
        bench = bench_of(dataset, tmp_path / str(number), options=options, initialisations=2)
        run = Run(methods.find(method), 0, budget=40)
        found.append([continual._filled(bench, run, classes, experiment._memory) for classes in order[:3]])
    for number, (one, other) in enumerate(zip(*found, strict=True)):
        same = torch.equal(one.split.images, other.split.images)
        assert same == (number < 2), "the third step's images are noise, so there they must differ"
        if one.indices is not None and number < 2:
            assert torch.equal(one.indices, other.indices)
            assert torch.equal(digits.train.labels[one.indices], one.split.labels)
            assert torch.bincount(one.split.labels)[order[number]].tolist() == [4, 4]


def test_a_step_is_tested_on_the_classes_seen(digits: Dataset, tmp_path: Path) -> None:
    seen = continual.seen_bench(bench_of(digits, tmp_path), [1, 4, 5])
    labels = digits.test.labels
    assert torch.equal(seen.dataset.test.labels, labels[(labels == 1) | (labels == 4) | (labels == 5)])
    assert seen.dataset.num_classes == 10, "the network has an output for every class from the first step on"


def recorded(folder: Path) -> dict[str, dict]:
    """Return the records by name, without what differs from machine to machine and time to time."""
    found = {}
    for path in sorted((folder / "result").glob("*/*/continual*.json")):
        record = json.loads(path.read_text())
        found[path.name] = {k: v for k, v in record.items() if k not in ("seconds", "environment")}
    return found


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*QUICK, "--selection", "Uniform", "Craig", "RandomReal", "--seed", "0", "1", *places(tmp_path)]
    assert script.main(words) == 0
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
    memory = torch.load(next((tmp_path / "result").glob("*/Craig/continual*.pt")), weights_only=True)
    assert torch.bincount(memory["labels"]).tolist() == [4] * 10
    assert len(memory["indices"].unique()) == 40
    images = torch.load(next((tmp_path / "result").glob("*/RandomReal/continual*.pt")), weights_only=True)["images"]
    assert images.shape == (40, 1, 8, 8)
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
    assert "MLP,Craig,2," in (tmp_path / "result/tables/continual.csv").read_text()


def test_report_is_of_all_networks_and_orders() -> None:
    """Means and deviations over networks and orders together, from records written by hand."""
    config = {
        "steps": 2, "memory_per_class": 1, "evaluations": 2, "precision": "float32",
        "training": {"epochs": 1, "optimizer": "SGD", "lr": 0.1, "batch": 2, "augmentation": "none"},
    }  # fmt: skip
    records = [
        {
            "dataset": "digits", "test_model": "MLP", "selection": name, "seed": seed, "config": config,
            "class_order": [[0, 1], [2]],
            "steps": [{"each": [90.0 + seed, 92.0 + seed]}, {"each": [value, value + seed]}],
        }
        for name, value in (("A", 10.0), ("B", 20.0), ("C", 30.0))
        for seed in (0, 2)
    ]  # fmt: skip
    assert steps_of(records)["A"] == [[90, 92, 92, 94], [10, 10, 10, 12]]
    text = continual_markdown(records)
    assert "| A      | **92.00 ± 1.63** | 10.50 ± 1.00" in text
    assert "**30.50 ± 1.00**" in text
    assert "<u>20.50 ± 1.00</u>" in text
    assert "digits,MLP,C,3,30.500,1.000,4" in continual_csv(records)


def test_stopped_after_two_steps_and_resumed_equals_undisturbed(tmp_path: Path, monkeypatch) -> None:
    words = [*QUICK, "--selection", "LCMat-S"]
    assert script.main([*words, *places(tmp_path / "whole")]) == 0
    step, calls = continual._step, []

    def stopping(*args: object) -> dict:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(continual, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            script.main([*words, *places(tmp_path / "broken")])
    assert recorded(tmp_path / "broken") == {}
    calls.clear()
    monkeypatch.setattr(continual, "_step", lambda *args: calls.append(args) or step(*args))
    assert script.main([*words, *places(tmp_path / "broken"), "--resume"]) == 0
    assert len(calls) == 3, "two steps of five were done"
    assert recorded(tmp_path / "broken") == recorded(tmp_path / "whole") != {}
    assert list((tmp_path / "broken" / "cache" / "checkpoints").glob("*")) == []


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
