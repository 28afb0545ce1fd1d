"""Selection from a folder of shards: the picks of one process from one file, by any number of processes."""

import dataclasses
import json
import multiprocessing
import re
import shutil
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import methods
from lcmat import Subset, UserError, locks
from lcmat.commands import shard
from lcmat.effort import limited_effort
from lcmat.runs.sharded import Unit, Work, select_from_shards
from lcmat.runs.signal_files import Selected, load_signals
from lcmat.selection import Method, Picks
from lcmat.selection.plan import planned
from lcmat.signals import Shards, open_shards, write_shards
from tests.every_method import DYNAMICS, FullProblem, make
from tests.harness import call

pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")

# Labels alone, features, logits, gradients and curvature, weights, dynamics, a validation split; and all at once.
READING = ["Uniform", "Herding", "Entropy", "LCMat-S", "FacilityLocation", "Craig", "CCS", "GradMatch-Val", "Glister"]


def archive(path: Path, problem: FullProblem, dtype: type = np.float32, **more: np.ndarray) -> Path:
    """Everything that a method reads of signals, in a .npz file."""
    arrays = {"features": problem.features.astype(dtype), "logits": problem.logits.astype(dtype)}
    held_out = dict(zip(("features", "logits", "labels"), problem.validation, strict=True))
    arrays |= {name: getattr(problem, name) for name in DYNAMICS}
    arrays |= {f"validation_{name}": array for name, array in held_out.items()}
    np.savez(path, **{**arrays, "labels": problem.labels, **more})
    return path


def sharded(folder: Path, *files: Path, size: int = 3000) -> Shards:
    """What the command makes of files: shards of few samples."""
    assert call(*files, "--to", folder, "--shard_size", size, command=shard.main) == 0
    return open_shards(folder)


def asked(method: str | Method, **how: object) -> Selected:
    """A selection of a fifth."""
    method = methods.get(method) if isinstance(method, str) else method
    return Selected(method, {"fraction": 0.2}, {"balanced": True, "seed": 3, **how})


def assert_same(found: Subset, expected: Subset, but: tuple[str, ...] = ()) -> None:
    """Assert that all that two subsets hold is equal, bit by bit."""
    for field in dataclasses.fields(expected):
        if field.name not in but:
            np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name), err_msg=field.name)


@pytest.fixture(scope="module")
def problem() -> FullProblem:
    """Classes of very different sizes, and a label that nobody has."""
    return make([3, 40, 0, 7, 25, 12], seed=5)


# ---- the same picks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "names"), [(np.float16, READING), (np.float64, ["LCMat-S"])])
def test_picks_from_shards_are_those_from_the_file(
    problem: FullProblem, tmp_path: Path, dtype: type, names: list[str]
) -> None:
    """All that a subset holds, whatever the method reads; class by class, over all together, and in half precision."""
    file = archive(tmp_path / "mine.npz", problem, dtype)
    shards = sharded(tmp_path / "mine", file)
    assert len(shards.counts) > 3
    assert shards.arrays["features"] == (dtype, (4,))
    signals = load_signals(file)
    for name in names:
        for balanced in (True, False):
            found, text = select_from_shards(shards, asked(name, balanced=balanced), tmp_path / "out", False)
            expected = methods.select(signals, name, fraction=0.2, seed=3, balanced=balanced)
            assert_same(found, expected)
            assert [int(line) for line in text.read_text().split()] == expected.indices.tolist()
    assert not list((tmp_path / "out").rglob("*.parts"))


def test_main_takes_a_folder_where_it_takes_a_file(
    problem: FullProblem, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = archive(tmp_path / "mine.npz", problem)
    sharded(tmp_path / "folder", file)
    lines = []
    for source in (file, tmp_path / "folder"):
        capsys.readouterr()
        words = ["--selection", "LCMat-S", "Uniform", "--fraction", "0.1", "0.3", "--rho", "0.5", "--quota", "recall"]
        assert call("--signals", source, *words, "--save_path", tmp_path / "out") == 0
        lines.append([line.rpartition(":")[0] for line in capsys.readouterr().out.splitlines()])
    assert lines[0] == lines[1]
    of_file, of_folder = ((tmp_path / "out" / f"signals-{name}").rglob("*.txt") for name in ("mine", "folder"))
    texts = [sorted((path.parent.name, path.read_text()) for path in paths) for paths in (of_file, of_folder)]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 4


def test_arrays_from_several_files_stand_one_after_the_other(problem: FullProblem, tmp_path: Path) -> None:
    """As .npy files of each array, which are cut at other places than shards; with classes named by text."""
    names = np.array(["owl", "ant", "yak", "bee", "cat", "dog"])
    arrays = {"features": problem.features, "labels": names[problem.labels]}
    np.savez(tmp_path / "whole.npz", **arrays)
    files = []
    for number, part in enumerate(np.split(np.arange(len(problem)), [11, 50])):
        for name, array in arrays.items():
            files.append(tmp_path / f"{name}-{number}.npy")
            np.save(files[-1], array[part])
    shards = sharded(tmp_path / "folder", *files, size=900)
    signals = load_signals(tmp_path / "whole.npz")
    assert shards.class_names == signals.class_names == ("ant", "bee", "cat", "dog", "owl")
    found, _ = select_from_shards(shards, asked("KMedoids"), tmp_path / "out", False)
    assert_same(found, methods.select(signals, "KMedoids", fraction=0.2, seed=3))
    again = shards.everything()
    assert torch.equal(again.features, signals.features)
    assert torch.equal(again.labels, signals.labels)


# ---- any number of processes ----------------------------------------------------------------------------------------


def counted(begun: list[int], fails: int | None = None) -> Method:
    """A method that tells which class it chooses from, by its size; and fails at one."""

    def pick(signals: object, budget: int, generator: torch.Generator) -> Picks:
        begun.append(len(signals))
        if len(signals) == fails:
            raise UserError("it fails")
        return Picks(torch.randperm(len(signals), generator=generator)[:budget])

    return Method("Counted", pick, needs=("features",))


def test_workers_share_the_classes_out_and_come_to_the_same(problem: FullProblem, tmp_path: Path) -> None:
    """Each class is chosen from by one of them."""
    shards, begun, found = sharded(tmp_path / "folder", archive(tmp_path / "mine.npz", problem)), [], []
    expected, _ = select_from_shards(shards, asked(counted([])), tmp_path / "alone", False)

    def work() -> None:
        found.append(select_from_shards(shards, asked(counted(begun)), tmp_path / "out", False)[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(begun) == [3, 7, 12, 25, 40]
    assert len(found) == 4
    for subset in found:
        assert_same(subset, expected)
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in left) == [".npz", ".txt"]


def test_what_was_chosen_before_it_ended_is_not_chosen_again(problem: FullProblem, tmp_path: Path) -> None:
    """The largest classes come first."""
    shards, begun = sharded(tmp_path / "folder", archive(tmp_path / "mine.npz", problem)), []
    with pytest.raises(UserError, match="it fails"):
        select_from_shards(shards, asked(counted(begun, fails=12)), tmp_path / "out", False)
    assert begun == [40, 25, 12]
    (parts,) = (tmp_path / "out").rglob("*.parts")
    assert sorted(path.name for path in parts.iterdir()) == ["class000001.npz", "class000004.npz"]
    for again in ([12, 7, 3], []):
        begun.clear()
        subset, _ = select_from_shards(shards, asked(counted(begun)), tmp_path / "out", False)
        assert begun == again
    begun.clear()
    assert_same(select_from_shards(shards, asked(counted(begun)), tmp_path / "out", True)[0], subset)
    assert len(begun) == 5


def test_class_that_another_process_holds_is_waited_for(problem: FullProblem, tmp_path: Path) -> None:
    shards, begun = sharded(tmp_path / "folder", archive(tmp_path / "mine.npz", problem)), []
    request = asked(counted(begun))
    plan = planned(request.method, shards, **request.size, **request.how)
    work = Work(shards, plan, tmp_path / "result.npz", tmp_path / "locks")
    with locks.claimed(work.lock(Unit(4).name)) as mine:
        assert mine
        waiting = threading.Thread(target=work.do)
        waiting.start()
        while len(begun) < 4:
            waiting.join(0.01)
        assert waiting.is_alive()
    waiting.join(30)
    assert sorted(begun) == [3, 7, 12, 25, 40]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="what starts no process anew")
def test_processes_share_the_classes_out_and_come_to_the_same(problem: FullProblem, tmp_path: Path) -> None:
    """Each class is chosen from by one of them, and each of them reads the same subset in the end."""
    shards = sharded(tmp_path / "folder", archive(tmp_path / "mine.npz", problem))
    expected, _ = select_from_shards(shards, asked(counted([])), tmp_path / "alone", False)

    def work(number: int) -> None:
        begun: list[int] = []
        subset, _ = select_from_shards(shards, asked(counted(begun)), tmp_path / "out", False)
        assert_same(subset, expected)
        (tmp_path / f"{number}.json").write_text(json.dumps(begun))

    processes = [multiprocessing.get_context("fork").Process(target=work, args=(number,)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(size for path in tmp_path.glob("*.json") for size in json.loads(path.read_text())) == [
        3,
        7,
        12,
        25,
        40,
    ]


# ---- a class in parts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["FacilityLocation", "KMedoids", "Craig"])
def test_parts_of_a_class_come_to_the_picks_of_one_process(problem: FullProblem, tmp_path: Path, name: str) -> None:
    """By GreeDi; LCMat-S and AdaCore measure each part by what varies in it, so that theirs need not be the same."""
    file = archive(tmp_path / "mine.npz", problem)
    shards = sharded(tmp_path / "folder", file)
    how = {"greedy": "partition", "parts": 3, "rows": 15}
    with limited_effort(offered=12):
        found, _ = select_from_shards(shards, asked(name, **how), tmp_path / "out", False)
        expected = methods.select(load_signals(file), name, fraction=0.2, seed=3, **how)
    assert_same(found, expected, but=("costs", "weights", "transfers", "cost_error"))
    np.testing.assert_allclose(found.costs, expected.costs, rtol=0.5)  # estimates
    if expected.weights is not None:
        assert found.weights.sum() == pytest.approx(len(problem))


def test_parts_of_a_class_cost_hardly_more_than_all_of_it(tmp_path: Path) -> None:
    """LCMat-S: costs that are told are those of the picks, here of all samples; within 1% of the exact ones."""
    problem = make([1500, 30], seed=1)
    file = archive(tmp_path / "mine.npz", problem)
    shards = sharded(tmp_path / "folder", file, size=30_000)
    found, _ = select_from_shards(
        shards, asked("LCMat-S", greedy="partition", parts=4, rho=0.5), tmp_path / "out", False
    )
    exact = methods.select(load_signals(file), "LCMat-S", fraction=0.2, rho=0.5)
    assert len(np.unique(found.indices)) == len(exact)
    assert np.bincount(problem.labels[found.indices]).tolist() == [300, 6]
    assert exact.cost <= found.cost < 1.01 * exact.cost


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_no_more_than_a_class_is_in_memory(tmp_path: Path) -> None:
    """Of 4 MB in 40 classes, by what NumPy holds: a class, some of it twice, and the index."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 40, 16_000)
    chunks = ({"features": draw.random((4000, 64), np.float32), "labels": part} for part in labels.reshape(4, 4000))
    shards = write_shards(tmp_path / "folder", chunks)
    tracemalloc.start()
    try:
        select_from_shards(shards, asked("Uniform"), tmp_path / "out", False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 800_000
    assert len(list((tmp_path / "out").rglob("*.txt"))) == 1


# ---- damage ---------------------------------------------------------------------------------------------------------


def cut(folder: Path) -> None:
    """Cut a file off."""
    (folder / "features-00001.npy").write_bytes((folder / "features-00001.npy").read_bytes()[:-10])


def flipped(name: str) -> Callable[[Path], None]:
    """Change the last byte of a file."""

    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(bytes(content))

    return change


def of_another_version(folder: Path) -> None:
    """Raise the format."""
    manifest = json.loads((folder / "signals.json").read_text())
    (folder / "signals.json").write_text(json.dumps(manifest | {"format": 2}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "features-00001.npy has .* bytes, and should have"),
        (lambda folder: (folder / "logits-00000.npy").unlink(), "logits-00000.npy is gone"),
        (lambda folder: (folder / "signals.json").unlink(), "holds no whole signals: there is no signals.json"),
        (lambda folder: (folder / "signals.json").write_text("{"), "signals.json is damaged"),
        (of_another_version, "signals.json is damaged or of another version: format is 2"),
        (flipped("index.npz"), "index.npz is damaged: its checksum is wrong"),
        (flipped("features-00001.npy"), "features-00001.npy is damaged: a checksum is wrong"),
        (flipped("positions-00002.npy"), "positions-00002.npy is damaged: a checksum is wrong"),
    ],
)
def test_damaged_folder_is_refused_in_one_line(
    problem: FullProblem, tmp_path: Path, capsys: pytest.CaptureFixture, damage: Callable, message: str
) -> None:
    folder = tmp_path / "folder"
    sharded(folder, archive(tmp_path / "mine.npz", problem))
    damage(folder)
    capsys.readouterr()
    assert call("--signals", folder, "--selection", "KMedoids", "--save_path", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").rglob("*.txt"))


BAD = {
    "other widths": ([{"features": np.zeros((3, 2))}, {"features": np.zeros((3, 4))}], "different widths"),
    "other arrays": ([{"features": np.zeros((3, 2))}, {}], "different arrays"),
    "rows beyond the labels": ([{"features": np.zeros((4, 2))}], "3 labels, and features"),
    "not finite": ([{"features": np.full((3, 2), np.nan)}], "not finite"),
    "names that differ": ([{"class_names": np.array(["a", "b"])}, {"class_names": np.array(["b", "a"])}], "different"),
    "text without columns": ([{"logits": np.zeros((3, 4)), "labels": np.array(["a", "b", "c"])}], "3 classes.* 4"),
    "an unknown array": ([{"feature": np.zeros(3)}], "did you mean features"),
}


@pytest.mark.parametrize(("contents", "message"), BAD.values(), ids=BAD)
def test_files_that_are_no_signals_leave_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture, contents: list[dict], message: str
) -> None:
    (tmp_path / "in").mkdir()
    for number, arrays in enumerate(contents):
        np.savez(tmp_path / "in" / f"{number}.npz", **{"labels": np.arange(3) % 2, **arrays})
    files = sorted((tmp_path / "in").iterdir())
    assert call(*files, "--to", tmp_path / "out", "--shard_size", "1GB", command=shard.main) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]


def test_folder_in_use_is_left_alone(problem: FullProblem, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = archive(tmp_path / "mine.npz", problem)
    before = sharded(tmp_path / "folder", file)
    assert call(file, "--to", tmp_path / "folder", command=shard.main) == 2
    assert "is not empty" in capsys.readouterr().err
    assert np.array_equal(open_shards(tmp_path / "folder").counts, before.counts)
    shutil.rmtree(tmp_path / "folder")
    assert call(tmp_path / "gone.npz", "--to", tmp_path / "folder", command=shard.main) == 2
    assert call(file, tmp_path / "labels.npy", "--to", tmp_path / "folder", command=shard.main) == 2
    assert not (tmp_path / "folder").exists()
