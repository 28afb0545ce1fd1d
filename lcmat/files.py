"""Files that are either whole or absent, and that are read back as they were written or not at all.

Everything is written beside its place and then renamed into it. What is read back carries a checksum: torch.save and
numpy.savez write one for each part of their archives, which is compared here. Troubles of the disk are raised as the
OSError that they are, with the name of the file; `run_command_line` says what to do about them.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from lcmat.errors import UserError
from lcmat.expected import Expected, problem

try:
    import fcntl
except ImportError:  # Windows: what killed processes leave is not cleared there
    fcntl = None

# The folder that holds the code: of a checkout, its root.
PROJECT = Path(__file__).resolve().parent.parent
# How the names of files begin while they are written.
UNFINISHED = ".lcmat-unfinished-"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` with an open binary file and put the result at `path` in one step; make folders as needed.

    Raises OSError that names `path` when the disk is full, or what else keeps the file from being written.
    """
    path = Path(path)
    check_regular(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path), _unfinished(path.parent) as (file, name):
        write(file)
        file.flush()
        os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes it private; results are for everyone whom the umask allows
        if fcntl is None:
            file.close()  # Windows renames no open file
        os.replace(name, path)


@contextlib.contextmanager
def _unfinished(folder: Path) -> Iterator[tuple[IO[bytes], str]]:
    """Yield a new file and its name; remove it if that is still its name at the end.

    This process holds a lock on it, by which `clear_unfinished` of another one knows that it is being written.
    """
    name = None
    while name is None or not os.path.exists(name):  # it may be cleared before it is held
        handle, name = tempfile.mkstemp(dir=folder, prefix=UNFINISHED)
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks: nobody can clear there either
                fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with open(handle, "wb") as file:
            yield file, name
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Give errors of the disk the name of the file; they come with that of the unfinished one, or with none at all."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # torch.save ends with a RuntimeError of its own ("unexpected pos"), in the course of the disk's.
        cause = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is None or UNFINISHED not in str(cause.filename or UNFINISHED):
            raise
        raise OSError(cause.errno, cause.strerror or str(cause), str(path)) from error


@contextlib.contextmanager
def unfinished_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in `parent`, to be filled and renamed; remove it if that is still its name at the end.

    Those that processes were killed while filling are removed.
    """
    clear_unfinished(parent)
    path, handle = None, None
    try:
        while path is None or not path.exists():  # it may be cleared before it is held
            path = Path(tempfile.mkdtemp(dir=parent, prefix=UNFINISHED))
            if fcntl is not None:
                handle = os.open(path, os.O_RDONLY)
                with contextlib.suppress(OSError):
                    fcntl.flock(handle, fcntl.LOCK_EX)
        yield path
    finally:
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def clear_unfinished(folder: Path) -> None:
    """Remove what processes were killed while writing in a folder, files and folders; what is being written stays."""
    for path in Path(folder).glob(f"{UNFINISHED}*") if fcntl is not None else ():
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: object) -> None:
    """Write indented JSON atomically, with lists of numbers on one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    text = re.sub(r"\[\s+([-+\d.,eE\s]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    write_text(path, text + "\n")


def save_tensors(path: Path, value: dict) -> None:
    """Write a dictionary of tensors and plain values with torch.save, atomically."""
    import torch  # here: it takes seconds, which what needs no tensors does not wait for

    def write(file: IO[bytes]) -> None:
        try:
            torch.save(value, file)
        except RuntimeError as error:  # what torch makes of an exit, or of Ctrl-C, in the middle of its file
            if isinstance(error.__context__, SystemExit | KeyboardInterrupt):
                raise error.__context__ from None
            raise

    write_atomically(path, write)


def load_tensors(path: Path, expected: Expected | None = None) -> dict:
    """Read tensors and plain values onto the CPU, never code, and compare their checksums.

    expected: what the file must hold. Raises UserError that names an absent or damaged file, or one that holds
    something else, and OSError where the disk does not give it.
    """
    import torch

    with _reading(path, "a file of tensors") as file:
        if file.read(2) == b"PK":  # files of torch before 1.6 are no archives and have no checksums
            _compare_checksums(file)
        value = torch.load(path, map_location="cpu", weights_only=True)
    if expected is not None and (wrong := problem(value, expected)) is not None:
        raise UserError(f"{path} does not hold what it should: {wrong}")
    return value


def load_checkpoint(path: Path, expected: Expected) -> dict:
    """Read a checkpoint of this run; errors as in `load_tensors`, with what to do about one that does not fit."""
    try:
        value = load_tensors(path)
    except UserError as error:
        raise UserError(f"{error}; remove it or leave --resume out") from None
    check_fits(path, value, expected)
    return value


def check_fits(path: Path, value: object, expected: Expected) -> None:
    """Raise UserError if what a checkpoint holds, or a part of that, is not of this run."""
    if (wrong := problem(value, expected)) is not None:
        raise UserError(f"checkpoint {path} does not fit this run: {wrong}; remove it or leave --resume out")


def load_arrays(path: Path, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of a .npz file, never code, and compare their checksums; errors as in `load_tensors`.

    only: these, as far as they are there; the others are not looked at.
    """
    with _reading(path, ".npz") as file:
        if only is None:
            _compare_checksums(file)
            file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if only is None or name in only}
        if other := [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]:
            raise ValueError(f"{other[0]} is no array")
    return arrays


@contextlib.contextmanager
def _reading(path: Path, kind: str) -> Iterator[IO[bytes]]:
    """Open a file; say what its content means that the libraries cannot read."""
    check_regular(path)
    try:
        with open(path, "rb") as file:
            try:
                yield file
            except Exception as error:  # zipfile, zlib, torch and numpy raise many types for damaged files
                if isinstance(error, OSError) and error.errno == errno.EIO:
                    raise OSError(error.errno, error.strerror, str(path)) from error
                raise UserError(f"cannot read {path}: it is damaged or not {kind} ({_reason(error)})") from error
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None


def _compare_checksums(file: IO[bytes]) -> None:
    """Raise zipfile.BadZipFile, or what else comes of a damaged archive, unless each part fits its checksum."""
    with zipfile.ZipFile(file) as archive:
        if (part := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file '{part}'")


# What the libraries say of a file, and what it means. Their own advice, to run what the file holds, is not passed on.
_REASONS = (
    (r"GLOBAL ([\w.]+)", r"it holds \1, which may be code and is not read"),
    (
        r"Python objects|pickled|Object arrays|weights_only",
        "it holds Python objects, which may be code and are not read",
    ),
    (r"not a zip file|[Nn]o data left|cut off|central directory", "it is no archive, or cut off"),
    (r"CRC-32", "a checksum is wrong"),
    (r"^([^ ]{,80} is no array)$", r"\1"),
)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    found = ((re.search(pattern, text), reason) for pattern, reason in _REASONS)
    return next((match.expand(reason) for match, reason in found if match), "its content makes no sense")


def check_regular(path: Path) -> None:
    """Raise OSError if there is something else than a file at `path`: a folder, or a pipe, which may block for ever."""
    try:
        mode = os.stat(path).st_mode
    except OSError:  # absent, or not to be seen: whoever opens it learns that
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a pipe or device is in the place of a file", str(path))


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_writable(folder: Path) -> None:
    """Raise OSError unless files can be made in `folder`, which need not exist yet; leave nothing behind."""
    existing = Path(folder).absolute()
    try:
        while _is_absent(existing):
            existing = existing.parent
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


def _is_absent(path: Path) -> bool:
    """Tell whether there is nothing at `path`; a link that leads nowhere is something, in a folder's way."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
