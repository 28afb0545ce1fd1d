"""Classifiers of transformers and timm, tiny ones made from a configuration: signals as plain loops take them."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lcmat import UserError, signals_of_batches
from methods import select

Y = torch.arange(24) % 3
NAMES = {0: "owl", 1: "cat", 2: "dog"}


def images(size: int) -> Tensor:
    """Colour images of noise."""
    return torch.randn(24, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    """A vision transformer of transformers, whose configuration names the classes in an order of its own."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    size = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(**size, image_size=16, patch_size=8, id2label=NAMES, label2id={v: k for k, v in NAMES.items()})
    return ViTForImageClassification(config)


class Rows(Dataset):
    """Rows as `datasets` gives them."""

    def __init__(self, names: list[str] | None = None, key: str = "labels") -> None:
        self.names, self.key, self.images = names, key, images(16)

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> dict[str, object]:
        label = int(Y[index])
        row = {"pixel_values": self.images[index], "file": f"{index}.png"}
        return row | {self.key: label if self.names is None else self.names[label]}


@pytest.mark.parametrize("form", ["mappings", "pairs", "mappings with texts"])
def test_an_image_classifier_of_transformers(vit: nn.Module, form: str) -> None:
    """Its output is an object, and what it takes has a name; texts are numbered as its configuration has them."""
    names = [NAMES[label] for label in range(3)] if form == "mappings with texts" else None
    data = TensorDataset(images(16), Y) if form == "pairs" else Rows(names, "label" if names else "labels")
    signals = signals_of_batches(vit, DataLoader(data, 10))
    vit.eval()
    with torch.no_grad():
        hidden = vit.vit(images(16)).last_hidden_state[:, 0]
        torch.testing.assert_close(signals.features, hidden, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(signals.logits, vit.classifier(hidden), rtol=1e-4, atol=1e-5)
    assert signals.labels.tolist() == Y.tolist()
    assert signals.class_names == (("owl", "cat", "dog") if names else None)
    assert len(select(signals, fraction=0.25)) == 6


def test_a_text_that_the_configuration_does_not_know_is_named(vit: nn.Module) -> None:
    with pytest.raises(UserError, match=r"a label is 'Owl', which is none of the network's \(config.id2label\)"):
        signals_of_batches(vit, DataLoader(Rows(["Owl", "cat", "dog"]), 10))


def test_a_text_classifier_of_transformers() -> None:
    """Batches of token numbers and masks, of which the network takes several by name, and nothing else."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    size = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    network = BertForSequenceClassification(BertConfig(**size, vocab_size=50, num_labels=3)).eval()
    tokens = torch.randint(50, (24, 7), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(7) < 3 + torch.arange(24)[:, None] % 4).long()
    batches = [
        {"idx": part, "input_ids": tokens[part], "attention_mask": mask[part], "label": Y[part], "sentence": ["…"] * 8}
        for part in torch.arange(24).split(8)
    ]
    signals = signals_of_batches(network, batches)
    with torch.no_grad():
        pooled = network.bert(tokens, attention_mask=mask).pooler_output
        torch.testing.assert_close(signals.features, pooled, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(signals.logits, network.classifier(pooled), rtol=1e-4, atol=1e-5)


def test_an_average_of_two_heads_is_refused() -> None:
    """DeiT with a teacher: no linear layer has the logits that it returns."""
    from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

    size = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    network = DeiTForImageClassificationWithTeacher(DeiTConfig(**size, image_size=16, patch_size=8, num_labels=3))
    with pytest.raises(UserError, match="is not that of its last linear layer"):
        signals_of_batches(network, [(images(16), Y)])


TIMM = {
    "vit_tiny_patch16_224": {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2},
    "resnet10t": {"stem_width": 8, "channels": (8, 8, 16, 16)},
    "mobilenetv3_small_050": {},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
}


@pytest.mark.parametrize("name", TIMM)
def test_classifiers_of_timm(name: str) -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=3, **TIMM[name]).eval()
    size = 16 if "vit" in name else 64
    signals = signals_of_batches(network, DataLoader(TensorDataset(images(size), Y), 10))
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(images(size)), pre_logits=True)
        torch.testing.assert_close(signals.features, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(signals.logits, network(images(size)), rtol=1e-4, atol=1e-5)


def test_a_distilled_transformer_of_timm_is_refused() -> None:
    import timm

    how = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2}
    network = timm.create_model("deit_tiny_distilled_patch16_224", pretrained=False, num_classes=3, **how)
    with pytest.raises(UserError, match="is not that of its last linear layer"):
        signals_of_batches(network, [(images(16), Y)])
