"""One large group by several workers, and by compiled loops: what one worker and plain ones choose."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

import methods
from lcmat import compiled, workers
from lcmat.block_sizes import at_once, sized
from lcmat.facility_location import incremental, lazy
from lcmat.selection import Subset
from lcmat.signals import Signals
from tests.harness import Setting
from tests.problems import random_problem

# Blocks so small that each worker gets several, and all fit where the matrix does not.
SMALL = {"elements": 400, "least_rows": 8, "tile_rows": 16, "tile_elements": 500, "held_elements": 500}


@pytest.fixture
def four_workers(monkeypatch: pytest.MonkeyPatch, block_sizes: Setting) -> Callable[[], None]:
    """Call it, and there are four workers, who share out whatever there is to do."""

    def begin() -> None:
        monkeypatch.setattr(workers, "cores", lambda: 4)
        block_sizes(shared_out=1, shared_out_lazily=1)
        torch.set_num_threads(4)

    return begin


def same(found: Subset, expected: Subset) -> None:
    """Assert that two subsets are the same to rounding."""
    assert np.array_equal(found.indices, expected.indices)
    assert found.costs is None or np.allclose(found.costs, expected.costs, rtol=1e-12)
    assert found.bound == pytest.approx(expected.bound, rel=1e-9)
    assert (found.weights is None) == (expected.weights is None)
    assert found.weights is None or np.array_equal(found.weights, expected.weights)


@pytest.mark.parametrize("memory", ["1GB", "210kB"], ids=["held", "lazy"])
@pytest.mark.parametrize("method", ["LCMat-S", "AdaCore", "FacilityLocation"])
@pytest.mark.parametrize("repeated", [False, True], ids=["different", "repeated"])
def test_one_group_by_workers_has_the_picks_of_one(
    method: str, memory: int | str, repeated: bool, four_workers: Callable
) -> None:
    """In blocks so small that each worker gets several; also where half the samples come twice."""
    given = random_problem(4, 60 if repeated else 120, 6, 3).signals
    index = torch.arange(120) % len(given)
    signals = Signals(given.features[index], given.logits[index], given.labels[index])
    with sized(**SMALL):
        torch.set_num_threads(1)
        expected = methods.select(signals, method, fraction=0.1, balanced=False, memory=memory)
        four_workers()
        same(methods.select(signals, method, fraction=0.1, balanced=False, memory=memory), expected)
    assert torch.get_num_threads() == 4


def test_workers_are_asked(four_workers: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above compares two ways that are different."""
    four_workers()
    asked, in_order, begun = [], workers.in_order, []
    as_done = workers.as_done
    monkeypatch.setattr(
        workers, "as_done", lambda work, items, most: begun.append(min(most, len(items))) or as_done(work, items, most)
    )
    for module in (incremental, lazy):
        monkeypatch.setattr(module, "in_order", lambda *given: asked.append(given) or in_order(*given))
    problem = random_problem(4, 120, 6, 3)
    for memory, several in (("1GB", True), ("210kB", True), (1, False)):  # not even one worker's blocks fit into a byte
        with sized(**SMALL):
            methods.select(problem.signals, "LCMat-S", fraction=0.1, balanced=False, memory=memory)
        assert len(asked) >= 3
        assert (max(begun) > 1) == several
        asked.clear()
        begun.clear()


# ---- compiled loops --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 7), (40, 65, 100), (3, 40, 0)])
def test_the_loops_add_up_what_their_definitions_say(shape: tuple[int, int, int]) -> None:
    """Run as plain Python, beside sums written out."""
    b, w, K = shape
    draw = np.random.default_rng(0)
    x, y, out = draw.normal(size=(b, K)), draw.normal(size=(w, K)), draw.normal(size=(b, w))
    expected = out + 0.3 * np.abs(x[:, None] - y[None]).sum(2)
    compiled.l1_loop(out, x, y, 0.3)
    np.testing.assert_allclose(out, expected, rtol=1e-12)
    D, index = draw.random((b, w)), draw.integers(0, b, 4)
    old, new, lost = 0.5 + draw.random(4) / 2, draw.random(4) / 2, np.zeros(w)
    compiled.lost_gains_loop(D, index, old, new, lost)
    by_definition = [
        sum(max(0, o - D[i, j]) - max(0, n - D[i, j]) for i, o, n in zip(index, old, new, strict=True))
        for j in range(w)
    ]
    np.testing.assert_allclose(lost, by_definition, rtol=1e-12, atol=1e-14)


def test_plain_and_compiled_loops_agree() -> None:
    """On strided tensors, too: tiles are parts of a larger one."""
    pytest.importorskip("numba")
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(rows, 2 * 37, generator=draw, dtype=torch.float64)[:, ::2] for rows in (20, 70))
    whole = torch.randn(30, 90, generator=draw, dtype=torch.float64)
    D, index = torch.rand(50, 70, generator=draw, dtype=torch.float64), torch.tensor([3, 3, 41, 0])
    old, new = torch.tensor([0.9, 0.8, 0.7, 0.5]).double(), torch.tensor([0.1, 0.2, 0.7, 0.0]).double()
    fast = compiled.loops(at_once().compiled, torch.device("cpu"))
    assert fast is not compiled.PLAIN
    sums, lost = [], []
    for loops in (fast, compiled.PLAIN):
        out = whole.clone()
        loops.add_l1(out[5:25, 10:80], x, y, 0.25)
        sums.append(out)
        lost.append(loops.lost_gains(D, index, old, new, torch.empty(9, 70, dtype=torch.float64)))
    torch.testing.assert_close(*sums, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(*lost, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("memory", ["1GB", 1], ids=["held", "lazy"])
def test_compiled_loops_pick_the_same(memory: int | str, block_sizes: Setting) -> None:
    """Also where samples come twice, and gains tie."""
    pytest.importorskip("numba")
    given = random_problem(6, 80, 8, 4).signals
    index = torch.arange(80).repeat(2)
    signals = Signals(given.features[index], given.logits[index], given.labels[index])
    expected = methods.select(signals, "LCMat-S", fraction=0.3, weights=True, memory=memory)
    block_sizes(compiled=1)
    same(methods.select(signals, "LCMat-S", fraction=0.3, weights=True, memory=memory), expected)


def test_without_numba_or_for_few_samples_or_elsewhere_loops_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing needs it."""
    many = at_once().compiled
    assert compiled.loops(many - 1, torch.device("cpu")) is compiled.PLAIN
    assert compiled.loops(many, torch.device("meta")) is compiled.PLAIN
    monkeypatch.setitem(sys.modules, "numba", None)
    compiled.compiled_loops.cache_clear()
    assert compiled.loops(many, torch.device("cpu")) is compiled.PLAIN
    compiled.compiled_loops.cache_clear()
