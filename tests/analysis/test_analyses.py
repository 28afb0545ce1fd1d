"""Analyses against dense Hessians from autograd, SciPy's optimisers and brute force."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor, nn

import main as script
from lcmat.__main__ import main as command
from lcmat.analysis import analyses, loss_surface
from lcmat.analysis.figures import redraw
from lcmat.analysis.groups import Group, groups_of
from lcmat.analysis.loss_difference import coefficients, sharpness
from lcmat.command_line import options, planning
from lcmat.commands._registry import REGISTRY
from lcmat.condensation.matching_step import Limits
from lcmat.data.splits import TensorSplit
from lcmat.errors import UserError
from lcmat.files import load_tensors, save_tensors
from lcmat.last_layer import LastLayer
from lcmat.selection.subset import Subset
from lcmat.signals.signals import Signals
from lcmat.training import Compute
from tests import oracles
from tests.harness import Setting, places

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
N, CLASSES, WIDTH = 40, 3, 4
LARGE = 25  # features with which the layer has more parameters than are formed densely


def problem(seed: int = 0, width: int = WIDTH, n: int = N) -> tuple[Signals, Tensor, Subset]:
    """Return signals of a linear layer on random features, its weights with biases, and a weighted subset."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, width, generator=generator, dtype=torch.float64)
    head = torch.randn(CLASSES, width + 1, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    logits = features @ head[:, :-1].T + head[:, -1]
    indices = torch.randperm(n, generator=generator)[:6].numpy()
    weights = np.linspace(0.5, 2, 6, dtype=np.float32)
    classes = labels.numpy()[indices]
    sizes = np.bincount(labels.numpy(), minlength=CLASSES)
    subset = Subset(indices, np.arange(6), weights, classes, sizes, "some", balanced=False)
    return Signals(features, logits, labels), head, subset


def losses(signals: Signals, subset: Subset) -> Callable[[Tensor], Tensor]:
    """Return L(T) − L(S) as a function of the layer's parameters, from the definition."""
    index, weights = torch.from_numpy(subset.indices), torch.from_numpy(subset.weights).double()

    def difference(head: Tensor) -> Tensor:
        each = F.cross_entropy(signals.features @ head[:, :-1].T + head[:, -1], signals.labels, reduction="none")
        return each.mean() - (weights * each[index]).sum() / weights.sum()

    return difference


def dense(signals: Signals, head: Tensor, subset: Subset) -> Tensor:
    """Return the Hessian of the difference by autograd, (C(d+1), C(d+1))."""
    size = head.numel()
    return torch.autograd.functional.hessian(losses(signals, subset), head).reshape(size, size)


@pytest.mark.parametrize("width", [WIDTH, LARGE])
@pytest.mark.parametrize("seed", range(3))
def test_terms_equal_autograd(seed: int, width: int) -> None:
    signals, head, subset = problem(seed, width)
    layer, c = LastLayer.of(signals), coefficients(N, subset)
    hessian = dense(signals, head, subset)
    values = torch.linalg.eigvalsh(hessian)
    gradient = torch.autograd.functional.jacobian(losses(signals, subset), head)
    torch.testing.assert_close(layer.gradient(c), gradient)
    torch.testing.assert_close(layer.diagonal(c).flatten(), hessian.diagonal())
    v = torch.randn(layer.shape, dtype=torch.float64)
    torch.testing.assert_close(layer.product(c)(v).flatten(), hessian @ v.flatten())
    low, high = layer.extreme_eigenvalues(c)
    assert low == pytest.approx(float(values[0]), rel=1e-6)
    assert high == pytest.approx(float(values[-1]), rel=1e-6)
    of_all, of_difference = layer.frobenius([coefficients(N, None), c])
    assert of_difference == pytest.approx(float(hessian.norm()), rel=1e-9)
    assert of_all == pytest.approx(layer.frobenius([coefficients(N, None)])[0])


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 6.0])
def test_eigenvalues_where_all_of_the_subset_is_sure(scale: float) -> None:
    """The lowest one is next to zero then, and many are alike; against the whole spectrum."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 20, generator=generator, dtype=torch.float64)
    logits = scale * features @ torch.randn(20, 10, generator=generator, dtype=torch.float64)
    signals = Signals(features, logits, logits.argmax(1))
    surest = logits.softmax(1).max(1).values.argsort(descending=True)[:20].numpy()
    layer = LastLayer.of(signals)
    c = coefficients(300, Subset(surest, np.arange(20), None, np.zeros(20, int), np.array([300]), "sure", False))
    dense = torch.stack([layer.product(c)(row.view(layer.shape)).flatten() for row in torch.eye(210).double()])
    values = torch.linalg.eigvalsh(dense)
    assert layer.extreme_eigenvalues(c) == pytest.approx((float(values[0]), float(values[-1])), abs=1e-8)


def test_a_subset_that_is_everything_leaves_no_curvature() -> None:
    """All coefficients are zero, but for rounding where weights do not add up exactly."""
    signals, _, _ = problem(0, LARGE)
    for weights in (None, np.full(N, 0.7, dtype=np.float32)):
        whole = Subset(np.arange(N), np.arange(N), weights, np.zeros(N, int), np.array([N]), "all", balanced=False)
        found = LastLayer.of(signals).extreme_eigenvalues(coefficients(N, whole))
        assert found == pytest.approx((0, 0), abs=1e-12)


@pytest.mark.parametrize("width", [WIDTH, LARGE])
def test_eigenvalues_of_all_samples(width: int) -> None:
    signals, head, _ = problem(1, width)
    layer = LastLayer.of(signals)
    low, high = layer.extreme_eigenvalues(coefficients(N, None))
    hessian = torch.autograd.functional.hessian(
        lambda w: F.cross_entropy(signals.features @ w[:, :-1].T + w[:, -1], signals.labels), head
    ).reshape(head.numel(), -1)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-6)


def test_a_sample_chosen_twice_counts_twice() -> None:
    subset = Subset(np.array([3, 3]), np.arange(2), None, np.zeros(2, int), np.array([5]), "some", balanced=False)
    assert coefficients(5, subset).tolist() == pytest.approx([0.2, 0.2, 0.2, -0.8, 0.2])


@pytest.mark.parametrize("radius", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_sharpness_reaches_what_scipy_finds(seed: int, radius: float) -> None:
    """SLSQP from thirty starts, over the constraint ‖ε‖² ≤ ρ², finds no more; and Eq. 4's value is attained."""
    signals, head, subset = problem(seed)
    layer, of = LastLayer.of(signals), losses(signals, subset)
    at = layer.loss(coefficients(N, subset))
    value, base, norm = sharpness(at, torch.zeros(layer.shape).double(), radius, starts=6, steps=200)
    assert base == pytest.approx(float(of(head)))
    assert norm == pytest.approx(float(torch.autograd.functional.jacobian(of, head).norm()))

    def negative(flat: np.ndarray, sign: int) -> tuple[float, np.ndarray]:
        loss, gradient = at(torch.from_numpy(flat.reshape(layer.shape)))
        return -sign * loss, -sign * gradient.flatten().numpy()

    ball = {"type": "ineq", "fun": lambda x: radius**2 - x @ x, "jac": lambda x: -2 * x}
    random = np.random.default_rng(seed)
    found = 0.0
    for sign in (1, -1):
        for _ in range(15):
            start = random.standard_normal(head.numel())
            start *= radius / np.linalg.norm(start)
            made = minimize(negative, start, args=(sign,), jac=True, constraints=ball, options={"maxiter": 500})
            inside = made.x * min(1, radius / np.linalg.norm(made.x))
            found = max(found, -negative(inside, sign)[0])
    expected = (found - abs(base)) / radius
    assert value == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_sharpness_of_a_small_ball_is_the_gradient() -> None:
    """To first order Eq. 4 is ‖∇L(T) − ∇L(S)‖₂, and Eq. 6 bounds it as the ball shrinks."""
    signals, _, subset = problem(2)
    layer, c = LastLayer.of(signals), coefficients(N, subset)
    value, _, norm = sharpness(layer.loss(c), torch.zeros(layer.shape).double(), 1e-4, 3, 30)
    assert value == pytest.approx(norm, rel=1e-3)


class Tiny(nn.Module):
    """A convolution and a head: enough for every kind of parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.conv(x))).mean((2, 3)))


@pytest.fixture
def tiny() -> tuple[Tiny, TensorSplit, Compute]:
    torch.manual_seed(0)
    split = TensorSplit(torch.randint(256, (30, 1, 6, 6), dtype=torch.uint8), torch.arange(30) % CLASSES)
    return Tiny(), split, Compute(torch.device("cpu"), torch.float32, (0.5,), (0.25,))


def test_difference_over_all_parameters(tiny: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    network, split, compute = tiny
    chosen, weights = split.take(torch.tensor([1, 2])), torch.tensor([0.25, 0.75])
    at = loss_surface.difference(network, split, chosen, weights, compute)
    size = sum(value.numel() for value in network.parameters())
    before = [value.detach().clone() for value in network.parameters()]
    move = torch.randn(size) * 0.1
    value, gradient = at(move)
    assert at(move, slope=False) == (value, None)
    monkeypatch.setattr(loss_surface, "limits", lambda *_: Limits(images=7, in_graph=7, together=False))
    by_sevens, its_gradient = at(move)
    assert by_sevens == pytest.approx(value, rel=1e-4, abs=1e-6)
    torch.testing.assert_close(its_gradient, gradient, rtol=1e-3, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    network.eval()
    moved = nn.utils.parameters_to_vector(network.parameters()).detach() + move
    nn.utils.vector_to_parameters(moved, network.parameters())
    each = F.cross_entropy(network(compute.inputs(split.images)), split.labels, reduction="none")
    loss = each.mean() - 0.25 * each[1] - 0.75 * each[2]
    slopes = torch.autograd.grad(loss, list(network.parameters()))
    assert value == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-6)
    torch.testing.assert_close(gradient, torch.cat([slope.flatten() for slope in slopes]), rtol=1e-3, atol=1e-6)


def test_landscape(tiny: tuple) -> None:
    """Its middle holds the losses at θ; a corner those of the network moved by hand; the network stays as it was."""
    network, split, compute = tiny
    before = [value.detach().clone() for value in network.parameters()]
    surface = loss_surface.landscape(network, split, compute, [-1.0, 0.0, 1.0], "test")
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    network.eval()

    def losses() -> Tensor:
        with torch.no_grad():
            return F.cross_entropy(network(compute.inputs(split.images)), split.labels, reduction="none")

    torch.testing.assert_close(surface[1, 1], losses(), rtol=1e-4, atol=1e-6)
    first, second = (loss_surface.filter_normalised(network, seed) for seed in (0, 1))
    assert set(first) == {"conv.weight", "head.weight"}
    for name, direction in first.items():
        own = dict(network.named_parameters())[name].detach().flatten(1).norm(dim=1)
        torch.testing.assert_close(direction.flatten(1).norm(dim=1), own)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name in first:
                value += first[name] - second[name]
    torch.testing.assert_close(surface[2, 0], losses(), rtol=1e-4, atol=1e-6)


def test_a_fixed_sample_is_stratified() -> None:
    labels = torch.arange(90) % 3
    index = loss_surface.stratified(labels, 30)
    assert torch.bincount(labels[index]).tolist() == [10, 10, 10]
    assert torch.equal(index, loss_surface.stratified(labels, 30))
    assert len(loss_surface.stratified(labels, 1000)) == 90


FLAGS = [
    *("--dataset", "digits", "--model", "MLP", "--selection", "Uniform", "LCMat-S", "Craig"),
    *("--fraction", "0.01", "0.05", "--seed", "0", "1", "--selection_epochs", "2"),
    *("--device", "cpu", "--precision", "float32", "--threads", "1"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("analyses")


def analysed(folder: Path, name: str, *flags: str) -> dict[str, list[dict[str, str]]]:
    """Run an analysis as a user does and return its tables by what comes after the name."""
    assert command(["analysis", name, *FLAGS, *places(folder), *flags]) == 0
    for suffix in ("png", "pdf"):
        assert (folder / "result" / "figures" / f"{name}-digits-MLP.{suffix}").stat().st_size > 1000
    found = sorted((folder / "result" / "tables").glob(f"{name}-digits-MLP*.csv"))
    with_name = {path.stem.removeprefix(f"{name}-digits-MLP"): path for path in found}
    return {suffix: list(csv.DictReader(path.open())) for suffix, path in with_name.items()}


def test_bound_and_sharpness(folder: Path) -> None:
    rows = analysed(folder, "bound")[""]
    assert len(rows) == 12
    assert len({row["samples"] for row in rows}) == 2
    subsets = list((folder / "result").glob("digits-MLP/*/subset*.npz"))
    assert len(subsets) == 12
    stamps = [path.stat().st_mtime_ns for path in subsets]
    measured = analysed(folder, "sharpness", "--network_steps", "1", "--images", "50", "--ascent_steps", "5")[""]
    assert [path.stat().st_mtime_ns for path in subsets] == stamps, "saved subsets are read again"
    for row, of_bound in zip(measured, rows, strict=True):
        whole = float(of_bound["gradient"]) + float(of_bound["half_rho_lambda_abs"])
        assert float(row["eq6_abs"]) == pytest.approx(whole, rel=1e-4)
        # Convex losses of bounded third derivative: the quadratic model with |λ|'s largest holds up to its remainder.
        assert 0 <= float(row["sharpness"]) <= 1.5 * whole
        assert int(row["above_eq7"]) == (float(row["sharpness"]) > float(row["eq7"]))


def test_network_sharpness_of_a_small_ball_is_the_gradient(folder: Path) -> None:
    """To first order, with T's fixed sample in T's place; and more starts find no less."""
    flags = ["--radius", "1e-3", "--network_steps", "1", "--images", "60", "--seed", "0"]
    rows = analysed(folder, "sharpness", *flags, "--network_starts", "1")[""]
    for row in rows:
        assert float(row["network_gradient"]) > 0.01
        assert float(row["network_sharpness"]) == pytest.approx(float(row["network_gradient"]), rel=0.05)
    more = analysed(folder, "sharpness", *flags, "--network_starts", "3")[""]
    for one, other in zip(rows, more, strict=True):
        assert float(other["network_sharpness"]) >= float(one["network_sharpness"]) * (1 - 1e-6)


def test_networks_move_in_the_precision_asked_for(folder: Path) -> None:
    """Kept apart in the cache; bfloat16 rounds to 1/256, and less in the mean over samples."""
    surface = ["landscape", "--points", "3", "--images", "40", "--seed", "0"]
    ball = ["sharpness", "--network_steps", "1", "--images", "60", "--seed", "0", "--network_starts", "1"]
    for flags, column in ((surface, "loss"), (ball, "network_sharpness")):
        exact, rounded = (
            [float(row[column]) for row in analysed(folder, *flags, "--network_precision", precision)[""]]
            for precision in ("float32", "bfloat16")
        )
        assert rounded != exact
        assert rounded == pytest.approx(exact, rel=0.02)


def groups(folder: Path, *flags: str) -> list[Group]:
    """What the commands above measure."""
    with planning.planned([options.parse([*FLAGS, *places(folder), *flags])], REGISTRY) as jobs:
        return groups_of(jobs)


def test_variance_within_classes_by_brute_force(folder: Path) -> None:
    """Weighted means of each sample's own diagonal p(1 − p) h², class by class, for a method with weights."""
    (group, _), rows = groups(folder), analysed(folder, "variance")[""]
    signals = group.signals
    p = signals.logits.double().softmax(1)
    h = torch.cat([signals.features.double(), torch.ones(len(signals), 1)], 1).square()
    each = (p * (1 - p))[:, :, None] * h[:, None]
    (case,) = (case for case in group.cases if (case.method, case.fraction) == ("Craig", 0.05))
    weights = torch.from_numpy(case.subset.weights).double()
    assert len(weights.unique()) > 1
    for label in range(10):
        own = each[signals.labels == label]
        inside = torch.from_numpy(case.subset.classes == label)
        picked = each[torch.from_numpy(case.subset.indices)[inside]]
        share = weights[inside] / weights[inside].sum()
        k = int((own.mean(0) - (share[:, None, None] * picked).sum(0)).abs().argmax())
        variance = own.var(0, correction=0).flatten()
        rank = 1 + int((variance > variance[k]).sum())
        place = ("Craig", "0.05", "0", str(label))
        (row,) = (r for r in rows if (r["method"], r["fraction"], r["seed"], r["class"]) == place)
        assert int(row["rank"]) == rank
        assert [int(row[f"in_{size}"]) for size in (10, 100, 1000)] == [int(rank <= size) for size in (10, 100, 1000)]


def test_middle_of_each_landscape_is_its_loss(folder: Path) -> None:
    """Of the fixed sample, and of every subset with its weights, from the logits that the signals hold."""
    rows = analysed(folder, "landscape", "--points", "3", "--images", "40", "--seed", "0")[""]
    assert len(rows) == 9 * (1 + 6)
    middle = {(r["method"], r["fraction"]): float(r["loss"]) for r in rows if float(r["x"]) == float(r["y"]) == 0}
    (group,) = groups(folder, "--seed", "0")
    each = F.cross_entropy(group.signals.logits, group.signals.labels, reduction="none")
    sample = loss_surface.stratified(group.signals.labels, 40)
    assert middle["T", "1"] == pytest.approx(float(each[sample].mean()), rel=1e-3)
    for case in group.cases:
        weights = loss_surface.relative_weights(case.subset, len(case.subset))
        expected = float((weights * each[torch.from_numpy(case.subset.indices)]).sum())
        assert middle[case.method, f"{case.fraction:g}"] == pytest.approx(expected, rel=1e-3)
    losses = {key: {float(r["loss"]) for r in rows if (r["method"], r["fraction"]) == key} for key in middle}
    assert all(len(surface) == 9 for surface in losses.values())
    of_t = {(r["x"], r["y"]): float(r["loss"]) for r in rows if r["method"] == "T"}
    for r in rows:
        assert float(r["apart"]) == pytest.approx(abs(float(r["loss"]) - of_t[r["x"], r["y"]]), rel=1e-3, abs=1e-4)


def test_a_landscape_takes_each_image_once_and_goes_on_where_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, block_sizes: Setting
) -> None:
    """Subsets share images with each other and with T's sample; a stopped run keeps the parts that are done."""
    flags = ["landscape", "--points", "2", "--images", "30", "--seed", "1"]
    taken, whole = [], loss_surface.landscape
    block_sizes(landscape_images=40)

    def counted(network: nn.Module, split: TensorSplit, *rest: object) -> Tensor:
        if len(taken) == 1 and stop:
            raise KeyboardInterrupt
        taken.append(len(split))
        return whole(network, split, *rest)

    monkeypatch.setattr(loss_surface, "landscape", counted)
    (group,) = groups(folder, "--seed", "1")
    images = set(loss_surface.stratified(group.signals.labels, 30).tolist())
    images.update(*(case.subset.indices.tolist() for case in group.cases))
    assert len(images) < 30 + sum(len(case.subset) for case in group.cases)
    stop = True
    with pytest.raises(KeyboardInterrupt):
        analysed(folder, *flags)
    assert taken == [40]
    stop = False
    analysed(folder, *flags)
    assert sum(taken) == len(images)


def test_options_and_networks_are_told_apart(folder: Path, tmp_path: Path) -> None:
    """Of a grid, as the documented command takes it."""
    path = tmp_path / "varied.yaml"
    path.write_text(
        "title: Varied\nruns: {dataset: digits, model: MLP, selection: [LCMat-S, Uniform], fraction: [0.05]}\n"
        "vary: {rho: [0, 50], selection_epochs: [1, 2], device: [cpu], precision: [float32], threads: [1]}\n"
    )
    places = ["--save_path", str(tmp_path / "result"), "--cache_path", str(tmp_path / "cache")]
    for name in ("overlap", "variance"):
        assert command(["analysis", name, str(path), *places]) == 0
    rows = list(csv.DictReader((tmp_path / "result/tables/overlap-varied-jaccard.csv").open()))
    names = {row["method"] for row in rows}
    assert len(names) == 6, "two values of ρ and two networks, and Uniform by each of them"
    assert any("ρ = 50.0" in name and name.endswith("[epochs 2]") for name in names)
    assert len(rows) == 2 * 3 * 3
    spectrum = csv.DictReader((tmp_path / "result/tables/variance-varied-spectrum.csv").open())
    assert {row["network"] for row in spectrum} == {"epochs 1", "epochs 2"}


def test_files_of_indices_are_subsets_too(folder: Path, tmp_path: Path) -> None:
    """Anyone's; alone, or beside methods."""
    np.savez(tmp_path / "mine.npz", indices=np.arange(65), weights=np.linspace(1, 2, 65))
    (tmp_path / "list.txt").write_text("".join(f"{i}\n" for i in range(0, 1290, 20)))
    files = ["--subset", str(tmp_path / "mine.npz"), str(tmp_path / "list.txt"), "--seed", "0"]
    rows = analysed(folder, "bound", *files, "--fraction", "0.05")[""]
    assert [row["method"] for row in rows] == ["Uniform", "LCMat-S", "Craig", "mine", "list"]
    alone = [word for word in FLAGS if word not in ("--selection", "Uniform", "LCMat-S", "Craig")]
    places = ["--save_path", str(folder / "result"), "--cache_path", str(folder / "cache"), "--name", "files"]
    assert command(["analysis", "bound", *alone, *places, *files]) == 0
    table = csv.DictReader((folder / "result/tables/bound-files.csv").open())
    assert [row["gradient"] for row in table] == [row["gradient"] for row in rows[3:]]


def test_overlap_is_as_counted(folder: Path) -> None:
    found = analysed(folder, "overlap")
    own = [row for row in found["-jaccard"] if row["method"] == row["other"]]
    assert {float(row["jaccard"]) for row in own} == {1.0}
    sets = {
        (case.method, f"{case.fraction:g}", str(group.seed)): set(case.subset.indices.tolist())
        for group in groups(folder)
        for case in group.cases
    }
    assert len({row["jaccard"] for row in found["-jaccard"]}) > 5
    for row in found["-jaccard"]:
        one, other = (sets[row[name], row["fraction"], row["seed"]] for name in ("method", "other"))
        assert float(row["jaccard"]) == pytest.approx(sum(i in other for i in one) / len(one | other), rel=1e-5)
    costs = {(row["method"], row["fraction"], row["seed"]): float(row["cost"]) for row in found[""]}
    for fraction in ("0.01", "0.05"):
        for seed in ("0", "1"):
            assert costs["LCMat-S", fraction, seed] <= costs["Uniform", fraction, seed]


def test_another_network_than_the_one_that_chose_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Records of one network, and a cache that holds another by the same name: the command says so."""
    words = [*FLAGS[:4], "--selection", "LCMat-S", "--fraction", "0.05", *FLAGS[FLAGS.index("--selection_epochs") :]]
    words += ["--epochs", "1", "--test_interval", "0", *("--save_path", str(tmp_path / "result"))]
    words += ["--cache_path", str(tmp_path / "cache")]
    assert script.main(words) == 0
    assert command(["analysis", "overlap", *words]) == 0
    assert "chose the recorded subsets" not in capsys.readouterr().err
    (path,) = (tmp_path / "cache" / "signals").glob("*.pt")
    kept = load_tensors(path)
    kept["facts"]["train_accuracy"] += 0.5
    save_tensors(path, kept)
    assert command(["analysis", "bound", *words]) == 0
    assert "is not the one that chose the recorded subsets" in capsys.readouterr().err
    (table,) = (tmp_path / "result" / "tables").glob("overlap-digits-MLP.csv")
    before = table.read_text()
    with pytest.raises(UserError, match="is of other networks than those of this --cache_path"):
        command(["analysis", "overlap", *words])
    assert table.read_text() == before
    assert command(["analysis", "overlap", *words, "--name", "other"]) == 0


def test_cost_equals_that_of_the_selection(folder: Path) -> None:
    """LCMat-S's own record of L(S), from its greedy, which measures other distances on the way."""
    found = analysed(folder, "overlap")
    row = next(row for row in found[""] if row["method"] == "LCMat-S" and row["fraction"] == "0.05")
    path = next((folder / "result" / "digits-MLP" / "LCMat-S").glob(f"subset0.05-seed{row['seed']}-*.npz"))
    assert float(row["cost"]) == pytest.approx(Subset.load(path).cost, rel=1e-5)


def test_variance_and_diagonal(folder: Path) -> None:
    found = analysed(folder, "variance")
    values = [float(row["variance"]) for row in found["-spectrum"] if row["seed"] == "0"]
    assert values == sorted(values, reverse=True)
    assert {row["class"] for row in found[""]} == {"all", *map(str, range(10))}
    rows = analysed(folder, "diagonal")[""]
    assert sum(row["method"] == "T" for row in rows) == 2
    for row in rows:
        assert 0 < float(row["share"]) <= 1
        # An entry of the diagonal lies between the extreme eigenvalues.
        assert float(row["diagonal"]) <= float(row["lambda_abs"]) * (1 + 1e-6)


def test_true_k_by_brute_force() -> None:
    """The place of the largest difference in the order of variances, counted one by one."""
    signals, _, subset = problem(3)
    order, values = analyses.by_variance(signals)
    difference = LastLayer.of(signals).diagonal(coefficients(N, subset)).flatten().abs()
    k = int(np.argmax(difference.numpy()))
    expected = 1 + sum(float(v) > float(values[k]) for v in values)
    assert analyses.place_of(order, difference)["rank"] == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name an analysis first"),
        (["bounds"], "bound"),
        (["bound", "--radius", "0"], "--radius must be a positive number"),
        (["sharpness", "--starts", "0"], "--starts must be at least 1"),
        (["landscape", "--points", "1"], "--points must be at least 2"),
        (["landscape", "--points", "2147483648"], "at most 1,000, not 2147483648"),
        (["sharpness", "--network_steps", "9" * 300], "at most 1,000,000, not 9999"),
        (["landscape", "--network_precision", "float16"], "unknown precision 'float16'"),
        (["bound", "--dataset", "digits", "--protocol", "continual"], "of a memory give the file beside its record"),
        (["bound", "--signals", "x.npz"], "--signals is for main.py alone"),
        (["bound", "--dataset", "digits", "--subset", "no.npz"], "cannot read no.npz"),
        (["bound", "--dataset", "digits", "--selection", "DM", "--ipc", "1"], "makes images"),
        (["bound", "--dataset", "digits", "--selection", "Full"], "no subset"),
        (["bound", "nothing.yaml"], "cannot read nothing.yaml"),
    ],
)
def test_bad_input_is_one_clear_line(words: list[str], message: str, tmp_path: Path) -> None:
    places = ["--save_path", str(tmp_path / "result"), "--cache_path", str(tmp_path / "cache")] if words else []
    with pytest.raises(UserError, match=message):
        command(["analysis", *words, *places])
    assert not (tmp_path / "result").exists()


def test_figures_are_drawn_anew_from_tables_alone(folder: Path, tmp_path: Path) -> None:
    """Every analysis, by what it wrote; a file that only has the name of one is named, and left alone."""
    for name in ("bound", "overlap", "diagonal"):
        analysed(folder, name)
    shutil.copytree(folder / "result" / "tables", tmp_path / "tables")
    titles = {"digits-MLP": "My title"}
    written = {path.stem for path in (tmp_path / "tables").glob("*-digits-MLP.csv")}
    (tmp_path / "tables" / "bound-mine.csv").write_text("shoes,seed\nbrown,1\n")
    (tmp_path / "tables" / "overlap-half.csv").write_text("method,fraction,seed,per_sample\nUniform,0.1,0,1\n")
    paths, strange = redraw(tmp_path, lambda name: titles.get(name, name))
    assert {path.stem for path in paths} >= written >= {"bound-digits-MLP", "overlap-digits-MLP", "diagonal-digits-MLP"}
    assert all(path.stat().st_size > 1000 for path in paths)
    assert [path.name for path in strange] == ["bound-mine.csv", "overlap-half.csv"]
