"""The main job through the command line, as a user runs it: records, caches, kills, two processes, bad input."""

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import methods
import nets
from lcmat.command_line import options
from lcmat.command_line.released_flags import methods_of, rho_of
from lcmat.selection.subset import Subset
from tests.harness import ROOT, call, places, records_in

# Adam learns within a few steps, so that accuracies tell equal trainings from different ones. A small network will do.
ADAM = ["--dataset", "digits", "--model", "ResNet10", "--selection_optimizer", "Adam", "--selection_lr", "1e-3"]
ADAM += ["--optimizer", "Adam", "--lr", "1e-3", "--batch", "32", "--selection_batch", "128"]
QUICK = [*ADAM, "--selection_epochs", "2", "--epochs", "6", "--test_interval", "3"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small experiment: two methods, two fractions, two seeds."""
    folder = tmp_path_factory.mktemp("finished")
    words = [
        *QUICK,
        *places(folder),
        "--selection",
        "LCMat-S",
        "Uniform",
        "--fraction",
        "0.02",
        "0.1",
        "--seed",
        "0",
        "1",
    ]
    assert call(*words) == 0
    return folder


def test_pipeline_leaves_records_subsets_and_tables(finished: Path) -> None:
    found = records_in(finished / "result")
    assert len(found) == 8
    for name, record in found.items():
        assert name.startswith(f"digits-ResNet10/{record['selection']}/fraction{record['fraction']:g}-seed")
        subset = Subset.load(finished / "result" / Path(name).parent / record["indices"])
        assert len(subset) == record["subset_size"] == len(set(subset.indices.tolist()))
        assert (record["cost"] is None) == (record["selection"] == "Uniform")
        assert [epoch for epoch, _ in record["tests"]] == [3, 6]
        assert record["test_accuracy"] == record["tests"][-1][1]
        assert record["best_test_accuracy"] == max(value for _, value in record["tests"])
    text = (finished / "result" / "tables" / "accuracy.md").read_text()
    assert "| LCMat-S |" in text
    assert "mean ± standard deviation of 2 trainings" in text


def test_records_hold_seconds_versions_and_no_path_or_host(finished: Path) -> None:
    for path in (finished / "result").glob("*/*/*.json"):
        record = json.loads(path.read_text())
        assert set(record["seconds"]) == {"pretrain", "signals", "select", "train"}
        assert {"torch", "processor", "threads", "git_commit"} <= set(record["environment"])
        assert 2**27 < record["environment"]["peak_memory"] < 2**35
        assert str(finished) not in path.read_text()
        assert str(ROOT) not in path.read_text()


def test_recorded_subset_is_that_of_the_cached_signals(finished: Path) -> None:
    """The npz beside a record holds what `select` picks from the signals in the cache."""
    from lcmat import Signals, data

    labels = data.load("digits").train.labels
    cached = [torch.load(path, weights_only=True) for path in (finished / "cache" / "signals").glob("*.pt")]
    assert len(cached) == 2
    expected = {
        tuple(methods.select(Signals(s["features"], s["logits"], labels), fraction=0.1).indices.tolist())
        for s in cached
    }
    found = {tuple(np.load(p)["indices"].tolist()) for p in finished.glob("result/*/LCMat-S/fraction0.1-*.npz")}
    assert found == expected


def test_recorded_runs_are_skipped_unless_overwritten(finished: Path, capsys: pytest.CaptureFixture) -> None:
    words = [*QUICK, *places(finished), "--selection", "Uniform", "--fraction", "0.02", "--seed", "0"]
    (path,) = finished.glob("result/*/Uniform/fraction0.02-seed0-*.json")
    before, stamp = records_in(finished / "result"), path.stat().st_mtime_ns
    assert call(*words) == 0
    assert "already recorded" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == stamp
    assert call(*words, "--overwrite") == 0
    assert path.stat().st_mtime_ns > stamp
    assert records_in(finished / "result") == before


def test_second_run_reuses_the_caches(finished: Path, tmp_path: Path) -> None:
    cached = {path: path.stat().st_mtime_ns for path in (finished / "cache").rglob("*.pt")}
    words = [*QUICK, "--save_path", tmp_path, "--cache_path", finished / "cache", "--fraction", "0.05", "--seed", "1"]
    assert call(*words) == 0
    assert {path: path.stat().st_mtime_ns for path in (finished / "cache").rglob("*.pt")} == cached
    (new,) = tmp_path.glob("*/*/*.json")
    (old,) = finished.glob("result/*/LCMat-S/fraction0.1-seed1-*.json")
    for stage in ("pretrain", "signals"):
        assert json.loads(new.read_text())["seconds"][stage] == json.loads(old.read_text())["seconds"][stage] > 0


def test_a_fraction_that_rounds_to_nothing_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [*QUICK, *places(tmp_path), "--selection", "Uniform", "--fraction", "0.001", "--seed", "0", "1"]
    assert call(*words) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "warning: a fraction of 0.001 rounds to no sample in 10 of 10 groups; one is taken"
    ]
    assert "(10 images)" in printed.out


def test_uniform_does_not_pretrain(tmp_path: Path) -> None:
    assert call(*QUICK, *places(tmp_path), "--selection", "Uniform", "--fraction", "0.05") == 0
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("*.pt"))


def test_settings_without_influence_share_a_record(finished: Path, capsys: pytest.CaptureFixture) -> None:
    """Uniform knows no ρ; paths, device and workers determine nothing; K = 100 is the default."""
    same = [*QUICK, *places(finished), "--fraction", "0.02", "--device", "cpu", "--workers", "3"]
    assert call(*same, "--selection", "Uniform", "--rho", "0.5", "--selection_epochs", "7") == 0
    assert call(*same, "--selection", "LCMat-S", "--K", "100", "--eps", "0.05") == 0
    assert capsys.readouterr().out.count("already recorded") == 2


def test_pretrained_file_serves_all_seeds(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save(nets.build("ResNet10", 10, 1, 8).half().state_dict(), tmp_path / "given.pt")
    words = [*QUICK, *places(tmp_path), "--pretrained", tmp_path / "given.pt", "--fraction", "0.05", "--seed", "0", "1"]
    assert call(*words) == 0
    assert "One f_T, 2 trainings (given network `given.pt`)" in capsys.readouterr().out
    found = list(records_in(tmp_path / "result").values())
    subsets = [np.load(p)["indices"] for p in tmp_path.glob("result/*/*/*.npz")]
    assert len(found) == 2
    assert np.array_equal(*subsets)
    assert found[0]["tests"] != found[1]["tests"]
    assert list((tmp_path / "cache").rglob("networks/*")) == []


def test_validation_samples_are_in_no_subset(tmp_path: Path) -> None:
    words = [
        *QUICK,
        *places(tmp_path),
        "--val",
        "--val_ratio",
        "0.3",
        "--selection",
        "LCMat-S",
        "Full",
        "--fraction",
        "0.1",
    ]
    assert call(*words) == 0
    subsets = {p.parent.name: Subset.load(p) for p in tmp_path.glob("result/*/*/*.npz")}
    kept = set(subsets["Full"].indices.tolist())
    assert len(kept) == 1297 - math.ceil(0.3 * 1297)
    assert set(subsets["LCMat-S"].indices.tolist()) < kept
    sizes = subsets["Full"].class_sizes
    assert np.bincount(subsets["LCMat-S"].classes).tolist() == [max(1, round(0.1 * int(n))) for n in sizes]


@pytest.mark.parametrize("extra", [["--weights"], ["--balance", "False"], ["--budget", "57"]], ids=lambda e: e[0])
def test_selection_options_reach_the_run(finished: Path, tmp_path: Path, extra: list[str]) -> None:
    size = [] if "--budget" in extra else ["--fraction", "0.05"]
    words = [*QUICK, "--save_path", tmp_path, "--cache_path", finished / "cache", *size, *extra]
    assert call(*words) == 0
    (path,) = tmp_path.glob("*/*/*.npz")
    subset, record = Subset.load(path), json.loads(path.with_suffix(".json").read_text())
    if extra == ["--weights"]:
        assert subset.weights.sum() == 1297
        assert record["config"]["options"]["weights"] is True
    elif extra[0] == "--balance":
        assert not subset.balanced
        assert len(subset) == round(0.05 * 1297)
    else:
        assert len(subset) == record["config"]["budget"] == 57
        assert record["fraction"] == pytest.approx(57 / 1297)


def test_other_networks_are_trained_on_the_subset_too(finished: Path, tmp_path: Path) -> None:
    words = [*QUICK, "--save_path", tmp_path, "--cache_path", finished / "cache", "--fraction", "0.05"]
    assert call(*words, "--cross", "resnet10") == 0
    assert len(list(tmp_path.glob("*/*/*.json"))) == 1, "the same network twice is one run"


# --- killed and resumed ---------------------------------------------------------------------------------------------

LONG = [*ADAM, "--selection_epochs", "3", "--epochs", "10", "--test_interval", "2", "--checkpoint_interval", "0"]
LONG += ["--selection", "LCMat-S", "--fraction", "0.2", "--seed", "1"]


def start(words: list[str]) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "main.py"), *words]
    # Where the tests themselves run in the background, SIGINT is ignored, and a process would inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)


def kill_when(process: subprocess.Popen, ready: Callable[[], bool]) -> None:
    """Send SIGKILL as soon as `ready()`; fail if the process ends before."""
    while not ready():
        assert process.poll() is None, f"ended before it could be killed: {process.communicate()}"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_in_every_stage_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    assert call(*LONG, *places(tmp_path / "whole")) == 0
    expected = records_in(tmp_path / "whole" / "result")
    (record,) = expected.values()
    assert len({accuracy for _, accuracy in record["tests"]}) > 2, "accuracies must tell trainings apart"

    broken = tmp_path / "broken"
    words = [*LONG, *places(broken), "--resume"]
    cache = broken / "cache"
    stages = (
        lambda: list(cache.glob("checkpoints/*.pt")),  # pretraining, after its first epoch
        lambda: list(cache.glob("networks/*.pt")),  # signals
        lambda: list(cache.glob("signals/*.pt")),  # selection, or the first epochs of training
        lambda: list(cache.glob("checkpoints/*.pt")),  # training
    )
    for ready in stages:
        kill_when(start(words), ready)
        assert records_in(broken / "result") == {}
    last = start(words)
    _, errors = last.communicate(timeout=300)
    assert last.returncode == 0, errors
    assert records_in(broken / "result") == expected
    assert list(cache.glob("checkpoints/*")) == []


def test_resume_takes_a_checkpoint_by_path(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [*LONG, *places(tmp_path), "--selection", "Uniform"]
    kill_when(start(words), lambda: list((tmp_path / "cache").glob("checkpoints/*.pt")))
    (checkpoint,) = (tmp_path / "cache").glob("checkpoints/*.pt")
    moved = checkpoint.rename(tmp_path / checkpoint.name)
    assert call(*words, "--resume", moved, "--seed", "2") == 2
    assert "belongs to none of these runs" in capsys.readouterr().err
    assert moved.exists()
    assert call(*words, "--resume", moved) == 0
    assert not moved.exists()
    undisturbed = tmp_path / "undisturbed"
    assert call(*LONG, *places(undisturbed), "--selection", "Uniform") == 0
    assert records_in(tmp_path / "result") == records_in(undisturbed / "result")


def test_resume_takes_a_pretraining_checkpoint_by_path(tmp_path: Path) -> None:
    kill_when(start([*LONG, *places(tmp_path)]), lambda: list((tmp_path / "cache").glob("checkpoints/*.pt")))
    (checkpoint,) = (tmp_path / "cache").glob("checkpoints/*.pt")
    moved = checkpoint.rename(tmp_path / checkpoint.name)
    assert call(*LONG, *places(tmp_path), "--epochs", "1", "--resume", moved) == 0
    assert not moved.exists()


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    process = start([*LONG, *places(tmp_path), "--selection", "Uniform", "--epochs", "100000"])
    while not list((tmp_path / "cache").glob("checkpoints/*.pt")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.strip() == "main.py: interrupted; the same command goes on with --resume"


def test_two_processes_in_one_folder_lose_nothing(finished: Path, tmp_path: Path) -> None:
    shared = [
        *QUICK,
        "--save_path",
        str(tmp_path),
        "--cache_path",
        str(finished / "cache"),
        "--fraction",
        "0.02",
        "0.1",
    ]
    both = [start([*shared, "--selection", name, "--seed", "0", "1"]) for name in ("LCMat-S", "Uniform")]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert records_in(tmp_path) == records_in(finished / "result")
    assert (tmp_path / "tables/accuracy.md").read_text() == (finished / "result/tables/accuracy.md").read_text()


# --- commands over records ------------------------------------------------------------------------------------------


def test_tables_and_figures_commands(finished: Path, script: Callable) -> None:
    result = finished / "result"
    shown = script(["-m", "lcmat", "tables", result])
    assert shown.returncode == 0, shown.stderr
    assert "| LCMat-S |" in shown.stdout
    assert shown.stdout.strip() in (result / "tables" / "accuracy.md").read_text()
    drawn = script(["-m", "lcmat", "figures", result])
    assert drawn.returncode == 0, drawn.stderr
    assert (result / "figures" / "digits-ResNet10.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tabels"], "did you mean tables"),
        (["tables", "nowhere"], "no such folder: nowhere"),
        (["tables", "."], "no records below ."),
        (["figures", "."], "nothing to draw"),
        (["--tables"], "a command comes first"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_bad_input_to_commands(script: Callable, tmp_path: Path, words: list[str], message: str) -> None:
    done = script(["-m", "lcmat", *words], cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


# --- bad input ------------------------------------------------------------------------------------------------------

BAD_INPUT = {
    "dataset": (["--dataset", "digit"], "did you mean digits"),
    "method": (["--selection", "LCMat"], "did you mean LCMat-S"),
    "one of several methods": (["--selection", "Uniform", "Unifrom"], "did you mean Uniform"),
    "network": (["--model", "ResNet8"], "did you mean ResNet18"),
    "cross network": (["--cross", "ResNet81"], "did you mean ResNet18"),
    "flag": (["--fractoin", "0.1"], "unknown flag --fractoin; did you mean --fraction"),
    "abbreviated flag": (["--frac", "0.1"], "unknown flag --frac; did you mean --fraction"),
    "stray word": (["--rho", "0.1", "0.2"], "unexpected argument '0.2'"),
    "no number": (["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
    "no switch": (["--balance", "perhaps"], "'perhaps' is neither True nor False"),
    "fraction 0": (["--fraction", "0"], "fraction must lie above 0 and at most at 1, not 0"),
    "fraction above 1": (["--fraction", "0.1", "1.5"], "fraction must lie above 0 and at most at 1, not 1.5"),
    "fraction nan": (["--fraction", "nan"], "fraction must lie above 0"),
    "budget 0": (["--budget", "0"], "budget must be between 1 and 1297"),
    "budget too large": (["--budget", "1298"], "budget must be between 1 and 1297"),
    "budget below classes": (["--budget", "9"], "cannot hold one sample of each of 10 classes"),
    "one sample": (["--budget", "1", "--balance", "False"], "one sample is too few"),
    "fraction of Full": (["--selection", "Full", "--fraction", "7"], "fraction must lie above 0 and at most at 1"),
    "K too large": (["--K", "5131"], "only 5130 dimensions"),
    "K 0": (["--K", "0"], "K must be at least 1"),
    "negative rho": (["--rho", "-1"], "rho must be 0 or more"),
    "infinite rho": (["--rho", "inf"], "rho must be 0 or more and finite"),
    "learning rate": (["--lr", "0"], "learning rate must be above 0"),
    "selection learning rate": (["--selection_lr", "-1"], "learning rate must be above 0, not -1 (--selection_"),
    "infinite learning rate": (["--lr", "inf"], "lr must be finite, also in float32, not inf"),
    "momentum nan": (["--momentum", "nan"], "momentum must be finite, also in float32, not nan"),
    "step size": (["--scheduler", "StepLR", "--step_size", "0"], "step_size must be above 0"),
    "train batch": (["--train_batch", "0"], "batch must be at least 2"),
    "image size": (["--image_size", "0"], "--image_size must be at least 1"),
    "immense images": (["--image_size", "300000"], "do not fit into memory"),
    "workers": (["--workers", "-1"], "--workers must be 0 or more"),
    "empty save path": (["--save_path", ""], "--save_path is empty"),
    "device of no use": (["--device", "meta"], "device 'meta' cannot be used"),
    "kernel without curvature among others": (
        ["--selection", "Submodular", "LCMat-S", "--kernel", "grad_l2"], "run it by itself"),
    "optimizer": (["--optimizer", "SDG"], "did you mean SGD"),
    "scheduler": (["--scheduler", "Cosine"], "did you mean CosineAnnealingLR"),
    "batch": (["--batch", "1"], "batch must be at least 2"),
    "test interval": (["--test_interval", "-1"], "--test_interval must be 0 or more"),
    "test fraction": (["--test_fraction", "0"], "--test_fraction must lie above 0"),
    "validation ratio": (["--val", "--val_ratio", "0"], "--val_ratio must lie above 0"),
    "validation takes all": (["--val", "--val_ratio", "0.999"], "cannot hold out 0.999"),
    "device": (["--device", "warp"], "device 'warp' cannot be used"),
    "precision": (["--precision", "half"], "unknown precision 'half'"),
    "augmentation": (["--augmentation", "flop"], "unknown augmentation 'flop'"),
    "pretrained absent": (["--pretrained", "nowhere.pt"], "no such file: nowhere.pt"),
    "resume absent": (["--resume", "nowhere.pt"], "no such file: nowhere.pt"),
    "config absent": (["--config", "nowhere.yaml"], "cannot read nowhere.yaml"),
    "kernel": (["--selection", "Submodular", "--kernel", "wurst"], "did you mean worst"),
    "option without value": (["--selection", "CCS", "--option", "beta"], "--option takes NAME=VALUE, not 'beta'"),
    "option of no method": (["--option", "beta=0.1"], "--option beta: no such option"),
    "option of another method": (["--option", "CCS.beta=0.1"], "CCS is none of the methods asked for"),
    "option misspelt": (["--selection", "CCS", "--option", "bta=0.1"], "did you mean beta"),
    "option of wrong kind": (["--selection", "CCS", "--option", "bins=many"], "CCS: bins must be a whole number"),
    "option out of range": (["--selection", "CCS", "--option", "beta=1.5"], "beta must be at least 0 and below 1"),
    "initialisations": (["--selection", "GraNd", "--initialisations", "0"], "--initialisations must be at least 1"),
}  # fmt: skip


def error_line(capsys: pytest.CaptureFixture) -> str:
    """Return what was printed to stderr, which must be one line, while stdout stayed empty."""
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.strip().splitlines()
    return line


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    words, message = BAD_INPUT[case]
    monkeypatch.chdir(tmp_path)
    assert call("--dataset", "digits", *words) == 2
    line = error_line(capsys)
    assert message in line
    assert "error: " in line
    assert list(tmp_path.iterdir()) == []


def test_unwritable_save_path_is_found_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("kept")
    assert call(*QUICK, "--save_path", tmp_path / "file" / "result", "--cache_path", tmp_path / "cache") == 3
    assert "a file is in the place of a folder" in error_line(capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_in_the_place_of_a_records_folder_is_found_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "digits-ResNet10").write_text("kept")
    assert call(*QUICK, *places(tmp_path)) == 3
    assert "a file is in the place of a folder" in error_line(capsys)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("dataset", ["MNIST", "CIFAR10", "SVHN", "TinyImageNet"])
def test_absent_data_name_folder_and_files(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, dataset: str
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("socket.getaddrinfo", no_network)
    monkeypatch.chdir(tmp_path)
    assert call("--dataset", dataset, "--data_path", tmp_path / "data") == 2
    line = error_line(capsys)
    assert f"{dataset} is not in {tmp_path / 'data'} (expected " in line
    assert "put the files there or set --data_path" in line
    assert list(tmp_path.iterdir()) == []


def test_unfit_and_damaged_pretrained_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save(nets.build("ResNet10", 10, 3).state_dict(), tmp_path / "rgb.pt")
    (tmp_path / "bad.pt").write_bytes(b"PK\x03\x04 broken")
    for name, message in (("rgb.pt", "conv1.weight of shape (32, 3, 3, 3)"), ("bad.pt", "damaged")):
        assert call(*QUICK, *places(tmp_path), "--pretrained", tmp_path / name) == 2
        assert message in error_line(capsys)
    assert {p.name for p in tmp_path.iterdir()} == {"rgb.pt", "bad.pt"}


def test_network_without_linear_head(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nets, "build", lambda *_: torch.nn.Sequential(torch.nn.Conv2d(1, 10, 8), torch.nn.Flatten()))
    assert call(*QUICK, *places(tmp_path)) == 2
    assert "has no linear head" in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_diverged_training_stops_with_epoch_step_and_rate(tmp_path: Path, script: Callable) -> None:
    words = [*QUICK, *places(tmp_path), "--selection", "Uniform", "--fraction", "1", "--lr", "1e30", "--min_lr", "1e30"]
    done = script([ROOT / "main.py", *words])
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "the loss is nan at epoch" in line
    assert "learning rate 1e+30" in line
    assert records_in(tmp_path / "result") == {}


def test_damaged_caches_are_made_anew(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(finished / "cache", cache)
    for path in cache.rglob("*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    words = [*QUICK, *places(tmp_path), "--fraction", "0.02", "--seed", "1"]
    assert call(*words) == 0
    assert "it is made anew" in capsys.readouterr().err
    ((name, record),) = records_in(tmp_path / "result").items()
    assert record == records_in(finished / "result")[name]


def test_damaged_record_is_not_overwritten(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [*QUICK, "--save_path", tmp_path, "--cache_path", finished / "cache", "--selection", "Uniform"]
    assert call(*words, "--fraction", "0.02") == 0
    (path,) = tmp_path.glob("*/*/*.json")
    path.write_text("{")
    capsys.readouterr()
    assert call(*words, "--fraction", "0.02") == 2
    assert f"{path} is damaged; move it away" in error_line(capsys)
    assert path.read_text() == "{"
    assert call(*words, "--fraction", "0.02", "--overwrite") == 0
    assert json.loads(path.read_text())["selection"] == "Uniform"


# --- configuration files and the released spellings -----------------------------------------------------------------


def test_config_sets_defaults_and_flags_win(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("dataset: digits\nfraction: [0.01, 0.2]\nrho: 0.5\nbalance: false\nlr: 1e-2\n")
    args = options.parse(["--config", str(tmp_path / "c.yaml"), "--rho", "0.3"])
    assert (args.dataset, args.fraction, args.rho, args.balance, args.lr) == ("digits", [0.01, 0.2], 0.3, False, 0.01)


def test_config_may_hold_every_kind_of_value(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("resume: true\ncross: []\nK: null\neps: 0.25\nseed: 3\n")
    args = options.parse(["--config", str(tmp_path / "c.yaml")])
    assert (args.resume, args.cross, args.K, args.seed, rho_of(args)) == (True, [], None, [3], 0.5)
    (tmp_path / "c.yaml").write_text("resume: false\n")
    assert options.parse(["--config", str(tmp_path / "c.yaml")]).resume is None


@pytest.mark.parametrize(
    ("line", "rho", "fraction", "budget"),
    [
        ("--rho 0.5 --eps 0.01", 0.02, None, None),
        ("--eps 0.01 --rho 0.5", 0.5, None, None),
        ("--fraction 0.1 0.2 --budget 10", None, None, [10]),
        ("--budget 10 --fraction 0.3", None, [0.3], None),
    ],
)
def test_of_two_flags_for_one_thing_the_later_wins(line: str, rho: float | None, fraction: list, budget: list) -> None:
    args = options.parse(line.split())
    assert (rho_of(args), args.fraction, args.budget) == (rho, fraction, budget)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fractoin: 0.1", "unknown key 'fractoin'; did you mean fraction"),
        ("epochs: many", "argument --epochs: invalid int value: 'many'"),
        ("- 1\n- 2", "must hold 'flag: value' lines"),
        ("a: [", "is not valid YAML"),
        (b"\xff\xfe", "no text in UTF-8"),
    ],
)
def test_bad_configuration_files(
    tmp_path: Path, capsys: pytest.CaptureFixture, text: str | bytes, message: str
) -> None:
    (tmp_path / "c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert call("--config", tmp_path / "c.yaml") == 2
    line = error_line(capsys)
    assert message in line
    assert "c.yaml" in line


RELEASED = {
    "short flags": (
        "-se 3 -sb 64 -swd 1e-4 -so Adam -slr 0.2 -sm 0.8 -sn False -sti 2 -stf 0.5 -ti 4 -tf 0.25 -b 32 -tb 16 "
        "-wd 0.01 -j 2 -sp out -p 20",
        {"selection_epochs": 3, "selection_batch": 64, "selection_weight_decay": 1e-4, "selection_optimizer": "Adam",
         "selection_lr": 0.2, "selection_momentum": 0.8, "selection_nesterov": False, "selection_test_interval": 2,
         "selection_test_fraction": 0.5, "test_interval": 4, "test_fraction": 0.25, "batch": 32, "train_batch": 16,
         "weight_decay": 0.01, "workers": 2, "save_path": "out"},
    ),
    "long flags": (
        "--batch-size 64 --scheduler StepLR --step_size 30 --gamma 0.1 --gpu 0 --num_exp 5 --num_eval 3 "
        "--after_analyses --exact_analyses --print_freq 50 --workers 8 --seed 7 --balance True --nesterov True",
        {"batch": 64, "scheduler": "StepLR", "step_size": 30.0, "gamma": 0.1, "gpu": [0], "seed": [7]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RELEASED)
def test_released_flags_are_understood(case: str) -> None:
    line, expected = RELEASED[case]
    args = options.parse(line.split())
    assert {name: getattr(args, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "method", "rho"),
    [
        ("--selection Uncertainty --uncertainty Margin", "Margin", None),
        ("--selection Submodular --kernel worst --eps 0.01", "LCMat-S", 0.02),
        ("--selection Submodular --kernel adacore", "AdaCore", None),
        ("--selection Submodular --kernel grad_l2 --eps 0.01", "LCMat-S", 0.0),
        ("--selection Submodular --kernel cosine --submodular LogDeterminant", "LogDeterminant", None),
        ("--selection GradMatch --val", "GradMatch-Val", None),
        ("--selection Glister --val True", "Glister-Val", None),
        ("--selection Glister", "Glister", None),
    ],
)
def test_released_selections_are_translated(line: str, method: str, rho: float | None) -> None:
    """ρ is None where the command line does not say it: the method's own default holds."""
    args = options.parse(line.split())
    assert methods_of(args) == [method]
    assert rho_of(args) == (None if rho is None else pytest.approx(rho))


def test_flags_without_effect_are_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [*QUICK, *places(tmp_path), "--selection", "uniform", "--fraction", "0.02", "--gpu", "0"]
    assert call(*words, "--num_exp", "5", "--print_freq", "20", "--after_analyses", "--workers", "4") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "no effect" in line]
    assert lines == ["note: no effect here: --num_exp, --after_analyses, --print_freq, --workers"]


def test_help_groups_flags_by_stage(script: Callable) -> None:
    done = script([ROOT / "main.py", "--help"])
    assert done.returncode == 0
    for group in (
        "data:",
        "the network that selects:",
        "selection:",
        "training on the subset:",
        "testing:",
        "running:",
    ):
        assert f"\n{group}\n" in done.stdout
    parser = options.build_parser()
    assert all(action.help for action in parser._actions)


def test_output_that_is_no_terminal_holds_no_progress_bars(finished: Path, script: Callable, tmp_path: Path) -> None:
    words = [*QUICK, "--save_path", tmp_path, "--cache_path", finished / "cache", "--fraction", "0.02"]
    done = script([ROOT / "main.py", *words])
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\r" not in done.stdout
