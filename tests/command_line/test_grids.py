"""Grids: what a file stands for, work shared by processes that may die, and the reports made of records."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from lcmat import data
from lcmat.alive import duration
from lcmat.analysis import contact_sheet
from lcmat.command_line import estimate, grids, options, planning, yaml_files
from lcmat.command_line.request import request_of
from lcmat.commands import _reports
from lcmat.commands import grid as command
from lcmat.commands._registry import REGISTRY
from lcmat.errors import UserError
from lcmat.reports import grids as reports
from lcmat.reports import table_text, tables
from lcmat.runs import queue
from lcmat.runs.job import Job
from tests import harness
from tests.harness import ROOT, places, records_in

# A perceptron trains in a blink.
SMALL = """
title: A small grid
runs:
  dataset: digits
  model: MLP
  selection: [Uniform, LCMat-S, Craig]
  fraction: [0.05, 0.1]
  seed: [0, 1]
  epochs: {epochs}
  batch: 50
  lr: 0.05
  test_interval: 0
  checkpoint_interval: 0
  threads: 1
  precision: float32
vary:
  selection_epochs: [2, 3]
report: [heatmap]
"""


def jobs_of(lines: list) -> list[Job]:
    """Return the jobs of command lines."""
    return planning.jobs_of([request_of(line, REGISTRY) for line in lines], REGISTRY)


def written(folder: Path, text: str, name: str = "small.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def call(*words: object) -> int:
    return harness.call(*words, command=command.main)


def read(path: Path, *overrides: str) -> grids.Grid:
    return grids.read_grid(path, overrides, options.build_parser(), list(_reports.KNOWN))


# --- files ------------------------------------------------------------------------------------------------------------


def test_blocks_and_varied_flags_are_combined(tmp_path: Path) -> None:
    text = "runs:\n - {lr: 0.1, seed: [0, 1]}\n - {lr: 0.2}\nvary: {epochs: [1, 2], rho: [0, 0.5]}\n"
    grid = read(written(tmp_path, text), "--batch", "7")
    found = [(line.lr, line.epochs, line.rho) for line in grid.lines]
    assert found == list(itertools.product([0.1, 0.2], [1, 2], [0, 0.5]))
    assert {line.batch for line in grid.lines} == {7}
    assert grid.lines[0].seed == [0, 1]
    assert list(grid.reports) == ["accuracy"]
    assert (grid.name, grid.title) == ("small", "small")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 0.1", "no grid: it must hold 'runs:'"),
        ("runs: {lr: 0.1}\nvaries: {}", "unknown key 'varies'; did you mean vary?"),
        ("runs: {learning: 0.1}", "unknown key 'learning'"),
        ("runs: {lr: fast}", "invalid float value"),
        ("runs: [0.1]", "'flag: value' lines"),
        ("runs: {}\nvary: {lr: 0.1}", "list of values"),
        ("runs: [{lr: 0.1}, {rho: 1, lr: 0.2}]\nvary: {rho: [0, 0.5], lr: [1]}", "vary: both give lr;"),
        ("runs: {}\nreport: [acuracy]", "unknown report 'acuracy'; did you mean accuracy?"),
        ("runs: {}\nreport: [{images: 3}]", "option: value"),
        ("runs: {lr: [", "not valid YAML"),
    ],
)
def test_bad_grid_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=r"small\.yaml") as caught:
        read(written(tmp_path, text))
    assert message in str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_file_of_configs_is_understood(path: Path) -> None:
    content = yaml_files.read_yaml(path)
    assert isinstance(content, dict)
    if "runs" in content:
        for line in read(path).lines:
            request_of(line, REGISTRY)
    assert path.read_text().startswith("#"), "a config says where it comes from"


def test_runs_of_different_numbers_of_threads_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """PyTorch's number is the process's own, so that one of them would be ignored."""
    path = written(tmp_path, "runs: [{dataset: digits, threads: 1}, {dataset: digits, threads: 3}]")
    assert call(path, "--plan") == 2
    assert "--threads 1 and 3; give one" in capsys.readouterr().err
    before = torch.get_num_threads()
    assert call(path, "--plan", "--threads", before) == 0


def test_absent_file_and_bad_flags_get_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert call(tmp_path / "none.yaml") == 2
    assert "cannot read" in capsys.readouterr().err
    assert call("--plan") == 2
    assert "name a file first" in capsys.readouterr().err
    assert call(written(tmp_path, SMALL.format(epochs=1)), "--epocs", "3") == 2
    assert "did you mean --epochs" in capsys.readouterr().err
    assert not (tmp_path / "result").exists()


# --- work -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small grid, done by one process in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = start(written(folder, SMALL.format(epochs=40)), folder)
    output, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors
    (folder / "output").write_text(output)
    return folder


def start(path: Path, folder: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "lcmat", "grid", str(path), *places(folder), *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_grid_says_what_it_does_and_ends_in_its_reports(undisturbed: Path) -> None:
    output = (undisturbed / "output").read_text()
    # Uniform reads no network, so that it does not vary with the pretraining: 2 fractions × 2 seeds × (1 + 2 · 2).
    assert "A small grid: 20 runs, 0 recorded, 20 to do" in output
    assert "20 runs are of a kind that none is recorded of" in output
    assert output.count("% final") == 20
    assert "about" in output
    assert len(records_in(undisturbed / "result")) == 20
    text = (undisturbed / "result/tables/small.md").read_text()
    assert "8 cases" in text
    assert (undisturbed / "result/figures/small.png").stat().st_size > 10_000
    assert not list((undisturbed / "result/.locks").glob("*"))


def test_a_second_time_nothing_is_left_to_do(undisturbed: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("result/*/*/*")}
    path = written(undisturbed, SMALL.format(epochs=40))
    assert call(path, *places(undisturbed), "--plan") == 0
    assert "20 runs, 20 recorded, 0 to do" in capsys.readouterr().out
    assert call(path, *places(undisturbed)) == 0
    assert capsys.readouterr().out.count("% final") == 0
    assert {path: path.stat().st_mtime_ns for path in undisturbed.glob("result/*/*/*")} == before
    assert call(path, *places(undisturbed), "--plan", "--seed", "0", "1", "2") == 0
    assert "30 runs, 20 recorded, 10 to do\n" in (told := capsys.readouterr().out)
    assert " in one process, by the runs recorded" in told


def test_killed_three_times_and_then_two_at_once_give_the_same(undisturbed: Path, tmp_path: Path) -> None:
    path = written(tmp_path, SMALL.format(epochs=40))
    for count in (1, 5, 11):  # in the first network's pretraining or just after, and among the runs
        process = start(path, tmp_path)
        while len(list(tmp_path.glob("result/*/*/*.json"))) < count:
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = 20 - len(records_in(tmp_path / "result"))
    assert left > 0
    both = [start(path, tmp_path) for _ in range(2)]
    outputs = []
    for process in both:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        outputs.append(output)
    assert records_in(tmp_path / "result") == records_in(undisturbed / "result")
    for name in ("small.md", "small.csv"):
        assert (tmp_path / "result/tables" / name).read_text() == (undisturbed / "result/tables" / name).read_text()
    # Each run that was left was done by one of the two.
    assert sum(output.count("% final") for output in outputs) == left
    assert list((tmp_path / "cache").glob("checkpoints/*.pt")) == []
    for made in tmp_path.glob("result/*/*/*.npz"):
        assert made.read_bytes() == (undisturbed / made.relative_to(tmp_path)).read_bytes()


def test_a_claim_is_held_by_one_and_ends_with_it(undisturbed: Path) -> None:
    line = read(written(undisturbed, SMALL.format(epochs=40)), *places(undisturbed)).lines[0]
    job = jobs_of([line])[0]
    with queue.claimed(job) as first, queue.claimed(job) as second:
        assert (first, second) == (True, False)
    with queue.claimed(job) as again:
        assert again


def test_another_network_is_trained_on_the_recorded_subset(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the caches, and so without pretraining."""
    shutil.copytree(undisturbed / "result", tmp_path / "result")
    monkeypatch.setattr("lcmat.runs.pretrained.signals_of", lambda *_: pytest.fail("selected anew"))
    text = SMALL.format(epochs=40).replace("model: MLP", "model: MLP\n  cross: [LeNet]")
    assert call(written(tmp_path, text.replace("heatmap", "cross")), *places(tmp_path), "--seed", "0") == 0
    new = {k: v for k, v in records_in(tmp_path / "result").items() if k not in records_in(undisturbed / "result")}
    assert {record["test_model"] for record in new.values()} == {"LeNet"}
    for name, record in new.items():
        same = ("selection", "fraction", "seed", "selection_network")
        twin = next(
            (path, other)
            for path, other in records_in(undisturbed / "result").items()
            if all(other["config"][key] == record["config"][key] for key in same)
        )
        one, other = (folder / "result" / path for folder, path in ((tmp_path, name), (undisturbed, twin[0])))
        assert one.with_suffix(".npz").read_bytes() == other.with_suffix(".npz").read_bytes()
        assert record["cost"] == twin[1]["cost"]


def test_a_damaged_record_is_named_and_left(undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(undisturbed / "result", tmp_path / "result")
    path = sorted(tmp_path.glob("result/*/LCMat-S/*.json"))[0]
    path.write_text(half := path.read_text()[:200])
    assert call(written(tmp_path, SMALL.format(epochs=40)), *places(tmp_path)) == 2
    error = capsys.readouterr().err
    assert path.name in error
    assert "move it away" in error
    assert path.read_text() == half


# --- reports ----------------------------------------------------------------------------------------------------------


def made_up(method: str, seed: int, value: float, fraction: float = 0.1, **more: object) -> dict:
    config = {"options": {}, "selection_network": None if method == "Uniform" else {"model": "MLP", "seed": seed}}
    return {
        "dataset": "digits", "selection_model": "MLP", "test_model": "MLP", "selection": method, "fraction": fraction,
        "seed": seed, "test_accuracy": value, "best_test_accuracy": value + 1, "test_interval": 10,
        "config": config | more, "subset_size": 1, "seconds": {}, "environment": {},
    }  # fmt: skip


VALUES = {"Uniform": (50.0, 60.0, 70.0), "LCMat-S": (55.0, 61.0, 78.0), "Craig": (40.0, 58.0, 71.0)}
RECORDS = [made_up(method, seed, value) for method, values in VALUES.items() for seed, value in enumerate(values)]


def test_best_is_bold_second_underlined_and_the_difference_paired() -> None:
    (table,) = tables.accuracy_tables(RECORDS)
    text = table_text.accuracy_markdown([table])
    assert "| **64.67 ± 11.93**" in text
    assert "| <u>60.00 ± 10.00</u>" in text
    test = scipy.stats.ttest_rel(VALUES["LCMat-S"], VALUES["Uniform"])
    low, high = test.confidence_interval(0.95)
    found = tables.paired(table.cells["LCMat-S", 0.1], table.cells["Uniform", 0.1])
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert f"{(low + high) / 2:+.2f} ± {(high - low) / 2:.2f}" in text
    typeset = table_text.accuracy_latex([table])
    assert r"\textbf{64.67 $\pm$ 11.93}" in typeset
    assert r"\underline{60.00 $\pm$ 10.00}" in typeset


def test_differences_are_over_common_seeds_only() -> None:
    records = [
        made_up("Uniform", 0, 50),
        made_up("Uniform", 2, 10),
        made_up("LCMat-S", 2, 14),
        made_up("LCMat-S", 5, 90),
    ]
    (table,) = tables.accuracy_tables(records)
    found = tables.paired(table.cells["LCMat-S", 0.1], table.cells["Uniform", 0.1])
    assert (found.mean, found.half, found.count) == (4, None, 1)
    (table,) = tables.accuracy_tables([made_up("Uniform", 0, 50), made_up("LCMat-S", 1, 90)])
    assert tables.paired(table.cells["LCMat-S", 0.1], table.cells["Uniform", 0.1]) is None


def test_missing_runs_show_as_missing(undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(undisturbed / "result", tmp_path / "result")
    text = (
        SMALL.format(epochs=40)
        .replace("selection_epochs: [2, 3]", "selection_epochs: [2]")
        .replace("heatmap", "accuracy")
    )
    lost = [p for p in sorted(tmp_path.glob("result/*/*/*.json")) if _is_lost(json.loads(p.read_text()))]
    assert len(lost) == 3
    for path in lost:
        path.unlink()
    assert call(written(tmp_path, text), *places(tmp_path), "--report") == 0
    shown = (tmp_path / "result/tables/small.md").read_text()
    assert "3 of 12 runs are missing" in shown
    craig = next(line for line in shown.splitlines() if line.startswith("| Craig"))
    assert "missing" in craig
    assert "(1 of 2)" in craig
    assert "missing" in (tmp_path / "result/tables/small.tex").read_text()


def _is_lost(record: dict) -> bool:
    network = record["config"]["selection_network"]
    if record["selection"] != "Craig" or network["epochs"] != 2:
        return False
    return record["fraction"] == 0.05 or record["seed"] == 1


def test_wins_and_margins_by_hand() -> None:
    cases = [{"a": 3.0, "b": 1.0}, {"a": 2.0, "b": 2.0}, {"a": 0.0, "b": 6.0, "c": 5.0}]
    wins, margins, counts = reports.wins_and_margins(cases, ["a", "b", "c"])
    assert (wins["a", "b"], counts["a", "b"]) == (1.5, 3)
    assert margins["a", "b"] == pytest.approx((2 + 0 - 6) / 3)
    assert wins["b", "a"] == 1.5
    assert (wins["c", "a"], wins["a", "c"], counts["c", "a"]) == (1, 0, 1)


@pytest.mark.parametrize("report", ["cross", "sensitivity", "wallclock", "images"])
def test_every_report_is_made(undisturbed: Path, tmp_path: Path, report: str) -> None:
    shutil.copytree(undisturbed / "result", tmp_path / "result")
    text = (
        SMALL.format(epochs=40).replace("selection_epochs: [2, 3]", "selection_epochs: [2]").replace("heatmap", report)
    )
    assert call(written(tmp_path, text), *places(tmp_path), "--report") == 0
    made = [*tmp_path.glob("result/tables/small*"), *tmp_path.glob("result/figures/small*")]
    assert len(made) >= 2
    for path in made:
        assert path.stat().st_size > 50
    if report == "sensitivity":
        assert "ρ = 0.1" in (tmp_path / "result/tables/small.md").read_text()


def test_sheet_holds_each_image_in_its_row() -> None:
    """In the order given, class by class, on white."""
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 2, 3)
    sheet = contact_sheet.sheet_of(images, np.array([2, 0, 2, 2, 0]), classes=3, columns=3)
    assert sheet.shape == (3 * 3, 3 * 4)
    assert sheet[::3, ::4].tolist() == [[1, 4, 255], [255, 255, 255], [0, 2, 3]]
    assert (sheet[2::3] == 255).all()
    assert (sheet[:, 3::4] == 255).all()


def test_images_chosen_and_made_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside another report the sheet has a name of its own."""
    text = """
title: Both
runs: {dataset: digits, model: MLP, selection: [Uniform, RandomReal], ipc: [2], epochs: 1}
report: [accuracy, images]
"""
    drawn = []
    sheet = contact_sheet.contact_sheet
    monkeypatch.setattr(contact_sheet, "contact_sheet", lambda *a: drawn.append(a) or sheet(*a))
    assert call(written(tmp_path, text), *places(tmp_path)) == 0
    ((pictures, *_),) = drawn
    assert list(pictures) == ["Uniform", "RandomReal"]
    train, records = data.load("digits").train, [json.loads(p.read_text()) for p in tmp_path.glob("result/*/*/*.json")]
    chosen = next(np.load(tmp_path / "result/digits-MLP/Uniform" / r["indices"]) for r in records if "indices" in r)
    assert torch.equal(pictures["Uniform"][0], train.images[chosen["indices"]])
    known = {image.numpy().tobytes() for image in train.images}
    assert all(image.numpy().tobytes() in known for image in pictures["RandomReal"][0])
    assert [sorted(labels.tolist()) for _, labels in pictures.values()] == [sorted([*range(10)] * 2)] * 2
    assert (tmp_path / "result/figures/small-images.png").stat().st_size > 1000


def test_nothing_recorded_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert call(written(tmp_path, SMALL.format(epochs=1)), *places(tmp_path), "--report") == 2
    assert "none of the 20 runs" in capsys.readouterr().err


def test_estimate_scales_with_images_and_epochs(undisturbed: Path) -> None:
    path = written(undisturbed, SMALL.format(epochs=40))
    planned = jobs_of(read(path, *places(undisturbed)).lines)
    known = [json.loads(job.path.read_text()) for job in planned]
    for record in known:
        record["seconds"]["train"] = record["subset_size"] * 40 + 500 / 3  # a second for each image and epoch
        record["seconds"]["select"] = len(record["selection"]) + record["fraction"]  # of method and size
    seconds, unknown = estimate.estimate(planned, known)
    assert unknown == 0
    expected = sum(record["seconds"]["train"] + record["seconds"]["select"] for record in known)
    assert seconds == pytest.approx(expected, rel=1e-6)
    assert estimate.estimate(planned, []) == (0.0, len(planned))


def test_estimate_of_a_selection_by_other_options(tmp_path: Path) -> None:
    """A search that is recorded for another size or start takes as long; of other methods nothing is known."""
    text = """
title: Searches
runs:
  - {selection: [LBCS], init_size: [100, 200]}
  - {selection: [LBCS], init_size: [100], init_selection: EL2N}
vary: {dataset: [digits], model: [MLP], trials: [5], epochs: [40], test_interval: [0]}
report: [accuracy]
"""
    planned = jobs_of(read(written(tmp_path, text), *places(tmp_path)).lines)
    config = planned[0].config
    known = {"dataset": "digits", "subset_size": 100, "seconds": {"train": 1e-9, "select": 3000.0}, "config": config}
    assert estimate.estimate(planned, [known]) == (pytest.approx(3 * 3000), 0)
    known["config"] = {**config, "selection": "Uniform"}
    assert estimate.estimate(planned, [known]) == (pytest.approx(0, abs=1e-6), 3)


def test_estimate_of_condensation(tmp_path: Path) -> None:
    """Images are learned once for all networks, not again where they are recorded; each holds factor² of them."""
    text = """
title: Condensation
runs: {dataset: digits, model: MLP, cross: [LeNet], selection: [DM], factor: 2, ipc: [1], seed: [0, 1], epochs: 40}
vary: {test_interval: [0]}
report: [accuracy]
"""
    planned = jobs_of(read(written(tmp_path, text), *places(tmp_path)).lines)
    one, images = 10 * 4 * 40 + 500 / 3, 1000.0  # a second for each image and epoch, and the test
    known = [
        {"dataset": "digits", "subset_size": 10, "seconds": {"train": one, "select": images}, "config": job.config}
        for job in planned
        if job.run.seed == 0
    ]
    assert estimate.estimate(planned[:2], known) == (pytest.approx(2 * one), 0)
    assert estimate.estimate(planned, known) == (pytest.approx(4 * one + images), 0)
    assert estimate.estimate(planned, known[:1])[1] == 2  # of LeNet nothing is known
    for record in known:
        record["config"] = {**record["config"], "selection": "DC"}
    # Nothing of DM, but the images of seed 0 are there.
    assert estimate.estimate(planned, known) == (pytest.approx(4 * one), 1)


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s"), (600, "10 min"), (12_000, "3 h 20 min")])
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


# ---- precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_of_configs_names_its_precision(path: Path) -> None:
    """`auto` is another one on another machine, where none of the records would be found."""
    parser = options.build_parser()
    is_grid = "runs" in yaml_files.read_yaml(path)
    several = (
        grids.read_grid(path, [], parser, [*_reports.KNOWN]).lines
        if is_grid
        else [options.parse(["--config", str(path)], parser)]
    )
    assert {args.precision for args in several} <= {"float32", "bfloat16"}


@pytest.mark.parametrize("name", ["table1_digits", "table2_digits", "figure4_digits"])
def test_what_is_recorded_is_found_on_any_machine(name: str, capsys: pytest.CaptureFixture) -> None:
    words = [ROOT / "configs" / f"{name}.yaml", "--plan", "--save_path", ROOT / "result", "--device", "cpu"]
    assert harness.call(*words, command=command.main) == 0
    told = capsys.readouterr().out
    assert " 0 recorded" not in told
    assert "recorded with --precision" not in told


def test_a_plan_says_what_is_recorded_in_another_precision(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [*harness.TINY, "--selection", "Uniform", *places(tmp_path), "--precision", "float32"]
    assert harness.call(*words) == 0
    path = tmp_path / "grid.yaml"
    path.write_text("runs: {seed: [0, 1], selection: [Uniform]}\n")
    capsys.readouterr()
    assert (
        harness.call(path, *harness.TINY, *places(tmp_path), "--plan", "--precision", "bfloat16", command=command.main)
        == 0
    )
    out = capsys.readouterr().out
    assert "2 runs, 0 recorded, 2 to do" in out
    assert "1 of these is recorded with --precision float32" in out
    assert (
        harness.call(path, *harness.TINY, *places(tmp_path), "--plan", "--precision", "float32", command=command.main)
        == 0
    )
    assert "is recorded with" not in capsys.readouterr().out
