"""Networks: shapes, names, weights from files, and signals of any module with a linear head."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

import nets
from lcmat.data import Dataset
from lcmat.errors import UserError
from lcmat.signals.networks import linear_head, take_signals
from lcmat.signals.weights import load_weights
from lcmat.training import Compute


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nets.build("ResNet18", 10)


def test_resnet18_has_the_published_number_of_parameters() -> None:
    assert sum(p.numel() for p in network().parameters()) == 11_173_962


def test_resnet18_computes_what_torchvisions_blocks_do() -> None:
    """torchvision's ResNet-18 with the small-image stem, under the weights of ours."""
    reference = torchvision.models.resnet18(num_classes=10)
    reference.conv1, reference.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    ours = network()
    theirs = {k.replace("shortcut", "downsample").replace("linear", "fc"): v for k, v in ours.state_dict().items()}
    reference.load_state_dict(theirs)
    x = torch.randn(4, 3, 32, 32)
    for mode in (True, False):
        ours.train(mode), reference.train(mode)
        torch.testing.assert_close(ours(x), reference(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (3, 64), (1, 28)])
@pytest.mark.parametrize("name", nets.names())
def test_embed_and_head_make_the_output(name: str, channels: int, size: int) -> None:
    built = nets.build(name, 7, channels, size).eval()
    x = torch.randn(2, channels, size, size)
    with torch.no_grad():
        features = built.embed(x)
        assert features.shape == (2, built.head.in_features)
        assert torch.equal(built(x), built.head(features))
    assert built(x).shape == (2, 7)
    assert linear_head(built) is built.head


RENAMINGS = {
    "released names": lambda name: name,
    "torchvision names": lambda name: name.replace("shortcut", "downsample").replace("linear", "fc"),
    "DataParallel": lambda name: f"module.{name}",
}


@pytest.mark.parametrize("renaming", RENAMINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_weights_load_from_files(tmp_path: Path, renaming: str, dtype: torch.dtype, wrapper: str | None) -> None:
    source, target = network(1), network(2)
    state = {RENAMINGS[renaming](k): v.to(dtype) for k, v in source.state_dict().items() if "num_batches" not in k}
    torch.save({wrapper: state} if wrapper else state, tmp_path / "f.pt")
    load_weights(target, tmp_path / "f.pt")
    for name, value in source.named_parameters():
        assert torch.equal(target.get_parameter(name), value.to(dtype).float()), name


def _without(state: dict) -> dict:
    return {k: v for k, v in state.items() if k != "layer3.0.conv1.weight"}


BROKEN = {
    "missing": (_without, r"lacks layer3\.0\.conv1\.weight"),
    "unknown": (lambda s: {**s, "extra": torch.zeros(1)}, "has extra too many"),
    "other classes": (lambda s: {**s, "linear.weight": torch.zeros(5, 512)}, r"linear\.weight of shape \(5, 512\)"),
    "not finite": (lambda s: {**s, "linear.bias": torch.full((10,), torch.nan)}, "not finite"),
    "no state dict": (lambda s: {"epoch": 3}, "holds no state dict"),
    "a tensor": (lambda s: torch.zeros(3), "holds no state dict"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_unfit_weights_are_refused_by_name(tmp_path: Path, case: str) -> None:
    change, message = BROKEN[case]
    torch.save(change(network().state_dict()), tmp_path / "f.pt")
    with pytest.raises(UserError, match=message):
        load_weights(network(), tmp_path / "f.pt")


def test_damaged_absent_and_pickled_files_are_refused(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:100_000])
    torch.save(network(), tmp_path / "code.pt")
    for name, message in (("cut.pt", "damaged"), ("code.pt", "damaged or not"), ("none.pt", "no such file")):
        with pytest.raises(UserError, match=message):
            load_weights(network(), tmp_path / name)


class OwnNetwork(nn.Module):
    """A user's network: its linear layer has a name of its own, and there is no embed."""

    def __init__(self, end: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(64, 20)
        self.norm = nn.BatchNorm1d(20)
        self.decide = nn.Linear(20, 10)
        self.end = end or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        return self.end(self.decide(torch.relu(self.norm(self.first(x.flatten(1))))))


def test_signals_of_a_users_network(digits: Dataset, compute: Compute) -> None:
    own = OwnNetwork().train()
    before = own.norm.running_mean.clone()
    signals = take_signals(own, digits.train, compute)
    assert own.training
    assert torch.equal(own.norm.running_mean, before), "the pass must be in evaluation mode"
    own.eval()
    with torch.no_grad():
        x = compute.inputs(digits.train.images)
        features = torch.relu(own.norm(own.first(x.flatten(1))))
        torch.testing.assert_close(signals.features, features)
        torch.testing.assert_close(signals.logits, own.decide(features))
    assert torch.equal(signals.labels, digits.train.labels)
    assert not signals.features.requires_grad


@pytest.mark.parametrize("batch", [1, 7, 500, 5000])
def test_signals_do_not_depend_on_the_batch_size(digits: Dataset, compute: Compute, batch: int) -> None:
    own, split = OwnNetwork(), digits.train.take(torch.arange(60))
    whole, parts = take_signals(own, split, compute), take_signals(own, split, compute, batch)
    torch.testing.assert_close(parts.features, whole.features, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.ReLU()), "no linear head"),
        (OwnNetwork(nn.Softmax(1)), "not that of its last linear layer"),
        (OwnNetwork(nn.Unflatten(1, (2, 5))), "not that of its last linear layer"),
    ],
    ids=["no linear layer", "softmax at the end", "other shape"],
)
def test_networks_without_a_linear_head_are_refused(
    digits: Dataset, compute: Compute, module: nn.Module, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        take_signals(module, digits.test, compute)
