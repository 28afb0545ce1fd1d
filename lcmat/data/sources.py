"""Getting original files: what a damaged one is called, and downloads that come whole or leave nothing."""

import io
import os
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from contextvars import ContextVar
from pathlib import Path

from PIL import Image

from lcmat.alive import Progress
from lcmat.errors import UserError

# What Pillow raises for damaged images.
IMAGE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)


_allowed: ContextVar[bool] = ContextVar("downloads allowed", default=True)


class AbsentError(UserError):
    """Data that are not here, and may not be downloaded now."""


@contextmanager
def without_downloads() -> Iterator[None]:
    """Download nothing meanwhile: AbsentError is raised in its place."""
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)


def check_allowed(name: str, where: object) -> None:
    """Raise AbsentError where nothing is to be downloaded."""
    if not _allowed.get():
        raise AbsentError(f"{name} is not in {where}")


@contextmanager
def damage(origin: object) -> Iterator[None]:
    """Turn whatever a parser raises for broken content into one line that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{origin} is damaged ({_reason(error)}); download or copy it again") from error


def fetch(url: str, folder: Path, md5: str) -> None:
    """Download one file with a progress bar and check it."""
    from torchvision.datasets.utils import download_url

    download_url(url, str(folder), md5=md5)


def download(name: str, folder: Path, get: Callable[[Path], object], expected: str) -> None:
    """Call `get` with a temporary folder and move what it leaves there to `folder`; a failure leaves nothing behind.

    Raises UserError that names the folder and the files that were `expected` in it.
    """
    check_allowed(name, folder)
    made = folder
    while not made.parent.exists():
        made = made.parent
    existed = folder.exists()
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(60)
    # torchvision shows its bars even where there is no terminal.
    quiet = nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        alive = Progress(desc=f"downloading {name}", disable=sys.stderr.isatty())  # there it has bars of its own
        with alive, tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary, quiet:
            get(Path(temporary))
            _move_files(Path(temporary), folder)
    except Exception as error:  # the libraries raise many types for what can go wrong on a network
        if not existed:
            shutil.rmtree(made, ignore_errors=True)
        raise UserError(
            f"{name} is not in {folder} (expected {expected}) and could not be downloaded ({_reason(error)}); "
            f"put the files there or set --data_path"
        ) from error
    finally:
        socket.setdefaulttimeout(previous)


def _move_files(source: Path, target: Path) -> None:
    for path in [path for path in source.rglob("*") if path.is_file()]:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
