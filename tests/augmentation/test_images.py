"""Crops, flips and normalisation of batches of images."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lcmat.augmentation.images import augment, normalise
from tests.data_files import pixels


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def possible(image: Tensor, rows: int, columns: int) -> dict[bytes, tuple[int, int, bool]]:
    """Return every crop of the image padded by reflection, mirrored or not, with its offsets: the slow way."""
    _, height, width = image.shape
    padding = (columns, columns, rows, rows)
    padded = torch.nn.functional.pad(image[None].float(), padding, mode="reflect")[0].to(torch.uint8)
    crops = {}
    for top in range(2 * rows + 1):
        for left in range(2 * columns + 1):
            crop = padded[:, top : top + height, left : left + width]
            crops[crop.numpy().tobytes()] = (top, left, False)
            crops[crop.flip(2).contiguous().numpy().tobytes()] = (top, left, True)
    return crops


SHAPES = {
    (1, 8, 8): (1, 1),
    (3, 16, 16): (2, 2),
    (1, 31, 31): (3, 3),
    (3, 32, 32): (4, 4),
    (2, 64, 40): (4, 4),
    (1, 8, 24): (1, 3),
    (1, 3, 5): (1, 1),
}


@pytest.mark.parametrize("name", ["crop", "crop_flip"])
@pytest.mark.parametrize(("shape", "padding"), SHAPES.items(), ids=map(str, SHAPES))
def test_every_crop_occurs_and_no_other(shape: tuple[int, ...], padding: tuple[int, int], name: str) -> None:
    image = torch.from_numpy(pixels(0, *shape))
    crops = possible(image, *padding)
    if name == "crop":
        crops = {crop: draw for crop, draw in crops.items() if not draw[2]}
    result = augment(image.expand(2500, *shape), name, seeded())
    assert (result.dtype, result.shape) == (torch.uint8, (2500, *shape))
    drawn = [crops[one.tobytes()] for one in result.contiguous().numpy()]
    assert set(drawn) == set(crops.values())
    if name == "crop_flip":
        assert 0.45 < sum(flip for _, _, flip in drawn) / len(drawn) < 0.55


@pytest.mark.parametrize("name", ["crop", "crop_flip"])
def test_each_image_is_a_crop_of_itself(name: str) -> None:
    images = torch.from_numpy(pixels(0, 40, 3, 12, 12))
    draws = []
    for image, result in zip(images, augment(images, name, seeded()), strict=True):
        draws.append(possible(image, 1, 1)[result.contiguous().numpy().tobytes()])
    assert len(set(draws)) > 5  # each image has a draw of its own


@pytest.mark.parametrize("name", ["crop", "crop_flip"])
def test_augment_is_seeded_and_leaves_its_input(name: str) -> None:
    images = torch.from_numpy(pixels(0, 30, 3, 8, 8))
    before = images.clone()
    first, again, other = (augment(images, name, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, before)


def test_no_augmentation_draws_nothing() -> None:
    images = torch.from_numpy(pixels(0, 3, 1, 8, 8))
    generator = seeded()
    before = generator.get_state()
    assert augment(images, "none", generator) is images
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_normalise_subtracts_and_divides(channels: int, dtype: torch.dtype, tolerance: float) -> None:
    images = pixels(0, 4, channels, 6, 5)
    mean, std = np.array([0.4914, 0.1, 0.9])[:channels], np.array([0.2470, 0.5, 0.1])[:channels]
    result = normalise(torch.from_numpy(images), torch.tensor(mean, dtype=dtype), torch.tensor(std, dtype=dtype))
    assert (result.dtype, result.shape) == (dtype, images.shape)
    assert result.is_contiguous(memory_format=torch.channels_last)
    expected = (images / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(result.numpy(), expected, rtol=0, atol=tolerance)
