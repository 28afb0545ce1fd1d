"""The benchmark command: what it measures, keeps and writes. (What it finds is in result/benchmarks.)"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import methods
from lcmat.command_line import run_command_line
from lcmat.commands import benchmark
from lcmat.commands.benchmark import measuring as benchmarks
from lcmat.commands.benchmark import plain, selecting, sharding, training, work
from lcmat.commands.benchmark.measuring import Report, measured, one_class, synthetic_signals, timed
from lcmat.data.splits import Dataset, TensorSplit
from lcmat.training import Compute
from tests.harness import ROOT

SMALL = ["--samples", "300", "--features", "8", "--classes", "3", "--runs", "2"]


def allocate(megabytes: int) -> list[float]:
    """Hold so much memory for a moment; runs in a process of its own."""
    return timed(lambda: torch.ones(megabytes * 2**20, dtype=torch.uint8)[0], 2)


def test_peak_memory_is_that_of_a_process_of_its_own() -> None:
    held = torch.ones(600 * 2**20, dtype=torch.uint8)  # by this process, not by the measured ones
    little, much = measured(allocate, 1), measured(allocate, 500)
    assert len(held) > 0
    assert len(much["seconds"]) == 2
    assert 400 * 2**20 < much["peak_bytes"] - little["peak_bytes"] < 700 * 2**20
    assert much["median"] == pytest.approx(sum(much["seconds"]) / 2)


def wait_long(path: Path) -> list[float]:
    """Tell the number of this process, and do what would take a minute."""
    path.with_suffix(".part").write_text(str(os.getpid()))
    path.with_suffix(".part").rename(path)
    time.sleep(60)
    return [60.0]


def runs(pid: str) -> bool:
    """Tell whether there is such a process; one that has ended and was not waited for has no command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="how processes are told apart")
def test_a_killed_benchmark_leaves_no_process_behind(tmp_path: Path) -> None:
    """Nor one that goes on measuring for an hour."""
    told = tmp_path / "pid"
    words = "import tests.commands.test_benchmarks as t; t.measured(t.wait_long, t.Path({!r}))"
    code, environment = words.format(str(told)), os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment) as process:
        until = time.monotonic() + 60
        while not told.exists() and time.monotonic() < until:
            time.sleep(0.1)
        assert runs(told.read_text())
        process.kill()
    until = time.monotonic() + 20
    while runs(told.read_text()) and time.monotonic() < until:
        time.sleep(0.1)
    assert not runs(told.read_text())


def threads_there() -> tuple[list[float], dict]:
    """Tell how many threads a measured process has."""
    return [0.0], {"threads": torch.get_num_threads()}


def test_measured_processes_have_the_threads_of_this_one() -> None:
    torch.set_num_threads(3)
    assert measured(threads_there)["threads"] == 3


@pytest.mark.skipif(not Path("/proc").exists(), reason="how processes are told apart")
def test_a_neighbour_is_busy_on_one_core_until_the_end() -> None:
    """However that comes about."""
    with benchmarks.neighbour(False) as nobody:
        assert nobody is None
    seen = []
    with pytest.raises(ValueError, match="measured in vain"):
        measure_in_vain(seen)
    assert len(seen) == 1
    assert not runs(str(seen[0]))


def measure_in_vain(seen: list[int]) -> None:
    """Look at what a neighbour does, and fail."""
    with benchmarks.neighbour(True) as pid:
        seen.append(pid)
        until = time.monotonic() + 20
        while ticks(pid) < 20 and time.monotonic() < until:
            time.sleep(0.05)
        assert ticks(pid) >= 20
        assert len(os.sched_getaffinity(pid)) == 1
        raise ValueError("measured in vain")


def ticks(pid: int) -> int:
    """Return the processor time of a process, in hundredths of a second."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


def test_what_is_measured_beside_a_neighbour_lies_apart_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selecting, "measured", lambda *_: {"seconds": [1.0], "median": 1.0, "peak_bytes": 2**30})
    words = [*SMALL, "--save_path", str(tmp_path), "selection", "--methods", "Craig", "--threads", "2"]
    assert run_command_line(benchmark.main, words) == 0
    assert run_command_line(benchmark.main, [*words, "--neighbour"]) == 0
    alone, beside = (tmp_path / "benchmarks" / name for name in ("selection.md", "neighbour/selection.md"))
    assert "busy process" not in alone.read_text()
    assert "Measured beside a busy process on one core (`--neighbour`), on" in beside.read_text()
    assert ", 2 threads," in beside.read_text()


def test_synthetic_signals_hold_everything_and_are_repeatable() -> None:
    signals, again = synthetic_signals(2000, 512, 10), synthetic_signals(2000, 512, 10)
    assert torch.equal(signals.logits, again.logits)
    accuracy = float((signals.logits.argmax(1) == signals.labels).float().mean())
    assert 0.8 < accuracy < 1
    sure = float((torch.softmax(signals.logits, 1).amax(1) > 0.999).float().mean())
    assert 0.05 < sure < 0.95
    assert len(signals.initialisations) == 10
    assert set(signals.validation.labels.tolist()) == set(range(10))


def test_selection_is_measured_kept_and_tabulated(tmp_path: Path, script: Callable) -> None:
    words = ["-m", "lcmat", "benchmark", "selection", *SMALL, "--save_path", tmp_path, "--methods", "Craig", "GraNd"]
    done = script(words)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "benchmarks" / "selection.json").read_text())
    assert set(report["measurements"]) == {"Craig", "GraNd"}
    assert report["setting"]["samples"] == 300
    for row in report["measurements"].values():
        assert len(row["seconds"]) == 2
        assert row["peak_bytes"] > 10**8
    text = (tmp_path / "benchmarks" / "selection.md").read_text()
    assert "`python -m lcmat benchmark selection --samples 300 --features 8 --classes 3 --runs 2`" in text
    assert "| Craig" in text


def test_what_is_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(function: Callable, name: str, setting: dict) -> dict:
        asked.append(name)
        return {"seconds": [1.0, 3.0], "median": 2.0, "peak_bytes": 2**30}

    monkeypatch.setattr(selecting, "measured", counted)
    call = [*SMALL, "--save_path", str(tmp_path), "selection"]
    assert run_command_line(benchmark.main, call) == 0
    on_signals = {name for name in methods.names() if methods.get(name).needs and not methods.get(name).needs_context}
    assert set(asked) == on_signals
    assert run_command_line(benchmark.main, call) == 0
    assert len(asked) == len(on_signals)
    assert run_command_line(benchmark.main, [*call, "--fraction", "0.2"]) == 0
    assert len(asked) == 2 * len(on_signals)
    assert run_command_line(benchmark.main, [*call, "--fraction", "0.2", "--overwrite", "--methods", "Craig"]) == 0
    assert asked[-1] == "Craig"


def test_damaged_reports_are_made_anew(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"setting": ')
    report = Report(tmp_path / "x.json", {"n": 1})
    assert report.rows == {}
    report.add("one", {"seconds": [1.0]})
    assert Report(tmp_path / "x.json", {"n": 1}).rows["one"]["seconds"] == [1.0]
    assert Report(tmp_path / "x.json", {"n": 2}).rows == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["selections"], "did you mean selection"),
        (["selection", "--methods", "Uniform"], "methods that read signals alone, not Uniform; leave it out"),
        (["--runs", "0"], "--runs must be at least 1"),
        (["--runs", "2147483648"], "at most 1,000,000,000, not 2147483648"),
        (["--methods", "Crag"], "did you mean Craig"),
    ],
)
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], message: str) -> None:
    assert run_command_line(benchmark.main, [*words, "--save_path", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_machine_names_changed_code() -> None:
    environment = Report(Path("nowhere"), {}).environment | {"git_commit": "0123456789abcdef+changes"}
    assert "commit 0123456789ab with changes" in benchmarks.machine(environment)


# ---- selection against plain formulations ---------------------------------------------------------------------------


def test_the_plain_formulation_selects_the_same() -> None:
    """In float64: in float32, as it is measured, it breaks ties by rounding."""
    signals = synthetic_signals(60, 8, 3)
    signals = signals[signals.labels == 0]
    arrays = [signals.features.double().numpy(), signals.logits.double().numpy(), signals.labels.numpy()]
    expected = methods.select(signals, "LCMat-S", budget=6, K=10).indices.tolist()
    assert plain.select(*arrays, budget=6, K=10) == expected


def test_one_class_is_repeatable_and_holds_one_class() -> None:
    signals, again = one_class(300, 16, 5), one_class(300, 16, 5)
    assert torch.equal(signals.features, again.features)
    assert torch.equal(signals.logits, again.logits)
    assert set(signals.labels.tolist()) == {0}
    accuracy = float((signals.logits.argmax(1) == 0).float().mean())
    assert 0.3 < accuracy < 1


@pytest.mark.parametrize("greedy", ["exact", "stochastic", "partition"])
def test_a_large_class_is_measured(greedy: str) -> None:
    seconds, facts = work.large_class(200, greedy, 0.1, 2)
    assert len(seconds) == 2
    assert facts["cost"] > 0
    assert (facts["bound"] is not None) == (greedy == "exact")


def fake(rows: dict[str, dict]) -> Callable:
    """Stands for `measured`: looks the row up by the arguments that tell it."""

    def measured(function: Callable, *arguments: object, threads: int | None = None) -> dict:
        key = " ".join(str(argument) for argument in (function.__name__, *arguments[:2]) if argument is not None)
        return next(row for name, row in rows.items() if key.endswith(name))

    return measured


def row(seconds: float, gigabytes: float, **facts: object) -> dict:
    """A measurement."""
    return {"seconds": [seconds], "median": seconds, "peak_bytes": int(gigabytes * 2**30), **facts}


def test_large_classes_are_tabulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = {"cost_error": 0.0, "bound": None}
    rows = {
        "1000 exact": row(1, 1, cost=200.0, cost_error=0.0, bound=150.0),
        "1000 stochastic": row(2, 1, cost=202.0, **cost),
        "1000 partition": row(3, 1, cost=201.0, **cost),
        "10000 exact": row(100, 2, cost=2000.0, cost_error=0.0, bound=1500.0),
        "10000 stochastic": row(20, 2, cost=2040.0, cost_error=4.0, bound=None),
        "10000 partition": row(30, 2, cost=2010.0, **cost),
    }
    monkeypatch.setattr(selecting, "measured", fake(rows))
    words = ["scale", "--sizes", "1000", "10000", "--save_path", str(tmp_path)]
    assert run_command_line(benchmark.main, words) == 0
    text = (tmp_path / "benchmarks" / "scale.md").read_text()
    assert "n^2.00 (matrix held, 1,000 to 10,000)" in text
    assert "+1.00%" in text
    assert "2040 ± 4 (estimate)" in text
    assert (tmp_path / "benchmarks" / "scale.png").stat().st_size > 10_000


def test_the_plain_formulation_is_extrapolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: ten classes of 4 · 8 s for the matrix and 8 · 12 s for the greedy, and 1 + 4 · 4 GiB."""
    rows = {
        "plainly x.pt 1250": row(5, 2, picks=[1, 2], stages=[[2, 3]]),
        "plainly x.pt 2500": row(20, 5, picks=[1, 2], stages=[[8, 12]]),
        "one_cut x.pt 1250": row(1, 1, picks=[1, 2]),
        "one_cut x.pt 2500": row(1, 1, picks=[2, 1]),
        "cifar10 x.pt": row(4, 1, before=2**29),
    }

    monkeypatch.setattr(selecting, "measured", fake(rows))
    monkeypatch.setattr(selecting, "real_signals", lambda args: Path("x.pt"))
    (tmp_path / "net.pt").touch()
    words = ["lcmat", "--pretrained", str(tmp_path / "net.pt"), "--save_path", str(tmp_path)]
    assert run_command_line(benchmark.main, words) == 0
    text = (tmp_path / "benchmarks" / "lcmat.md").read_text()
    assert "**320 times as fast, 1/17.0 of the memory**" in text
    assert "one worker" in text
    assert "2 of 2 the same" in text


def random_images(count: int) -> TensorSplit:
    """Images of Fashion-MNIST's shape."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=draw)
    return TensorSplit(images, torch.arange(count) % 10)


def test_all_ways_make_the_same_trial() -> None:
    """What is compared does the same: the loss on all images after the same steps."""
    compute = Compute(torch.device("cpu"), torch.float32, (0.2861,), (0.3530,))
    ways = training.trials_of_each_way(random_images(60), compute, torch.arange(20))
    losses = {name: trial() for name, trial in ways.items()}
    assert len(losses) == 4
    assert max(losses.values()) == pytest.approx(min(losses.values()), rel=1e-5)


def test_the_inner_loop_is_measured_and_tabulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = random_images(60)
    dataset = Dataset("FashionMNIST", split, split, tuple("abcdefghij"), (0.2861,), (0.3530,))
    monkeypatch.setattr(training.data, "load", lambda *_: dataset)
    call = ["inner", "--images", "50", "--runs", "2", "--save_path", str(tmp_path)]
    assert run_command_line(benchmark.main, call) == 0
    text = (tmp_path / "benchmarks" / "inner.md").read_text()
    assert "20 full-batch steps of Adam on 2 images" in text
    assert "`python -m lcmat benchmark inner --data_path DIR --runs 2 --images 50`" in text
    rows = json.loads((tmp_path / "benchmarks" / "inner.json").read_text())["measurements"]
    assert set(rows) == {"this library", training.TOGETHER, "its usual training loop", "plain loop"}
    assert all(len(row["values"]) == 2 for row in rows.values())
    assert all(f"| {name}" in text for name in rows)
    monkeypatch.setattr(training, "trials_of_each_way", None)
    assert run_command_line(benchmark.main, call) == 0, "what is measured is not measured again"


def test_real_signals_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run_command_line(benchmark.main, ["lcmat", "--save_path", str(tmp_path)]) == 2
    assert "--pretrained" in capsys.readouterr().err


# ---- selection from shards ------------------------------------------------------------------------------------------


def test_selection_from_shards_is_measured_and_extrapolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made up for it on the disk is removed again. In this process, without its memory."""

    def here(function: Callable, *arguments: object) -> dict:
        seconds, facts = function(*arguments)
        return {"seconds": seconds, "median": seconds[0], "peak_bytes": 2**30, **facts}

    monkeypatch.setattr(sharding, "measured", here)
    words = ["shards", "--shard_samples", "400", "1200", "--features", "4", "--methods", "KMedoids", "LCMat-S"]
    places = ["--save_path", str(tmp_path), "--cache_path", str(tmp_path / "cache")]
    assert run_command_line(benchmark.main, [*words, *places]) == 0
    rows = json.loads((tmp_path / "benchmarks" / "shards.json").read_text())["measurements"]
    assert rows["LCMat-S 1200"]["classes"] == rows["LCMat-S 1200"]["picks"] == 12
    assert rows["one class, partition"]["cost"] == pytest.approx(rows["one class, exact"]["cost"], rel=0.02)
    text = (tmp_path / "benchmarks" / "shards.md").read_text()
    assert "1,000,000,000 samples on 100 such machines would take: KMedoids: " in text
    assert list((tmp_path / "cache" / "benchmarks").iterdir()) == []
    before = rows["one class, exact"] | {"cost": 100 * rows["one class, partition"]["cost"]}
    (tmp_path / "benchmarks" / "scale.json").write_text(json.dumps({"measurements": {"1200 exact": before}}))
    monkeypatch.delattr(sharding, "measured")
    assert run_command_line(benchmark.main, [*words, *places]) == 0
    assert "its cost -99.00% of that at once" in (tmp_path / "benchmarks" / "shards.md").read_text()
