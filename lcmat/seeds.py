"""Every random draw has a seed of its own, derived from the run's seed and what the draw is for.

So nothing depends on how many numbers were drawn before, and a run that is resumed at an epoch continues as it would
have without the interruption, with no generator state to be saved.
"""

import hashlib

import torch


def derive(seed: int, *purpose: object) -> int:
    """Return a 63-bit seed that depends on `seed` and on every word of `purpose`."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, *purpose: object) -> torch.Generator:
    """Return a CPU generator seeded by `derive`: the same draws on every device."""
    return torch.Generator().manual_seed(derive(seed, *purpose))
