"""KIP: kernel inducing points, learned under the kernel of an infinitely wide network (Nguyen et al., ICLR 2021)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lcmat import seeds
from lcmat.block_sizes import at_once
from lcmat.condensation import Condenser, Learning, Synthetic, Task
from lcmat.condensation.loop import Learned
from lcmat.condensation.space import Space
from lcmat.condensation.synthetic import INITIALISATIONS, drawn_from_classes, initial, read
from lcmat.errors import lookup
from lcmat.method_options import check_numbers

# Variances of weights and biases, those of the published code: W_std = √2, b_std = 0.1.
WEIGHT_VARIANCE, BIAS_VARIANCE = 2.0, 0.01


def kip(
    task: Task,
    *,
    iterations: int = 1000,
    targets: int = 5000,
    image_lr: float = 0.04,
    depth: int = 1,
    regularisation: float = 1e-6,
    init: str = "real",
) -> Synthetic:
    """Minimise ½ mean (y_T − k_TS (k_SS + ε tr(k_SS)/n I)⁻¹ y_S)² in the synthetic images S by Adam.

    k: the neural tangent kernel of a fully connected ReLU network with `depth` hidden layers. y: one-hot labels minus
    1/C. T: each iteration `targets` real images, as many of each class (all of a smaller one). ε: `regularisation`.
    Images are normalised; all is in float64.
    """
    device = task.compute.device
    room = Space("normalised", *(value.double() for value in task.compute.statistics))
    draw = seeds.generator(task.seed, "initial images")
    pixels, labels = initial(task.split, task.sizes, init, 1, draw, task.compute.statistics)
    images = room.begin(pixels.double().to(device)).contiguous().requires_grad_()
    classes = len(task.sizes)
    y_synthetic = centred(labels.to(device), classes)

    def gradient(iteration: int, step: int) -> tuple[Tensor, Tensor]:
        draw = seeds.generator(task.seed, "targets", iteration)
        sizes = [min(max(1, targets // classes), len(own)) for own in task.positions]
        index = torch.cat(drawn_from_classes(task.positions, sizes, draw))
        y = centred(task.split.labels[index.to(task.split.labels.device)].to(device), classes)
        x = room.normalised(read(task.split, index).to(device).double()).flatten(1)
        return loss_and_gradient(images.detach(), y_synthetic, x, y, depth, regularisation)

    optimizer = torch.optim.Adam([images], lr=image_lr)
    return Learning(task, Learned(room, labels, images, optimizer), iterations).run(gradient)


def centred(labels: Tensor, classes: int) -> Tensor:
    """Return onehot(y) − 1/C, (n, C) in float64."""
    return F.one_hot(labels, classes).double() - 1 / classes


def loss_and_gradient(
    images: Tensor, y_images: Tensor, x: Tensor, y: Tensor, depth: int, regularisation: float
) -> tuple[Tensor, Tensor]:
    """Return ½ mean (y − prediction)² of kernel ridge regression from images (m, …) to x (n, d), and its gradient.

    The targets y (n, C) come in pieces: what is kept for the gradient grows with m² and not with m · n. NaN if the
    kernel matrix is singular in spite of the ridge.
    """
    images = images.clone().requires_grad_()
    support = images.flatten(1)
    coefficients = ridge_coefficients(support, y_images, depth, regularisation)
    leaf = coefficients.detach().requires_grad_()
    total, slopes = 0.0, (torch.zeros_like(support), torch.zeros_like(leaf))
    rows = max(1, at_once().elements // len(support))  # of the kernel between targets and images
    for some, wanted in zip(x.split(rows), y.split(rows), strict=True):
        own = support.detach().requires_grad_()
        loss = 0.5 * (ntk(some, own, depth) @ leaf - wanted).square().sum() / y.numel()
        total = total + loss.detach()
        slopes = [a + b for a, b in zip(slopes, torch.autograd.grad(loss, (own, leaf)), strict=True)]
    (gradient,) = torch.autograd.grad((support, coefficients), images, slopes)
    return total, gradient


def ridge_coefficients(support: Tensor, y: Tensor, depth: int, regularisation: float) -> Tensor:
    """Return (k_SS + ε tr(k_SS)/n I)⁻¹ y for the support (m, d) and y (m, C); NaN if that cannot be had."""
    kernel = ntk(support, support, depth)
    ridge = regularisation * kernel.trace() / len(kernel)
    unit = torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    factor, failed = torch.linalg.cholesky_ex(kernel + ridge * unit)
    return torch.where(failed > 0, math.nan, torch.cholesky_solve(y, factor))


def ntk(x: Tensor, z: Tensor, depth: int) -> Tensor:
    """Return the neural tangent kernel of a fully connected ReLU network, (n, m) for x (n, d) and z (m, d).

    In the kernel's own parametrisation: a layer is √(2/width) W h + 0.1 b with W, b ~ N(0, 1); `depth` hidden layers,
    then a linear one. With the covariance Σ of a layer's outputs, of variances Σ_x and Σ_z and correlation c, ReLU
    gives √(Σ_x Σ_z) κ₁(c) and the product of its derivatives κ₀(c) (Cho & Saul 2009); then
    Σ ← 2 √(Σ_x Σ_z) κ₁(c) + 0.01 and Θ ← Σ + 2 κ₀(c) Θ (Jacot et al. 2018).
    """
    width = x.shape[1]
    sigma = WEIGHT_VARIANCE * (x @ z.T) / width + BIAS_VARIANCE
    of_x, of_z = (WEIGHT_VARIANCE * v.square().sum(1) / width + BIAS_VARIANCE for v in (x, z))
    theta = sigma
    for _ in range(depth):
        scale = (of_x[:, None] * of_z).sqrt()
        cosine = sigma / scale
        if x is z:  # with itself each is correlated exactly, whatever moves: rounding would cost κ₀ half of its digits
            cosine = torch.where(torch.eye(len(x), dtype=torch.bool, device=x.device), 1.0, cosine)
        sigma = WEIGHT_VARIANCE * scale * FirstArcCosine.apply(cosine) + BIAS_VARIANCE
        theta = sigma + WEIGHT_VARIANCE * ZerothArcCosine.apply(cosine) * theta
        of_x, of_z = (WEIGHT_VARIANCE * v / 2 + BIAS_VARIANCE for v in (of_x, of_z))  # κ₁(1) = ½
    return theta


def _angle(cosine: Tensor) -> Tensor:
    return cosine.clamp(-1, 1).acos()


class ZerothArcCosine(torch.autograd.Function):
    """κ₀(c) = (π − arccos c)/2π = E[1(u > 0) 1(v > 0)] for normal u, v of correlation c.

    Its slope 1/(2π √(1 − c²)) has no bound at c = ±1, where an image meets itself or its double: it is kept finite.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, cosine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine)
        return (math.pi - _angle(cosine)) / (2 * math.pi)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        (cosine,) = ctx.saved_tensors
        return grad / (2 * math.pi * (1 - cosine.square()).clamp(min=1e-12).sqrt())


class FirstArcCosine(torch.autograd.Function):
    """κ₁(c) = (√(1 − c²) + (π − arccos c) c)/2π = E[relu(u) relu(v)] for standard normal u, v; its slope is κ₀(c)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, cosine: Tensor) -> Tensor:
        angle = _angle(cosine)
        ctx.save_for_backward(angle)
        return (angle.sin() + (math.pi - angle) * angle.cos()) / (2 * math.pi)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        (angle,) = ctx.saved_tensors
        return grad * (math.pi - angle) / (2 * math.pi)


def resolve(sizes: list[int], **options: object) -> dict[str, object]:
    """Refuse what cannot be."""
    check_numbers(options, at_least_one=("iterations", "targets", "depth"), positive=("image_lr", "regularisation"))
    options["init"] = lookup("init", str(options["init"]), INITIALISATIONS)
    return options


KIP = Condenser("KIP", kip, resolve, networks=False)
