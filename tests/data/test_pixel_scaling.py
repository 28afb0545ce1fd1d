"""Other pixel statistics than a dataset's own: what networks are given, what records say, what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.transforms import Normalize

from lcmat.command_line import options
from lcmat.data import scaled_by
from lcmat.data.splits import Dataset, TensorSplit
from lcmat.errors import UserError
from lcmat.records.keys import config_hash
from lcmat.runs.continual import seen_setup, step_setup
from lcmat.runs.setup import Settings, make_setup
from lcmat.training import Compute
from tests.harness import call, records

IDC = (0.2023, 0.1994, 0.2010)


@pytest.fixture
def coloured() -> Dataset:
    """Random images of three channels, and statistics that are not theirs."""
    images = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = TensorSplit(images, torch.arange(6) % 2)
    return Dataset("some", split, split, ("a", "b"), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), measured=True)


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        (None, IDC, ((0.1, 0.2, 0.3), IDC)),
        ([0.5], [0.5], ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
        ([0], [1], ((0, 0, 0), (1, 1, 1))),
        ([0.3, 0.2, 0.1], None, ((0.3, 0.2, 0.1), (0.4, 0.5, 0.6))),
        (None, None, ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))),
    ],
)
def test_inputs_are_those_of_torchvision(coloured: Dataset, mean: object, std: object, expected: tuple) -> None:
    dataset = scaled_by(coloured, mean, std)
    compute = Compute(torch.device("cpu"), torch.float32, dataset.mean, dataset.std)
    wanted = Normalize(*expected)(coloured.train.images.float() / 255)
    torch.testing.assert_close(compute.inputs(dataset.train.images), wanted)


def test_only_what_is_given_is_said(coloured: Dataset) -> None:
    """The name stays, for the images are the same."""
    assert scaled_by(coloured) is coloured
    assert scaled_by(coloured, std=[0.5]).variant == {"pixel_std": [0.5, 0.5, 0.5]}
    noisy = replace(coloured, variant={"label_noise": 0.2})
    assert scaled_by(noisy, mean=[0]).variant == {"label_noise": 0.2, "pixel_mean": [0.0, 0.0, 0.0]}
    assert scaled_by(coloured, std=IDC).name == "some"


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.1, 0.2], None, "pixel_mean takes one value, or one for each of 3 channels, not 2"),
        (None, [0.5, 0, 0.5], "pixel_std must be above 0 and finite, not 0"),
        (None, [-1], "pixel_std must be above 0 and finite, not -1"),
        ([float("nan")], None, "pixel_mean must be finite, not nan"),
    ],
)
def test_values_that_cannot_be_are_refused(coloured: Dataset, mean: object, std: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        scaled_by(coloured, mean, std)


def test_steps_of_continual_learning_keep_what_is_given(digits: Dataset, compute: Compute) -> None:
    """Where pixels are measured anew for each step otherwise."""
    given = scaled_by(digits, [0], [1])
    setups = [make_setup(one, compute, lambda *_: torch.nn.Linear(1, 1), Settings()) for one in (digits, given)]
    for of in (lambda setup: step_setup(setup, [0, 1]), lambda setup: seen_setup(setup, [0, 1])):
        usual, own = map(of, setups)
        assert (own.dataset.mean, own.dataset.std) == ((0.0,), (1.0,))
        assert usual.dataset.mean != digits.mean


def test_run_records_it_and_others_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "digits", "--model", "MLP", "--selection", "Uniform", "--budget", "20", "--epochs", "1"]
    assert call(*words) == 0
    assert call(*words, "--pixel_mean", "0.5", "--pixel_std", "0.25") == 0
    plain, scaled = sorted((record["config"] for record in records(tmp_path / "result")), key=len)
    assert scaled == plain | {"pixel_mean": [0.5], "pixel_std": [0.25]}
    assert config_hash(scaled) != config_hash(plain)
    table = (tmp_path / "result" / "tables" / "accuracy.md").read_text()
    assert "pixels scaled by the mean 0.5; pixels scaled by the deviation 0.25" in table
    capsys.readouterr()
    assert call(*words, "--pixel_std", "0.2", "0.2") == 2
    assert "pixel_std takes one value, not 2" in capsys.readouterr().err


def test_grids_take_lists(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("pixel_std: [0.2023, 0.1994, 0.2010]\n")
    assert tuple(options.parse(["--config", str(path)]).pixel_std) == IDC
