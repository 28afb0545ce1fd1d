"""What must hold of every registered method, whatever the signals."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lcmat import Signals, Subset, UserError, memory_limit
from lcmat.block_sizes import sized
from lcmat.distances.vectors import CosineDistance
from lcmat.last_layer import gradient_factors
from methods import get
from tests import oracles
from tests.every_method import DYNAMICS, METHODS, FullProblem, LinearNet, both, check_counts, chosen, every_method, make
from tests.problems import check_form, same

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# Small fractions of small classes round to nothing, which the library says and test_lcmat_s.py checks; and LBCS finds
# few other sets of few samples to try, which test_lbcs.py checks.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*rounds to no sample"),
    pytest.mark.filterwarnings("ignore:.*moves in a row made no other set"),
]
# Methods that draw at random, or whose first pick is a tie of all samples (every one has similarity 1 to itself).
DEPENDS_ON_ORDER = {
    "Uniform", "Full", "Forgetting", "CCS", "kCenterGreedy", "ContextualDiversity", "LogDeterminant", "Probabilistic",
    "LBCS", "FirstInOrder", "DUAL", "D2",
}  # fmt: skip
# Gradients of the last layer know the bias, to which the scale of the features matters; these read features alone.
SCALE_FREE = ("Herding", "kCenterGreedy", "Moderate", "CAL")
CONTAINERS: dict[str, Callable[[np.ndarray], object]] = {
    "array": lambda array: array,
    "tensor": torch.tensor,
    "column-major": np.asfortranarray,
    "every second column": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: a[..., ::-1].copy()[..., ::-1],
    "transposed tensor": lambda a: torch.tensor(a.T.copy()).T if a.ndim == 2 else torch.tensor(a),
    "strided tensor": lambda a: torch.repeat_interleave(torch.tensor(a), 2, dim=-1)[..., ::2],
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}


@st.composite
def awkward(draw: st.DrawFn) -> FullProblem:
    """Few samples; unequal, single and empty classes; identical samples; logits from all equal to 3e38 apart."""
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), label="sizes")
    problem = make(sizes, draw(st.integers(0, 2**16), label="seed"), draw(st.integers(1, 4), label="d"))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]), label="dtype")
    feature = draw(st.sampled_from([0.0, 1e-6, 1.0, 1e3]), label="features")
    logit = draw(st.sampled_from([0.0, 1e-6, 1.0, 50.0, 1e4, 1e30, 3e38]), label="logits")

    def scaled(array: np.ndarray, scale: float) -> np.ndarray:
        top = float(np.finfo(dtype).max)
        return np.clip(min(scale, top) * array.clip(-1, 1), -top, top).astype(dtype)

    rng = np.random.default_rng(0)
    index = {
        "no": np.arange(len(problem)),
        "some": rng.integers(0, len(problem), len(problem)),
        "all": np.zeros(len(problem), dtype=np.int64),
    }[draw(st.sampled_from(["no", "some", "all"]), label="alike")]
    labels = problem.labels
    validation = (scaled(problem.validation[0], feature), scaled(problem.validation[1], logit), problem.validation[2])
    problem = replace(
        problem,
        features=scaled(problem.features, feature),
        logits=scaled(problem.logits, logit),
        margin=scaled(problem.margin, logit),
        validation=validation,
    )
    return replace(problem.take(index), labels=labels)


@every_method
@settings(derandomize=True, max_examples=20, deadline=None)
@given(problem=awkward(), balanced=st.booleans(), container=st.sampled_from(list(CONTAINERS)), data=st.data())
def test_anything_can_be_selected_from(
    method: str, problem: FullProblem, balanced: bool, container: str, data: st.DataObject
) -> None:
    n, least = len(problem), len(np.unique(problem.labels)) if balanced else 1
    assume(n > 1 or "training" not in get(method).needs)  # one sample: a test of its own below
    size = data.draw(
        st.integers(least, n).map(lambda k: {"budget": k})
        | st.just({"budget": n})
        | st.sampled_from([0.01, 0.3, 0.5, 0.75, 1.0]).map(lambda f: {"fraction": f}),
        label="size",
    )
    signals = problem.signals_as(CONTAINERS[container])
    subset = chosen(method, problem, signals, balanced=balanced, seed=1, **size)
    check_form(subset, problem, balanced)
    check_counts(subset, problem, balanced, size)
    assert same(subset, chosen(method, problem, signals, balanced=balanced, seed=1, **size))
    if subset.nested and size.get("fraction") == 1.0:
        small = chosen(method, problem, signals, balanced=balanced, seed=1, fraction=0.5)
        assert same(subset.prefix(0.5), small, ("indices", "rank", "weights", "costs"))


SIZES = {
    "1 and 100": [1, 100],
    "one each": [1, 1, 1, 1],
    "one class": [40],
    "labels skipped": [0, 12, 0, 5, 0],
    "halves to round": [5, 7, 9, 11],
}


@every_method
@both
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_budgets_are_exact(method: str, sizes: list[int], balanced: bool) -> None:
    problem = make(sizes)
    n, nonempty = len(problem), sum(size > 0 for size in sizes)
    for fraction in (0.01, 0.5, 0.999):
        subset = chosen(method, problem, fraction=fraction, balanced=balanced)
        check_form(subset, problem, balanced)
        check_counts(subset, problem, balanced, {"fraction": fraction})
    for budget in {nonempty, (nonempty + n) // 2, n}:
        subset = chosen(method, problem, budget=budget, balanced=balanced)
        check_form(subset, problem, balanced)
        check_counts(subset, problem, balanced, {"budget": budget})


@every_method
def test_a_budget_for_each_class(method: str) -> None:
    """As many of each as asked for, whatever the sizes; of some classes none."""
    problem = make([12, 9, 0, 5, 4])
    for budget in ([3, 3, 0, 3, 3], [1, 0, 0, 5, 2]):
        subset = chosen(method, problem, budget=budget)
        counts = np.bincount(subset.classes, minlength=5).tolist()
        if method == "LBCS":  # it starts so, and goes where the loss is smaller
            assert sum(counts) <= sum(budget)
        else:
            assert counts == ([12, 9, 0, 5, 4] if method == "Full" else budget)


@every_method
@both
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_a_single_sample(method: str, classes: int, balanced: bool) -> None:
    """Whatever there is to compute or train, that one is the only answer."""
    problem = make([0] * (classes - 1) + [1])
    for size in ({"fraction": 0.5}, {"budget": 1}):
        subset = chosen(method, problem, balanced=balanced, **size)
        check_form(subset, problem, balanced)
        assert subset.indices.tolist() == [0]


SCALES = [1e2, 3e2, 3.5e2, 4e2, 5e2, 7e2, 7.45e2, 1e3, 1e4, 1e30, 3e38]


@pytest.mark.parametrize("method", [name for name in METHODS if {"logits", "initialisations"} & {*get(name).needs}])
@both
@pytest.mark.parametrize("which", ["right", "wrong", "some right"])
def test_sure_predictions(method: str, which: str, balanced: bool) -> None:
    """Beyond 37 apart p rounds to one, beyond 745 the smallest probability is 0, and squares are so from 355 on."""
    problem = make([8, 6, 5])
    labels = problem.labels if which == "right" else (problem.labels + 1) % 3
    unsure = problem.logits.clip(-1, 1)
    sure = unsure if which == "some right" else np.eye(3)[labels] + 0.01 * unsure
    for scale in SCALES:
        problem = replace(problem, logits=(scale / np.abs(sure).max() * sure).astype(np.float32))
        subset = chosen(method, problem, fraction=0.5, balanced=balanced)
        check_form(subset, problem, balanced)
        check_counts(subset, problem, balanced, {"fraction": 0.5})


@pytest.mark.parametrize("lead", [100, 300, 350, 400, 500, 700])
def test_cosines_of_gradients_stay_cosines_when_predictions_are_sure(lead: float) -> None:
    """The size of a gradient does not matter to its direction, were it 1e-300."""
    rng = np.random.default_rng(0)
    features, other = rng.normal(size=(8, 3)), rng.normal(size=8)

    def rows(lead: float) -> Tensor:
        logits = np.stack([np.full(8, lead), np.zeros(8), other], 1)
        signals = Signals(features=features, logits=logits, labels=np.zeros(8, dtype=np.int64))
        return CosineDistance(*gradient_factors(signals)).rows(torch.arange(8))

    # Beyond a lead of 50 the first class has all, and how the others share what is left no longer changes.
    assert torch.allclose(rows(float(lead)), rows(50.0), atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_influential_where_the_hessian_nearly_vanishes(seed: int) -> None:
    """Sure predictions leave entries so small that products of theirs round to 0, others not."""
    problem = make([10, 10, 10], seed)
    for scale in (500.0, 700.0, 1e3, 1.5e3, 2e3):
        sure = replace(problem, logits=scale * problem.logits)
        check_form(chosen("Influential", sure, fraction=0.5), sure, balanced=True)


@every_method
@both
@pytest.mark.parametrize("scale", [1e100, 1e160, 1e300])
def test_enormous_features_are_served_or_refused(method: str, scale: float, balanced: bool) -> None:
    """They are finite; but their squares are not."""
    problem = make([8, 6, 5])
    problem = replace(problem, features=scale * problem.features.clip(-1, 1))
    try:
        subset = chosen(method, problem, fraction=0.5, balanced=balanced)
    except UserError:
        return
    check_form(subset, problem, balanced)
    check_counts(subset, problem, balanced, {"fraction": 0.5})


@every_method
@both
def test_features_without_columns_are_served_or_refused(method: str, balanced: bool) -> None:
    problem = make([8, 6, 5], d=0)
    try:
        subset = chosen(method, problem, fraction=0.5, balanced=balanced)
    except UserError:
        return
    check_form(subset, problem, balanced)


@every_method
@both
def test_no_samples_at_all_are_refused(method: str, balanced: bool) -> None:
    problem = make([3, 2])
    for size in ({"fraction": 0.5}, {"budget": 1}):
        with pytest.raises(UserError):
            chosen(method, problem.take(np.zeros(0, dtype=np.int64)), balanced=balanced, **size)


@every_method
@both
def test_how_arrays_are_held_does_not_matter(method: str, balanced: bool) -> None:
    problem = make([12, 9, 4])
    expected = chosen(method, problem, fraction=0.4, balanced=balanced)
    for name, container in CONTAINERS.items():
        signals = problem.signals_as(container)
        assert same(expected, chosen(method, problem, signals, fraction=0.4, balanced=balanced)), name


@every_method
@both
@pytest.mark.parametrize("wider", [np.float32, np.float64, torch.float16, torch.bfloat16], ids=str)
def test_precision_is_that_of_the_values(method: str, wider: type | torch.dtype, balanced: bool) -> None:
    """The same values held in a wider type are the same signals."""

    def narrow(array: np.ndarray) -> Tensor:
        return torch.tensor(array).to(half) if array.dtype == np.float64 else torch.tensor(array)

    def widened(array: np.ndarray) -> np.ndarray | Tensor:
        values = narrow(array)
        if not values.is_floating_point():
            return array.astype(np.int32) if array.dtype == np.int64 else array
        return values.float().numpy().astype(wider) if isinstance(wider, type) else values.float().requires_grad_()

    half = wider if isinstance(wider, torch.dtype) else torch.float16
    problem = make([12, 9, 4])
    expected = chosen(method, problem, problem.signals_as(narrow), fraction=0.4, balanced=balanced)
    assert same(expected, chosen(method, problem, problem.signals_as(widened), fraction=0.4, balanced=balanced))


@every_method
@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_signals_and_network_are_left_as_they_were(method: str, dtype: torch.dtype, balanced: bool) -> None:
    problem = make([12, 9, 4])
    held: list[Tensor] = []

    def keep(array: np.ndarray) -> Tensor:
        held.append(torch.tensor(array, dtype=dtype if array.dtype == np.float64 else None))
        return held[-1]

    signals = problem.signals_as(keep)
    context = problem.context if get(method).needs_context else None
    tensors = [*held, torch.from_numpy(problem.images), *problem.network.state_dict().values()]
    copies = [tensor.clone() for tensor in tensors]
    problem.network.train()
    chosen(method, problem, signals, fraction=0.4, balanced=balanced, context=context)
    assert all(torch.equal(a, b) for a, b in zip(tensors, copies, strict=True))
    assert problem.network.training
    assert all(p.requires_grad and p.grad is None for p in problem.network.parameters())


@every_method
@both
def test_the_seed_decides_alone(method: str, balanced: bool) -> None:
    """Global generators are neither read nor moved."""
    problem = make([12, 9, 4])
    picked = []
    for number in (1, 2):
        torch.manual_seed(number)
        np.random.seed(number)
        random.seed(number)
        before = torch.get_rng_state(), np.random.get_state()[1:3], random.getstate()
        picked.append(chosen(method, problem, fraction=0.4, balanced=balanced, seed=5))
        after = torch.get_rng_state(), np.random.get_state()[1:3], random.getstate()
        assert torch.equal(before[0], after[0])
        assert np.array_equal(before[1][0], after[1][0])
        assert before[1][1] == after[1][1]
        assert before[2] == after[2]
    assert same(*picked)


# How much is formed at once, and how much memory there is: None, plenty; 1 byte, so that nothing is kept.
BLOCKS = {
    "tiny": (1, {"elements": 1, "images": 1, "least_rows": 1, "tile_rows": 1}),
    "uneven": (1, {"elements": 200, "images": 7, "tile_elements": 7, "tile_rows": 5}),
    "uneven, kept": (None, {"elements": 200, "images": 7, "tile_elements": 7, "tile_rows": 5}),
    "small tiles": (None, {"held_elements": 30, "tile_elements": 1}),
    "not kept": (1, {}),
}


@every_method
@both
@pytest.mark.parametrize(("limit", "blocks"), BLOCKS.values(), ids=BLOCKS)
def test_block_sizes_do_not_matter(method: str, limit: int | None, blocks: dict[str, int], balanced: bool) -> None:
    """Nor what fits into memory; but for rounding, where sums are cut elsewhere."""
    problem = make([30, 20, 12])
    expected = chosen(method, problem, fraction=0.25, balanced=balanced)
    with sized(**blocks), memory_limit.limited(limit):
        subset = chosen(method, problem, fraction=0.25, balanced=balanced)
    assert same(expected, subset, ("indices", "rank"))
    for name in ("weights", "costs"):
        value = getattr(subset, name)
        assert value is None or value == pytest.approx(getattr(expected, name), rel=1e-6)


# Odd sizes, since of an even number two samples are equally far from Moderate's median; and few picks: late in a
# facility location, two uncovered samples nearest to one another tie.
TIELESS = [51, 41, 31]
IN_ORDER = [name for name in METHODS if name not in DEPENDS_ON_ORDER]


def close(one: Subset, other: Subset) -> bool:
    """Whether the weights and costs of two subsets agree."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("weights", "costs")]
    return all((a is None) == (b is None) and (a is None or np.allclose(a, b, rtol=1e-5)) for a, b in pairs)


@pytest.mark.parametrize("method", IN_ORDER)
@both
@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_samples_does_not_matter(method: str, seed: int, balanced: bool) -> None:
    problem = make(TIELESS, seed)
    subset = chosen(method, problem, fraction=0.06, balanced=balanced)
    order = np.random.default_rng(seed).permutation(len(problem))
    shuffled = chosen(method, problem.take(order), fraction=0.06, balanced=balanced)
    assert order[shuffled.indices].tolist() == subset.indices.tolist()
    assert close(subset, shuffled)


@pytest.mark.parametrize("method", IN_ORDER)
@pytest.mark.parametrize("seed", range(2))
def test_the_names_of_classes_do_not_matter(method: str, seed: int) -> None:
    problem = make(TIELESS, seed)
    new = np.array([2, 0, 1])
    old = new.argsort()
    h, z, y = problem.validation
    weight, bias = (problem.network.head.weight.detach()[old], problem.network.head.bias.detach()[old])
    renamed = replace(
        problem, logits=problem.logits[:, old], labels=new[problem.labels], validation=(h, z[:, old], new[y]),
        network=LinearNet(weight, bias),
    )  # fmt: skip
    # The second initialisation of a problem mirrors its columns, which would not be the same renaming.
    one, other = (p.signals_as(initialisations=[p.signals_as(initialisations=None)]) for p in (problem, renamed))
    subset = chosen(method, problem, one, fraction=0.06, balanced=False)
    assert chosen(method, renamed, other, fraction=0.06, balanced=False).indices.tolist() == subset.indices.tolist()


@every_method
@both
def test_a_shift_of_a_samples_logits_does_not_matter(method: str, balanced: bool) -> None:
    """Softmax does not see it; multiples of 2⁻¹⁰ and whole shifts make it exact."""
    problem = make([20, 15, 12])

    def rounded(z: np.ndarray, shift: int) -> np.ndarray:
        return np.round(z * 1024) / 1024 + shift * np.arange(len(z))[:, None]

    picked = []
    for shift in (0, 3):
        h, z, y = problem.validation
        moved = replace(problem, logits=rounded(problem.logits, shift), validation=(h, rounded(z, shift), y))
        picked.append(chosen(method, moved, fraction=0.25, balanced=balanced))
    assert same(*picked, only=("indices", "rank"))


@pytest.mark.parametrize("method", SCALE_FREE)
@both
@pytest.mark.parametrize("power", [-40, -3, 1, 40])
def test_the_scale_of_features_does_not_matter(method: str, power: int, balanced: bool) -> None:
    problem = make([30, 20, 10])
    scaled = replace(problem, features=problem.features * 2.0**power)
    expected, subset = (chosen(method, p, fraction=0.4, balanced=balanced) for p in (problem, scaled))
    assert same(expected, subset)


def variants(method: str) -> list[dict[str, object]]:
    """The method as it is, and with weights where that is an option."""
    return [{}, {"weights": True}] if "weights" in get(method).options else [{}]


@every_method
@both
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_a_prefix_is_the_selection_for_a_smaller_fraction(method: str, sizes: list[int], balanced: bool) -> None:
    problem = make(sizes)
    for options in variants(method):
        large = chosen(method, problem, fraction=0.8, balanced=balanced, seed=3, **options)
        if not large.nested:
            with pytest.raises(UserError, match="nested"):
                large.prefix(0.3)
            continue
        for fraction in (0.8, 0.3, 0.05):
            small = chosen(method, problem, fraction=fraction, balanced=balanced, seed=3, **options)
            prefix = large.prefix(fraction)
            check_form(prefix, problem, balanced)
            assert same(prefix, small, tuple(name for name in Subset.__dataclass_fields__ if name != "bound"))
            assert prefix.bound in (None, small.bound)  # a smaller set has another optimum
            assert prefix.cost == small.cost
            assert same(large.prefix(0.5).prefix(min(fraction, 0.5)), large.prefix(min(fraction, 0.5)))


@every_method
@both
def test_a_subset_survives_its_file(method: str, balanced: bool, tmp_path: Path) -> None:
    problem = make([12, 0, 9, 4])
    for options in variants(method):
        subset = chosen(method, problem, fraction=0.4, balanced=balanced, **options)
        subset.save(tmp_path / "subset.npz")
        loaded = Subset.load(tmp_path / "subset.npz")
        assert same(subset, loaded)
        assert isinstance(loaded.nested, bool)
        assert isinstance(loaded.method, str)
        for name in ("indices", "rank", "weights", "classes", "class_sizes", "costs", "transfers"):
            own, other = getattr(subset, name), getattr(loaded, name)
            assert own is other is None or own.dtype == other.dtype
        if subset.nested:
            assert same(loaded.prefix(0.2), subset.prefix(0.2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("field", ["features", "logits", *DYNAMICS])
def test_values_that_are_not_finite_are_refused(field: str, dtype: type, value: float) -> None:
    problem = make([8, 6])
    array = getattr(problem, field).astype(dtype)
    array[(5, 1) if field in ("features", "logits") else (1, 5)] = value
    where = f"{field}.*sample 5" if field in ("features", "logits") else f"dynamics.*{field}"
    with pytest.raises(UserError, match=where):
        replace(problem, **{field: array}).signals_as()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("number", [0, 1], ids=["features", "logits"])
def test_values_of_the_validation_split_that_are_not_finite_are_refused(number: int, value: float) -> None:
    problem = make([8, 6])
    arrays = [array.copy() for array in problem.validation]
    arrays[number][3, 1] = value
    with pytest.raises(UserError, match=rf"{('features', 'logits')[number]}.*sample 3"):
        replace(problem, validation=tuple(arrays)).signals_as()


NEEDS = [(name, need) for name in METHODS for need in get(name).needs]


@pytest.mark.parametrize(("method", "need"), NEEDS, ids=[f"{m}, {need}" for m, need in NEEDS])
@both
def test_what_is_needed_and_missing_is_named(method: str, need: str, balanced: bool) -> None:
    problem = make([8, 6])
    signals, options = problem.signals, {"fraction": 0.3, "balanced": balanced}
    if need.partition(".")[0] in ("network", "training"):
        without = {"network": None} if need == "network" else {"fresh_network": None}
        wrong = [None, replace(problem.context, **without), problem.take(np.arange(5)).context]
        if need != "network":
            wrong.append(replace(problem.context, recipe=None))
        for context in wrong:
            with pytest.raises(UserError, match=rf"{method}.*(network|images)"):
                chosen(method, problem, signals, context=context, **options)
        return
    field, _, entry = need.partition(".")
    with pytest.raises(UserError, match=rf"{method}.*{field}"):
        chosen(method, problem, problem.signals_as(**{field: None}), **options)
    if field == "dynamics":
        rest = {name: value for name, value in signals.dynamics.items() if name != entry}
        with pytest.raises(UserError, match=rf"{method}.*{entry}"):
            chosen(method, problem, problem.signals_as(dynamics=rest), **options)


PARTS = [(name, field) for name in METHODS for field in ("validation", "initialisations") if field in get(name).fields]


@pytest.mark.parametrize(("method", "need"), PARTS, ids=[f"{m}, {need}" for m, need in PARTS])
@pytest.mark.parametrize("missing", ["features", "logits"])
@both
def test_signals_within_signals_that_lack_a_field_are_refused(
    method: str, need: str, missing: str, balanced: bool
) -> None:
    """By one line that names it, unless the method reads no such field."""
    problem = make([8, 6])
    h, z, y = (problem.features, problem.logits, problem.labels) if need == "initialisations" else problem.validation
    given = {"features": h, "logits": z, "labels": y} | {missing: None}
    part = [Signals(**given)] if need == "initialisations" else Signals(**given)
    message = missing
    try:
        subset = chosen(method, problem, problem.signals_as(**{need: part}), fraction=0.3, balanced=balanced)
        check_form(subset, problem, balanced)
    except UserError as error:
        message = str(error)
    assert missing in message


@pytest.mark.parametrize("method", [name for name in METHODS if "validation" in get(name).fields])
def test_a_validation_split_without_a_class_is_refused_when_balanced(method: str) -> None:
    problem = make([8, 6])
    h, z, y = problem.validation
    only = replace(problem, validation=(h[y == 0], z[y == 0], y[y == 0]))
    with pytest.raises(UserError, match=r"validation.*class 1"):
        chosen(method, only, fraction=0.3)
    check_form(chosen(method, only, fraction=0.3, balanced=False), only, balanced=False)


@pytest.mark.parametrize("method", [name for name in METHODS if "validation" in get(name).fields])
@both
def test_an_empty_validation_split_is_refused(method: str, balanced: bool) -> None:
    problem = make([8, 6])
    with pytest.raises(UserError, match="validation"):
        chosen(
            method, replace(problem, validation=tuple(a[:0] for a in problem.validation)), fraction=0.3,
            balanced=balanced,
        )  # fmt: skip


@pytest.mark.parametrize("method", [name for name in METHODS if any("dynamics" in need for need in get(name).needs)])
@both
def test_dynamics_of_no_epoch_are_refused(method: str, balanced: bool) -> None:
    problem = make([8, 6])
    none = {name: getattr(problem, name)[:0] for name in DYNAMICS}
    with pytest.raises(UserError, match="dynamics"):
        chosen(method, problem, problem.signals_as(dynamics=none), fraction=0.3, balanced=balanced)


@every_method
@both
def test_nothing_is_read_but_what_is_needed(method: str, balanced: bool) -> None:
    problem = make([12, 9, 4])
    signals, needs = problem.signals, {need.partition(".")[0] for need in get(method).needs}
    entries = {need.partition(".")[2] for need in get(method).needs}
    part = {name: getattr(signals, name) for name in needs if name not in ("network", "training")}
    if "dynamics" in part:
        part["dynamics"] = {name: value for name, value in part["dynamics"].items() if name in entries}
    options = {"fraction": 0.4, "balanced": balanced}
    if get(method).needs_context:
        unread = {"network": {"network"}, "training": {"fresh_network", "recipe"}}
        without = {name for need, names_ in unread.items() if need not in needs for name in names_}
        options["context"] = replace(problem.context, **dict.fromkeys(without))
    subset = chosen(method, problem, Signals(labels=signals.labels, **part), **options)
    assert same(subset, chosen(method, problem, fraction=0.4, balanced=balanced))


@every_method
def test_unknown_options_are_named(method: str) -> None:
    with pytest.raises(UserError, match=rf"{method}.*'wrong_option'"):
        chosen(method, make([8, 6]), fraction=0.3, wrong_option=1)
