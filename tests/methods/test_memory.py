"""How much memory selection may use, and that it keeps to it. (Times belong into the benchmark.)"""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lcmat import UserError, memory_limit
from methods import get, names, select
from tests import oracles
from tests.problems import random_problem

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("500 MB", 5 * 10**8), ("2GiB", 2**31), ("1.5k", 1500), ("4g", 4 * 10**9), (4096, 4096)],
)
def test_sizes(text: str | int, size: int) -> None:
    assert memory_limit.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "4 potatoes", "4GBB", "nan", "1e9"])
def test_impossible_sizes(text: str) -> None:
    with pytest.raises(UserError, match="a memory size looks like"):
        memory_limit.parse_size(text)


def test_the_limit_holds_inside_and_is_forgotten_after() -> None:
    free = memory_limit.free(torch.device("cpu"))
    assert 10**8 < free < 10**14
    assert memory_limit.fits(int(0.2 * free), 1.0)
    assert not memory_limit.fits(free, 1.0)
    with memory_limit.limited("1MB"):
        assert memory_limit.fits(5 * 10**5, 0.5)
        assert not memory_limit.fits(5 * 10**5 + 1, 0.5)
        with memory_limit.limited(10):
            assert not memory_limit.fits(11, 1.0)
        assert memory_limit.fits(10**6, 1.0)
    assert memory_limit.fits(int(0.2 * free), 1.0)


@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("method", ["Craig", "AdaCore", "LCMat-S", "FacilityLocation", "Influential"])
def test_picks_do_not_depend_on_it(method: str, balanced: bool) -> None:
    problem = random_problem(1, 200, 6, 4)
    expected = select(problem.signals, method, fraction=0.2, balanced=balanced)
    for size in (1, "200kB", "1GB"):
        subset = select(problem.signals, method, fraction=0.2, balanced=balanced, memory=size)
        assert np.array_equal(subset.indices, expected.indices)
        if expected.costs is not None:
            np.testing.assert_allclose(subset.costs, expected.costs, rtol=1e-12)
            assert subset.bound == pytest.approx(expected.bound, rel=1e-9)


PROGRAM = """
import json, sys, torch
from lcmat import Signals
from lcmat.hardware import peak_memory
from methods import select

torch.manual_seed(0)
n, d, fraction, memory = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
C = 10
warm = Signals(torch.rand(50, d), torch.rand(50, C), torch.zeros(50, dtype=torch.int64))
select(warm, fraction=0.1)
features, logits = torch.rand(n, d), 3 * torch.randn(n, C)
before = peak_memory()
subset = select(Signals(features, logits, torch.zeros(n, dtype=torch.int64)), fraction=fraction, memory=memory)
print(json.dumps({"picks": subset.indices.tolist(), "MB": (peak_memory() - before) / 1e6}))
"""


def test_the_limit_is_kept(script: Callable) -> None:
    """The matrix of one class is 512 MB."""
    found = {}
    for size in ("2GB", "300MB"):
        done = script(["-c", PROGRAM, 8_000, 32, 0.01, size])
        assert done.returncode == 0, done.stderr
        found[size] = json.loads(done.stdout)
    assert found["2GB"]["picks"] == found["300MB"]["picks"]
    assert found["2GB"]["MB"] > 500
    assert found["300MB"]["MB"] < 300


def test_a_class_of_cifar10_stays_under_a_gigabyte(script: Callable) -> None:
    """One 5,000 × 5,000 matrix in float64 is 200 MB; the gradients alone would be 5,000 × 5,130 × 8 = 205 MB more."""
    done = script(["-c", PROGRAM, 5_000, 512, 0.02, "4GB"])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["picks"]) == 100
    assert 200 < found["MB"] < 1000


def test_every_method_takes_it() -> None:
    problem = random_problem(2, 40)
    for name in names():
        if set(get(name).needs) <= {"features", "logits"}:
            assert len(select(problem.signals, name, budget=20, memory="1MB")) == (40 if name == "Full" else 20)
