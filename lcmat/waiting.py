"""How PyTorch's threads wait for each other, which is decided when PyTorch is loaded: programs say it before that.

At the end of each operation PyTorch's threads wait by spinning, for milliseconds: one that has lost its core to another
program holds up all, and the others keep it from getting one. Spinning for as long as it takes to begin the next
operation gives way on a shared machine as not spinning at all does (OMP_WAIT_POLICY=PASSIVE), which costs a tenth to a
half on an idle one. Four programs on two cores: 4,000 pairs of small operations took 1.5 to 12 s of processor time as
usual, 0.4 to 0.6 s so, and 0.3 to 1.1 s without spinning.
"""

import os

# Rounds of spinning in GNU's OpenMP, of PyTorch's packages for Linux: a fifth of a millisecond; usual are 300,000.
SPINS = "10000"
# Milliseconds of spinning in Intel's and LLVM's OpenMP, of packages for other systems; usual are 200.
BLOCKTIME = "1"
# What users say themselves holds.
SAID = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")


def give_way() -> None:
    """Let PyTorch's threads spin shortly, unless the user has said how they wait; no effect once PyTorch is loaded."""
    if not any(name in os.environ for name in SAID):
        os.environ |= {"GOMP_SPINCOUNT": SPINS, "KMP_BLOCKTIME": BLOCKTIME}
