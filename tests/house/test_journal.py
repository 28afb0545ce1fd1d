"""The numbers of a run as lines of JSON, always; on TensorBoard where asked for; in no record's hash."""

import importlib.util
import json
from pathlib import Path

import pytest

from lcmat import journal
from tests.harness import TINY, call, cli, places


def lines(folder: Path) -> list[dict]:
    """Return all lines of all files below a folder's cache."""
    paths = sorted((folder / "cache" / "log").rglob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_a_run_leaves_its_losses_and_tests_as_lines(tmp_path: Path) -> None:
    (record,) = cli(tmp_path)("--selection", "Uniform", "--epochs", "3", "--test_interval", "1", "--batch", "20")
    found = [line for line in lines(tmp_path) if "training MLP" in line["what"]]
    tests = [[line["step"], line["test_accuracy"]] for line in found if "test_accuracy" in line]
    assert tests == record["tests"]
    assert any(line["loss"] > 0 and line["learning_rate"] > 0 for line in found if "loss" in line)


def test_a_search_and_a_condensation_leave_their_course(tmp_path: Path) -> None:
    run = cli(tmp_path)
    run("--selection", "LBCS", "--budget", "40", "--trials", "3", "--option", "inner_steps=2")
    (log,) = tmp_path.glob("result/*/LBCS/*.jsonl")
    trials = [json.loads(line) for line in log.read_text().splitlines()[1:]]
    noted = [line for line in lines(tmp_path) if line["what"] == "LBCS"]
    assert [(one["step"], one["loss"], one["size"]) for one in noted] == [
        (t["trial"], t["f1"], t["f2"]) for t in trials
    ]
    records = run("--selection", "DM", "--ipc", "1", "--option", "iterations=3", "--epochs", "1")
    (record,) = [record for record in records if record["selection"] == "DM"]
    curve = [[one["step"], float(f"{one['loss']:.6g}")] for one in lines(tmp_path) if "condensing" in one["what"]]
    assert curve == record["curve"]


def test_without_tensorboard_a_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal.importlib.util, "find_spec", lambda name: None)
    assert call(*TINY, *places(tmp_path), "--selection", "Uniform", "--log", "tensorboard") == 2
    said = capsys.readouterr().err
    assert "requirements-log.txt" in said
    assert said.count("\n") == 1


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="requirements-log.txt is not installed")
def test_tensorboard_has_the_same_numbers_and_the_record_stays_the_same(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ("--selection", "Uniform", "--epochs", "2", "--test_interval", "1")
    (plain,) = cli(tmp_path / "plain")(*words)
    (shown,) = cli(tmp_path)(*words, "--log", "tensorboard")
    assert shown["config"] == plain["config"]
    (events,) = (tmp_path / "cache" / "log").rglob("events.*")
    board = EventAccumulator(str(events.parent))
    board.Reload()
    (name,) = [tag for tag in board.Tags()["scalars"] if tag.endswith("test_accuracy") and "training" in tag]
    assert [[one.step, pytest.approx(one.value)] for one in board.Scalars(name)] == shown["tests"]
