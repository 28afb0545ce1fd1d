"""The nearest neighbours of each sample, exactly, from blocks of distances: no n×n matrix is held."""

import torch
from torch import Tensor

from lcmat.block_sizes import at_once
from lcmat.distances.vectors import euclidean

# Distances that differ by less than this share are equal to rounding.
NEIGHBOUR_TIE = 1e-12


def nearest_others(features: Tensor, count: int) -> Tensor:
    """Return for each of n samples the `count` nearest others, (n, count), ties to the lowest index."""
    distance = euclidean(features)
    n = len(distance)
    found = []
    for part in torch.arange(n, device=features.device).split(max(1, at_once().elements // n)):
        rows = distance.rows(part)
        rows[torch.arange(len(part)), part] = torch.inf
        values, indices = rows.topk(count, dim=1, largest=False)
        farthest = values.amax(1, keepdim=True)
        within = (rows <= farthest * (1 + NEIGHBOUR_TIE)).sum(1) > count
        for row in within.nonzero()[:, 0].tolist():  # more candidates than places: topk takes any of them
            surely = (rows[row] < farthest[row] * (1 - NEIGHBOUR_TIE)).nonzero()[:, 0]
            tied = (rows[row] <= farthest[row] * (1 + NEIGHBOUR_TIE)).nonzero()[:, 0]
            tied = tied[~torch.isin(tied, surely)]
            indices[row] = torch.cat([surely, tied])[:count]
        found.append(indices)
    return torch.cat(found)
