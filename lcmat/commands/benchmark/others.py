"""Greedy facility location by apricot-select and submodlib-py, on a similarity matrix in a file. A script by itself.

python others.py LIBRARY MATRIX.npy BUDGET RUNS: prints seconds (of making the object, of the greedy) and picks as JSON.
It runs in an environment of its own that has these libraries, and nothing of this project.
"""

import json
import sys
import time
from importlib.metadata import version

import numpy as np


def apricot(similarity: np.ndarray, budget: int) -> tuple[float, float, list[int]]:
    """Two-stage is its default and its fastest."""
    from apricot import FacilityLocationSelection

    started = time.perf_counter()
    selector = FacilityLocationSelection(budget, metric="precomputed", optimizer="two-stage")
    made = time.perf_counter()
    picks = selector.fit(similarity).ranking
    return made - started, time.perf_counter() - made, [int(pick) for pick in picks]


def submodlib(similarity: np.ndarray, budget: int) -> tuple[float, float, list[int]]:
    """LazyGreedy is its fastest exact one; it copies the matrix, in float32."""
    from submodlib import FacilityLocationFunction

    started = time.perf_counter()
    function = FacilityLocationFunction(n=len(similarity), mode="dense", sijs=similarity, separate_rep=False)
    made = time.perf_counter()
    chosen = function.maximize(
        budget=budget, optimizer="LazyGreedy", stopIfZeroGain=False, stopIfNegativeGain=False, show_progress=False
    )
    return made - started, time.perf_counter() - made, [int(pick) for pick, _ in chosen]


if __name__ == "__main__":
    library, path, budget, runs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    matrix = np.load(path)
    function, package = {"apricot": (apricot, "apricot-select"), "submodlib": (submodlib, "submodlib-py")}[library]
    function(matrix[:100, :100].copy(), 5)  # compiles what is compiled at the first call
    results = [function(matrix, budget) for _ in range(runs)]
    made, seconds, picks = zip(*results, strict=True)
    print(json.dumps({"version": version(package), "made": made, "seconds": seconds, "picks": picks[0]}))
