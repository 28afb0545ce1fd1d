"""Condensation by matching: DC, DSA, DM and LCMat-C, each a matching loss and a schedule; and random real images.

Options that are None depend on the number of images of each class.
"""

import warnings
from dataclasses import dataclass

from lcmat import seeds
from lcmat.augmentation import siamese, strategy_for
from lcmat.augmentation.siamese import DSA as DSA_STRATEGY
from lcmat.augmentation.siamese import IDC_MATCHING, IDC_NETWORK, NONE
from lcmat.condensation import Condenser, Schedule, Synthetic, Task, condense
from lcmat.condensation.class_statistics import LAYERS
from lcmat.condensation.loop import ImageRecipe
from lcmat.condensation.matching import METRICS, curvature_matching, feature_matching, gradient_matching
from lcmat.condensation.synthetic import INITIALISATIONS, initial
from lcmat.errors import lookup
from lcmat.method_options import check_numbers, check_radius, taking

# By name: the augmentation that real and synthetic images share, and that of the network's training.
AUGMENTATIONS = {"none": (NONE, NONE), "dsa": (DSA_STRATEGY, DSA_STRATEGY), "idc": (IDC_MATCHING, IDC_NETWORK)}


@dataclass(frozen=True)
class DCOptions:
    """What DC and DSA can be told; `steps` and `network_epochs` that are None follow from the images of each class."""

    iterations: int = 1000  # networks, a new one each
    steps: int | None = None  # of the images with each network
    network_epochs: int | None = None  # of each network on the synthetic images, after every step
    batch: int = 256  # real images of each class in a step
    image_lr: float = 0.1
    image_momentum: float = 0.5
    init: str = "noise"
    factor: int = 1  # images stored in each, squared
    metric: str = "cosine"
    layers: str = "all"
    augmentation: str = "none"
    network_lr: float = 0.01
    network_batch: int = 256


@dataclass(frozen=True)
class DSAOptions(DCOptions):
    """DC's options under siamese augmentation, from real images."""

    init: str = "real"
    augmentation: str = "dsa"


@dataclass(frozen=True)
class DMOptions:
    """What DM can be told; an `image_lr` that is None follows from the images of each class."""

    iterations: int = 20_000  # networks, a new one each
    batch: int = 256  # real images of each class in a step
    image_lr: float | None = None
    image_momentum: float = 0.5
    init: str = "real"
    factor: int = 1  # images stored in each, squared
    augmentation: str = "dsa"


@dataclass(frozen=True)
class LCMatCOptions:
    """What LCMat-C can be told; an `image_lr` that is None follows from the images of each class."""

    rho: float = 0.1  # ρ of Eq. 15
    metric: str = "squared"
    layers: str = "convolutions"
    iterations: int = 2000  # networks, a new one each
    steps: int = 100  # of the images with each network
    batch: int = 64  # real images of each class in a step
    image_lr: float | None = None
    image_momentum: float = 0.5
    init: str = "noise"
    factor: int = 1  # images stored in each, squared
    augmentation: str = "idc"
    network_lr: float = 0.01
    network_momentum: float = 0.9
    network_weight_decay: float = 5e-4
    network_images: int = 2000  # of T that each network is trained on after every step
    network_batch: int = 64
    backpack: bool = False  # per-sample gradients by BackPACK in place of the closed form


@taking(DCOptions)
def dc(task: Task, options: DCOptions) -> Synthetic:
    """Match gradients along the training of a network on the synthetic images (Zhao et al., ICLR 2021).

    A new network each iteration; after each of its `steps` it is trained `network_epochs` epochs on S.
    """
    return _gradients_matched(task, options)


@taking(DSAOptions)
def dsa(task: Task, options: DSAOptions) -> Synthetic:
    """Match gradients as DC does, under siamese augmentation (Zhao & Bilen, ICML 2021)."""
    return _gradients_matched(task, options)


def _gradients_matched(task: Task, options: DCOptions) -> Synthetic:
    shared, network = strategies(task, options.augmentation)
    schedule = Schedule(
        options.iterations,
        options.steps,
        "synthetic",
        passes=options.network_epochs,
        batch=options.network_batch,
        lr=options.network_lr,
        strategy=network,
    )
    matching = gradient_matching(options.metric, options.layers)
    return condense(task, matching, schedule, _image_recipe(options, shared))


@taking(DMOptions)
def dm(task: Task, options: DMOptions) -> Synthetic:
    """Match mean features under random networks, a new one each iteration (Zhao & Bilen, WACV 2023)."""
    shared, _ = strategies(task, options.augmentation)
    return condense(task, feature_matching(), Schedule(options.iterations), _image_recipe(options, shared))


@taking(LCMatCOptions)
def lcmat_c(task: Task, options: LCMatCOptions) -> Synthetic:
    """Match gradients and their variance along the training of a network on the real images (LCMat, Eq. 15).

    A new network each iteration; after each of its `steps` it is trained on `network_images` images of T. Images are
    learned as pixels in [0, 1].
    """
    _warn_of_single_images(task, options)
    shared, network = strategies(task, options.augmentation)
    schedule = Schedule(
        options.iterations,
        options.steps,
        "real",
        images=options.network_images,
        batch=options.network_batch,
        lr=options.network_lr,
        momentum=options.network_momentum,
        weight_decay=options.network_weight_decay,
        strategy=network,
    )
    matching = curvature_matching(options.rho, options.metric, options.layers, options.backpack)
    return condense(task, matching, schedule, _image_recipe(options, shared, "pixels"))


def _warn_of_single_images(task: Task, options: LCMatCOptions) -> None:
    fewest = min(min(options.batch, len(own)) for own, size in zip(task.positions, task.sizes, strict=True) if size)
    synthetic = min(size for size in task.sizes if size) * options.factor**2
    if options.rho > 0 and (fewest < 2 or synthetic < 2):
        warnings.warn(
            "LCMat-C: the variance of a class's gradients needs two real and two synthetic images; where there are "
            "fewer its term is left out",
            stacklevel=2,
        )


def _image_recipe(
    options: DCOptions | DMOptions | LCMatCOptions, shared: siamese.Strategy, space: str = "normalised"
) -> ImageRecipe:
    return ImageRecipe(
        options.image_lr, options.image_momentum, options.batch, space, options.init, options.factor, shared
    )


def random_real(task: Task) -> Synthetic:
    """Draw real images at random: what condensation is compared with, trained on in the same way."""
    draw = seeds.generator(task.seed, "initial images")
    return Synthetic(*initial(task.split, task.sizes, "real", 1, draw, task.compute.statistics))


def strategies(task: Task, augmentation: str) -> tuple[siamese.Strategy, siamese.Strategy]:
    """Return the augmentation shared by real and synthetic images, and that of the network's training."""
    shared, network = AUGMENTATIONS[augmentation]
    return strategy_for(task.dataset, shared), strategy_for(task.dataset, network)


def _per_class(sizes: list[int]) -> float:
    return sum(sizes) / len(sizes)


def resolve(sizes: list[int], **options: object) -> dict[str, object]:
    """Refuse what cannot be in the options that the matching methods share."""
    check_numbers(options, at_least_one=("iterations", "steps", "batch", "factor", "network_epochs"))
    check_numbers(options, at_least_two=("network_batch", "network_images"))
    check_numbers(options, positive=("image_lr", "network_lr"))
    check_numbers(options, not_negative=("image_momentum", "network_momentum", "network_weight_decay"))
    for name, known in (
        ("init", INITIALISATIONS), ("metric", METRICS), ("layers", LAYERS), ("augmentation", AUGMENTATIONS),
    ):  # fmt: skip
        if name in options:
            options[name] = lookup(name, str(options[name]), known)
    return options


def resolve_dc(sizes: list[int], *, steps: int | None, network_epochs: int | None, **rest: object) -> dict[str, object]:
    """Fill in steps and epochs of DC and DSA: 1 and 1 for one image of each class, 10 and 50 for 10, 50 and 10 for 50.

    The published code gives these; between them as many steps as images, and 500 epochs in all.
    """
    per_class = max(1, round(_per_class(sizes)))
    steps = per_class if steps is None else steps
    if network_epochs is None:
        network_epochs = 1 if per_class == 1 else max(1, round(500 / per_class))
    return resolve(sizes, steps=steps, network_epochs=network_epochs, **rest)


def resolve_dm(sizes: list[int], *, image_lr: float | None, **rest: object) -> dict[str, object]:
    """Fill in the learning rate: 1, and 10 from 100 images of each class on."""
    rate = (10.0 if _per_class(sizes) >= 100 else 1.0) if image_lr is None else image_lr
    return resolve(sizes, image_lr=rate, **rest)


def resolve_lcmat_c(sizes: list[int], *, rho: float, image_lr: float | None, **rest: object) -> dict[str, object]:
    """Fill in the learning rate: 0.005 for 10 images of each class, in proportion for other numbers."""
    rate = 0.005 * _per_class(sizes) / 10 if image_lr is None else image_lr
    return resolve(sizes, rho=check_radius(rho), image_lr=rate, **rest)


DC = Condenser("DC", dc, resolve_dc)
DSA = Condenser("DSA", dsa, resolve_dc)
DM = Condenser("DM", dm, resolve_dm)
LCMAT_C = Condenser("LCMat-C", lcmat_c, resolve_lcmat_c)
RANDOM_REAL = Condenser("RandomReal", random_real, networks=False)
