"""LBCS: the smallest coreset that keeps the performance, by bilevel lexicographic search (Xia et al., ICML 2024)."""

import copy
import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from numbers import Integral, Real
from statistics import NormalDist

import torch
from torch import Tensor, nn

from lcmat import seeds
from lcmat.alive import Progress
from lcmat.bilevel import Rules, TrialFile, refine, train_full_batch
from lcmat.bilevel.inner_loop import Images, check_memory, mean_loss, prepared
from lcmat.bilevel.trials import LEAST
from lcmat.errors import UserError
from lcmat.expected import array, each, fields, like, of, optional, real
from lcmat.files import load_checkpoint, save_tensors
from lcmat.method_options import taking
from lcmat.selection import Context, Method, Picks, select_with
from lcmat.selection.context import TRAINING, TRAINING_RECIPE
from lcmat.signals import Signals
from lcmat.training import train


@dataclass(frozen=True)
class Options:
    """What LBCS can be told. Steps are L₂ in coordinates scaled to [0, 1]; inside and outside lie in [−1, 1]."""

    trials: int = 500  # T: trainings
    tolerance: float = 0.2  # ε: how far above the best f₁ is as good, as a share of it
    init_selection: str = "Uniform"  # the method whose subset is the start
    init_balance: bool | None = None  # whether the start holds of each class what the budget says; None: see `lbcs`
    slack: int | None = None  # sets of so many samples more than the start's are refused; None: none are
    bias: float = 0.0  # mean of the normal variates that directions are drawn from
    step: float | None = None  # δ to begin with; None: `usual_step`
    least_step: float = 1e-4  # δ below which the search begins anew
    stall_limit: int | None = None  # fails in a row at which δ shrinks; None: 2ⁿ⁻¹, so never
    inside: float = 0.2  # where the start's samples begin
    outside: float = -0.5  # and all others
    inner_steps: int = 20  # full-batch steps of Adam in each training
    inner_lr: float = 1e-3
    networks: int = 1  # networks that trainings may begin with; 0: each has one of its own
    pretrain_epochs: int = 0  # of these, on all samples, before the search


@taking(Options)
def lbcs(
    signals: Signals,
    budgets: list[int],
    generator: torch.Generator,
    groups: list[Tensor],
    context: Context,
    options: Options,
) -> list[Picks]:
    """Minimise [f₁, f₂] in lexicographic order over masks, by direct search from a mask of Σ budgets samples.

    f₁(m) is the mean cross-entropy over all samples of a network trained on those of the mask, f₂(m) how many these
    are. The budget is where the search starts: the answer is the smallest of all masks tried whose f₁ is within the
    tolerance of the best f₁. Classes matter to the start alone: `init_balance` takes as many of each as the budget
    says, if selection is balanced at all. By default another method's start is balanced, and a random one is of all
    classes together, as in the paper.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    if len(signals) < LEAST:  # nothing to choose, nor to train on
        return [Picks(torch.arange(len(group))) for group in groups]
    chosen = _searched(signals, budgets, groups, context, options, seed)
    mask = torch.zeros(len(signals), dtype=torch.bool)
    mask[chosen] = True
    return [Picks(mask[group.cpu()].nonzero()[:, 0]) for group in groups]


def _searched(
    signals: Signals, budgets: list[int], groups: list[Tensor], context: Context, options: Options, seed: int
) -> Tensor:
    """Return the positions of the smallest set that the search finds."""
    count, k = len(signals), max(LEAST, sum(budgets))
    identity = _identity(context, seed, budgets, options)
    known = _restored(context, identity)
    context.took(known["seconds"])
    start = _start(signals, context, known, options, _start_size(signals, groups, budgets, options), seed)
    images = prepared(context.split, context.compute)
    check_memory(context.fresh_network(0), images, k)
    starts = _networks(context, known, options, seed)
    point = torch.full((count,), options.outside, dtype=torch.float64)
    point[start] = options.inside
    of = {"search": identity, "samples": count, "init_size": k, "tolerance": options.tolerance}
    file = None if context.log is None else TrialFile(context.log, of, context.resume)
    context.took(sum(trial.get("seconds", 0.0) for trial in (file.kept if file else [])[: options.trials]))
    return refine(
        TrainingLoss(images, starts, context, options.inner_steps, options.inner_lr, seed),
        point,
        _rules(options, k, count),
        seed=seed,
        trials=options.trials,
        limit=None if options.slack is None else k + options.slack,
        repeatable=options.networks == 1,
        file=file,
    )


def _rules(options: Options, k: int, count: int) -> Rules:
    """Return the rules of the search; its own coordinates lie in [−1, 1], where steps are twice as long."""
    step = options.step or usual_step(k, count, options.inside)
    return Rules(options.tolerance, 2 * step, 2 * options.least_step, options.stall_limit, options.bias)


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
        inputs, labels = self.images.take(chosen)
        train_full_batch(network, inputs, labels, self.images.compute, steps=self.steps, lr=self.lr, seed=layers)
        return mean_loss(network, self.images)


def usual_step(k: int, count: int, inside: float) -> float:
    """Return the step at which a move drops one of k samples on average, in coordinates scaled to [0, 1].

    A coordinate of a uniform direction moves by about N(0, δ²/n), and is dropped if by less than −inside. For k = 1000
    of n = 60,000 and inside = 0.2 this is 7.9; the released code takes 8. At most one sample in six is dropped.
    """
    deviation = inside / max(1.0, NormalDist().inv_cdf(1 - 1 / k))
    return deviation * math.sqrt(count) / 2


def _start_size(signals: Signals, groups: list[Tensor], budgets: list[int], options: Options) -> int | list[int]:
    """Return how many samples to start from: over all classes together, or of each, as `select_with` takes it."""
    by_class = options.init_selection != "Uniform" if options.init_balance is None else options.init_balance
    if not by_class or sum(budgets) < LEAST or len(groups) < 2:
        return max(LEAST, sum(budgets))
    classes = int(signals.labels.max()) + 1 if signals.logits is None else signals.logits.shape[1]
    sizes = [0] * classes
    for group, budget in zip(groups, budgets, strict=True):
        sizes[int(signals.labels[group[0]])] = budget
    return sizes


def _start(
    signals: Signals, context: Context, known: dict, options: Options, size: int | list[int], seed: int
) -> Tensor:
    """Return the positions of the samples to start from: another method's subset, chosen once and kept.

    size: how many, over all classes together, or of each class.
    """
    if known["start"] is None:
        began = time.monotonic()
        alone, method = replace(context, checkpoint=None, log=None), _other(options.init_selection)
        balanced = isinstance(size, list)
        subset = select_with(method, signals, budget=size, balanced=balanced, seed=seed, context=alone)
        known["start"] = torch.from_numpy(subset.indices)
        _keep(context, known, time.monotonic() - began)
    return known["start"]


def _networks(context: Context, known: dict, options: Options, seed: int) -> list[nn.Module]:
    """Return the networks that trainings begin with, trained on all samples if told to; each is kept once trained."""
    networks = [context.fresh_network(number) for number in range(options.networks)]
    if not options.pretrain_epochs:
        return networks
    recipe = replace(context.recipe, epochs=options.pretrain_epochs)
    for number, network in enumerate(Progress(networks, desc="LBCS: networks to start with")):
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


def _identity(context: Context, seed: int, budgets: list[int], options: Options) -> str:
    """Return a hash of all that the search depends on, but not of how long it is."""
    _, *rest = astuple(options)  # all but the number of trials
    recipe = context.recipe if options.pretrain_epochs else None  # of the networks that trainings begin with
    what = (seed, budgets, tuple(rest), recipe, str(context.compute.precision), context.split.fingerprint())
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
    trained = (TRAINING_RECIPE,) if options.get("pretrain_epochs") else ()
    return (TRAINING, *_other(options.get("init_selection", "Uniform")).needs, *trained)


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
    needs=(TRAINING,),
    nested=False,
    picks_all_groups=True,
    resolve=resolve,
    chooses_size=True,
    needs_under=needs,
)
