"""A grid's workers on a cluster: what Slurm is asked for, an array's life under submitit, locks through two paths."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lcmat import locks
from lcmat.command_line import cluster, planning
from lcmat.commands import grid
from lcmat.commands._registry import REGISTRY
from lcmat.errors import UserError
from lcmat.runs import pretrained, queue
from lcmat.runs.status import claim_of, noted, status_of
from tests.harness import ROOT, call, places, records_in

GRID = """
title: Six runs
runs: {dataset: digits, model: MLP, selection: Uniform, fraction: 0.1, seed: [0, 1, 2, 3, 4, 5], epochs: 20, batch: 10,
       test_interval: 0, checkpoint_interval: 0, precision: float32, threads: 1}
"""
SLURM = ("--launcher", "slurm", "--workers", "2", "--slurm", "partition=gpu,gres=gpu:1,time=02:00:00")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A grid of six runs, of a second each."""
    (tmp_path / "six.yaml").write_text(GRID)
    return [str(tmp_path / "six.yaml"), *places(tmp_path)]


# ---- what is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("partition=gpu,gres=gpu:1,time=02:00:00", {"partition": "gpu", "gres": "gpu:1", "time": "02:00:00"}),
        ("--cpus-per-task=2, nodelist=n[1,3-5],time=5", {"cpus_per_task": "2", "nodelist": "n[1,3-5]", "time": "5"}),
        ("time=1,constraint=a100&big,export=A=1", {"time": "1", "constraint": "a100&big", "export": "A=1"}),
    ],
)
def test_what_slurm_is_told(text: str, found: dict[str, str]) -> None:
    assert cluster.parameters_of(text) == found


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("90", 90), ("1:30", 2), ("02:00:00", 120), ("0:0:1", 1), ("2-0", 2880), ("1-12:30", 2190), ("1-0:0:59", 1441)],
)
def test_times_are_read_as_slurm_reads_them(time: str, minutes: int) -> None:
    """Minutes, minutes:seconds, hours:minutes:seconds, and after days hours first; begun minutes count."""
    assert cluster.minutes_of(time) == minutes


BAD = {
    "": "no key=value", "partition": "no key=value", "time=5,,": "no key=value", "time=": "no key=value",
    "Q!=1,time=5": "no key=value", "time=5,a=b\nc": "no key=value", "partition=gpu": "time=02:00:00",
    "time=soon": "a time looks like", "time=0": "a time looks like", "time=1-": "a time looks like",
    "array=1-3,time=5": "--workers says how many", "output=x,time=5": "logs are", "time=5,time=6": "twice",
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD.items())
def test_bad_text_for_slurm_is_refused_in_a_line(
    text: str, message: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words, *SLURM[:-1], text, "--plan", command=grid.main) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (SLURM[:2], "give --workers N"),
        ((*SLURM, "--processes", "2"), "no --processes"),
        ((*SLURM[:2], "--workers", "0"), "--workers must be 1 to"),
        ((*SLURM, "--overwrite"), "with --overwrite"),
        (("--slurm", "time=5"), "--slurm is for --launcher slurm"),
        (("--launcher", "slrum", "--workers", "2"), "did you mean slurm"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags: tuple, message: str, words: list[str]) -> None:
    with pytest.raises(UserError, match=message):
        grid.grid_of([*words, *flags])


def test_workers_are_a_launchers_where_there_is_one(words: list[str]) -> None:
    """Else they read images, as everywhere; those of the file do so in any case."""
    file = Path(words[0])
    file.write_text(file.read_text().replace("threads: 1", "threads: 1, workers: 2"))
    alone, launched = grid.grid_of([*words, "--workers", "3"]), grid.grid_of([*words, "--launcher=local", "-j", "3"])
    assert [(g.lines[0].processes, g.lines[0].workers) for g in (alone, launched)] == [(1, 3), (3, 2)]


def test_a_plan_says_what_would_be_submitted_and_does_nothing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No more workers than runs; submitit need not be there."""
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert call(*words, *SLURM, "--workers", "20", "--plan", command=grid.main) == 0
    told = capsys.readouterr().out
    assert "Six runs: 6 runs, 0 recorded, 6 to do" in told
    assert "would submit 6 workers, each with --partition=gpu --gres=gpu:1 --time=02:00:00; logs in" in told
    assert [path.name for path in tmp_path.iterdir()] == ["six.yaml"]


def test_what_is_missing_is_said(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """First Slurm, then submitit."""
    pytest.importorskip("submitit", reason="optional")
    monkeypatch.setenv("PATH", "")
    assert call(*words, *SLURM, command=grid.main) == 2
    assert "there is no sbatch here" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert call(*words, *SLURM, command=grid.main) == 2
    assert "pip install -r requirements-cluster.txt" in capsys.readouterr().err


# ---- an array's life -------------------------------------------------------------------------------------------------


@pytest.fixture
def locally(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Let submitit start processes where it would ask Slurm; return what submits."""
    submitit = pytest.importorskip("submitit", reason="optional")
    assert submitit
    submit = functools.partial(cluster.submit, cluster="local")
    monkeypatch.setattr(cluster, "submit", submit)
    return submit


def wait(until: Callable[[], object], seconds: float = 240.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_a_worker_that_is_interrupted_and_one_of_a_second_submission_make_the_records_of_one_process(
    words: list[str], tmp_path: Path, locally: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupted as Slurm does before it ends a job: it is begun again, and no run is made twice."""
    assert call(*words, *places(tmp_path / "alone"), command=grid.main) == 0
    assert call(*words, *SLURM, "--workers", "1", command=grid.main) == 0
    found = re.search(r"submitted 1 worker, .*: (\d+)$", capsys.readouterr().out, re.M)
    folder = tmp_path / "result/.workers/six"
    wait(lambda: len(records_in(tmp_path / "result")) >= 1)
    note = folder / f"{found[1]}.running"
    wait(note.exists)
    os.kill(json.loads(note.read_text())["process"], signal.SIGUSR2)
    assert call(*words, *SLURM, "--workers", "1", command=grid.main) == 0
    wait(lambda: len(records_in(tmp_path / "result")) == 6)
    wait(lambda: len(list(folder.glob("*_result.pkl"))) == 2)
    assert records_in(tmp_path / "result") == records_in(tmp_path / "alone/result")
    said = "".join(log.read_text() for log in folder.glob("*_log.out"))
    assert len(re.findall("% final", said)) in (5, 6)  # one may have been recorded and not yet told of
    assert (folder / f"{found[1]}_0_log.out").read_text().count("Starting with") == 2
    capsys.readouterr()
    assert call(*words, "--status", command=grid.main) == 0
    assert capsys.readouterr().out == "Six runs: 6 runs, 6 recorded, 0 running, 0 failed, 0 waiting\n"


def test_workers_that_failed_are_shown_with_the_last_line_of_their_log_until_others_are_submitted(
    tmp_path: Path, locally: Callable
) -> None:
    """One by an error, one that was killed."""

    def fail() -> None:
        with cluster.at_work():
            raise RuntimeError("no way out")

    def end() -> None:
        with cluster.at_work():
            print("slurmstepd: error: Detected 1 oom_kill event\nsrun: forced", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    ids = [locally(function, 1, tmp_path, {"time": "5"})[0] for function in (fail, end)]
    wait(lambda: len(cluster.failed_workers(tmp_path)[1]) == 2)
    wait(lambda: all("error" in why.lower() for why in cluster.failed_workers(tmp_path)[1].values()))
    running, failed = cluster.failed_workers(tmp_path)
    assert running == 0
    said = {path.stem: why for path, why in failed.items()}
    assert said[ids[0]] == f"RuntimeError: no way out ({tmp_path / ids[0]}_0_log.err)"
    assert said[ids[1]] == f"slurmstepd: error: Detected 1 oom_kill event ({tmp_path / ids[1]}_0_log.err)"
    locally(print, 1, tmp_path, {"time": "5"})
    assert cluster.failed_workers(tmp_path) == (0, {})


# ---- one worker ------------------------------------------------------------------------------------------------------


def test_a_worker_leaves_runs_to_whoever_is_at_them_but_waits_for_what_others_make(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last run is held for ever; the network that LCMat-S reads is being made for a while."""
    monkeypatch.setattr(queue, "PATIENCE", 0.05)
    flags = ("--selection", "LCMat-S", "--selection_epochs", "1", "--epochs", "1", "--seed", "0", "1")
    with planning.planned(grid.grid_of([*words, *flags]).lines, REGISTRY) as jobs:
        setup, run = jobs[0].setup, jobs[0].run
        (needed,) = pretrained.network_ids(setup, run)
        network = setup.settings.cache_path / "networks" / f"{pretrained.cache_key(setup, needed)}.lock"
        held = threading.Event()

        def hold() -> None:
            with locks.claimed(network):
                held.set()
                time.sleep(0.5)

        other = threading.Thread(target=hold)
        other.start()
        held.wait()
        assert jobs[0].kind.busy(setup, run) == network
        with locks.claimed(claim_of(jobs[1])):
            found, failed = queue.work(jobs, lambda *_: None, leaves=True)
        other.join()
        assert [record["seed"] for record in found] == [0]
        assert failed == {}


def test_a_run_that_diverged_is_tried_once_by_all_workers_of_a_submission(words: list[str]) -> None:
    flags = ("--lr", "1e30", "--epochs", "3", "--seed", "0")
    said: list[object] = []
    begun = time.time()
    for share in (begun, begun, time.time() + 60):
        grid.share_of_work(said.append, [*words, *flags], grid.Share(share, leaves=True))
    assert [type(what) for what in said] == [grid.Diverged, grid.Diverged]


def test_a_run_whose_worker_was_killed_shows_the_last_line_of_the_log(words: list[str], tmp_path: Path) -> None:
    with planning.planned(grid.grid_of(words).lines, REGISTRY) as jobs:
        (tmp_path / "log").write_text("begun\nslurmstepd: error: oom\n\n")
        note = claim_of(jobs[0]).with_suffix(".running")
        note.parent.mkdir(parents=True)
        note.write_text(f'{{"host": "gone", "process": 1, "since": 0, "log": "{tmp_path / "log"}"}}')
        status = status_of(jobs)
        assert status.states == ["failed", *["waiting"] * 5]
        assert status.notes == {0: f"its worker was killed: slurmstepd: error: oom ({tmp_path / 'log'})"}
        with locks.claimed(claim_of(jobs[0])), noted(jobs[0]):
            assert status_of(jobs).states[0] == "running"
        assert status_of(jobs).states[0] == "waiting"


# ---- one folder by two paths -----------------------------------------------------------------------------------------


@contextmanager
def other_path(folder: Path, kind: str) -> Iterator[Path]:
    """Make another path to a folder: a link to it, or a mount."""
    other = folder.with_name("other")
    if kind == "link":
        other.symlink_to(folder)
        yield other
        return
    other.mkdir()
    try:
        mounted = subprocess.run(["mount", "--bind", folder, other], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no program mount")
    if mounted.returncode:
        pytest.skip(f"may not mount: {mounted.stderr.strip()}")
    try:
        yield other
    finally:
        subprocess.run(["umount", other], check=True)


@pytest.mark.parametrize("kind", ["link", "mount"])
def test_a_lock_holds_through_both_paths_to_a_folder(kind: str, tmp_path: Path) -> None:
    """Of two processes; and when one is killed, the other has it. What NFS promises, as far as one machine can tell."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with other_path(folder, kind) as other:
        program = f"""
from pathlib import Path
from lcmat.locks import claimed
with claimed(Path({str(folder / "a.lock")!r})) as mine:
    print(mine, flush=True)
    input()
"""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, **pipes) as process:
            assert process.stdout.readline() == "True\n"
            for path in (folder, other):
                assert locks.is_held(path / "a.lock")
                with locks.claimed(path / "a.lock") as mine:
                    assert not mine
            process.kill()
            process.wait()
        with locks.claimed(other / "a.lock") as mine:
            assert mine
            assert locks.is_held(folder / "a.lock")
        assert list(folder.iterdir()) == []
