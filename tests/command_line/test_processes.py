"""Several processes of one command: what they say is heard, how they end is told, and none is left."""

import functools
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from lcmat.command_line.processes import Died, side_by_side
from lcmat.commands import grid
from lcmat.errors import UserError
from tests import harness
from tests.harness import ROOT, places, records_in

GRID = """
runs:
  dataset: digits
  model: MLP
  selection: [Uniform, LCMat-S]
  fraction: 0.1
  seed: [0, 1, 2]
  epochs: 60
  batch: 50
  lr: 0.05
  selection_epochs: 2
  test_interval: 0
  checkpoint_interval: 0
  threads: 1
  precision: float32
"""


def talk(say: Callable, word: str) -> None:
    """Say and print something."""
    say({"word": word, "process": os.getpid()})
    print("one line\nand another")
    warnings.warn("a warning", stacklevel=1)
    assert not sys.stderr.isatty()


def die(say: Callable, code: int) -> None:
    """End in the middle: by a signal, or an error that nobody expects."""
    say("begun")
    if code < 0:
        os.kill(os.getpid(), -code)
    raise RuntimeError("no way out")


def refuse(say: Callable) -> None:
    """Raise what a user should read."""
    raise UserError("no such thing")


def linger(say: Callable) -> None:
    """Say who it is, and go on for long."""
    say(os.getpid())
    time.sleep(300)


def alive(pid: int) -> bool:
    """Tell whether there is such a process."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_is_said_and_printed_is_heard() -> None:
    heard = list(side_by_side(2, talk, "hello"))
    told = [what for what in heard if isinstance(what, dict)]
    assert [what["word"] for what in told] == ["hello"] * 2
    assert len({what["process"] for what in told} | {os.getpid()}) == 3
    assert heard.count("one line") == heard.count("and another") == 2
    assert sum("UserWarning: a warning" in what for what in heard if isinstance(what, str)) == 2


@pytest.mark.parametrize("code", [-9, 1])
def test_one_that_dies_is_told(code: int) -> None:
    """By a signal, as for want of memory, or an error, which is told, too."""
    heard = list(side_by_side(1, die, code))
    assert heard[0] == "begun"
    assert heard[-1] == Died(0, code)
    assert any("no way out" in str(what) for what in heard) == (code == 1)


def test_what_a_user_should_read_is_raised() -> None:
    with pytest.raises(UserError, match="no such thing"):
        list(side_by_side(2, refuse))


@pytest.mark.skipif(not Path("/proc").exists(), reason="how processes are told apart")
def test_none_is_left_when_nobody_listens() -> None:
    heard = side_by_side(2, linger)
    pids = [next(heard), next(heard)]
    heard.close()
    assert not any(map(alive, pids))


def begin(folder: Path, *words: str) -> subprocess.Popen:
    """Start the grid, in a process group of its own."""
    (folder / "grid.yaml").write_text(GRID)
    command = [sys.executable, "-m", "lcmat", "grid", str(folder / "grid.yaml"), *places(folder), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # where the tests run in the background
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, preexec_fn=heed, **pipes)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that have not ended; one of them is Python's own helper."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if is_worker(child)]


def is_worker(pid: str) -> bool:
    """Tell whether a process is one that works."""
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def when(process: subprocess.Popen, folder: Path, count: int) -> None:
    """Wait until there are so many records."""
    while len(list(folder.glob("result/*/*/*.json"))) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc").exists(), reason="how processes are told apart")
def test_a_grid_by_two_processes_of_which_one_is_killed_is_that_of_one(tmp_path: Path) -> None:
    """One command starts both, each run has one line, the death is told, and the other does what is left."""
    alone, several = tmp_path / "one", tmp_path / "two"
    processes = []
    for folder, words in ((alone, []), (several, ["--processes", "2"])):
        folder.mkdir()
        processes.append(begin(folder, *words))
    when(processes[1], several, 1)
    os.kill(children(processes[1].pid)[0], signal.SIGKILL)
    (_, errors), (output, told) = (process.communicate(timeout=300) for process in processes)
    assert [process.returncode for process in processes] == [0, 0], errors + told
    assert "of 2 died (SIGKILL)" in told
    assert "6 of 6 runs recorded, " in told
    assert output.count("% final") in (5, 6)  # who is killed may have written a record and not yet said so
    assert records_in(several / "result") == records_in(alone / "result")


@pytest.mark.skipif(not Path("/proc").exists(), reason="how processes are told apart")
def test_ctrl_c_ends_all(tmp_path: Path) -> None:
    process = begin(tmp_path, "--launcher", "local", "--workers", "2")  # as --processes 2
    when(process, tmp_path, 1)
    workers = children(process.pid)
    assert len(workers) == 2
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].endswith("interrupted; the same command goes on with --resume")
    assert not any(map(alive, workers))


@pytest.mark.parametrize(
    ("words", "message"), [(["0"], "--processes must be 1 to"), (["2", "--overwrite"], "with --overwrite")]
)
def test_what_cannot_be_is_refused(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "grid.yaml").write_text(GRID)
    assert harness.call(tmp_path / "grid.yaml", *places(tmp_path), "--processes", *words, command=grid.main) == 2
    assert message in capsys.readouterr().err
