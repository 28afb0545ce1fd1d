"""What the disk refuses: one line that names the file and what to do, exit code 3, nothing half-written."""

import errno
import os
import sys
from pathlib import Path

import pytest

from lcmat.command_line import run_command_line
from tests.harness import TINY, call, places, records_in

RUN = (*TINY, "--selection", "LCMat-S")


def refused(capsys: pytest.CaptureFixture) -> str:
    """Return the one line that was printed on stderr."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert len(lines[0]) < 1100
    return lines[0]


PLACES = {
    "a file in the place of a folder": lambda folder: (folder / "file").touch() or folder / "file" / "result",
    "a file": lambda folder: (folder / "file").touch() or folder / "file",
    "a name too long": lambda folder: folder / ("x" * 300),
    "a path too long": lambda folder: folder / "/".join(["x" * 200] * 30),
    "a link in a circle": lambda folder: (folder / "link").symlink_to(folder / "link") or folder / "link",
    "a pipe": lambda folder: os.mkfifo(folder / "pipe") or folder / "pipe",
}


@pytest.mark.parametrize("flag", ["--save_path", "--cache_path"])
@pytest.mark.parametrize("case", PLACES)
def test_folders_that_cannot_be_are_refused_before_any_work(
    flag: str, case: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    place = PLACES[case](tmp_path)
    before = sorted(tmp_path.iterdir())
    assert call(*RUN, *places(tmp_path / "other"), flag, place) == 3
    line = refused(capsys)
    assert str(place)[:60] in line
    assert any(word in line for word in ("choose", "move it away"))
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run's records and caches."""
    folder = tmp_path_factory.mktemp("finished")
    assert call(*RUN, *places(folder)) == 0
    return folder


@pytest.mark.parametrize("kind", ["folder", "pipe"])
@pytest.mark.parametrize("what", ["cache/signals", "cache/networks"])
def test_what_is_no_file_in_the_cache_is_named(
    kind: str, what: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (made,) = (finished / what).glob("*.pt")
    path = tmp_path / what / made.name
    path.parent.mkdir(parents=True)
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    assert call(*RUN, *places(tmp_path)) == 3
    line = refused(capsys)
    assert str(path) in line
    assert "in the place of a file" in line
    assert not list(tmp_path.glob("result/*/*/*.json"))


FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "quota",
    errno.EFBIG: "larger than is allowed",
    errno.EROFS: "read-only",
    errno.EACCES: "no permission",
    errno.EIO: "the disk has an error",
}


@pytest.mark.parametrize("number", FULL)
def test_a_disk_that_refuses_in_the_middle_leaves_nothing_half_written(
    number: int, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it happens: the first, second, … file that is written cannot be; then the same command goes on."""
    sync, expected = os.fsync, records_in(finished / "result")
    for good in range(12):
        left = iter(range(good))

        def fails_after_some(handle: int, left: object = left) -> None:
            if next(left, None) is None:
                raise OSError(number, os.strerror(number))
            sync(handle)

        monkeypatch.setattr(os, "fsync", fails_after_some)
        code = call(*RUN, *places(tmp_path))
        if code == 0:
            break
        assert code == 3
        line = refused(capsys)
        assert FULL[number] in line
        assert str(tmp_path) in line
        assert not [path for path in tmp_path.rglob(".*") if path.is_file() and path.name != ".lock"]
    monkeypatch.undo()
    assert 2 < good < 11
    assert records_in(tmp_path / "result") == expected


def test_a_limit_on_files_is_named_also_where_torch_says_otherwise(tmp_path: Path, script: object) -> None:
    """torch.save says "unexpected pos", in 51 lines."""
    words = f"{RUN + tuple(places(tmp_path))}"
    program = f"import resource, sys, main\nresource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n\
from lcmat.command_line import run_command_line\nsys.exit(run_command_line(main.main, list({words})))"
    done = script(["-c", program])
    assert done.returncode == 3
    (line,) = done.stderr.strip().splitlines()
    assert "larger than is allowed here (ulimit -f)" in line
    assert str(tmp_path / "cache") in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_what_cannot_be_printed_is_said(script: object, tmp_path: Path) -> None:
    import subprocess

    words = [sys.executable, "-c", "import sys; from lcmat.command_line import run_command_line as run; \
sys.exit(run(lambda words: print('x' * 10)))"]  # fmt: skip
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 3
    (line,) = done.stderr.strip().splitlines()
    assert "cannot print: the disk is full" in line


def test_nobody_reads_what_is_printed(tmp_path: Path) -> None:
    import subprocess

    words = [sys.executable, "-c", "import sys; from lcmat.command_line import run_command_line as run; \
sys.exit(run(lambda words: print('x' * 10**6)))"]  # fmt: skip
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.wait(timeout=300) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_errors_of_something_else_stay_what_they_are() -> None:
    def fails(words: list[str]) -> int:
        raise ConnectionResetError("by the other side")

    with pytest.raises(ConnectionResetError):
        run_command_line(fails, [])


def test_a_working_folder_that_is_gone_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read "cannot print"."""
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert call(*TINY, "--selection", "Uniform") == 3
    assert "the working folder is gone; change to another one" in capsys.readouterr().err
