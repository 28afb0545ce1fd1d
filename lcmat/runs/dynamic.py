"""A run whose network is trained on samples that are drawn anew for each epoch, and its record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lcmat import records
from lcmat.errors import UserError
from lcmat.runs import checkpoints
from lcmat.runs.checkpoints import Names
from lcmat.runs.configuration import Reduction, configuration
from lcmat.runs.evaluation import Reduced, record_of, train_and_test
from lcmat.runs.job import Run, record_path
from lcmat.runs.kind import Exemplars
from lcmat.runs.setup import Setup
from lcmat.selection import class_budgets
from lcmat.selection.sampler import Epoch
from lcmat.training import Draws
from lcmat.training.recipe import Plan


@dataclass(frozen=True)
class Dynamic:
    """Runs that draw the samples of each epoch (see `runs.kind.Kind`). They stand in the tables of selections."""

    protocol: str = "whole"

    def configuration(self, setup: Setup, run: Run) -> dict[str, object]:
        """Return all that determines the run's result."""
        everything = run.method.ignores_budget
        share = run.budget / len(setup.part(run)[0]) if run.fraction is None else run.fraction
        reduction = Reduction(
            fraction=1.0 if everything else share,
            budget=None if everything else run.budget,
            balance=setup.settings.balance,  # of the table; the sampler itself knows how it draws
            options=run.method.resolved(run.options),
            further={"protocol": "dynamic"},
        )
        return configuration(setup, run, reduction)

    def check(self, setup: Setup, run: Run) -> None:
        """Find before any work what would stop the run later."""
        run.method.resolved(run.options)
        if _epoch_size(setup, run) < 2:
            raise UserError("an epoch of one sample is too few to train on (BatchNorm); raise --fraction or --budget")

    def checkpoints(self, setup: Setup, run: Run) -> Names:
        """Return those of the trainings."""
        key = records.config_hash(self.configuration(setup, run))
        return Names(checkpoints.of_trainings(key, setup.settings.evaluations))

    def busy(self, setup: Setup, run: Run) -> Path | None:
        """Return None: no other process makes what the run needs."""
        return None

    def make(self, setup: Setup, run: Run) -> dict:
        """Train on what is drawn, and write the record."""
        config = self.configuration(setup, run)
        label = f"{run.method.name} {config['fraction']:g} seed {run.seed}"
        evaluation = train_and_test(setup, run, _reduced(setup, run), records.config_hash(config), label)
        images = evaluation.histories[0].images
        facts = {
            "subset_size": _epoch_size(setup, run),  # of an epoch as it is planned
            "needs": [],
            "images_per_epoch": images,
            "images_in_all": sum(images),
        }
        seconds = {"pretrain": 0.0, "signals": 0.0, "select": 0.0, "train": evaluation.seconds}
        record = record_of(setup, config, evaluation.facts, facts, seconds)
        records.write_record(record_path(setup, config), record)
        return record

    def keep(self, setup: Setup, run: Run) -> Exemplars:
        """Raise UserError: there is no subset to keep."""
        raise UserError(f"{run.method.name} draws anew for each epoch and has no subset to keep")


def _epoch_size(setup: Setup, run: Run) -> int:
    """Return how many samples an epoch is to have; raise UserError for an impossible budget."""
    count = len(setup.part(run)[0])
    if run.method.ignores_budget:
        return count
    size = {"fraction": run.fraction} if run.fraction is not None else {"budget": run.budget}
    return int(class_budgets([count], **size).sum())


def _reduced(setup: Setup, run: Run) -> Reduced:
    split, size = setup.part(run)[1], _epoch_size(setup, run)
    recipe, sampler = setup.settings.recipe, run.method
    plan = Plan.of(recipe, size)
    if sampler.draw is None:
        return Reduced(split, recipe=replace(recipe, total_steps=plan.steps))
    options = sampler.resolved(run.options)

    def draws(seed: int) -> Draws:
        return Draws(
            _drawing(sampler.draw, Epoch(0, plan.epochs, size, seed, split.labels, split.labels), options), size
        )

    return Reduced(split, draws=draws)


def _drawing(draw: Callable, first: Epoch, options: dict[str, object]) -> Callable:
    return lambda number, losses: draw(replace(first, number=number, losses=losses), **options)
