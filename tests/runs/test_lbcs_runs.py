"""LBCS through the pipeline: records, trials beside them, kills, figures, experiments."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

import methods.lbcs
import nets
from lcmat import data
from lcmat.bilevel.lexicographic import Rules, best_index
from lcmat.bilevel.trials import read_trials, refine
from lcmat.command_line import grids, options, program
from lcmat.command_line.method_flags import check_options, options_for, options_of
from lcmat.command_line.settings import settings_of
from lcmat.commands import _reports
from lcmat.reports.figures import search_figure
from methods import get
from tests import oracles
from tests.harness import ROOT, call, places
from tests.searches import first_digits, loss_of_missing, searched, start_of, tiny_networks_on, without_seconds

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
split = pytest.fixture(first_digits, scope="module", name="split")
context = pytest.fixture(tiny_networks_on, scope="module", name="context")


DIGITS = [
    "--dataset", "digits", "--model", "MLP", "--selection", "LBCS", "--trials", "8", "--epochs", "2", "--batch", "32",
    "--test_interval", "0", "--option", "inner_steps=3", "inner_lr=0.01",
]  # fmt: skip


def test_a_run_leaves_a_record_and_its_trials_beside_it(tmp_path: Path) -> None:
    assert call(*DIGITS, *places(tmp_path), "--init_size", "60", "--tolerance", "0.3", "--seed", "0") == 0
    (path,) = tmp_path.glob("result/digits-MLP/LBCS/fraction*-seed0-*.json")
    record = json.loads(path.read_text())
    search, lines = read_trials(path.with_suffix(".jsonl"))
    assert (search["init_size"], search["samples"], search["tolerance"]) == (60, 1297, 0.3)
    assert len(lines) == 8
    assert record["config"]["budget"] == 60
    assert record["config"]["options"]["trials"] == 8
    assert record["config"]["options"]["tolerance"] == 0.3
    answer = lines[best_index([(one["f1"], one["f2"]) for one in lines], 0.3)]
    assert record["subset_size"] == answer["f2"] == len(np.load(path.with_suffix(".npz"))["indices"])
    assert not list((tmp_path / "cache" / "checkpoints").glob("*"))
    assert call(*DIGITS, *places(tmp_path), "--budget", "60", "--tolerance", "0.3", "--seed", "0") == 0
    assert len(list(tmp_path.glob("result/digits-MLP/LBCS/*.json"))) == 1, "the budget has another name, no other hash"


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*DIGITS, "--init_size", "60"]
    assert call(*words, *places(tmp_path / "whole")) == 0
    original = methods.lbcs.TrainingLoss.__call__

    def dying(self: object, chosen: Tensor, trial: int) -> float:
        if trial == 5:
            raise KeyboardInterrupt
        return original(self, chosen, trial)

    with monkeypatch.context() as patched:
        patched.setattr(methods.lbcs.TrainingLoss, "__call__", dying)
        assert call(*words, *places(tmp_path / "killed")) == 130
    (log,) = tmp_path.glob("killed/result/*/LBCS/*.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 1 + 5
    log.write_text("".join(json.dumps(one | ({"seconds": 1000.0} if "trial" in one else {})) + "\n" for one in lines))
    assert call(*words, *places(tmp_path / "killed"), "--resume") == 0
    one, other = (next((tmp_path / name).glob("result/*/LBCS/*.json")) for name in ("whole", "killed"))
    assert one.name == other.name
    assert without_seconds(one.with_suffix(".jsonl")) == without_seconds(other.with_suffix(".jsonl"))
    records = [json.loads(path.read_text()) for path in (one, other)]
    assert records[0]["test_accuracy"] == records[1]["test_accuracy"]
    assert records[0]["seconds"]["select"] < 5000 < records[1]["seconds"]["select"] < 10_000, "earlier trials count"
    assert np.array_equal(*(np.load(path.with_suffix(".npz"))["indices"] for path in (one, other)))


def test_a_start_from_signals_through_the_command_line(tmp_path: Path) -> None:
    words = [*DIGITS, *places(tmp_path), "--selection_epochs", "1", "--fraction", "0.05"]
    assert call(*words, "--init_selection", "lcmat-s") == 0
    assert call(*words, "--selection", "LCMat-S", "--option", "rho=0.1") == 0
    record, other = (
        json.loads(next(tmp_path.glob(f"result/digits-MLP/{name}/*.json")).read_text()) for name in ("LBCS", "LCMat-S")
    )
    assert record["config"]["options"]["init_selection"] == "LCMat-S"
    assert record["needs"] == ["features", "logits", "training"]
    network = record["config"]["selection_network"]
    assert {k: v for k, v in network.items() if k != "training"} == other["config"]["selection_network"]
    (path,) = tmp_path.glob("result/digits-MLP/LBCS/*.jsonl")
    assert read_trials(path)[1][0]["f2"] == other["subset_size"]


def test_the_inner_network_may_be_another(tmp_path: Path) -> None:
    assert call(*DIGITS, *places(tmp_path), "--init_size", "40", "--trials", "2", "--inner_model", "lenet") == 0
    (path,) = tmp_path.glob("result/digits-MLP/LBCS/*.json")
    record = json.loads(path.read_text())
    assert record["test_model"] == record["selection_model"] == "MLP"
    assert record["config"]["selection_network"]["training"]["model"] == "LeNet"


BAD_INPUT = {
    "trials": (["--trials", "0"], "trials must be a whole number of at least 1, not 0"),
    "tolerance": (["--tolerance", "-1"], "tolerance must be 0 or more and finite, not -1"),
    "start": (["--init_selection", "Craigg"], "did you mean Craig"),
    "start from itself": (["--init_selection", "LBCS"], "cannot start from LBCS"),
    "start size": (["--init_size", "0"], "budget must be between 1 and 1297"),
    "start size too large": (["--init_size", "1298"], "budget must be between 1 and 1297"),
    "inner network": (["--inner_model", "LeNett"], "did you mean LeNet"),
    "option": (["--option", "LBCS.slak=3"], "did you mean slack"),
    "value": (["--option", "slack=-3"], "slack must be a whole number of at least 1"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_line_and_writes_nothing(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, message = BAD_INPUT[case]
    monkeypatch.chdir(tmp_path)
    assert call("--dataset", "digits", "--model", "MLP", "--selection", "LBCS", *words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.strip().splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_signals_alone_are_too_little(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.savez(tmp_path / "s.npz", features=np.zeros((20, 2)), logits=np.zeros((20, 2)), labels=np.arange(20) % 2)
    assert call("--signals", tmp_path / "s.npz", "--selection", "LBCS", *places(tmp_path)) == 2
    assert "LBCS needs more than signals" in capsys.readouterr().err


def test_the_course_of_a_search_is_drawn(tmp_path: Path, script: Callable) -> None:
    path = tmp_path / "digits-MLP" / "LBCS" / "fraction0.05-seed0-abc.jsonl"
    searched(path)
    done = script(["-m", "lcmat", "lbcs", tmp_path])
    assert done.returncode == 0, done.stderr
    _, lines = read_trials(path)
    answer = lines[best_index([(one["f1"], one["f2"]) for one in lines], 0.2)]
    assert f"30 trials in 0 s, {sum(one['accepted'] for one in lines)} accepted" in done.stdout
    assert f"from 20 to {answer['f2']} samples" in done.stdout
    ordered, mean = sorted(one["f1"] for one in lines), np.mean([one["f2"] for one in lines])
    assert f"tried: f₁ from {ordered[0]:.4f} to {ordered[-1]:.4f}, {mean:.0f} samples in the mean" in done.stdout
    name = "digits-MLP-LBCS-fraction0.05-seed0-abc"
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {f"{name}.png", f"{name}.pdf"}
    assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 10_000
    assert not (path.parent / f"{path.stem}.png").exists()


def test_a_search_that_still_runs_and_a_diverged_one_can_be_drawn(tmp_path: Path) -> None:
    lines = [{"trial": 1, "f1": 1.5, "f2": 20, "accepted": True, "incumbent": [1.5, 20], "seconds": 1.0}]
    assert len(search_figure(lines, 0.2, "one trial", tmp_path, "one")) == 2
    lines.append({"trial": 2, "f1": 10_000.0, "f2": 19, "accepted": False, "incumbent": [1.5, 20], "seconds": 1.0})
    assert all(path.stat().st_size > 5000 for path in search_figure(lines, 0.2, "two trials", tmp_path, "two"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no such file or folder: nowhere"),
        (["."], "no trial of a search at .; run main.py --selection LBCS first"),
        (["text.txt"], "text.txt is no file of trials"),
    ],
)
def test_nothing_to_draw(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lcmat.commands import lbcs as command

    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("hello\n")
    assert program.run_command_line(command.main, words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


CONFIGS = sorted((ROOT / "configs").glob("lbcs_table2_*.yaml"))
ROBUSTNESS = ROOT / "configs" / "lbcs_robustness_fashionmnist.yaml"


def lines_of(path: Path) -> list:
    """The command lines of a grid."""
    parser = options.build_parser("test")
    return grids.read_grid(path, [], parser, list(_reports.KNOWN)).lines


def test_there_is_an_experiment_for_each_dataset_of_table_2() -> None:
    assert [path.stem.removeprefix("lbcs_table2_") for path in CONFIGS] == ["cifar10", "fashionmnist", "svhn"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_experiments_hold_what_can_be_run(path: Path) -> None:
    """Every name and option is known, sizes are those of Table 2, and the table's methods are all there."""
    (args,) = lines_of(path)
    assert args.budget == [1000, 2000, 3000, 4000]
    assert (args.trials, args.tolerance) == (500, 0.2)
    table = {"Uniform", "EL2N", "GraNd", "Influential", "Moderate", "CCS", "Probabilistic", "LBCS"}
    assert table <= set(args.selection)
    chosen = [get(name) for name in args.selection]
    settings_of(args)
    check_options(chosen, list(options_of(args, flags=False)))
    for method in chosen:
        method.resolved(10, 84, options_for(method, options_of(args)))
    assert {args.model, args.inner_model or args.model} <= set(nets.names())
    assert args.dataset in data.names()


def test_experiments_share_their_settings() -> None:
    """The part of Table 2 that was run, and robustness, have those of the whole, but for precision and threads."""
    (whole,) = lines_of(ROOT / "configs" / "lbcs_table2_fashionmnist.yaml")
    apart = {"selection", "budget", "seed", "explicit", "config", "label_noise", "long_tail", "init_selection"}
    for path in (ROOT / "configs" / "lbcs_fashionmnist.yaml", ROBUSTNESS):
        for line in lines_of(path):
            differ = {name for name, value in vars(line).items() if value != getattr(whole, name)} - apart
            assert differ <= ({"precision", "threads"} if path != ROBUSTNESS else set())
    assert [(line.label_noise, line.long_tail) for line in lines_of(ROBUSTNESS)] == [(0.3, None), (None, 100)]


def test_init_size_is_a_key_of_yaml_too(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("init_size: [5, 6]\n")
    assert options.parse(["--config", str(tmp_path / "c.yaml")]).budget == [5, 6]
    args = options.parse(["--config", str(tmp_path / "c.yaml"), "--fraction", "0.1"])
    assert (args.budget, args.fraction) == (None, [0.1])


def test_warnings_do_not_pass_unseen() -> None:
    """A search of this file that stands still would make its tests mean less."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refine(loss_of_missing(4, 0.5), start_of(16, 8), Rules(0.2, 2.0), seed=0, trials=100)
