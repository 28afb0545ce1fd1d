"""Which samples each pick of facility location took, and the clusters that follow."""

from __future__ import annotations

import torch
from torch import Tensor


class Moves:
    """Clients taken by picks, in the order of the picks for each client.

    In one tensor that doubles when it is full: many small ones, kept between large blocks that come and go, would split
    the memory of these into pieces too small for the next.
    """

    def __init__(self, device: torch.device) -> None:
        """Start without any."""
        self.count = 0
        self.kept = torch.empty(2, 2**16, dtype=torch.int64, device=device)

    def add(self, picks: Tensor | int, clients: Tensor) -> None:
        """Add clients (b,), each taken by a pick (b,) or all by the same; a pick is told by its number."""
        start, self.count = self.count, self.count + len(clients)
        if self.count > self.kept.shape[1]:
            larger = self.kept.new_empty(2, max(self.count, 2 * self.kept.shape[1]))
            larger[:, :start] = self.kept[:, :start]
            self.kept = larger
        self.kept[0, start : self.count], self.kept[1, start : self.count] = picks, clients

    def clusters(self, m: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the cluster sizes of m picks and the transfers that led to them; see `facility_location.Cover`.

        weights: how many samples each client stands for (default: itself alone); transfers count clients.
        """
        clients, order = self.kept[1, : self.count].sort(stable=True)
        steps = self.kept[0, order]
        same = clients[1:] == clients[:-1]
        donors = torch.full_like(steps, -1)
        donors[1:][same] = steps[:-1][same]
        last = torch.ones(len(steps), dtype=torch.bool, device=steps.device)
        last[:-1] = ~same
        pairs, counts = (steps * (m + 1) + donors + 1).unique(return_counts=True)
        transfers = torch.stack([pairs // (m + 1), pairs % (m + 1) - 1, counts], 1)
        return torch.bincount(steps[last], None if weights is None else weights[clients[last]], minlength=m), transfers
