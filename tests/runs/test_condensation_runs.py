"""Condensation from the command line to its records: caches, kills, sizes, configurations."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import methods
from lcmat import UserError, data
from lcmat.command_line import options
from lcmat.command_line.method_flags import check_options, options_for, options_of
from lcmat.command_line.released_flags import methods_of
from lcmat.command_line.settings import settings_of
from lcmat.condensation.synthetic import Synthetic
from lcmat.files import save_tensors
from lcmat.reports import tables
from lcmat.runs import evaluation
from lcmat.runs.evaluation import EVALUATIONS
from lcmat.selection.budgets import class_budgets
from lcmat.training import Recipe, train
from tests import oracles
from tests.condensing import StoppedError
from tests.harness import ROOT, call, places, records_in

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# That one image of a class has no variance is said, which a test of its own checks.
pytestmark = pytest.mark.filterwarnings("ignore:LCMat-C")
QUICK = ["--dataset", "digits", "--model", "MLP", "--epochs", "8", "--lr", "0.05", "--test_interval", "4"]
DM = [*QUICK, "--selection", "DM", "--option", "DM.iterations=6", "DM.batch=8"]


def test_condense_evaluate_record_tabulate(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Two methods beside two selections, evaluated alike, two networks for each seed."""
    words = [*DM, "--ipc", "2", "--seed", "0", "1", "--evaluations", "2", "--snapshots", "2"]
    assert call(*words, "--selection", "DM", "RandomReal", "Uniform", *places(tmp_path)) == 0
    found = records_in(tmp_path / "result")
    assert len(found) == 6
    for name, record in found.items():
        path = tmp_path / "result" / name
        assert name.startswith(f"digits-MLP/{record['selection']}/fraction0.0154202-seed{record['seed']}-")
        assert record["subset_size"] == 20
        assert record["config"]["training"]["augmentation"] == "dsa_unmirrored"
        assert [epoch for epoch, _ in record["tests"]] == [4, 8]
        assert len(record["evaluations"]) == record["config"]["evaluations"] == 2
        each = [one["test_accuracy"] for one in record["evaluations"]]
        assert record["test_accuracy"] == pytest.approx(sum(each) / 2)
        assert str(tmp_path) not in path.read_text()
        if record["selection"] == "Uniform":
            continue
        synthetic = Synthetic.load(path.parent / record["synthetic"])
        assert torch.bincount(synthetic.labels).tolist() == [2] * 10
        assert Image.open(path.with_suffix(".png")).size[0] > 50
        snapshots = sorted(p.name for p in path.with_suffix("").glob("*"))
        marks = ("000000", "000003", "000006")
        expected = [f"iteration{mark}.{kind}" for mark in marks for kind in ("png", "pt")]
        assert snapshots == (expected if record["selection"] == "DM" else [])
    assert not list((tmp_path / "cache").rglob("checkpoints/*"))
    printed = capsys.readouterr().out
    assert "mean ± standard deviation of 4 trainings" in printed
    assert "2 networks for each seed" in printed
    (table,) = tables.accuracy_tables(records_with_environment(tmp_path / "result"))
    assert set(table.methods) == {"DM", "RandomReal", "Uniform"}
    assert len(table.cells["DM", 20 / 1297].final) == 4


def records_with_environment(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/*/*.json"))]


def test_recorded_runs_are_skipped_and_images_reused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Another test model and another recipe take the images from the cache."""
    assert call(*DM, "--ipc", "1", *places(tmp_path)) == 0
    (kept,) = (tmp_path / "cache" / "synthetic").glob("*.pt")
    stamp = kept.stat().st_mtime_ns
    capsys.readouterr()
    assert call(*DM, "--ipc", "1", *places(tmp_path)) == 0
    assert "already recorded" in capsys.readouterr().out
    assert call(*DM, "--budget", "10", "--cross", "LeNet", "--evaluation", "idc", *places(tmp_path)) == 0
    assert kept.stat().st_mtime_ns == stamp
    assert list((tmp_path / "cache" / "synthetic").glob("*.pt")) == [kept]
    found = records_in(tmp_path / "result")
    assert len(found) == 3
    assert {r["test_model"] for r in found.values()} == {"MLP", "LeNet"}
    assert {r["config"]["training"]["augmentation"] for r in found.values()} == {"dsa_unmirrored", "idc_unmirrored"}
    images = [Synthetic.load(path.with_suffix(".pt")).images for path in (tmp_path / "result").glob("*/*/*.json")]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


def test_damaged_images_are_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert call(*DM, "--ipc", "1", *places(tmp_path)) == 0
    before = records_in(tmp_path / "result")
    (kept,) = (tmp_path / "cache" / "synthetic").glob("*.pt")
    kept.write_bytes(b"PK broken")
    assert call(*DM, "--ipc", "1", *places(tmp_path), "--overwrite") == 0
    assert "it is made anew" in capsys.readouterr().err
    assert records_in(tmp_path / "result") == before


def test_sizes(tmp_path: Path) -> None:
    """--ipc and multiples of the classes are shared out evenly, fractions and other budgets as selections are."""
    words = [*QUICK, "--selection", "RandomReal", "--epochs", "1", *places(tmp_path)]
    for size in (["--fraction", "0.043"], ["--budget", "33"], ["--budget", "30"], ["--ipc", "4"]):
        assert call(*words, *size) == 0
    counts = {}
    for path in (tmp_path / "result").glob("*/*/*.pt"):
        counts[len(Synthetic.load(path))] = torch.bincount(Synthetic.load(path).labels).tolist()
    sizes = torch.bincount(data.load("digits").train.labels).tolist()
    by_fraction = [max(1, round(0.043 * n)) for n in sizes]
    assert set(by_fraction) == {5, 6}
    assert counts == {
        30: [3] * 10,
        33: class_budgets(np.array(sizes), budget=33).tolist(),
        40: [4] * 10,
        sum(by_fraction): by_fraction,
    }


def test_killed_and_resumed_equals_undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while images are learned, and stopped once more after the first of two evaluations."""
    words = [*QUICK, "--selection", "LCMat-C", "--ipc", "2", "--checkpoint_interval", "0", "--evaluations", "2"]
    words += ["--threads", "1"]  # in a process of its own as in this one
    words += ["--option", "iterations=5", "steps=3", "batch=16", "network_images=32", "layers=all", "metric=cosine"]
    assert call(*words, *places(tmp_path / "whole")) == 0
    expected = records_in(tmp_path / "whole" / "result")

    broken = tmp_path / "broken"
    words += [*places(broken), "--resume"]
    checkpoints = broken / "cache" / "checkpoints"
    process = subprocess.Popen([sys.executable, str(ROOT / "main.py"), *words], stderr=subprocess.PIPE, text=True)
    while not list(checkpoints.glob("*.pt")):
        assert process.poll() is None, f"ended before it could be killed: {process.communicate()}"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list((broken / "cache" / "synthetic").glob("*.pt"))

    def stopping(path: Path, value: dict) -> None:
        save_tensors(path, value)
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "save_tensors", stopping)
        with pytest.raises(StoppedError):
            call(*words)
    assert len(list(checkpoints.glob("*-evaluated.pt"))) == 1
    assert records_in(broken / "result") == {}
    trained = []
    monkeypatch.setattr(evaluation, "train", lambda *a, **k: trained.append(k["watch"].label) or train(*a, **k))
    assert call(*words) == 0
    assert len(trained) == 1
    assert records_in(broken / "result") == expected
    assert list(checkpoints.glob("*")) == []
    pairs = [sorted((folder / "result").glob("*/*/*.pt")) for folder in (tmp_path / "whole", broken)]
    assert torch.equal(Synthetic.load(pairs[0][0]).images, Synthetic.load(pairs[1][0]).images)


def test_one_evaluation_leaves_selections_as_they_were(tmp_path: Path) -> None:
    """The configuration, and so the name of a record, does not know of evaluations when there is one."""
    assert call(*QUICK, "--selection", "Uniform", "--fraction", "0.05", *places(tmp_path)) == 0
    ((_, record),) = records_in(tmp_path / "result").items()
    assert "evaluations" not in record
    assert "evaluations" not in record["config"]
    assert record["config"]["training"]["scheduler"] == "CosineAnnealingLR"
    assert record["config"]["training"]["augmentation"] == "none"


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        ("--evaluation zhao", replace(EVALUATIONS["zhao"])),
        ("--evaluation ZHAO --epochs 300", replace(EVALUATIONS["zhao"], epochs=300, step_size=150)),
        ("--evaluation idc --lr 0.1 --train_batch 32", replace(EVALUATIONS["idc"], lr=0.1, batch=32)),
        ("--evaluation idc --epochs 200", replace(EVALUATIONS["idc"], epochs=200)),
        ("--evaluation zhao --scheduler constant", replace(EVALUATIONS["zhao"], scheduler="constant")),
        ("", Recipe()),
    ],
)
def test_flags_win_over_the_evaluation_recipe(words: str, recipe: Recipe) -> None:
    """Also where they say what the default is, as with 200 epochs."""
    assert settings_of(options.parse(words.split())).recipe == recipe


BAD_INPUT = {
    "method": (["--selection", "DMM"], "did you mean DM"),
    "evaluation": (["--selection", "DM", "--evaluation", "zao"], "did you mean zhao"),
    "evaluations": (["--selection", "DM", "--evaluations", "0"], "--evaluations must be at least 1"),
    "ipc": (["--selection", "DM", "--ipc", "0"], "--ipc must be at least 1"),
    "ipc of too few": (["--selection", "RandomReal", "--ipc", "200"], "class 0 has 128; ask for fewer\n"),
    "mixed of too few": (
        ["--selection", "DM", "--ipc", "50", "--factor", "2", "--option", "init=mixed"], "begins with 200 real images"),
    "factor": (["--selection", "DM", "--factor", "0"], "--factor must be at least 1"),
    "factor above the size": (["--selection", "DM", "--factor", "9"], "--factor must be at most 8, the side"),
    "factor of none": (["--selection", "KIP", "Uniform", "--factor", "2"], "KIP, Uniform cannot; leave it out"),
    "convolutions of none": (["--selection", "LCMat-C"], "of convolutions, and MLP has none; take --option layers=all"),
    "ipc of too few to choose": (["--selection", "Uniform", "--ipc", "200"], "200 samples are asked for of class 0"),
    "snapshots": (["--selection", "DM", "--snapshots", "-1"], "--snapshots must be 0 or more"),
    "budget below classes": (["--selection", "DM", "--budget", "9"], "cannot hold one sample of each of 10 classes"),
    "balance": (["--selection", "DM", "--ipc", "1", "--balance", "False"], "makes images class by class"),
    "option": (["--selection", "DM", "--option", "iteration=3"], "did you mean iterations"),
    "option of wrong kind": (["--selection", "DM", "--option", "iterations=few"], "DM: iterations must be a whole"),
    "rho": (["--selection", "LCMat-C", "--rho", "-1"], "rho must be 0 or more"),
    "metric": (["--selection", "LCMat-C", "--option", "metric=l2"], "unknown metric 'l2'"),
    "signals": (["--selection", "DM", "--signals", "x.npz"], "--signals hold no images"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    words, message = BAD_INPUT[case]
    monkeypatch.chdir(tmp_path)
    assert call("--dataset", "digits", "--model", "MLP", *words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.strip().splitlines()
    assert message in line + "\n"
    assert list(tmp_path.iterdir()) == []


def test_diverging_images_get_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert call(*DM, "--ipc", "1", "--option", "DM.image_lr=1e12", "DM.batch=8", *places(tmp_path)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "standard deviations from the data's mean after iteration 1, step 1" in line
    assert records_in(tmp_path / "result") == {}


def test_a_run_that_diverges_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The table has what there is, the exit code and the last line say what is missing; images are made once."""
    words = [*DM, "--ipc", "1", "2", "--selection", "RandomReal", "DM", "Uniform", "--option", "DM.image_lr=1e12"]
    assert call(*words, "DM.batch=8", *places(tmp_path)) == 2
    printed = capsys.readouterr()
    *each, last = printed.err.strip().splitlines()
    assert [line.partition(":")[0] for line in each] == [
        "no record of DM fraction 0.0077101 seed 0", "no record of DM fraction 0.0154202 seed 0"
    ]  # fmt: skip
    assert "DM fraction 0.0077101 seed 0 and 1 more of 6 runs diverged and have no record" in last
    assert {r["selection"] for r in records_in(tmp_path / "result").values()} == {"RandomReal", "Uniform"}
    assert "| RandomReal |" in printed.out


def test_selections_take_as_many_of_each_class(tmp_path: Path) -> None:
    """--ipc on a long tail, where a budget is shared in proportion to the classes; told apart in tables and names."""
    words = [*QUICK, "--selection", "Uniform", "RandomReal", "--long_tail", "10", "--epochs", "1"]
    for size in (["--ipc", "3"], ["--budget", "30"]):
        assert call(*words, *size, *places(tmp_path)) == 0
    found = records_in(tmp_path / "result")
    chosen = {}
    labels = data.load("digits", long_tail=10).train.labels
    for name, record in found.items():
        if record["selection"] == "Uniform":
            subset = np.load((tmp_path / "result" / name).with_suffix(".npz"))
            chosen[record["config"].get("per_class")] = torch.bincount(labels[subset["indices"]]).tolist()
    assert chosen[3] == [3] * 10
    assert chosen[None][0] > 5 > 2 > chosen[None][9]
    (table,) = tables.accuracy_tables(records_with_environment(tmp_path / "result"))
    assert table.methods == ["Uniform", "RandomReal", "Uniform (of each class = 3)"]


PAPERS = [path for path in sorted((ROOT / "configs").glob("table[45]_*.yaml")) if "runs:" not in path.read_text()]


@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_configurations_are_understood(path: Path) -> None:
    """Every flag and every option is known; sizes are those of the paper's columns."""
    args = options.parse(["--config", str(path)])
    chosen = [methods.find(name) for name in methods_of(args)]
    check_options(chosen, list(options_of(args, flags=False)))
    for method in chosen:
        if method.name in methods.condensers():
            method.resolved([10] * 10, options_for(method, options_of(args)))
    assert args.ipc
    assert args.model == "ConvNet3"


def test_tables_4_and_5_have_configurations() -> None:
    names = {path.stem for path in (ROOT / "configs").glob("table[45]_*.yaml")}
    assert {"table4_cifar10", "table4_cifar100"} <= names
    assert any(name.startswith("table5") for name in names)


def test_one_image_is_too_few_to_train_a_network_on() -> None:
    with pytest.raises(UserError, match="network_images must be a whole number of at least 2"):
        methods.condenser("LCMat-C").resolved([10] * 10, {"network_images": 1})
