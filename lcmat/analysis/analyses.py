"""Analyses of subsets in the light of LCMat's theory: each a function from groups of cases to rows of numbers.

What takes long is kept in the cache, case by case, so that a run that is stopped goes on where it was.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lcmat.alive import Progress
from lcmat.analysis import loss_surface
from lcmat.analysis.groups import Case, Group, Row
from lcmat.analysis.loss_difference import sharpness
from lcmat.block_sizes import at_once
from lcmat.distances import LossCurvatureDistance
from lcmat.expected import Expected, array, each, fields, real, row
from lcmat.last_layer import dominant_dimensions, hessian_factors, hessian_variance
from lcmat.signals import Signals


@dataclass(frozen=True)
class How:
    """What an analysis is measured with. radius: ρ of Eq. 4 and 6. objective: ρ and K of LCMat-S's distance.

    starts, steps: of the ascent over the last layer; network_starts, network_steps: over all parameters.
    images: of the fixed sample of T. points, span: of the landscape's grid, from −span to span filter norms.
    network_precision: what networks compute in where all their parameters move.
    """

    radius: float = 0.5
    objective: tuple[float, int | None] = (0.1, None)
    starts: int = 4
    steps: int = 20
    network_starts: int = 2
    network_steps: int = 3
    images: int = 1000
    points: int = 21
    span: float = 1.0
    network_precision: torch.dtype = torch.float32


def _cases(groups: list[Group], label: str) -> Iterator[tuple[Group, Case]]:
    every = [(group, case) for group in groups for case in group.cases]
    yield from Progress(every, desc=label)


def bound(groups: list[Group], how: How) -> dict[str, list[Row]]:
    """Return the two terms of Eq. 6 (LCMat Prop. 3.2, Fig. 2) for each subset, over the last layer.

    lambda_1 is the largest eigenvalue of H_T − H_S, signed, as the proposition has it; lambda_abs the largest by size.
    """
    rows = []
    for group, case in _cases(groups, "bound"):
        terms = _terms(group, case)
        half = how.radius / 2
        rows.append(
            case.row
            | {
                "gradient": terms["gradient"],
                "lambda_1": terms["highest"],
                "lambda_lowest": terms["lowest"],
                "lambda_abs": max(terms["highest"], -terms["lowest"]),
                "half_rho_lambda_1": half * terms["highest"],
                "half_rho_lambda_abs": half * max(terms["highest"], -terms["lowest"]),
                "diagonal": half * terms["diagonal"],
            }
        )
    return {"": rows}


def _terms(group: Group, case: Case) -> dict[str, float]:
    """Return ‖∇L(T) − ∇L(S)‖₂, the extreme eigenvalues of H_T − H_S, and max_k |λ̂_k^T − λ̂_k^S|."""

    def make() -> dict[str, float]:
        c, layer = group.coefficients(case), group.layer
        low, high = layer.extreme_eigenvalues(c)
        gradient, diagonal = float(layer.gradient(c).norm()), float(layer.diagonal(c).abs().max())
        return {"gradient": gradient, "lowest": low, "highest": high, "diagonal": diagonal}

    return group.kept({"analysis": "terms"}, case, make, _numbers("gradient", "lowest", "highest", "diagonal"))


def _numbers(*names: str) -> Expected:
    """Expect what is kept to be finite numbers of these names."""
    return fields(dict.fromkeys(names, real()))


def sharp(groups: list[Group], how: How) -> dict[str, list[Row]]:
    """Return Eq. 4 measured from below, beside Eq. 6 (Prop. 3.2 without its remainder) and Eq. 7 (diagonal)."""
    rows = []
    for group, case in _cases(groups, "sharpness"):
        terms, half = _terms(group, case), how.radius / 2
        of_layer = group.kept(
            {"analysis": "sharpness", "radius": how.radius, "starts": how.starts, "steps": how.steps},
            case,
            functools.partial(_layer_sharpness, group, case, how),
            _numbers("sharpness", "difference"),
        )
        of_network = {}
        if how.network_steps:
            what = {"analysis": "network sharpness", "radius": how.radius, "steps": how.network_steps}
            what |= {"starts": how.network_starts, "precision": str(how.network_precision)}
            make = functools.partial(_network_sharpness, group, case, how)
            found = _numbers("sharpness", "difference", "gradient")
            of_network = group.kept(what | {"images": how.images}, case, make, found)
        eq6, eq6_abs = (
            terms["gradient"] + half * value for value in (terms["highest"], max(terms["highest"], -terms["lowest"]))
        )
        eq7 = terms["gradient"] + half * terms["diagonal"]
        rows.append(
            case.row
            | {
                "sharpness": of_layer["sharpness"],
                "eq6": eq6,
                "eq6_abs": eq6_abs,
                "above_eq6": int(of_layer["sharpness"] > eq6),
                "above_eq6_abs": int(of_layer["sharpness"] > eq6_abs),
                "eq7": eq7,
                "above_eq7": int(of_layer["sharpness"] > eq7),
                "difference": of_layer["difference"],
                "network_sharpness": of_network.get("sharpness"),
                "network_gradient": of_network.get("gradient"),
                "network_difference": of_network.get("difference"),
            }
        )
    return {"": rows}


def _layer_sharpness(group: Group, case: Case, how: How) -> dict[str, float]:
    at, like = group.layer.loss(group.coefficients(case)), torch.zeros(group.layer.shape).to(group.layer.h)
    value, base, _ = sharpness(at, like, how.radius, how.starts, how.steps)
    return {"sharpness": value, "difference": base}


def _network_sharpness(group: Group, case: Case, how: How) -> dict[str, float]:
    train, compute = group.setup.dataset.train, replace(group.setup.compute, precision=how.network_precision)
    sample = train.take(loss_surface.stratified(train.labels, how.images))
    chosen = train.take(torch.from_numpy(case.subset.indices))
    weights = loss_surface.relative_weights(case.subset, len(chosen))
    network = group.network.to(compute.device, memory_format=torch.channels_last)
    at = loss_surface.difference(network, sample, chosen, weights, compute)
    size = sum(value.numel() for value in network.parameters())
    value, base, norm = sharpness(
        at, torch.zeros(size, device=compute.device), how.radius, how.network_starts, how.network_steps
    )
    return {"sharpness": value, "difference": base, "gradient": norm}


def landscapes(groups: list[Group], how: How) -> dict[str, list[Row]]:
    """Return the loss of T's fixed sample and of each subset around f_T (Fig. 1b), on the same two directions.

    apart: how far it is from that of T's sample, L_abs of Eq. 4 but for the sampling.
    """
    places = np.linspace(-how.span, how.span, how.points).tolist()
    rows = []
    for group in groups:
        train = group.setup.dataset.train
        sample = loss_surface.stratified(train.labels, how.images)
        several = [(_of_t(group, len(sample)), sample, loss_surface.relative_weights(None, len(sample)))]
        for case in group.cases:
            weights = loss_surface.relative_weights(case.subset, len(case.subset))
            several.append((case.row, torch.from_numpy(case.subset.indices), weights))
        images = torch.cat([index for _, index, _ in several]).unique()
        losses = _losses(group, how, images, places)
        surfaces = [losses[..., torch.searchsorted(images, i)].double() @ w.double() for _, i, w in several]
        for (first, _, _), surface in zip(several, surfaces, strict=True):
            apart = (surface - surfaces[0]).abs()
            rows += [
                first | {"x": x, "y": y, "loss": float(surface[i, j]), "apart": float(apart[i, j])}
                for (i, x), (j, y) in itertools.product(enumerate(places), repeat=2)
            ]
    return {"": rows}


def _of_t(group: Group, count: int) -> Row:
    """The columns that tell what is of T itself from the cases."""
    return {"method": group.named("T"), "fraction": 1.0, "seed": group.seed, "samples": count}


def _losses(group: Group, how: How, images: Tensor, places: list[float]) -> Tensor:
    """Return each image's loss at each point, (points, points, n); subsets share images, so each is taken once."""
    what = {"analysis": "landscape", "points": how.points, "span": how.span, "precision": str(how.network_precision)}
    parts = images.split(at_once().landscape_images)  # each is kept in the cache once it is done
    found = []
    for number, part in enumerate(parts, 1):
        label = f"landscape of seed {group.seed}, part {number} of {len(parts)}"
        make = functools.partial(_losses_of_part, group, how, part, places, label)
        expected = fields({"losses": array(how.points, how.points, len(part))})
        found.append(group.kept(what | {"images": part.tolist()}, None, make, expected)["losses"])
    return torch.cat(found, -1)


def _losses_of_part(group: Group, how: How, part: Tensor, places: list[float], label: str) -> dict[str, Tensor]:
    compute = replace(group.setup.compute, precision=how.network_precision)
    split = group.setup.dataset.train.take(part)
    return {"losses": loss_surface.landscape(group.network, split, compute, places, label)}


def variance(groups: list[Group], how: How) -> dict[str, list[Row]]:
    """Return the sorted Var(λ_k) over T (Fig. 6), and the place in that order of each subset's true k of Eq. 8.

    The true k is where the subset's mean Hessian diagonal differs most from T's. Also within each class, with the
    class's own variances, as class-balanced selection has it.
    """
    spectrum, places = [], []
    for group in groups:
        signals, layer = group.signals, group.layer
        order, values = by_variance(signals)
        top = values[order[:10_000]]
        spectrum += [
            {
                "network": group.network_name,
                "seed": group.seed,
                "rank": rank,
                "variance": float(value),
                "share": float(share),
            }
            for rank, (value, share) in enumerate(zip(top, top.cumsum(0) / values.sum(), strict=True), 1)
        ]
        classes = signals.labels.unique().tolist()
        orders = {label: by_variance(signals[signals.labels == label])[0] for label in classes}
        for case in Progress(group.cases, desc=f"variance, seed {group.seed}"):
            difference = layer.diagonal(group.coefficients(case)).flatten().abs()
            places.append(case.row | {"class": "all"} | place_of(order, difference))
            chosen = torch.from_numpy(case.subset.indices).to(signals.labels.device)
            weights = loss_surface.relative_weights(case.subset, len(chosen)).to(chosen.device, torch.float64)
            for label in classes:
                own = torch.where(signals.labels == label, 1.0, 0.0).double()
                picked = torch.zeros_like(own).index_add_(0, chosen, weights) * own
                if picked.sum() == 0:
                    continue
                difference = layer.diagonal(own / own.sum() - picked / picked.sum()).flatten().abs()
                places.append(case.row | {"class": str(label)} | place_of(orders[label], difference))
    return {"-spectrum": spectrum, "": places}


def by_variance(signals: Signals) -> tuple[Tensor, Tensor]:
    """Return all dimensions by falling variance of λ, and the variances."""
    values = hessian_variance(*hessian_factors(signals))
    return dominant_dimensions(values, values.numel()), values.flatten()


def place_of(order: Tensor, difference: Tensor) -> dict[str, int]:
    """Return at which place in the order, from 1, the largest difference stands: it lies in 𝒦 for K as large."""
    rank = 1 + int((order == difference.argmax()).nonzero()[0, 0])
    return {"rank": rank} | {f"in_{size}": int(rank <= size) for size in (10, 100, 1000)}


def overlap(groups: list[Group], how: How) -> dict[str, list[Row]]:
    """Return how far subsets agree, |A ∩ B|/|A ∪ B|, and each one's cost L(S) (Eq. 11) under LCMat-S's distance.

    F(S) of Eq. 12 is a constant less L(S): a smaller cost is a higher place on the objective.
    """
    agreement, costs = [], []
    for group, case in _cases(groups, "overlap"):
        what = {"analysis": "cost", "objective": list(how.objective)}
        cost = group.kept(what, case, functools.partial(_cost, group, case, how), _numbers("cost"))["cost"]
        costs.append(case.row | {"cost": cost, "per_sample": cost / len(group.signals)})
    for group in groups:
        for one, other in itertools.product(group.cases, repeat=2):
            if one.fraction == other.fraction:
                a, b = set(one.subset.indices.tolist()), set(other.subset.indices.tolist())
                agreement.append(one.row | {"other": other.method, "jaccard": len(a & b) / len(a | b)})
    return {"-jaccard": agreement, "": costs}


def _cost(group: Group, case: Case, how: How) -> dict[str, float]:
    """Return Σ_i min_{j∈S} D_ij, class by class; a class without a pick has no finite cost, and is covered by all."""
    labels, total = group.signals.labels, 0.0
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[torch.from_numpy(case.subset.indices)] = True
    missing = [label for label in labels.unique().tolist() if not bool(chosen[labels.cpu() == label].any())]
    for members in [labels >= 0] if missing else [labels == label for label in labels.unique()]:
        members = members.nonzero()[:, 0]
        distance = LossCurvatureDistance(group.signals[members], *how.objective)
        picked = chosen[members.cpu()].nonzero()[:, 0].to(labels.device)
        nearest = torch.full((len(members),), torch.inf, dtype=torch.float64, device=labels.device)
        for part in picked.split(64):
            nearest = torch.minimum(nearest, distance.rows(part).min(0).values)
        total += float(nearest.sum())
    return {"cost": total}


def diagonal(groups: list[Group], how: How) -> dict[str, list[Row]]:
    """Return how good the diagonal is for the last layer's Hessian: of T, and of T less each subset.

    share: ‖diag(H)‖_F/‖H‖_F. lambda_abs: the largest eigenvalue by size; diagonal: the largest entry of the diagonal.
    """
    rows = []
    for group in groups:
        several = [group.coefficients(case) for case in (None, *group.cases)]
        what = {"analysis": "frobenius", "subsets": [case.key for case in group.cases]}
        expected = fields({"norms": each(real(0), len(several), len(several))})
        make = functools.partial(_norms, group, several)
        norms = group.kept(what, None, make, expected)["norms"]
        for case, c, norm in zip((None, *group.cases), several, norms, strict=True):
            if case is None:
                low, high = group.kept(
                    {"analysis": "eigenvalues of T"},
                    None,
                    lambda g=group, c=c: {"pair": list(g.layer.extreme_eigenvalues(c))},
                    fields({"pair": row(real(), real())}),
                )["pair"]
                first = _of_t(group, len(group.signals))
            else:
                terms = _terms(group, case)
                low, high, first = terms["lowest"], terms["highest"], case.row
            entries = group.layer.diagonal(c)
            rows.append(
                first
                | {
                    "share": float(entries.norm()) / norm,
                    "lambda_abs": max(high, -low),
                    "diagonal": float(entries.abs().max()),
                }
            )
    return {"": rows}


def _norms(group: Group, several: list[Tensor]) -> dict[str, list[float]]:
    return {"norms": group.layer.frobenius(several)}


ANALYSES = {
    "bound": bound,
    "sharpness": sharp,
    "landscape": landscapes,
    "variance": variance,
    "overlap": overlap,
    "diagonal": diagonal,
}
