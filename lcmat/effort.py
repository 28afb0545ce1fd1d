"""How much is computed before something cheaper stands for it: thresholds on which results depend, beyond them.

`with limited_effort(evaluations=200): …` sets them for what runs inside, so that what happens beyond them can be seen
on a few samples.
"""

from __future__ import annotations

from dataclasses import dataclass

from lcmat.scoped import Scoped


@dataclass(frozen=True)
class Effort:
    """Thresholds, by what goes on beyond them.

    part: samples of a part of the partition greedy, unless told; its matrix is quickly formed and held.
    offered: what all parts together offer at most, beyond a few times what is wanted: minutes to choose from.
    judgements: distances that are measured to tell which solution is the best: a minute.
    evaluations: distances that are measured for the cost of a selection: seconds to a minute; beyond, it is estimated.
    exact_parameters: of the last layer, up to which Influential's Hessian is exact; beyond, a Kronecker product stands
    for it. double_parameters: up to which influences are in float64; beyond in float32, from an inverse in float64.
    both_ways: samples up to which both the kept and the removed set are grown; beyond only the smaller one.
    shortlist: samples on each side among which swaps are looked for.
    most_dense: parameters of a layer whose Hessian is formed where Lanczos does not converge: about a minute.
    """

    part: int = 10_000
    offered: int = 20_000
    judgements: int = 2**28
    evaluations: int = 2**30
    exact_parameters: int = 8192
    double_parameters: int = 2048
    both_ways: int = 20_000
    shortlist: int = 512
    most_dense: int = 6000


# effort() returns the thresholds that hold here; `with limited_effort(name=value): …` lets others hold inside.
effort = Scoped("effort", Effort())
limited_effort = effort.changed
