"""Label noise and long tails: class counts, noise rate, seeds; in the training split alone; in names and records."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import methods
from lcmat import data
from lcmat.command_line import options
from lcmat.command_line.method_flags import options_for, options_of
from lcmat.command_line.settings import settings_of
from lcmat.data.splits import Dataset, FileSplit
from lcmat.data.variants import long_tailed, mislabelled, varied
from lcmat.errors import UserError
from lcmat.records.keys import config_hash
from lcmat.records.record import read_record
from lcmat.runs.job import Run
from lcmat.runs.selection import Selection
from lcmat.runs.setup import Settings, make_setup
from lcmat.training import Compute
from tests.data_files import IDX_FILES, idx
from tests.harness import ROOT, call, places, records


def balanced(classes: int, size: int) -> torch.Tensor:
    """Labels of equal classes, one after the other in turn."""
    return torch.arange(classes * size) % classes


# ---- label noise ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("classes", [2, 10])
def test_the_noise_rate_is_exact(rate: float, classes: int) -> None:
    labels = balanced(classes, 503)
    noisy = mislabelled(labels, classes, rate)
    assert int((noisy != labels).sum()) == round(rate * len(labels))
    assert noisy.dtype == labels.dtype
    assert 0 <= int(noisy.min()) <= int(noisy.max()) < classes
    assert torch.equal(labels, balanced(classes, 503)), "the labels given were changed"


def test_noise_is_symmetric() -> None:
    """Every wrong class is equally likely, whatever the right one; and every sample equally likely to be wrong."""
    labels = balanced(5, 20_000)
    noisy = mislabelled(labels, 5, 0.4)
    counts = torch.zeros(5, 5, dtype=torch.int64)
    counts.index_put_((labels, noisy), torch.ones_like(labels), accumulate=True)
    assert int(counts.sum() - counts.trace()) == 40_000
    off = counts[~torch.eye(5, dtype=torch.bool)].double()
    # 20 cells of about 2,000: a standard deviation of 43.
    assert (off - 2000).abs().max() < 5 * 43
    first, second = (noisy != labels).double().chunk(2)
    assert float(first.mean()) == pytest.approx(float(second.mean()), abs=0.01)


def test_noise_is_the_same_every_time_and_draws_from_no_global_generator() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = mislabelled(balanced(10, 50), 10, 0.3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(one, mislabelled(balanced(10, 50), 10, 0.3))


# ---- long tails -----------------------------------------------------------------------------------------------------


def test_a_long_tail_of_fashion_mnist_has_the_published_size() -> None:
    """14,886 samples at a factor of 100; each class's number by hand."""
    kept = long_tailed(balanced(10, 6000), 10, 100)
    counts = torch.bincount(balanced(10, 6000)[kept]).tolist()
    assert counts == [6000, 3596, 2156, 1292, 774, 464, 278, 166, 100, 60]
    assert sum(counts) == 14_886


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 60), min_size=2, max_size=6).filter(any),
    factor=st.sampled_from([1.0, 1.5, 2.0, 10.0, 100.0, 1e6]),
    seed=st.integers(0, 9),
)
def test_the_profile_is_exponential_and_as_large_as_possible(sizes: list[int], factor: float, seed: int) -> None:
    labels = torch.from_numpy(np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes)))
    kept = long_tailed(labels, len(sizes), factor)
    assert torch.equal(kept, kept.unique()), "sorted, none twice"
    counts = torch.bincount(labels[kept], minlength=len(sizes)).tolist()
    shares = [factor ** (-c / (len(sizes) - 1)) for c in range(len(sizes))]
    first = min(size / share for size, share in zip(sizes, shares, strict=True) if size)
    for count, size, share in zip(counts, sizes, shares, strict=True):
        exact = first * share
        assert count <= size
        assert count == 0 if size == 0 else count == 1 or exact - 1 - 1e-6 < count <= exact + 1e-6
    # The class that bounds the profile is kept whole.
    assert any(count == size > 0 for count, size in zip(counts, sizes, strict=True))


def test_which_samples_stay_is_random_and_repeatable() -> None:
    labels = balanced(3, 100)
    kept = long_tailed(labels, 3, 10)
    assert torch.equal(kept, long_tailed(labels, 3, 10))
    own = kept[labels[kept] == 2]
    assert len(own) == 10
    assert own.tolist() != (torch.arange(10) * 3 + 2).tolist(), "simply the first ones"
    assert float(own.double().mean()) == pytest.approx(150, abs=75)


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_impossible_noise_is_refused(rate: float) -> None:
    with pytest.raises(UserError, match="label noise must lie between 0 and 1"):
        mislabelled(balanced(3, 5), 3, rate)


@pytest.mark.parametrize("factor", [0.0, 0.99, -5.0, math.inf, math.nan])
def test_impossible_tails_are_refused(factor: float) -> None:
    with pytest.raises(UserError, match="imbalance factor of a long tail must be at least 1"):
        long_tailed(balanced(3, 5), 3, factor)


def test_one_class_has_neither() -> None:
    for function in (mislabelled, long_tailed):
        with pytest.raises(UserError, match="at least two classes"):
            function(torch.zeros(5, dtype=torch.int64), 1, 0.5 if function is mislabelled else 2.0)


# ---- of a dataset ---------------------------------------------------------------------------------------------------


def test_the_training_split_alone_changes_and_the_name_says_it(digits: Dataset) -> None:
    both = varied(digits, label_noise=0.3, long_tail=10)
    assert both.name == "digits-longtail10-noise0.3"
    assert both.variant == {"long_tail": 10.0, "label_noise": 0.3}
    assert both.test is digits.test
    assert (both.mean, both.std, both.classes) == (digits.mean, digits.std, digits.classes)
    kept = long_tailed(digits.train.labels, 10, 10)
    assert torch.equal(both.train.images, digits.train.images[kept])
    assert int((both.train.labels != digits.train.labels[kept]).sum()) == round(0.3 * len(kept))
    assert varied(digits) is digits
    assert digits.variant == {}
    assert varied(digits, label_noise=0.05).name == "digits-noise0.05"


def test_every_variant_has_a_fingerprint_of_its_own(digits: Dataset) -> None:
    changes = [{}, {"label_noise": 0.3}, {"label_noise": 0.2}, {"long_tail": 10}, {"long_tail": 10, "label_noise": 0.3}]
    prints = [varied(digits, **change).fingerprint() for change in changes]
    assert len(set(prints)) == len(prints)
    assert prints[1] == varied(data.load("digits"), label_noise=0.3).fingerprint()


def test_a_split_known_by_its_files_is_known_by_its_labels_then(digits: Dataset, tmp_path: Path) -> None:
    """An image folder in memory, and one that is read as it is needed."""
    held = replace(digits, train=replace(digits.train, files="abc"))
    assert varied(held, label_noise=0.3).train.fingerprint() != "abc"
    assert varied(held, label_noise=0.3).fingerprint() != varied(held, label_noise=0.2).fingerprint()
    paths = [tmp_path / f"{i}.png" for i in range(20)]
    for path in paths:
        path.write_bytes(b"x")
    split = FileSplit(paths, torch.arange(20) % 10, lambda path: torch.zeros(1, 8, 8), (1, 8, 8), tmp_path)
    files = replace(digits, train=split)
    noisy = varied(files, label_noise=0.5, long_tail=2)
    assert isinstance(noisy.train, FileSplit)
    assert len(noisy.train.paths) == len(noisy.train)
    assert noisy.train.fingerprint() != files.train.fingerprint()


def test_a_dataset_of_fashion_mnists_shape(tmp_path: Path) -> None:
    """By its name, from its files: 60,000 images of ten equal classes, of which a long tail of 100 keeps 14,886."""
    counts = (60_000, 60_000, 10_000, 10_000)
    for file, count in zip(IDX_FILES, counts, strict=True):
        array = np.zeros((count, 28, 28), np.uint8) if "images" in file else np.arange(count, dtype=np.int64) % 10
        (tmp_path / file).write_bytes(idx(array.astype(np.uint8)))
    dataset = data.load("fashionmnist", tmp_path, long_tail=100, label_noise=0.3)
    clean = data.load("FashionMNIST", tmp_path, long_tail=100)
    assert dataset.name == "FashionMNIST-longtail100-noise0.3"
    assert len(dataset.train) == sum(int(6000 * 100 ** (-c / 9)) for c in range(10)) == 14_886
    assert len(dataset.test) == 10_000
    assert int((dataset.train.labels != clean.train.labels).sum()) == round(0.3 * 14_886)


# ---- through the command line ---------------------------------------------------------------------------------------


QUICK = ["--dataset", "digits", "--model", "MLP", "--epochs", "1", "--batch", "64", "--test_interval", "0"]


def test_records_and_tables_say_it(tmp_path: Path) -> None:
    words = [*QUICK, "--selection", "Uniform", "--fraction", "0.1", *places(tmp_path)]
    assert call(*words) == 0
    assert call(*words, "--label_noise", "0.3") == 0
    assert call(*words, "--label_noise", "0.3", "--long_tail", "10") == 0
    assert [path.name for path in sorted((tmp_path / "result").glob("*-MLP"))] == [
        "digits-MLP", "digits-longtail10-noise0.3-MLP", "digits-noise0.3-MLP",
    ]  # fmt: skip
    clean, both, noisy = records(tmp_path / "result")
    assert not {"label_noise", "long_tail"} & set(clean["config"])
    assert noisy["config"]["label_noise"] == both["config"]["label_noise"] == 0.3
    assert both["config"]["long_tail"] == 10
    assert "long_tail" not in noisy["config"]
    assert len({record["config"]["dataset_fingerprint"] for record in (clean, both, noisy)}) == 3
    text = (tmp_path / "result" / "tables" / "accuracy.md").read_text()
    assert all(f"## {name}, MLP" in text for name in ("digits", "digits-noise0.3", "digits-longtail10-noise0.3"))


def test_validation_is_held_out_of_the_changed_set(tmp_path: Path) -> None:
    words = [*QUICK, "--selection", "Uniform", "Full", "--fraction", "0.1", "--long_tail", "5", "--val"]
    assert call(*words, *places(tmp_path)) == 0
    whole = len(varied(data.load("digits"), long_tail=5).train)
    full = next(record for record in records(tmp_path / "result") if record["selection"] == "Full")
    assert full["subset_size"] == whole - math.ceil(0.2 * whole)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--label_noise", "1.5"], "label noise must lie between 0 and 1, not 1.5"),
        (["--label_noise", "some"], "argument --label_noise: invalid float value: 'some'"),
        (["--long_tail", "0.01"], "imbalance factor of a long tail must be at least 1 and finite, not 0.01"),
    ],
)
def test_bad_input(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*QUICK, *words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


# ---- what was recorded before ---------------------------------------------------------------------------------------


def recorded() -> list[Path]:
    root = ROOT / "result" / "digits-ResNet18"
    several = (sorted((root / name).glob("*.json")) for name in ("Uniform", "LCMat-S"))
    return [next(p for p in paths if read_record(p)["test_model"] == "ResNet18") for paths in several]


@pytest.mark.parametrize("path", recorded(), ids=lambda path: path.parent.name)
def test_configurations_without_variants_keep_their_hashes(path: Path, digits: Dataset, compute: Compute) -> None:
    """The configuration of a committed record, made again from its own settings, has the hash in the record's name."""
    config = read_record(path)["config"]
    flags = [f"--{name}={config['training'][name]}" for name in ("epochs", "batch", "lr", "weight_decay")]
    network = config["selection_network"] or {}
    flags += [f"--selection_{name}={network[name]}" for name in ("epochs", "batch", "lr") if name in network]
    chosen = [f"{name}={value}" for name, value in config["options"].items()]
    flags += ["--option", *chosen] if chosen else []
    args = options.parse([*flags, "--dataset", "digits", "--test_interval", str(config["test_interval"])])
    made: Settings = settings_of(args)
    made = replace(made, recipe=replace(made.recipe, augmentation=digits.augmentation))
    own = make_setup(digits, replace(compute, precision=getattr(torch, config["precision"])), build, made)
    method = methods.get(config["selection"])
    run = Run(method, config["seed"], fraction=config["fraction"], options=options_for(method, options_of(args)))
    again = Selection().configuration(own, run)
    assert again == config
    assert path.stem.endswith(config_hash(again))
    assert not path.stem.endswith(config_hash({**again, "label_noise": 0.3}))


def build(name: str, dataset: Dataset) -> torch.nn.Module:
    """As main.py builds networks."""
    import nets

    return nets.build(name, dataset.num_classes, dataset.image_shape[0], dataset.image_shape[1])


@pytest.mark.parametrize("method", ["LCMat-S", "Forgetting", "LBCS"])
def test_any_method_takes_a_variant(method: str, tmp_path: Path) -> None:
    words = [*QUICK, "--selection", method, "--budget", "40", "--selection_epochs", "1", "--label_noise", "0.2"]
    words += ["--long_tail", "4", "--trials", "2", "--save_path", tmp_path / "result", "--cache_path", tmp_path / "c"]
    assert call(*words) == 0
    (record,) = records(tmp_path / "result")
    subset = np.load(next((tmp_path / "result").glob("*/*/*.npz")))
    train = varied(data.load("digits"), label_noise=0.2, long_tail=4).train
    assert record["dataset"] == "digits-longtail4-noise0.2"
    assert np.array_equal(subset["classes"], train.labels[subset["indices"]].numpy())
    assert subset["class_sizes"].tolist() == torch.bincount(train.labels, minlength=10).tolist()
    assert all(a <= b for a, b in itertools.pairwise(subset["classes"]))
