"""The names of saved tensors: a model that was saved by an earlier version loads into today's networks."""

from collections.abc import Iterable

import pytest
from torch import nn

from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.encoder_decoder import EncoderDecoder
from atlas_ray.models.fusion.policy import FusionConfig, build_fusion
from atlas_ray.models.text import TextConfig, TextNetwork

NORM = "weight bias running_mean running_var num_batches_tracked"
DENSE = "weight bias"
HEAD = {"head.0": NORM, "head.2": DENSE, "head.4": NORM, "head.6": DENSE}
LSTM = {
    "attention.encoder_att": DENSE, "attention.decoder_att": DENSE, "attention.full_att": DENSE, "embedding": "weight",
    "decode_step": "weight_ih weight_hh bias_ih bias_hh", "init_h": DENSE, "init_c": DENSE, "f_beta": DENSE,
    "fc": DENSE,
}  # fmt: skip
LAYER = "prefix_norm picture_norm forward_norm prefix_in prefix_out picture_in picture_out widen narrow"
TRANSFORMER = {
    "embedding": "weight", "position": "weight", "picture": DENSE, "region_norm": DENSE, "memory.0": DENSE,
    **{f"layers.0.{name}": DENSE for name in LAYER.split()}, "norm": DENSE, "fc": DENSE,
}  # fmt: skip
TEXT = {"encoder": "weight", "head.convolution": DENSE, "head.dense": DENSE, "head.output": DENSE}
POLICIES = {
    "max": {}, "mean": {}, "weighted": {"": "weights"}, "ridge": {"ridge": DENSE},
    "network": {f"network.{layer}": DENSE for layer in (0, 2, 4)},
    "early": {f"network.{layer}": DENSE for layer in (0, 3)},
}  # fmt: skip


def names(parts: dict[str, str], within: str = "") -> list[str]:
    return [f"{within}{part}.{tensor}".lstrip(".") for part, tensors in parts.items() for tensor in tensors.split()]


def saved(network: nn.Module) -> Iterable[str]:
    """Those of a backbone are torchvision's, which another test holds."""
    kept = network.state_dict()
    return kept if isinstance(network, TextNetwork) else [name for name in kept if not name.startswith("encoder.")]


def test_classifier_and_text() -> None:
    assert list(saved(Classifier(ClassifierConfig(classes=3, backbone="resnet18")))) == names(HEAD)
    assert list(saved(TextNetwork(TextConfig(field="title", words=5, outputs=3)))) == names(TEXT)


@pytest.mark.parametrize(("decoder", "parts"), [("lstm", LSTM), ("transformer", TRANSFORMER)])
def test_decoders(decoder: str, parts: dict[str, str]) -> None:
    config = EncoderDecoderConfig(vocabulary_size=7, backbone="resnet18", decoder=decoder, layers=1, decoder_dim=8)
    assert list(saved(EncoderDecoder(config))) == names(parts, "decoder.")


@pytest.mark.parametrize("policy", POLICIES)
def test_policies(policy: str) -> None:
    features = "2+2" if policy == "early" else ""
    config = FusionConfig(modalities="picture+title", outputs=3, policy=policy, features=features)
    assert list(saved(build_fusion(config))) == names(POLICIES[policy])
