"""The search of LBCS: lexicographic order of (loss, size), trials on file, and the inner loop that trains on a mask.

The method itself, with its options, is `methods/lbcs.py`.
"""

from lcmat.bilevel.inner_loop import train_full_batch
from lcmat.bilevel.lexicographic import Rules
from lcmat.bilevel.trials import TrialFile, read_trials, refine

__all__ = ["Rules", "TrialFile", "read_trials", "refine", "train_full_batch"]
