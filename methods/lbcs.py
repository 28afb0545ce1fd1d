"""LBCS: the smallest coreset that keeps the performance, by bilevel lexicographic search (Xia et al., ICML 2024)."""

import copy
import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from statistics import NormalDist

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lcmat import seeds
from lcmat.bilevel.inner_loop import Images, check_memory, mean_loss, prepared, train_full_batch
from lcmat.bilevel.lexicographic import Rules
from lcmat.bilevel.trials import LEAST, TrialFile, refine
from lcmat.errors import UserError
from lcmat.expected import array, each, fields, like, of, optional, real
from lcmat.files import load_checkpoint, save_tensors
from lcmat.selection.context import Context
from lcmat.selection.method import Method, Picks
from lcmat.selection.select import select_with
from lcmat.signals.signals import Signals
from lcmat.training import train


def lbcs(
    signals: Signals,
    budgets: list[int],
    generator: torch.Generator,
    groups: list[Tensor],
    context: Context,
    trials: int = 500,
    tolerance: float = 0.2,
    init_selection: str = "Uniform",
    init_balance: bool | None = None,
    slack: int | None = None,
    bias: float = 0.0,
    step: float | None = None,
    least_step: float = 1e-4,
    stall_limit: int | None = None,
    inside: float = 0.2,
    outside: float = -0.5,
    inner_steps: int = 20,
    inner_lr: float = 1e-3,
    networks: int = 1,
    pretrain_epochs: int = 0,
) -> list[Picks]:
    """Minimise [f₁, f₂] in lexicographic order over masks, by direct search from a mask of Σ budgets samples.

    f₁(m) is the mean cross-entropy over all samples of a network trained on those of the mask, f₂(m) how many these
    are. The budget is where the search starts: the answer is the smallest of all masks tried whose f₁ is within the
    tolerance of the best f₁. Classes matter to the start alone: `init_balance` takes as many of each as the budget
    says, if selection is balanced at all. By default another method's start is balanced, and a random one is of all
    classes together, as in the paper.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    count, k = len(signals), max(LEAST, sum(budgets))
    if count < LEAST:  # nothing to choose, nor to train on
        return [Picks(torch.arange(len(group))) for group in groups]
    identity = _identity(
        context, seed, budgets, bool(pretrain_epochs), tolerance, init_selection, init_balance, slack, bias, step,
        least_step, stall_limit, inside, outside, inner_steps, inner_lr, networks, pretrain_epochs,
    )  # fmt: skip
    known = _restored(context, identity)
    context.took(known["seconds"])
    by_class = init_selection != "Uniform" if init_balance is None else init_balance
    size = _by_class(signals, groups, budgets) if by_class and sum(budgets) == k and len(groups) > 1 else k
    start = _start(signals, context, known, init_selection, size, seed)
    images = prepared(context.split, context.compute)
    check_memory(context.fresh_network(0), images, k)
    starts = _networks(context, known, networks, pretrain_epochs, seed)
    point = torch.full((count,), outside, dtype=torch.float64)
    point[start] = inside
    of = {"search": identity, "samples": count, "init_size": k, "tolerance": tolerance}
    file = None if context.log is None else TrialFile(context.log, of, context.resume)
    context.took(sum(trial.get("seconds", 0.0) for trial in (file.kept if file else [])[:trials]))
    chosen = refine(
        TrainingLoss(images, starts, context, inner_steps, inner_lr, seed),
        point,
        Rules(tolerance, 2 * (step or usual_step(k, count, inside)), 2 * least_step, stall_limit, bias),
        seed=seed,
        trials=trials,
        limit=None if slack is None else k + slack,
        repeatable=networks == 1,
        file=file,
    )
    mask = torch.zeros(count, dtype=torch.bool)
    mask[chosen] = True
    return [Picks(mask[group.cpu()].nonzero()[:, 0]) for group in groups]


@dataclass(frozen=True, eq=False)
class TrainingLoss:
    """f₁. All that it can reach is the training set: its images, and networks that know no others.

    starts: the networks that a training may begin with; if there is none, each has one of its own.
    """

    images: Images
    starts: list[nn.Module]
    context: Context
    steps: int
    lr: float
    seed: int

    def __call__(self, chosen: Tensor, trial: int) -> float:
        """Train on the samples chosen; return the mean cross-entropy over all."""
        number = trial
        if self.starts:
            draw = seeds.generator(self.seed, "network", trial)
            number = int(torch.randint(len(self.starts), (1,), generator=draw))
        network = copy.deepcopy(self.starts[number]) if self.starts else self.context.fresh_network(number)
        layers = seeds.derive(self.seed, "layers", number)  # nothing else of the trial: equal sets have equal losses
        train_full_batch(network, *self.images.take(chosen), self.steps, self.lr, self.images.compute, layers)
        return mean_loss(network, self.images)


def usual_step(k: int, count: int, inside: float) -> float:
    """Return the step at which a move drops one of k samples on average, in coordinates scaled to [0, 1].

    A coordinate of a uniform direction moves by about N(0, δ²/n), and is dropped if by less than −inside. For k = 1000
    of n = 60,000 and inside = 0.2 this is 7.9; the released code takes 8. At most one sample in six is dropped.
    """
    deviation = inside / max(1.0, NormalDist().inv_cdf(1 - 1 / k))
    return deviation * math.sqrt(count) / 2


def _by_class(signals: Signals, groups: list[Tensor], budgets: list[int]) -> list[int]:
    """Return how many samples of each class to start from, as `select_with` takes it."""
    classes = int(signals.labels.max()) + 1 if signals.logits is None else signals.logits.shape[1]
    sizes = [0] * classes
    for group, budget in zip(groups, budgets, strict=True):
        sizes[int(signals.labels[group[0]])] = budget
    return sizes


def _start(signals: Signals, context: Context, known: dict, selection: str, size: int | list[int], seed: int) -> Tensor:
    """Return the positions of the samples to start from: another method's subset, chosen once and kept.

    size: how many, over all classes together, or of each class.
    """
    if known["start"] is None:
        began = time.monotonic()
        alone, balanced = replace(context, checkpoint=None, log=None), isinstance(size, list)
        subset = select_with(_other(selection), signals, budget=size, balanced=balanced, seed=seed, context=alone)
        known["start"] = torch.from_numpy(subset.indices)
        _keep(context, known, time.monotonic() - began)
    return known["start"]


def _networks(context: Context, known: dict, count: int, epochs: int, seed: int) -> list[nn.Module]:
    """Return the networks that trainings begin with, trained on all samples if `epochs`; each is kept once trained."""
    networks = [context.fresh_network(number) for number in range(count)]
    if not epochs:
        return networks
    recipe = replace(context.recipe, epochs=epochs)
    for number, network in enumerate(tqdm(networks, desc="LBCS: networks to start with", disable=None, leave=False)):
        if number == len(known["networks"]):
            began = time.monotonic()
            train(network, context.split, recipe, context.compute, seed=seeds.derive(seed, "pretrain", number))
            known["networks"].append({name: value.cpu() for name, value in network.state_dict().items()})
            _keep(context, known, time.monotonic() - began)
        network.load_state_dict(known["networks"][number])
    return networks


def _keep(context: Context, known: dict, seconds: float) -> None:
    """Keep what is known, and the seconds that finding it took."""
    known["seconds"] += seconds
    if context.checkpoint is not None:
        save_tensors(context.checkpoint, known)


def _restored(context: Context, identity: str) -> dict:
    """Return what was found before the trials began, as far as it is kept: the start and the networks."""
    if not (context.resume and context.checkpoint is not None and context.checkpoint.exists()):
        return {"identity": identity, "start": None, "networks": [], "seconds": 0.0}
    network = like(context.fresh_network(0).state_dict())
    expected = {"identity": of(str), "start": optional(array(None, kinds="i")), "networks": each(network)}
    state = load_checkpoint(context.checkpoint, fields(expected, {"seconds": real(0)}))
    if state["identity"] != identity:
        raise UserError(f"checkpoint {context.checkpoint} is of another selection; remove it or leave --resume out")
    return {"seconds": 0.0} | state


def _identity(context: Context, seed: int, budgets: list[int], trained: bool, *options: object) -> str:
    """Return a hash of all that the search depends on, but not of how long it is.

    trained: whether the networks that trainings begin with are trained first, by the context's recipe.
    """
    recipe = context.recipe if trained else None
    what = (seed, budgets, options, recipe, str(context.compute.precision), context.split.fingerprint())
    digest = hashlib.sha256(repr(what).encode())
    for value in context.fresh_network(0).state_dict().values():
        digest.update(value.cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _other(name: object) -> Method:
    """Return the method whose subset is to be the start."""
    from methods import get  # here, since the package imports this file

    method = get(name)
    if method.ignores_budget or method.chooses_size:
        raise UserError(f"LBCS cannot start from {method.name}: it takes the subset of a method with a given size")
    return method


def needs(options: Mapping[str, object]) -> tuple[str, ...]:
    """Return what the search needs, the method that gives its start, and networks that trainings begin with."""
    trained = ("training.recipe",) if options.get("pretrain_epochs") else ()
    return ("training", *_other(options.get("init_selection", "Uniform")).needs, *trained)


def resolve(classes: int, features: int, **options: object) -> dict[str, object]:
    """Refuse what cannot be."""
    options["init_selection"] = _other(options["init_selection"]).name
    for name, least in (("trials", 1), ("inner_steps", 1), ("networks", 0), ("pretrain_epochs", 0)):
        if options[name] < least:
            raise UserError(f"{name} must be a whole number of at least {least}, not {options[name]}")
    for name in ("slack", "stall_limit"):
        value = options[name]
        if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < 1):
            raise UserError(f"{name} must be a whole number of at least 1, not {value}")
    if options["step"] is not None and (not isinstance(options["step"], Real) or isinstance(options["step"], bool)):
        raise UserError(f"step must be a number, not {options['step']}")
    for name in ("step", "inner_lr"):
        if options[name] is not None and not 0 < options[name] < math.inf:
            raise UserError(f"{name} must be above 0 and finite, not {options[name]}")
    for name in ("tolerance", "least_step"):
        if not 0 <= options[name] < math.inf:
            raise UserError(f"{name} must be 0 or more and finite, not {options[name]}")
    if options["step"] is not None:
        options["step"] = float(options["step"])  # 8 and 8.0 are one setting
    if not isinstance(options["init_balance"], bool | None):
        raise UserError(f"init_balance must be true or false, not {options['init_balance']!r}")
    if not math.isfinite(options["bias"]):
        raise UserError(f"bias must be finite, not {options['bias']}")
    if not 0 < options["inside"] <= 1:
        raise UserError(f"inside must lie above 0 and at most at 1, not {options['inside']}")
    if not -1 <= options["outside"] < 0:
        raise UserError(f"outside must lie below 0 and at least at -1, not {options['outside']}")
    if options["pretrain_epochs"] and not options["networks"]:
        raise UserError("pretrain_epochs is for a number of networks to start with; give networks, at least 1")
    return options


LBCS = Method(
    "LBCS",
    lbcs,
    needs=("training",),
    nested=False,
    picks_all_groups=True,
    resolve=resolve,
    chooses_size=True,
    needs_under=needs,
)
