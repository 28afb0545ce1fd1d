"""Selection from a file of signals: main.py --signals."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import methods
from lcmat.errors import UserError
from lcmat.runs.signal_files import load_signals
from lcmat.selection.subset import Subset
from tests.harness import ROOT, call
from tests.problems import random_problem


def saved(path: Path, **more: np.ndarray) -> Path:
    """A file of the signals of 60 samples in three classes."""
    signals = random_problem(0, 60, 5, 3).signals
    arrays = {name: getattr(signals, name).numpy() for name in ("features", "logits", "labels")}
    np.savez(path, **{**arrays, **more})
    return path


def test_indices_are_those_of_select(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = saved(tmp_path / "mine.npz")
    words = ["--signals", str(file), "--selection", "LCMat-S", "Uniform", "--fraction", "0.1", "0.2", "--seed", "3"]
    words += ["--rho", "0.5", "--save_path", str(tmp_path / "out")]
    assert call(*words) == 0
    printed = capsys.readouterr().out
    assert printed.count("of 60 samples") == 4
    signals = load_signals(file)
    for method, options in (("LCMat-S", {"rho": 0.5}), ("Uniform", {})):
        for fraction in (0.1, 0.2):
            expected = methods.select(signals, method, fraction=fraction, seed=3, **options)
            (text,) = (tmp_path / "out" / "signals-mine" / method).glob(f"fraction{fraction:g}-seed3-*.txt")
            assert [int(line) for line in text.read_text().split()] == expected.indices.tolist()
            assert np.array_equal(Subset.load(text.with_suffix(".npz")).indices, expected.indices)
            assert str(text) in printed


def test_all_is_what_the_signals_suffice_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """And it is said what is left out, and why."""
    words = ["--signals", saved(tmp_path / "mine.npz"), "--selection", "all", "--fraction", "0.2"]
    assert call(*words, "--save_path", tmp_path / "out") == 0
    needs = {name: {need.partition(".")[0] for need in methods.get(name).needs} for name in methods.names()}
    fit = {name for name, some in needs.items() if some <= {"features", "logits"}}
    assert {path.name for path in (tmp_path / "out" / "signals-mine").iterdir()} == fit
    told = capsys.readouterr().err
    assert all(name in told for name in needs.keys() - fit)
    assert "LBCS, Probabilistic: they train networks" in told.replace("Probabilistic, LBCS", "LBCS, Probabilistic")


def test_other_settings_have_other_files(tmp_path: Path) -> None:
    file = saved(tmp_path / "mine.npz")
    for more in (["--rho", "0.5"], ["--rho", "0"], ["--balance", "False"], ["--budget", "6"], ["--rho", "0.5"]):
        words = ["--signals", str(file), "--fraction", "0.1", *more, "--save_path", str(tmp_path / "out")]
        assert call(*words) == 0
    assert len(list((tmp_path / "out").rglob("*.txt"))) == 4


def test_dynamics_and_validation_are_read(tmp_path: Path) -> None:
    other = random_problem(1, 30, 5, 3).signals
    more = {f"validation_{name}": getattr(other, name).numpy() for name in ("features", "logits", "labels")}
    file = saved(tmp_path / "mine.npz", probability_margin=np.random.default_rng(0).normal(size=(4, 60)), **more)
    words = ["--signals", str(file), "--selection", "CCS", "Glister-Val", "--save_path", str(tmp_path / "out")]
    assert call(*words) == 0
    assert len(list((tmp_path / "out").rglob("*.txt"))) == 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": np.zeros((3, 2))}, "no array 'labels'"),
        ({"labels": np.zeros(3)}, "labels must be integers"),
        ({"labels": np.zeros(3, int), "feature": np.zeros((3, 2))}, "unknown array 'feature'.*did you mean features"),
        ({"labels": np.zeros(3, int), "features": np.zeros((4, 2))}, "features must have shape"),
        ({"labels": np.array([None, {}])}, "cannot read"),
    ],
)
def test_bad_files(tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=message):
        load_signals(tmp_path / "bad.npz")


NPY = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (0,), }" + b" " * 60 + b"\n"


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04 cut off", NPY])
def test_damaged_files(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    assert call("--signals", tmp_path / "bad.npz") == 2
    assert "numpy.savez" in capsys.readouterr().err


def test_missing_files_and_needs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert call("--signals", tmp_path / "none.npz") == 2
    assert "no such file" in capsys.readouterr().err
    file = saved(tmp_path / "mine.npz")
    words = ["--signals", str(file), "--selection", "Forgetting", "--save_path", str(tmp_path / "out")]
    assert call(*words) == 2
    assert "Forgetting needs dynamics" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.txt"))


@pytest.mark.parametrize(("greedy", "memory"), [("exact", "4GB"), ("exact", "1MB"), ("partition", "4GB")])
def test_ctrl_c_ends_a_long_selection_without_a_hang(tmp_path: Path, greedy: str, memory: str) -> None:
    """Wherever it is in the work: seconds on any machine, where the whole takes minutes."""
    draw = np.random.default_rng(0)
    features, logits = draw.random((20_000, 64), dtype=np.float32), draw.random((20_000, 5), dtype=np.float32)
    np.savez(tmp_path / "large.npz", features=features, logits=logits, labels=np.zeros(20_000, dtype=np.int64))
    words = ["--signals", "large.npz", "--fraction", "0.2", "--greedy", greedy, "--memory", memory]
    program = "import sys; from lcmat.command_line import program; import main; print('ready', flush=True); "
    program += f"sys.exit(program.run_command_line(main.main, {words}))"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # where the tests' own process ignores it
    )
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(3)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.strip().endswith("interrupted; the same command goes on with --resume")
    assert not (tmp_path / "result").exists()
