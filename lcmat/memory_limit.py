"""How much memory selection may use for what it could also form again whenever it is asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from lcmat.errors import UserError, shown

if TYPE_CHECKING:  # it takes seconds to import, and flags are parsed by what stands here
    import torch

# Without a limit, selection takes at most this share of what is free.
SHARE = 0.25
# Shares of the limit: the rest is for the signals' factors and temporary blocks.
OF_A_MATRIX, OF_VECTORS = 0.5, 0.25
OF_BLOCKS = 1 - OF_A_MATRIX - OF_VECTORS

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
MOST = 2**60
_limit: ContextVar[int | None] = ContextVar("limit", default=None)
_sharers: ContextVar[int] = ContextVar("sharers", default=1)


@contextmanager
def limited(size: int | str | None) -> Iterator[None]:
    """Let selection use `size` bytes, or a size such as "4GB".

    None: as much as around this, and if nothing was said there either, a quarter of what is free at the time.
    """
    token = _limit.set(_limit.get() if size is None else parse_size(size))
    try:
        yield
    finally:
        _limit.reset(token)


@contextmanager
def shared_by(sharers: int) -> Iterator[None]:
    """Let each of so many that work side by side use its share of the memory."""
    token = _sharers.set(_sharers.get() * sharers)
    try:
        yield
    finally:
        _sharers.reset(token)


def fits(count: int, share: float, device: torch.device | str = "cpu") -> bool:
    """Tell whether `count` bytes are within `share` of the limit on the device, or of one's part of it."""
    return count * _sharers.get() <= share * _bytes(device)


def side_by_side(most: int, each: int) -> int:
    """Return how many can work side by side on the host, at most `most`, whose blocks take so many bytes each."""
    return most if most == 1 else max(1, min(most, int(OF_BLOCKS * _bytes("cpu") / _sharers.get()) // each))


def _bytes(device: torch.device | str) -> float:
    import torch

    limit = _limit.get()
    return SHARE * free(torch.device(device)) if limit is None else limit


def parse_size(size: int | str) -> int:
    """Return a number of bytes from one, or from a text such as 500MB, 4G or 2GiB; raise UserError for others."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", str(size).strip().upper())
    if found is None or found[2] not in UNITS or not 1 <= (count := float(found[1]) * UNITS[found[2]]) <= MOST:
        raise UserError(f"a memory size looks like 500MB or 4GB, and is 1 byte to 1 EiB, not {shown(size)}")
    return int(count)


def free(device: torch.device) -> int:
    """Return how many bytes are free on the device: on the host, what this process's control group leaves, too."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
        found.append(1024 * int(line.split()[1]))
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError, StopIteration):  # no control group, or none with a limit
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        # Files that were read count as used, but are given up for the asking.
        cached = next(x for x in (group / "memory.stat").read_text().splitlines() if x.startswith("inactive_file "))
        found.append(limit - used + int(cached.split()[1]))
    return max(0, min(found))
