"""Files that several runs share: made by one process under a lock, read by the others; damaged ones are made anew."""

from __future__ import annotations

import warnings
from pathlib import Path

from filelock import FileLock, Timeout

from lcmat.errors import UserError
from lcmat.expected import Expected
from lcmat.files import load_tensors


def lock_of(path: Path) -> FileLock:
    """Return the lock to hold while a cached file is looked for and made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_suffix(".lock"))


def is_locked(path: Path) -> bool:
    """Tell whether another process holds the lock of a cached file that is not there yet."""
    if path.exists() or not path.with_suffix(".lock").exists():
        return False
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            return False
    except Timeout:
        return True


def cached(path: Path, expected: Expected | None = None) -> dict | None:
    """Return what a cache file holds, or None if there is none or it is damaged; then it is made anew."""
    try:
        return load_tensors(path, expected) if path.exists() else None
    except UserError as error:
        warnings.warn(f"{error}; it is made anew", stacklevel=2)
        return None
