"""Every entry of `BACKBONES`, held against the layers that it names; and the traps of a wrong one."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from atlas_ray.errors import ArtifactError, ConfigError
from atlas_ray.models.backbones import BACKBONES
from atlas_ray.models.backbones.backbone import Backbone, fuse_batch_norm
from atlas_ray.models.weights import load_backbone_weights
from atlas_ray.training.settings import ClassifierTraining

pytestmark = pytest.mark.long

PREFIX = "trunk."


@pytest.mark.parametrize("name", BACKBONES)
def test_an_entry_says_what_its_layers_do(name: str) -> None:
    spec, encoder = BACKBONES[name], Backbone(name).eval()
    for part in encoder.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.get_buffer("running_mean"))
            nn.init.uniform_(part.get_buffer("running_var"), 0.5, 2)
    height, width = 2 * spec.stride, 3 * spec.stride + 1
    with torch.inference_mode():
        pictures = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
        grid = encoder(pictures)
        fused = fuse_batch_norm(encoder)(pictures)
    assert grid.shape == (2, spec.features, spec.grid_size(height), spec.grid_size(width))
    assert (fused - grid).abs().max() < 1e-3 * grid.abs().max()
    assert not any(isinstance(part, nn.BatchNorm2d) for part in encoder.modules())
    assert encoder.layers_before(0) == []
    assert encoder.layers_before(len(spec.blocks)) == list(encoder.children())


def test_pictures_are_normalized_in_float32_whatever_the_weights_are_in() -> None:
    encoder = Backbone("resnet18").eval().to(torch.bfloat16)
    taken: list[torch.Tensor] = []
    next(encoder.children()).register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    pictures = torch.arange(256, dtype=torch.uint8).repeat(3, 1).view(1, 3, 16, 16).repeat(1, 1, 2, 2)
    with torch.inference_mode():
        encoder(pictures)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (encoder.spec.mean, encoder.spec.std))
    assert taken[0].dtype == torch.bfloat16
    torch.testing.assert_close(taken[0], ((pictures - mean) / std).to(torch.bfloat16), rtol=0, atol=0)
    assert encoder.to(torch.float32).mean.equal(mean)  # what bfloat16 cut off is back


def layers(name: str) -> dict[str, nn.Module]:
    """Patches, then attention, whose module holds weights and other modules."""
    return {"patches": nn.Conv2d(3, 8, 16, 16), "mix": nn.Sequential(nn.GroupNorm(1, 8), Mixer(), nn.Conv2d(8, 8, 1))}


class Mixer(nn.Module):
    """A layer with a weight of its own beside another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mix."""
        mixed: torch.Tensor = x + self.scale * self.conv(x)
        return mixed


@pytest.fixture
def patches(monkeypatch: pytest.MonkeyPatch) -> str:
    spec = replace(
        BACKBONES["resnet18"], layers="tests.models.test_backbones:layers", features=8, stride=16, partial_cells=False,
        blocks=(("patches",), ("mix",)), torchvision="", weight_prefix=PREFIX, other_weights=(f"{PREFIX}cls",),
    )  # fmt: skip
    monkeypatch.setitem(BACKBONES, "patches", spec)
    return "patches"


def test_blocks_that_are_not_the_layers_are_refused(patches: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, patches, replace(BACKBONES[patches], blocks=(("mix",), ("patches",))))
    with pytest.raises(ConfigError, match=r"names the layers mix, patches; .*:layers builds patches, mix"):
        Backbone(patches)


def test_a_module_with_weights_of_its_own_is_one_layer(patches: str) -> None:
    encoder = Backbone(patches)
    norm, mixer, last = encoder.get_submodule("mix").children()
    assert encoder.layers_before_last(1) == [encoder.get_submodule("patches"), norm, mixer]
    assert encoder.layers_before_last(2) == [encoder.get_submodule("patches"), norm]
    assert last not in encoder.layers_before_last(1)


def test_settings_hold_for_a_backbones_own_blocks(patches: str) -> None:
    shared = {"catalog": "catalog", "output": "model", "backbone": patches}
    assert ClassifierTraining(**shared, train_from_block=2).train_from_block == 2  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="train_from_block is 3; expected 0 to 2 of a patches"):
        ClassifierTraining(**shared, train_from_block=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="weights is 'imagenet', which torchvision has none of for a patches"):
        ClassifierTraining(**shared, weights="imagenet")  # type: ignore[arg-type]


def test_weights_are_found_below_their_prefix(patches: str, tmp_path: Path) -> None:
    encoder, other = Backbone(patches), Backbone(patches)
    state = {f"{PREFIX}{name}": tensor for name, tensor in encoder.state_dict().items()}
    state |= {f"{PREFIX}cls": torch.ones(1), "head.weight": torch.ones(2)}
    file = str(tmp_path / "weights.safetensors")
    safetensors.torch.save_file(state, file)
    load_backbone_weights(other, file)
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor)
    with pytest.raises(ArtifactError, match="not the weights of a resnet18"):
        load_backbone_weights(Backbone("resnet18"), file)


def test_settings_and_dicts_need_no_torch() -> None:
    modules = ("models.backbones", "models.decoders", "models.fusion", "modalities", "training.settings")
    code = "import sys\n" + "".join(f"import atlas_ray.{module}\n" for module in modules)
    code += "print(sorted(name for name in sys.modules if name in ('torch', 'ray')))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
