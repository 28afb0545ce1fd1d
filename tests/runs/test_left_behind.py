"""What killed processes leave is cleared, what living ones hold stays; a lock that is waited for long is named."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from lcmat import locks
from lcmat.files import UNFINISHED
from lcmat.runs import queue
from tests.harness import ROOT, TINY, call, places, records_in

RUN = (*TINY, "--selection", "LCMat-S")


@contextmanager
def process(program: str) -> Iterator[subprocess.Popen]:
    """Run a program that says when it has begun; kill it at the end."""
    begun = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert begun.stdout.readline() == "begun\n"
        yield begun
    finally:
        begun.kill()
        begun.wait(timeout=60)
        begun.stdout.close()


def holding(path: Path) -> str:
    """Return a program that holds the lock on a file for ever, as another version of this one would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return f"""
import fcntl, time
file = open({str(path)!r}, "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("begun", flush=True)
time.sleep(600)
"""


def writing(path: Path) -> str:
    """Return a program that stands still in the middle of writing a file."""
    return f"""
import time
from lcmat.files import write_atomically
def half(file):
    file.write(b"x" * 100_000)
    file.flush()
    print("begun", flush=True)
    time.sleep(600)
write_atomically({str(path)!r}, half)
"""


def test_the_next_run_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    for below in ("result/digits-MLP/Uniform/x.json", "cache/signals/x.pt", "result/tables/x.md"):
        with process(writing(tmp_path / below)):
            pass  # killed
    stale = [tmp_path / "result/.locks/0123456789ab.lock", tmp_path / "cache/signals/0123456789ab-validation.lock"]
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    foreign = tmp_path / "cache" / "other" / "editor.lock"
    foreign.parent.mkdir()
    foreign.touch()
    assert len(list(tmp_path.rglob(f"{UNFINISHED}*"))) == 3
    with process(writing(tmp_path / "cache/signals/living.pt")):
        assert call(*RUN, *places(tmp_path)) == 0
        assert len(list(tmp_path.rglob(f"{UNFINISHED}*"))) == 1
    assert list(tmp_path.rglob("*.lock")) == [foreign]
    assert len(records_in(tmp_path / "result")) == 1


def test_the_next_export_clears_the_folder_that_a_killed_one_left(tmp_path: Path) -> None:
    """It may hold as many images as were asked for; one that is being filled stays."""
    program = f"""
import time
from pathlib import Path
from lcmat.files import unfinished_folder
with unfinished_folder(Path({str(tmp_path)!r})) as folder:
    (folder / "train").mkdir()
    (folder / "train/a.png").write_bytes(b"x" * 1000)
    print("begun", flush=True)
    time.sleep(600)
"""
    with process(program):
        pass  # killed
    (left,) = tmp_path.iterdir()
    with process(program):
        assert not left.exists()
        words = (*RUN, *places(tmp_path), "--select_only", "--export", tmp_path / "tenth")
        assert call(*words) == 0
        (living,) = tmp_path.glob(f"{UNFINISHED}*")
        assert (living / "train/a.png").exists()
    assert len(list((tmp_path / "tenth/train").rglob("*.png"))) == 65


def test_a_lock_that_is_held_is_left_and_named_after_a_while(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the run that waits for a claim, and for a network that another process seems to make."""
    monkeypatch.setattr(locks, "SAID_AFTER", 0.2)
    monkeypatch.setattr(queue, "PATIENCE", 0.1)
    assert call(*RUN, *places(tmp_path)) == 0
    (name,), expected = records_in(tmp_path / "result"), records_in(tmp_path / "result")
    (network,) = (tmp_path / "cache/networks").glob("*.pt")
    claim = tmp_path / "result/.locks" / f"{Path(name).stem.rpartition('-')[2]}.lock"
    for lock in (claim, network.with_suffix(".lock")):
        for path in (tmp_path / "result" / name, *(tmp_path / "cache/networks").glob("*.pt")):
            path.unlink()
        capsys.readouterr()
        with process(holding(lock)) as other:
            killer = subprocess.Popen(
                [sys.executable, "-c", f"import os, time; time.sleep(3); os.kill({other.pid}, 9)"]
            )
            assert call(*RUN, *places(tmp_path)) == 0
            killer.wait(timeout=60)
        err = capsys.readouterr().err
        assert err.count(f"still waiting for another process, which holds {lock}; if that hangs, end it") == 1
        assert records_in(tmp_path / "result") == expected
        assert not lock.exists()


def test_a_cache_that_is_waited_for_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "SAID_AFTER", 0.1)
    path = tmp_path / "signals" / "0123456789ab.lock"
    with process(holding(path)) as other:
        subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(1); os.kill({other.pid}, 9)"]).wait(60)
        with locks.locked(path):
            pass
    assert capsys.readouterr().err.count(str(path)) <= 1
    assert not path.exists()


def test_a_lock_whose_file_was_removed_is_no_lock(tmp_path: Path) -> None:
    """Two processes would hold it: one that opened the file before it was removed, and one that made it anew."""
    path = tmp_path / "0123456789ab.lock"
    acquire = FileLock.acquire

    def removed_meanwhile(lock: FileLock, *args: object, **options: object) -> object:
        result = acquire(lock, *args, **options)
        if not done:
            done.append(1)
            path.unlink()
            path.touch()
        return result

    done: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileLock, "acquire", removed_meanwhile)
        with locks.claimed(path) as mine:
            assert mine
            with locks.claimed(path) as second:
                assert not second
    assert not path.exists()


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
def test_many_processes_at_once_hold_a_lock_one_after_the_other(tmp_path: Path, signal_: int) -> None:
    """Four processes add to a file under a lock, 25 times each, after one that holds it was killed."""
    program = f"""
import sys, time
from pathlib import Path
from lcmat.locks import locked
lock, count = Path({str(tmp_path / "a.lock")!r}), Path({str(tmp_path / "count")!r})
print("begun", flush=True)
for _ in range(25):
    with locked(lock):
        before = int(count.read_text() or 0)
        time.sleep(0.001)
        count.write_text(str(before + 1))
"""
    (tmp_path / "count").write_text("0")
    started = [subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(4)]
    with process(holding(tmp_path / "a.lock")) as holder:
        time.sleep(0.3)
        os.kill(holder.pid, signal_)
    for one in started:
        assert one.wait(timeout=300) == 0
    assert (tmp_path / "count").read_text() == "100"
    assert not (tmp_path / "a.lock").exists()
