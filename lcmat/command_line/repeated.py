"""Plans that were said before: where nothing has changed that one depends on, it is said again, without PyTorch.

Kept in CACHE/plans by the words of the command line, with stamps of the code and of all folders that were looked at.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from contextvars import ContextVar
from pathlib import Path

# Not from `lcmat.files`, which imports NumPy.
PROJECT = Path(__file__).resolve().parent.parent.parent
CODE = ("lcmat", "methods", "nets", "main.py", "cross_network_generalization.py")
# Below a cache these decide nothing; nor do locks, which come and go.
LEFT_OUT = ("plans", "log", "checkpoints", ".locks", "__pycache__")
# Folders of more files are not gone through: their plans are made anew each time.
MOST = 50_000
_looked_at: ContextVar[set[Path] | None] = ContextVar("looked at", default=None)


def looked_at(*folders: Path) -> None:
    """Note, while a plan is made, that it depends on what these folders hold."""
    found = _looked_at.get()
    if found is not None:
        found.update(folder.absolute() for folder in folders)


def said(words: Sequence[str], plan: Callable[[], int]) -> int:
    """Say a plan again if it was said before and depends on nothing that has changed; else make it. Return its code."""
    if "RANK" in os.environ:  # one of several processes, which all take part
        return plan()
    path = _place(words)
    kept = _read(path)
    if kept is not None and kept["stamp"] == _stamp(words, map(Path, kept["folders"])):
        sys.stderr.write(kept["err"])
        sys.stdout.write(kept["out"])
        return 0
    token, streams = _looked_at.set(set()), (_Both(sys.stdout), _Both(sys.stderr))
    try:
        with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
            code = plan()
        folders = sorted(_looked_at.get() or ())
    finally:
        _looked_at.reset(token)
    stamp = _stamp(words, folders) if code == 0 and folders else ""
    if stamp:
        out, err = (stream.text.getvalue() for stream in streams)
        _keep(path, {"stamp": stamp, "folders": [str(folder) for folder in folders], "out": out, "err": err})
    return code


class _Both(io.TextIOBase):
    """Writes to a stream, and keeps what was written."""

    def __init__(self, stream: io.TextIOBase) -> None:
        self.stream, self.text = stream, io.StringIO()

    def write(self, text: str) -> int:
        """Write to both."""
        self.text.write(text)
        return self.stream.write(text)

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Tell whether the stream is a terminal."""
        return self.stream.isatty()


def _place(words: Sequence[str]) -> Path:
    """Return the file of a command line; --cache_path says where, as far as the words do."""
    given = [after for word, after in itertools.pairwise(words) if word == "--cache_path"]
    key = hashlib.sha256(json.dumps([os.getcwd(), *words]).encode()).hexdigest()[:16]
    return Path(given[-1] if given else "cache") / "plans" / f"{key}.json"


def _read(path: Path) -> dict | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    kinds = {"stamp": str, "folders": list, "out": str, "err": str}
    whole = isinstance(kept, dict) and all(isinstance(kept.get(name), kind) for name, kind in kinds.items())
    return kept if whole and kept["stamp"] and all(isinstance(one, str) for one in kept["folders"]) else None


def _keep(path: Path, value: dict) -> None:
    with suppress(OSError):  # it is made anew the next time
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(value), encoding="utf-8")
        os.replace(unfinished, path)


def _stamp(words: Sequence[str], folders: Iterable[Path]) -> str:
    """Return a hash of the names, sizes and times of all files that a plan depends on, and of the machine.

    Files are those of the code, of the folders, and that the words name; "" if they are too many.
    """
    digest = hashlib.sha256(f"{sys.executable} {os.path.exists('/dev/nvidia0')} {os.cpu_count()}".encode())
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        digest.update(str(os.environ.get(name)).encode())
    named = [Path(word) for word in words if os.path.isfile(word)]
    places = dict.fromkeys([*(PROJECT / name for name in CODE), PROJECT / "result", *named, *folders])
    files = list(itertools.islice((file for place in places for file in _files(place)), MOST))
    for name, time, size in sorted(files):
        digest.update(f"{name} {time} {size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest() if len(files) < MOST else ""


def _files(place: Path) -> Iterator[tuple[str, int, int]]:
    try:
        if place.is_file():
            found = place.stat()
            yield str(place), found.st_mtime_ns, found.st_size
        elif place.is_dir():
            for entry in os.scandir(place):
                if entry.name not in LEFT_OUT and not entry.is_symlink():
                    if entry.is_dir():
                        yield from _files(Path(entry.path))
                    else:
                        found = entry.stat()
                        yield entry.path, found.st_mtime_ns, found.st_size
    except OSError:  # gone meanwhile, or no name of a file
        return
