"""Files that are read back: as they were written, or not at all; whatever bit of them is changed."""

import io
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lcmat import files
from lcmat.condensation.synthetic import Synthetic
from lcmat.errors import UserError, one_line
from lcmat.expected import array, each, fields, like, optional, problem, real, row, whole
from lcmat.files import (
    UNFINISHED,
    clear_unfinished,
    load_arrays,
    load_tensors,
    save_tensors,
    write_atomically,
    write_text,
)
from lcmat.runs.signal_files import load_signals
from lcmat.runs.subset_file import read_subset
from lcmat.selection.subset import Subset

TENSORS = {"features": torch.randn(40, 6), "labels": torch.arange(9), "facts": {"tests": [[1, 50.0]]}, "seconds": 1.5}
SUBSET = Subset(
    indices=np.arange(10, 40), rank=np.tile(np.arange(10), 3), weights=np.linspace(1, 2, 30, dtype=np.float32),
    classes=np.repeat(np.arange(3), 10), class_sizes=np.array([20, 20, 20]), method="Uniform",
)  # fmt: skip


def one_bit_changed(content: bytes, draw: random.Random) -> bytes:
    """Return the content with one bit of it flipped."""
    changed = bytearray(content)
    changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def equal(first: object, second: object) -> bool:
    """Tell whether two nested values are the same to the last bit."""
    return pickle.dumps(plain(first)) == pickle.dumps(plain(second))


def plain(value: object) -> object:
    """Return a value with bytes in place of arrays."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    return (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def compressed(path: Path) -> None:
    """Write arrays as people do to save space."""
    np.savez_compressed(path, indices=np.arange(10, 400), weights=np.ones(390, dtype=np.float32))


FILES: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "tensors": (lambda path: save_tensors(path, TENSORS), load_tensors),
    "subset": (SUBSET.save, lambda path: vars(Subset.load(path))),
    "synthetic": (
        Synthetic(torch.rand(6, 1, 4, 4), torch.arange(6)).save,
        lambda path: vars(Synthetic.load(path)),
    ),
    "compressed": (compressed, read_subset),
    "signals": (
        lambda path: np.savez(path, features=np.random.rand(30, 4), labels=np.arange(30) % 3),
        lambda path: vars(load_signals(path)),
    ),
}


def refusal(read: Callable[[Path], object], path: Path) -> str | None:
    """Return what a reader says of a file that it refuses, or None."""
    try:
        read(path)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", FILES)
def test_a_flipped_bit_is_an_error_or_changes_nothing(kind: str, tmp_path: Path) -> None:
    """120 files of each kind with one bit flipped somewhere; what is no part of the content may be ignored."""
    write, read = FILES[kind]
    path = tmp_path / ("file.npz" if kind != "tensors" and kind != "synthetic" else "file.pt")
    write(path)
    expected, content, draw, noticed = read(path), path.read_bytes(), random.Random(kind), 0
    for _ in range(120):
        path.write_bytes(one_bit_changed(content, draw))
        message = refusal(read, path)
        noticed += message is not None
        if message is None:
            assert equal(read(path), expected)
        else:
            assert str(path) in message
            assert len(message) < 400
    assert noticed > 40


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_cut_off_are_errors(kind: str, tmp_path: Path) -> None:
    write, read = FILES[kind]
    path = tmp_path / "file.npz"
    write(path)
    content = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match=r"file\.npz"):
            assert read(path) is None


def test_a_flipped_bit_in_a_state_dict_is_no_other_network(tmp_path: Path) -> None:
    """torch.load does not compare the checksums that torch.save writes."""
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(100).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["weight"][0] != 1, "torch compares by now: no test is needed"
    with pytest.raises(UserError, match=r"weights\.pt: it is damaged .*a checksum is wrong"):
        load_tensors(path)


def test_a_header_that_says_fewer_numbers_is_noticed(tmp_path: Path) -> None:
    """NumPy reads as many as the header says, and compares the checksum only if that is all."""
    path = tmp_path / "indices.npz"
    np.savez(path, indices=np.arange(5000))
    content = path.read_bytes().replace(b"(5000,)", b"(4000,)")
    path.write_bytes(content)
    assert len(np.load(path)["indices"]) == 4000, "NumPy compares by now: no test is needed"
    with pytest.raises(UserError, match="a checksum is wrong"):
        load_arrays(path)


def test_files_of_torch_before_its_archives_are_read(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert equal(load_tensors(tmp_path / "old.pt"), TENSORS)


class Harmful:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple:
        return print, ("harm",)


def test_messages_pass_no_advice_of_libraries_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({"weight": torch.ones(3), "trainer": Harmful()}, tmp_path / "code.pt")
    np.savez(tmp_path / "code.npz", indices=np.array([Harmful()], dtype=object))
    for path, read in ((tmp_path / "code.pt", load_tensors), (tmp_path / "code.npz", load_arrays)):
        with pytest.raises(UserError) as caught:
            read(path)
        message = str(caught.value)
        assert "may be code" in message
        assert not any(word in message for word in ("weights_only", "allow_pickle", "torch.load", "\n", "\x1b"))
    assert "harm" not in capsys.readouterr().out


def test_messages_are_one_line_without_codes_and_not_endless() -> None:
    text = one_line("bad \x1b[31mvalue\x1b[0m '" + "x" * 5000 + "'\r\nat the\x07 end; do this")
    assert "\x1b" not in text
    assert text.startswith("bad value 'xxx")
    assert text.endswith("' at the end; do this")
    assert len(text) < 1100


@pytest.mark.parametrize("what", ["folder", "pipe"])
def test_what_is_no_file_is_named_and_not_waited_for(what: str, tmp_path: Path) -> None:
    import os

    path = tmp_path / "place"
    path.mkdir() if what == "folder" else os.mkfifo(path)
    for action in (load_tensors, load_arrays, lambda path: write_text(path, "x"), read_subset):
        with pytest.raises(OSError, match="place"):
            action(path)
    assert path.is_dir() if what == "folder" else path.is_fifo()


def test_a_full_disk_is_named_also_where_torch_speaks_of_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.save ends with "unexpected pos 704 vs 598" where the disk is full or a file becomes too large."""
    import os
    import resource
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path, limits = Path(folder) / "large.pt", resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(OSError, match=r"large\.pt"):
                save_tensors(path, {"weights": torch.zeros(10**6)})
            with pytest.raises(OSError, match=r"large\.pt"):
                write_text(path, "x" * 10**6)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert os.listdir(folder) == []


def test_unfinished_files_of_killed_processes_are_cleared_and_those_in_work_stay(tmp_path: Path) -> None:
    (tmp_path / f"{UNFINISHED}abc").write_bytes(b"half")
    (tmp_path / ".other-abc").write_bytes(b"not ours")

    def meanwhile(file: io.BufferedWriter) -> None:
        file.write(b"first half, ")
        clear_unfinished(tmp_path)
        assert not (tmp_path / f"{UNFINISHED}abc").exists()
        file.write(b"second half")

    write_atomically(tmp_path / "whole.txt", meanwhile)
    assert (tmp_path / "whole.txt").read_bytes() == b"first half, second half"
    assert {path.name for path in tmp_path.iterdir()} == {"whole.txt", ".other-abc"}


EXPECTED = fields(
    {"epoch": whole(1, 9), "tests": each(row(whole(1), real(0, 100)), 1), "state": like({"w": torch.ones(2, 3)})},
    {"weights": optional(array(None, kinds="F"))},
)
RIGHT = {"epoch": 3, "tests": [(1, 50.0), [2, 70]], "state": {"w": torch.zeros(2, 3)}, "weights": None, "more": "…"}
WRONG = {
    "it is no mapping but a list": [],
    "it lacks 'epoch'": {"tests": []},
    "epoch is 10, not 1 to 9": RIGHT | {"epoch": 10},
    "epoch is -1, not 1 to 9": RIGHT | {"epoch": -1},
    "epoch is no whole number but a bool": RIGHT | {"epoch": True},
    "epoch is no whole number but a float": RIGHT | {"epoch": 1.5},
    "tests is no list but a int": RIGHT | {"tests": -1},
    "tests has 0 items, not 1 to inf": RIGHT | {"tests": []},
    "tests[1] is no list of 2": RIGHT | {"tests": [(1, 2.0), (1,)]},
    "tests[0][1] is no finite number but a float": RIGHT | {"tests": [(1, float("nan"))]},
    "state lacks 'w'": RIGHT | {"state": {}},
    "state has 'v'": RIGHT | {"state": {"w": torch.ones(2, 3), "v": torch.ones(1)}},
    "state.w has shape (3, 2), not (2, 3)": RIGHT | {"state": {"w": torch.ones(3, 2)}},
    "state.w holds int64": RIGHT | {"state": {"w": torch.ones(2, 3, dtype=torch.int64)}},
    "state.w is no array but nothing": RIGHT | {"state": {"w": None}},
    "weights holds a value that is not finite": RIGHT | {"weights": np.array([np.inf])},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_with_a_value_is_said_with_its_place(message: str) -> None:
    assert problem(RIGHT, EXPECTED) is None
    assert problem(WRONG[message], EXPECTED) == message


def test_archives_that_only_begin_as_such_are_errors(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("indices.npy", "1 2 3")
    with pytest.raises(UserError, match="indices is no array"):
        load_arrays(tmp_path / "text.npz")


@pytest.mark.parametrize("raised", [SystemExit(7), KeyboardInterrupt()])
def test_what_ends_the_writing_of_tensors_is_what_is_raised(
    raised: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal in the middle of torch's file: torch itself raises RuntimeError then. The file before stays."""
    path, value = tmp_path / "x.pt", {"a": torch.zeros(100_000), "b": torch.zeros(100_000)}
    save_tensors(path, value)
    before, original = path.read_bytes(), files.write_atomically

    class Ends:
        def __init__(self, file: object) -> None:
            self.file, self.count = file, 0

        def write(self, data: bytes) -> int:
            self.count += 1
            if self.count == 5:
                raise raised
            return self.file.write(data)

        def flush(self) -> None:
            self.file.flush()

    monkeypatch.setattr(files, "write_atomically", lambda to, write: original(to, lambda file: write(Ends(file))))
    with pytest.raises(type(raised)):
        save_tensors(path, value)
    assert path.read_bytes() == before
