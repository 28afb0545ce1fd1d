"""On a GPU everything runs, picks what the CPU picks, and repeats itself bit for bit. Skipped where there is none."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import nets
from lcmat import data
from lcmat.__main__ import main as command
from lcmat.analysis.analyses import ANALYSES
from lcmat.augmentation.siamese import DSA, Draw
from lcmat.condensation.matching_step import Pair, Stored, matching_gradient
from lcmat.selection.context import Context
from lcmat.training import Checkpoint, Compute, Recipe, Watch, accuracy, train
from methods import get, select
from tests.condensing import CHEAP as CHEAP_CONDENSING
from tests.every_method import METHODS, FullProblem, chosen, make
from tests.harness import call, places, records, records_in
from tests.matching import MATCHINGS, problem, seeded
from tests.problems import check_form

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.filterwarnings("ignore:LCMat-C", "ignore:.*moves in a row made no other set"),
]

GPU = torch.device("cuda")
# These train networks, in float32: rounding decides in the end which samples they take.
TRAINING = ("Probabilistic", "LBCS")
QUICK = ["--dataset", "digits", "--epochs", "2", "--selection_epochs", "1", "--device", "cuda"]
CHEAP = ["LBCS.trials=3", "LBCS.inner_steps=2", "Probabilistic.outer_steps=2", "Probabilistic.inner_epochs=1"]


def run(folder: Path, *words: str) -> dict[str, dict]:
    """Call main.py; return the records that are in the folder, without what may differ between equal runs."""
    assert call(*words, *places(folder)) == 0
    assert all(record["environment"]["device"] == "cuda" for record in records(folder / "result"))
    return records_in(folder / "result")


def on_the_gpu(problem: FullProblem) -> Context:
    """The same problem's images and network on the GPU."""
    context = problem.context
    return replace(
        context,
        split=context.split.to(GPU),
        compute=replace(context.compute, device=GPU),
        network=copy.deepcopy(context.network).to(GPU),
    )


@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("method", METHODS)
def test_picks_are_those_of_the_cpu(method: str, balanced: bool) -> None:
    problem = make([30, 20, 25])
    signals = problem.signals_as(lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(GPU))
    how = {"fraction": 0.2, "balanced": balanced, "seed": 3}
    here = chosen(method, problem, **how)
    there = chosen(method, problem, signals, context=on_the_gpu(problem), **how)
    check_form(there, problem, balanced)
    if method in TRAINING:
        return
    assert np.array_equal(here.indices, there.indices)
    if here.weights is not None:
        assert there.weights == pytest.approx(here.weights, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_main_job_runs(method: str, tmp_path: Path) -> None:
    (record,) = run(tmp_path, *QUICK, "--selection", method, "--fraction", "0.05", *_options(method, CHEAP)).values()
    assert record["subset_size"] > 1
    assert 0 <= record["test_accuracy"] <= 100


def _options(method: str, words: list[str]) -> list[str]:
    own = [word for word in words if word.startswith(f"{method}.")]
    return ["--option", *own] if own else []


@pytest.mark.parametrize("method", CHEAP_CONDENSING)
def test_condensation_runs(method: str, tmp_path: Path) -> None:
    how = [f"{method}.{name}={value}" for name, value in CHEAP_CONDENSING[method].items()]
    how += ["LCMat-C.image_lr=1e-6"]  # so few images from noise explode at the usual one
    words = [*QUICK, "--model", "ConvNet3", "--selection", method, "--ipc", "2", "--evaluations", "2"]
    (record,) = run(tmp_path, *words, *_options(method, how)).values()
    assert 0 <= record["test_accuracy"] <= 100


@pytest.mark.parametrize("method", ["Uniform", "LCMat-S", "Craig", "DeepFool", "LBCS", "DM", "LCMat-C"])
def test_continual_learning_runs(method: str, tmp_path: Path) -> None:
    how = CHEAP + [f"{name}.{key}={value}" for name, own in CHEAP_CONDENSING.items() for key, value in own.items()]
    words = [*QUICK, "--protocol", "continual", "--steps", "5", "--memory_per_class", "4", "--selection", method]
    (record,) = run(tmp_path, *words, "--evaluations", "1", *_options(method, how)).values()
    assert len(record["steps"]) == 5


@pytest.mark.parametrize("analysis", ANALYSES)
def test_analyses_agree_with_the_cpu(analysis: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Of the same network and subsets; the network is given, since trainings round differently."""
    weights = tmp_path / "network.pt"
    torch.manual_seed(0)
    torch.save(nets.build("ResNet10", 10, 1, 8).state_dict(), weights)
    words = ["--dataset", "digits", "--model", "ResNet10", "--pretrained", str(weights), "--fraction", "0.05"]
    words += ["--selection", "Uniform", "LCMat-S", "--images", "50", "--network_steps", "1", "--network_starts", "1"]
    words += ["--points", "3", "--span", "0.1", "--starts", "2", "--precision", "float32"]
    tables = []
    for device in ("cpu", "cuda"):
        places = ["--save_path", str(tmp_path / device), "--cache_path", str(tmp_path / device)]
        assert command(["analysis", analysis, *words, *places, "--device", device, "--name", "it"]) == 0
        (path,) = (tmp_path / device / "tables").glob(f"{analysis}-it.csv")
        tables.append([_numbers(line) for line in path.read_text().splitlines()[1:]])
    for one, other in zip(*tables, strict=True):
        assert one[0] == other[0]
        assert one[1] == pytest.approx(other[1], rel=2e-2, abs=1e-3)


def _numbers(line: str) -> tuple[list[str], list[float]]:
    """Return the words and the numbers of a line of CSV."""
    words, numbers = [], []
    for cell in line.split(","):
        try:
            numbers.append(float(cell))
        except ValueError:
            words.append(cell)
    return words, numbers


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_equal_seeds_give_equal_records(precision: str, tmp_path: Path) -> None:
    words = [*QUICK, "--selection", "LCMat-S", "GraNd", "Forgetting", "--fraction", "0.05", "--precision", precision]
    one, other = (run(tmp_path / name, *words, "--seed", "0", "1") for name in ("one", "other"))
    assert one == other
    assert len(one) == 6


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_resumed_training_equals_an_undisturbed_one(
    precision: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = data.load("digits").to(GPU)
    compute = Compute(GPU, precision, digits.mean, digits.std)
    split, recipe = digits.train.take(torch.arange(200)), Recipe(epochs=4, lr=0.02, augmentation="crop_flip")

    def fresh() -> torch.nn.Module:
        torch.manual_seed(0)
        return nets.build("ResNet10", 10, 1, 8)

    def test_or_stop(*given: object) -> float:
        if path.exists():
            raise KeyboardInterrupt
        return accuracy(*given)

    path = tmp_path / "checkpoint.pt"
    how = {"seed": 1, "watch": Watch(digits.test, interval=1, dynamics=True)}
    whole, resumed = fresh(), fresh()
    expected = train(whole, split, recipe, compute, **how, checkpoint=Checkpoint(path, 0))
    path.unlink()
    with monkeypatch.context() as patched:
        patched.setattr("lcmat.training.loop.accuracy", test_or_stop)
        with pytest.raises(KeyboardInterrupt):
            train(fresh(), split, recipe, compute, **how, checkpoint=Checkpoint(path, 0))
    history = train(resumed, split, recipe, compute, **how, checkpoint=Checkpoint(path, 0, resume=True))
    assert history.tests == expected.tests
    assert all(torch.equal(history.dynamics[name], expected.dynamics[name]) for name in expected.dynamics)
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", nets.names())
def test_every_network_trains(name: str) -> None:
    """In the precision that is chosen for the GPU; `train` raises where a loss or a weight is not finite."""
    digits = data.load("digits").to(GPU)
    split = digits.train.take(torch.arange(40))
    torch.manual_seed(0)
    network = nets.build(name, 10, 1, 8)
    compute = Compute(GPU, torch.bfloat16, digits.mean, digits.std)
    before = copy.deepcopy(network.state_dict())
    train(network, split, Recipe(5, 40, "Adam", 1e-3), compute, seed=0, watch=Watch(split))
    assert any(not torch.equal(value.cpu(), before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", MATCHINGS)
def test_a_matching_step_is_the_cpus(name: str) -> None:
    network = seeded(lambda: nets.build("ConvNet3", 3, 2, 8)).double()
    images, pairs = problem(DSA, size=8)
    here = matching_gradient(network, MATCHINGS[name], Stored(images, lambda x: x), pairs)
    moved = [Pair(pair.label, pair.real.to(GPU), pair.rows, _moved(pair.draw)) for pair in pairs]
    there = matching_gradient(network.to(GPU), MATCHINGS[name], Stored(images.to(GPU), lambda x: x), moved)
    for one, other in zip(here, there, strict=True):
        torch.testing.assert_close(other.cpu(), one)


def _moved(draw: Draw) -> Draw:
    return replace(draw, **{name: value.to(GPU) for name, value in vars(draw).items() if isinstance(value, Tensor)})


@pytest.mark.parametrize("method", [name for name in METHODS if get(name).released])
def test_picks_as_released_are_those_of_the_cpu(method: str) -> None:
    how = ("signals_mode", "gradient_scale", "weights_by")
    options = {name: value for name, value in get(method).released.items() if name not in how}
    problem, scale = make([30, 20, 25]), torch.full((75,), 1 / 16)
    here, there = (
        problem.signals_as(lambda array, device=device: torch.from_numpy(np.ascontiguousarray(array)).to(device))
        for device in ("cpu", GPU)
    )
    one, other = (select(replace(s, scale=scale), method, fraction=0.2, **options) for s in (here, there))
    assert one.indices.tolist() == other.indices.tolist()


@pytest.mark.parametrize("space", ["normalised", "pixels"])
def test_medoids_of_every_space_are_those_of_the_cpu(space: str) -> None:
    problem = make([30, 20, 25])
    here, there = (
        problem.signals_as(lambda array, device=device: torch.from_numpy(np.ascontiguousarray(array)).to(device))
        for device in ("cpu", GPU)
    )
    one = select(here, "KMedoids", fraction=0.2, space=space, context=problem.context)
    other = select(there, "KMedoids", fraction=0.2, space=space, context=on_the_gpu(problem))
    assert one.indices.tolist() == other.indices.tolist()


def test_runs_as_released(tmp_path: Path) -> None:
    words = [*QUICK, "--model", "ResNet10", "--selection", "LCMat-S", "AdaCore", "Craig", "GradMatch", "Herding"]
    assert len(run(tmp_path, *words, "--fraction", "0.05", "--numerics", "released")) == 5


@pytest.mark.parametrize("variant", [["--label_noise", "0.3"], ["--long_tail", "10"], ["--cross", "MLP"]])
def test_variants_run(variant: list[str], tmp_path: Path) -> None:
    found = run(tmp_path, *QUICK, *variant, "--selection", "LCMat-S", "--fraction", "0.05")
    assert len(found) == (2 if variant[0] == "--cross" else 1)


def test_a_split_that_stays_on_the_host_gives_the_same_network() -> None:
    digits = data.load("digits")
    compute = Compute(GPU, torch.float32, digits.mean, digits.std)
    results = []
    for split in (digits.train.take(torch.arange(100)), digits.train.take(torch.arange(100)).to(GPU)):
        torch.manual_seed(0)
        network = nets.build("MLP", 10, 1, 8)
        train(network, split, Recipe(2, 50, augmentation="crop_flip"), compute, seed=0)
        results.append(network.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(*(r.values() for r in results), strict=True))
