"""Locks on files, which the operating system takes back from a process however that ends.

A lock's file is removed when the lock is given back. Those that killed processes leave are removed by `clear`.

On a file system that machines share, all rests on its own locks (flock; NFS 4 has them). Tested are processes of one
machine, by one path and through two mounts of a folder; machines that share one, and NFS, are not.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

# Seconds after which a lock that is waited for is named: whoever holds it may hang.
SAID_AFTER = 60.0


HANGS = "if that hangs, end it (fuser FILE names it)"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file for a while. It is waited for, and named on stderr when that takes long."""
    lock = _acquired(path, SAID_AFTER)
    if lock is None:
        print(f"waiting for another process, which holds {path}; {HANGS}", file=sys.stderr)
        lock = _acquired(path, float("inf"))
    with _given_back(lock, path):
        yield


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold the lock on a file for a while, unless another process holds it; yield whether that could be had."""
    lock = _acquired(path, 0.0)
    if lock is None:
        yield False
        return
    with _given_back(lock, path):
        yield True


def is_held(path: Path) -> bool:
    """Tell whether another process holds the lock on a file."""
    if not path.exists():
        return False
    with claimed(path) as mine:
        return not mine


def clear(folder: Path) -> None:
    """Remove the files of locks in a folder, named by hashes, that no process holds."""
    for path in Path(folder).glob("*.lock"):
        if re.match("[0-9a-f]{12}", path.name):  # not those of other programs, whatever folder a user names
            with suppress(OSError), claimed(path):
                pass  # giving it back removes it


def _acquired(path: Path, seconds: float) -> FileLock | None:
    """Return the lock on a file, waited for up to so many seconds, or None. Raises OSError that names the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    while True:
        lock, left = FileLock(path), max(0.0, end - time.monotonic())
        try:
            lock.acquire(timeout=-1 if left == float("inf") else left)
        except Timeout:
            return None
        except NotImplementedError:  # so filelock says it
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(path)) from None
        if _is_of(lock, path):
            return lock
        lock.release()  # its file was removed after it was opened, so that another process may have the next one


def _is_of(lock: FileLock, path: Path) -> bool:
    """Tell whether the file that a lock holds is still the one at `path`."""
    try:
        held = os.fstat(lock._context.lock_file_fd)
    except (OSError, TypeError):  # where a file's existence is the lock
        return True
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino)


@contextmanager
def _given_back(lock: FileLock, path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file
            path.unlink()
        lock.release()
