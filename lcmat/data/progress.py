"""Decoding many images at once, with a progress bar."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from tqdm import tqdm


def decode_all(decode: Callable[[object], Tensor], items: Sequence[object], what: str) -> Tensor:
    """Return decode(item) for every item, stacked to (n, c, h, w); image codecs release the interpreter lock."""
    out = None
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pixels = pool.map(decode, items, chunksize=64) if items else iter(())
        try:
            for i, image in enumerate(
                tqdm(pixels, total=len(items), desc=f"decoding {what}", disable=None, leave=False)
            ):
                if out is None:
                    out = torch.empty(len(items), *image.shape, dtype=torch.uint8)
                out[i] = image
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return torch.empty(0, 3, 1, 1, dtype=torch.uint8) if out is None else out
