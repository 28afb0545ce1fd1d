"""RS2, InfoBatch, RCAP and Shortened: what each epoch trains on, against their definitions."""

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import methods
from lcmat import UserError
from lcmat.data import Dataset
from lcmat.selection.sampler import Epoch
from lcmat.training import Compute, Draw, Draws, Recipe, loop, train
from tests import oracles
from tests.harness import TINY, call, cli, places, records_in

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
DRAWING = [name for name in methods.samplers() if methods.sampler(name).draw is not None]


def epoch(number: int = 0, n: int = 50, size: int = 20, seed: int = 0, **changed: object) -> Epoch:
    """An epoch of random labels and losses."""
    rng = np.random.default_rng(1)
    labels, losses = torch.from_numpy(rng.integers(0, 3, n)), torch.from_numpy(rng.exponential(size=n)).float()
    return Epoch(
        **{"number": number, "count": 16, "size": size, "seed": seed, "labels": labels, "losses": losses} | changed
    )


def draw(name: str, of: Epoch, **options: object) -> Draw:
    """What a sampler draws, its options checked."""
    sampler = methods.sampler(name)
    return sampler.draw(of, **sampler.resolved(options))


@pytest.mark.parametrize(("n", "size"), [(50, 20), (50, 25), (50, 50), (7, 3), (5, 1), (30, 29)])
def test_rs2_takes_each_sample_once_before_any_twice(n: int, size: int) -> None:
    """Over epochs that do not divide the whole: no tail is lost, and every epoch is full."""
    walk = [draw("RS2", epoch(k, n, size)).positions.tolist() for k in range(40)]
    assert {len(one) for one in walk} == {size}
    seen, flat = Counter(), list(itertools.chain(*walk))
    for position, index in enumerate(flat):
        seen[index] += 1
        assert seen[index] == position // n + 1


def test_rs2_shuffles_its_first_pass_and_each_other() -> None:
    """By the seed."""
    passes = [draw("RS2", epoch(k, 50, 50)).positions.tolist() for k in range(3)]
    assert list(range(50)) not in passes
    assert len({tuple(one) for one in passes}) == 3
    assert draw("RS2", epoch(0, 50, 50, seed=1)).positions.tolist() not in passes
    assert draw("RS2", epoch(1, 50, 50)).positions.tolist() == passes[1]


def test_rs2_with_replacement_draws_a_subset_of_its_own_for_each_epoch() -> None:
    """None twice within an epoch, every sample as likely as any other."""
    many = [draw("RS2", epoch(k, 10, 4), replacement=True).positions.tolist() for k in range(2000)]
    assert all(len(set(one)) == 4 for one in many)
    counts = Counter(itertools.chain(*many))
    sigma = math.sqrt(2000 * 0.4 * 0.6)
    assert all(abs(counts[i] - 800) < 5 * sigma for i in range(10))


def test_info_batch_drops_only_what_was_learned_and_ends_with_everything() -> None:
    """All of the first epoch, whose losses nobody knows, and of the last two of sixteen."""
    unknown = torch.full((50,), torch.nan)
    assert sorted(draw("InfoBatch", epoch(losses=unknown)).positions.tolist()) == list(range(50))
    for number in range(16):
        of = epoch(number)
        drawn = draw("InfoBatch", of)
        if number >= 14:
            assert sorted(drawn.positions.tolist()) == list(range(50))
            assert drawn.weights is None
            continue
        low = {i for i in range(50) if of.losses[i] < of.losses.mean()}
        kept = drawn.positions.tolist()
        assert set(range(50)) - low <= set(kept)
        assert len(low) > len(low & set(kept)) > 0
        assert drawn.weights.tolist() == [2.0 if i in low else 1.0 for i in kept]


@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_info_batch_gradients_are_on_average_those_of_everything(ratio: float) -> None:
    """A Monte Carlo mean of weighted sums, within five standard errors of the sum of all, by its variance."""
    gradients = torch.from_numpy(np.random.default_rng(2).normal(1.0, 1.0, size=(50, 3)))
    sums, draws = [], 4000
    for seed in range(draws):
        drawn = draw("InfoBatch", epoch(seed=seed), ratio=ratio)
        sums.append((drawn.weights[:, None] * gradients[drawn.positions]).sum(0))
    sums = torch.stack(sums)
    low = epoch().losses < epoch().losses.mean()
    variance = (gradients[low].square() * ratio / (1 - ratio)).sum(0)  # of independent draws, each kept by chance
    error = (variance / draws).sqrt()
    assert ((sums.mean(0) - gradients.sum(0)).abs() < 5 * error).all()
    torch.testing.assert_close(sums.var(0), variance, rtol=0.15, atol=0)
    plain = torch.stack([gradients[draw("InfoBatch", epoch(seed=s), ratio=ratio).positions].sum(0) for s in range(200)])
    assert ((plain.mean(0) - gradients.sum(0)).abs() > 5 * error).all()  # the test sees what weights are for


def rcap_shares(of: Epoch) -> dict[int, float]:
    """Class shares by the definition."""
    weights = {}
    for c in range(3):
        own = [float(loss) for loss, y in zip(of.losses, of.labels, strict=True) if y == c]
        weights[c] = math.sqrt(sum(own) / len(own) * len(own) / len(of.labels))
    return {c: weight / sum(weights.values()) for c, weight in weights.items()}


def test_rcap_takes_class_shares_by_loss_and_size() -> None:
    """Rounded to whole samples."""
    of = epoch(n=400, size=100)
    drawn = draw("RCAP", of).positions
    assert len(set(drawn.tolist())) == 100
    counts, shares = Counter(of.labels[drawn].tolist()), rcap_shares(of)
    assert all(abs(counts[c] - 100 * shares[c]) < 1 for c in range(3))


def test_rcap_draws_within_a_class_by_clipped_losses() -> None:
    """One sample of each class: its probability is that of a softmax; a chi-squared statistic within its tail."""
    labels = torch.tensor([0] * 5 + [1] * 5)
    losses = torch.tensor([0.0, 0.2, 0.4, 0.6, 9.0] * 2)
    count, draws = Counter(), 3000
    for seed in range(draws):
        drawn = draw("RCAP", epoch(seed=seed, size=2, labels=labels, losses=losses), beta=0.5).positions
        count.update(drawn.tolist())
    weight = [math.exp(min(loss, math.log(2)) / 0.5) for loss in losses[:5].tolist()]
    for start in (0, 5):
        expected = [draws * w / sum(weight) for w in weight]
        statistic = sum((count[start + i] - e) ** 2 / e for i, e in enumerate(expected))
        assert statistic < 18.5  # 0.1% of chi-squared with four degrees of freedom
    assert sum((count[i] - draws / 5) ** 2 / (draws / 5) for i in range(5)) > 100


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_sizes_are_exact_whatever_is_known(name: str, size: int) -> None:
    """With no loss known, some, all alike, or all zero; and the global generators are left alone."""
    alike, some = torch.ones(40), torch.where(torch.arange(40) < 20, torch.nan, 1.0)
    for losses in (torch.full((40,), torch.nan), some, alike, torch.zeros(40)):
        before = torch.get_rng_state()
        drawn = draw(name, epoch(3, 40, size, losses=losses))
        assert torch.equal(before, torch.get_rng_state())
        wanted = 40 if name == "InfoBatch" else size  # no loss lies below the mean
        assert len(set(drawn.positions.tolist())) == len(drawn.positions) == wanted


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("InfoBatch", {"ratio": 1.0}),
        ("InfoBatch", {"whole": -0.1}),
        ("RCAP", {"beta": 0.0}),
        ("RS2", {"replace": True}),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, object]) -> None:
    """By name."""
    with pytest.raises(UserError, match=next(iter(options))):
        draw(name, epoch(), **options)


# ---- runs -----------------------------------------------------------------------------------------------------------

DYNAMIC = ("--protocol", "dynamic", "--batch", "32", "--epochs", "16", "--fraction", "0.1")


def test_runs_record_the_images_of_each_epoch(tmp_path: Path) -> None:
    """RS2 and RCAP as many as asked for, InfoBatch what is left of everything, Shortened as many steps."""
    found = {one["selection"]: one for one in cli(tmp_path)(*DYNAMIC, "--selection", "all")}
    assert set(found) == {"RS2", "InfoBatch", "RCAP", "Shortened"}
    n = 1297
    for name in ("RS2", "RCAP"):
        assert found[name]["images_per_epoch"] == [130] * 16
        assert found[name]["images_in_all"] == 16 * 130
    per_epoch = found["InfoBatch"]["images_per_epoch"]
    assert per_epoch[0] == per_epoch[-1] == per_epoch[-2] == n
    assert all(n / 2 < one < n for one in per_epoch[1:-2])
    assert found["InfoBatch"]["fraction"] == 1.0
    # 16 epochs of five batches are 80 steps: one of the 41 batches of everything, and 39 of the next.
    assert found["Shortened"]["images_per_epoch"] == [n, 39 * 32]
    for record in found.values():
        assert record["config"]["protocol"] == "dynamic"
        assert record["config"]["training"]["epochs"] == 16
        assert sum(record["images_per_epoch"]) == record["images_in_all"]


@pytest.mark.parametrize("name", methods.samplers())
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same record, to the last digit: losses are kept with the weights."""
    words = [*TINY, *DYNAMIC, "--selection", name, "--fraction", "0.3", "--test_interval", "1", "--epochs", "8"]
    assert call(*words, *places(tmp_path / "whole")) == 0
    original, calls = loop.accuracy, []

    def interrupted(*arguments: object) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "accuracy", interrupted)
        assert call(*words, *places(tmp_path / "broken"), "--checkpoint_interval", "0") == 130
    assert len(list((tmp_path / "broken" / "cache" / "checkpoints").glob("*.pt"))) == 1
    assert call(*words, *places(tmp_path / "broken"), "--resume") == 0
    assert records_in(tmp_path / "whole" / "result") == records_in(tmp_path / "broken" / "result")
    assert not list((tmp_path / "broken" / "cache" / "checkpoints").glob("*.pt"))


def test_weights_of_a_draw_reach_the_loss(digits: Dataset, compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sample's with its own loss, and losses come back to the next draw."""
    seen: list[Tensor] = []
    told: list[Tensor] = []
    original = loop.mixed_cross_entropy

    def noting(logits: Tensor, labels: Tensor, weights: Tensor | None, *others: object) -> Tensor:
        seen.append(weights)
        return original(logits, labels, weights, *others)

    def backwards(number: int, losses: Tensor) -> Draw:
        told.append(losses.clone())
        return Draw(torch.arange(40).flip(0), torch.arange(40).flip(0) / 10)

    monkeypatch.setattr(loop, "mixed_cross_entropy", noting)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    split, recipe = digits.train.take(torch.arange(50)), Recipe(epochs=2, batch=20, lr=1e-9, scheduler="constant")
    history = train(network, split, recipe, compute, seed=0, draws=Draws(backwards, 40))
    torch.testing.assert_close(torch.cat(seen[:2]), torch.arange(40).flip(0) / 10)
    assert history.images == [40, 40]
    assert told[0].isnan().all()
    losses = torch.nn.functional.cross_entropy(network(compute.inputs(split.images)), split.labels, reduction="none")
    torch.testing.assert_close(told[1][:40], losses[:40].detach(), rtol=1e-4, atol=1e-5)
    assert told[1][40:].isnan().all()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("--selection RS2", "give --protocol dynamic"),
        ("--selection Herding --protocol dynamic", "Herding does not"),
        ("--selection RS2 --protocol dynamic --ipc 2", "--ipc"),
        ("--selection RS2 --protocol dynamic --quota recall", "--quota"),
        ("--selection RS2 --protocol dynamic --budget 1", "BatchNorm"),
        ("--selection RS2 --protocol dynamic --option RS2.beta=1", "no such option"),
        ("--selection RS2 --protocol continual", "dynamic"),
    ],
)
def test_what_makes_no_sense_is_refused(words: str, match: str, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    """With exit code 2 and one line."""
    assert call("--dataset", "digits", *places(tmp_path), *words.split()) == 2
    assert match in capsys.readouterr().err


def test_dynamic_and_static_runs_share_a_table(tmp_path: Path) -> None:
    """So that each stands beside what it is to be compared with."""
    run = cli(tmp_path)
    run("--selection", "Uniform")
    run("--protocol", "dynamic", "--selection", "RS2", "Shortened")
    text = (tmp_path / "result" / "tables" / "accuracy.md").read_text()
    assert text.count("\n## ") == 1
    assert all(name in text for name in ("Uniform", "RS2", "Shortened"))
