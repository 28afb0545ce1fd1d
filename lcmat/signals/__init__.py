"""What a selection method may read of a trained network, and how that is taken from one.

The constants of what methods may need stand here, too. What is computed from signals belongs to `last_layer` and
`distances`; which network they come from, and where they are kept, to `runs`.
"""

from lcmat.signals.networks import linear_head, signals_of_batches, take_signals
from lcmat.signals.released import Taking
from lcmat.signals.shards import Shards, open_shards, write_shards
from lcmat.signals.signals import Signals
from lcmat.signals.weights import load_weights

__all__ = [
    "Shards",
    "Signals",
    "Taking",
    "linear_head",
    "load_weights",
    "open_shards",
    "signals_of_batches",
    "take_signals",
    "write_shards",
]
