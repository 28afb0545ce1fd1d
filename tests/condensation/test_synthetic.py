"""Synthetic images: how they begin, are decoded, and lie in files."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from lcmat import UserError
from lcmat.condensation.synthetic import Synthetic, class_positions, decoded, drawn_from_classes, initial
from lcmat.data.splits import Dataset, TensorSplit
from lcmat.files import save_tensors
from lcmat.training import Compute
from tests import oracles
from tests.condensing import made, task

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# That one image of a class has no variance is said, which a test of its own checks.
pytestmark = pytest.mark.filterwarnings("ignore:LCMat-C")


@pytest.mark.parametrize("init", ["noise", "real", "mixed"])
@pytest.mark.parametrize("name", ["DM", "DSA", "LCMat-C"])
def test_several_images_in_one(name: str, init: str, digits: Dataset, compute: Compute) -> None:
    synthetic = made(name, task(digits, compute), factor=2, init=init)
    assert synthetic.factor == 2
    assert len(synthetic) == 10
    split = synthetic.split()
    assert split.images.shape == (40, 1, 8, 8)
    assert torch.bincount(split.labels).tolist() == [4] * 10
    for label in range(10):
        torch.testing.assert_close(
            split.images[split.labels == label], decoded(synthetic.images[synthetic.labels == label], 2)
        )


@pytest.mark.parametrize("size", [(8, 8), (7, 9)], ids=str)
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_decoding_against_interpolate(factor: int, size: tuple[int, int]) -> None:
    images = torch.rand(3, 2, *size, dtype=torch.float64)
    height, width = size
    tall, wide = math.ceil(height / factor), math.ceil(width / factor)
    padded = torch.full((3, 2, tall * factor, wide * factor), 0.5, dtype=torch.float64)
    padded[:, :, :height, :width] = images
    expected = []
    for r in range(factor):
        for c in range(factor):
            patch = padded[:, :, r * tall : (r + 1) * tall, c * wide : (c + 1) * wide]
            expected.append(F.interpolate(patch, size=size, mode="bilinear", align_corners=False))
    torch.testing.assert_close(decoded(images, factor), torch.cat(expected))


def test_mixed_images_hold_real_ones(digits: Dataset, compute: Compute) -> None:
    """Four constant images of each class in one: decoded, they are there again."""
    labels = torch.arange(10).repeat_interleave(4)
    levels = torch.arange(40, dtype=torch.uint8)
    split = TensorSplit(levels[:, None, None, None].expand(40, 1, 8, 8), labels)
    draw = torch.Generator().manual_seed(0)
    images, labels = initial(split, [1] * 10, "mixed", 2, draw, compute.statistics)
    found = decoded(images, 2)
    for label in range(10):
        own = found[torch.arange(40) % 10 == label]
        assert sorted(round(255 * float(image.mean())) for image in own) == list(range(4 * label, 4 * label + 4))
        assert all(float(image.std()) < 1e-6 for image in own)


def test_real_images_are_of_their_class_and_no_two_the_same(digits: Dataset, compute: Compute) -> None:
    synthetic = made("RandomReal", task(digits, compute, ipc=20))
    pixels = (synthetic.images * 255).round().byte()
    known = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(digits.train.images, digits.train.labels, strict=True)
    }
    found = [image.numpy().tobytes() for image in pixels]
    assert len(set(found)) == 200
    assert [known[image] for image in found] == synthetic.labels.tolist()


def test_too_few_real_images() -> None:
    positions = class_positions(torch.tensor([0, 0, 1]), 2)
    draw = torch.Generator().manual_seed(0)
    assert [len(part) for part in drawn_from_classes(positions, [2, 1], draw)] == [2, 1]
    with pytest.raises(UserError, match="class 1 has 1 images, of which 2 are needed"):
        drawn_from_classes(positions, [2, 2], draw)


def test_files(tmp_path: Path) -> None:
    images = torch.rand(5, 3, 4, 4) * 2 - 0.5
    synthetic = Synthetic(images, torch.tensor([0, 0, 0, 2, 2]), 2, torch.tensor([[1.0, 2.0]]), 3.0)
    synthetic.save(tmp_path / "a.pt")
    read = Synthetic.load(tmp_path / "a.pt")
    assert torch.equal(read.images, images)
    assert torch.equal(read.labels, synthetic.labels)
    assert (read.factor, read.seconds, read.curve.tolist()) == (2, 3.0, [[1.0, 2.0]])
    synthetic.save_grid(tmp_path / "a.png")
    picture = Image.open(tmp_path / "a.png")
    assert picture.size == (8 * (3 * 5 + 1), 8 * (2 * 5 + 1))  # a row for each class, lines between, enlarged 8 times
    assert picture.mode == "RGB"
    assert picture.getpixel((8 * 1, 8 * 1)) == tuple((images[0, :, 0, 0].clamp(0, 1) * 255).round().int().tolist())
    Synthetic(images[:, :1], synthetic.labels).save_grid(tmp_path / "grey.png")
    assert Image.open(tmp_path / "grey.png").mode == "L"
    for content in ({"images": images}, {"images": images, "labels": torch.arange(3), "factor": 1}, {"labels": 1}):
        save_tensors(tmp_path / "bad.pt", content)
        with pytest.raises(UserError, match=r"bad\.pt does not hold what it should"):
            Synthetic.load(tmp_path / "bad.pt")


QUICK = ["--dataset", "digits", "--model", "MLP", "--epochs", "8", "--lr", "0.05", "--test_interval", "4"]
DM = [*QUICK, "--selection", "DM", "--option", "DM.iterations=6", "DM.batch=8"]
