"""Reading many images at once, with a progress bar."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from lcmat.alive import Progress
from lcmat.hardware import cores


def in_threads(read: Callable[[object], object], items: Sequence[object], what: str) -> Iterator[object]:
    """Yield read(item) for every item, in order; image codecs release the interpreter lock."""
    with ThreadPoolExecutor(cores()) as pool:
        results = pool.map(read, items, chunksize=64) if items else iter(())
        try:
            yield from Progress(results, total=len(items), desc=what)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def decode_all(decode: Callable[[object], Tensor], items: Sequence[object], what: str) -> Tensor:
    """Return decode(item) for every item, stacked to (n, c, h, w)."""
    out = None
    for i, image in enumerate(in_threads(decode, items, f"decoding {what}")):
        if out is None:
            out = torch.empty(len(items), *image.shape, dtype=torch.uint8)
        out[i] = image
    return torch.empty(0, 3, 1, 1, dtype=torch.uint8) if out is None else out
