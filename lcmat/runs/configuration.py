"""A run's configuration: all that determines its result, under the names that every kind of run uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lcmat.runs.job import Run
from lcmat.runs.setup import Setup


@dataclass(frozen=True)
class Reduction:
    """How a run reduces the training set, in the words of its configuration.

    network: what determines the networks that the method reads, None if it reads none. sharing: how a budget is shared
    out, where that is not the usual way. further: what else the kind of run adds.
    """

    fraction: float
    budget: int | None
    balance: bool
    options: Mapping[str, object]
    network: Mapping[str, object] | None = None
    sharing: Mapping[str, object] = field(default_factory=dict)
    further: Mapping[str, object] = field(default_factory=dict)


def configuration(setup: Setup, run: Run, reduction: Reduction) -> dict[str, object]:
    """Return the configuration of a run: of its data, of what it chooses or makes, and of the trainings on that."""
    settings, dataset = setup.settings, setup.dataset
    test_model = run.test_model or settings.model
    weighting = {} if run.weights_by == "subset" else {"weights_by": run.weights_by}
    several = {} if settings.evaluations == 1 else {"evaluations": settings.evaluations}
    return {
        "dataset": dataset.name,
        "dataset_fingerprint": setup.fingerprint,
        **dataset.variant,
        "image_size": dataset.size_in_words,
        "validation_ratio": setup.ratio(run),
        "selection": run.method.name,
        "fraction": reduction.fraction,
        "budget": reduction.budget,
        **reduction.sharing,
        "balance": reduction.balance,
        "options": dict(reduction.options),
        "selection_network": reduction.network,
        "test_model": test_model,
        **setup.revised(test_model, "test_model_revision"),
        "training": settings.recipe.described,
        "test_interval": settings.test_interval,
        "test_fraction": settings.test_fraction,
        "precision": str(setup.compute.precision).removeprefix("torch."),
        "seed": run.seed,
        **reduction.further,
        **weighting,
        **several,
    }
