"""Files that several runs share: made by one process under a lock, read by the others; damaged ones are made anew."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from lcmat.errors import UserError
from lcmat.expected import Expected
from lcmat.files import load_tensors
from lcmat.locks import is_held, locked


def lock_of(path: Path) -> AbstractContextManager[None]:
    """Return the lock to hold while a cached file is looked for and made."""
    return locked(path.with_suffix(".lock"))


def held_lock(paths: Iterable[Path]) -> Path | None:
    """Return the first lock that another process holds on one of some cached files that are not there yet."""
    locks = (path.with_suffix(".lock") for path in paths if not path.exists())
    return next((lock for lock in locks if is_held(lock)), None)


def cached(path: Path, expected: Expected | None = None) -> dict | None:
    """Return what a cache file holds, or None if there is none or it is damaged; then it is made anew."""
    try:
        return load_tensors(path, expected) if path.exists() else None
    except UserError as error:
        warnings.warn(f"{error}; it is made anew", stacklevel=2)
        return None
