"""Siamese augmentation: identity at zero strength, shared draws, gradients, and each operation against a plain one."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcmat.augmentation import siamese
from lcmat.augmentation.siamese import (
    DSA,
    IDC_MATCHING,
    NOTHING,
    OPERATIONS,
    TRAINING,
    USUAL,
    Draw,
    Strategy,
    applied,
    cutmix,
    drawn,
    training_batch,
    varied,
)

each_operation = pytest.mark.parametrize("name", OPERATIONS)
rows = pytest.mark.parametrize("count", [1, 5], ids=["one draw", "a draw each"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 5, channels: int = 3, height: int = 8, width: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(count, channels, height, width, generator=generator(seed), dtype=torch.float64)


def draw_of(name: str, count: int = 1, seed: int = 0) -> Draw:
    return drawn(Strategy(first=(name,)), generator(seed), count)


@rows
@each_operation
def test_nothing_happens_at_zero_strength(name: str, count: int) -> None:
    x = images()
    torch.testing.assert_close(applied(x, draw_of(name, count), NOTHING), x)


@rows
@each_operation
def test_something_happens_at_the_usual_strength(name: str, count: int) -> None:
    x = images()
    changed = [not torch.allclose(applied(x, draw_of(name, count, seed)), x) for seed in range(6)]
    assert any(changed)


@each_operation
def test_one_draw_does_the_same_to_real_and_synthetic_images(name: str) -> None:
    """Together or apart, in whatever number: image by image the same."""
    x = images(9)
    draw = draw_of(name)
    together = applied(x, draw)
    apart = torch.cat([applied(part, draw) for part in (x[:2], x[2:3], x[3:])])
    torch.testing.assert_close(together, apart, rtol=0, atol=0)


@each_operation
def test_a_draw_for_each_image_is_that_image_under_its_own(name: str) -> None:
    """The shared form and the form with a row each are two pieces of code: they must agree."""
    x = images()
    draw = draw_of(name, len(x), seed=3)
    ((_, numbers),) = draw.operations
    alone = [applied(x[i : i + 1], Draw(((name, numbers[i : i + 1]),))) for i in range(len(x))]
    torch.testing.assert_close(applied(x, draw), torch.cat(alone))


@rows
@each_operation
def test_gradients(name: str, count: int) -> None:
    """Every operation is piecewise linear in the pixels, and so smooth everywhere."""
    x = images(5, 2, 4, 4).requires_grad_()
    draw = draw_of(name, count, seed=2)
    assert torch.autograd.gradcheck(lambda x: applied(x, draw), x)
    assert torch.autograd.gradgradcheck(lambda x: applied(x, draw).square(), x)


@pytest.mark.parametrize("shape", [(8, 8), (5, 7), (1, 6)], ids=str)
@pytest.mark.parametrize("name", ["scale", "rotate"])
def test_warps_against_grid_sample(name: str, shape: tuple[int, int]) -> None:
    for seed in range(20):
        x = images(3, 2, *shape)
        ((_, u),) = (draw := draw_of(name, seed=seed)).operations
        u = u.double()
        if name == "scale":
            s = 1 / 1.2 + u[0, :2] * (1.2 - 1 / 1.2)
            theta = torch.tensor([[s[0], 0, 0], [0, s[1], 0]], dtype=torch.float64)
        else:
            t = math.radians(15) * (2 * float(u[0, 0]) - 1)
            theta = torch.tensor([[math.cos(t), -math.sin(t), 0], [math.sin(t), math.cos(t), 0]], dtype=torch.float64)
        grid = F.affine_grid(theta.expand(3, 2, 3), list(x.shape), align_corners=False)
        torch.testing.assert_close(applied(x, draw), F.grid_sample(x, grid, align_corners=False))


def test_crop_shifts_by_every_number_of_pixels_equally_often() -> None:
    """On 16 pixels: −2 to 2 in each direction, zeros come in."""
    x = images(1, 1, 16, 16)
    padded = F.pad(x, (2, 2, 2, 2))
    shifted = torch.cat([padded[:, :, r : 16 + r, c : 16 + c] for r in range(5) for c in range(5)])
    out = applied(x.expand(2000, -1, -1, -1), draw_of("crop", 2000))
    same = (out[:, None] == shifted[None]).flatten(2).all(2)
    assert same.sum(1).eq(1).all()
    counts = same.sum(0)  # 80 expected of each, standard deviation 9
    assert int(counts.min()) > 40
    assert int(counts.max()) < 125


def test_cutout_sets_a_square_to_zero_that_may_leave_the_image() -> None:
    x = torch.ones(200, 2, 8, 8)
    out = applied(x, draw_of("cutout", 200))
    assert torch.equal(out[:, 0], out[:, 1])
    areas = (out[:, 0] == 0).sum((1, 2)).tolist()
    assert max(areas) == 16
    assert min(areas) < 16
    for cut in out[:, 0] == 0:
        across, down = cut.any(0).nonzero()[:, 0], cut.any(1).nonzero()[:, 0]
        assert int(cut.sum()) == (across.max() - across.min() + 1) * (down.max() - down.min() + 1)


def test_color_by_hand() -> None:
    x = images(1)
    ((_, u),) = (draw := draw_of("color", seed=4)).operations
    b, s, c = u[0].tolist()
    expected = x + b - 0.5
    grey = expected.mean(1, keepdim=True)
    expected = grey + 2 * s * (expected - grey)
    expected = expected.mean() + (0.5 + c) * (expected - expected.mean())
    torch.testing.assert_close(applied(x, draw), expected, rtol=1e-6, atol=1e-6)


def test_flip_mirrors_half_of_the_images() -> None:
    x = images(400)
    out = applied(x, draw_of("flip", 400))
    mirrored = sum(torch.equal(a, b.flip(2)) for a, b in zip(out, x, strict=True))
    same = sum(torch.equal(a, b) for a, b in zip(out, x, strict=True))
    assert mirrored + same == 400
    assert 150 < mirrored < 250


def test_dsa_draws_one_operation_and_each_sometimes() -> None:
    seen = [[name for name, _ in drawn(DSA, generator(seed)).operations] for seed in range(100)]
    assert all(len(names) == 1 for names in seen)
    assert {names[0] for names in seen} == set(OPERATIONS)


def test_idc_colours_crops_and_cuts_in_this_order() -> None:
    for seed in range(5):
        assert [n for n, _ in drawn(IDC_MATCHING, generator(seed)).operations] == ["color", "crop", "cutout"]


def test_draws_repeat_and_differ() -> None:
    first, again, other = (drawn(IDC_MATCHING, generator(seed), 4) for seed in (0, 0, 1))
    for (_, a), (_, b), (_, c) in zip(first.operations, again.operations, other.operations, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_characters_are_not_mirrored() -> None:
    assert siamese.training_name("dsa", "digits") == "dsa_unmirrored"
    assert siamese.training_name("idc", "CIFAR10") == "idc"
    assert siamese.training_name("crop_flip", "MNIST") == "crop_flip"
    for name in ("dsa_unmirrored", "idc_unmirrored"):
        strategy = TRAINING[name]
        assert "flip" not in (*strategy.first, *strategy.one_of, *strategy.last)
    assert "flip" not in siamese.strategy_for("SVHN", DSA).one_of
    assert siamese.strategy_for("FashionMNIST", DSA) == DSA


def test_cutmix_takes_a_rectangle_from_the_partner() -> None:
    x = torch.arange(6.0)[:, None, None, None].expand(6, 2, 10, 12).clone()
    shares = []
    for seed in range(300):
        out, mix = cutmix(x, generator(seed))
        shares.append(mix.share)
        for i in range(6):
            own = out[i] == i
            assert torch.equal(out[i][~own], torch.full_like(out[i][~own], float(mix.partner[i])))
            if int(mix.partner[i]) != i:
                assert float(own.float().mean()) == pytest.approx(mix.share)
    # λ ~ U(0, 1), and borders cut rectangles off: more than half is one's own
    assert 0.55 < sum(shares) / len(shares) < 0.85
    assert min(shares) < 0.4
    assert max(shares) == 1


def test_training_batches() -> None:
    x = images(16).float()
    assert training_batch(x, "none", generator())[0] is x
    mixed = [training_batch(x, "idc", generator(seed))[1] is not None for seed in range(100)]
    assert 30 < sum(mixed) < 70
    assert all(training_batch(x, "dsa", generator(seed))[1] is None for seed in range(20))
    assert not torch.equal(varied(x, DSA, generator(1))[0], varied(x, DSA, generator(2))[0])


def test_strength_is_that_of_the_paper() -> None:
    assert USUAL == siamese.Strength(1.0, 2.0, 0.5, 0.125, 0.5, 0.5, 1.2, 15.0)
