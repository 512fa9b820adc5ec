"""An encoder of one layer, for tests of what stands behind the encoder."""

from dataclasses import replace

import pytest
from torch import nn

from atlas_ray.models.backbones import BACKBONES


def layers(name: str) -> dict[str, nn.Module]:
    """Build a grid of the same size and depth as a ResNet's, from one convolution."""
    spec = BACKBONES[name]
    return {"conv": nn.Conv2d(3, spec.features, spec.stride, spec.stride), "relu": nn.ReLU()}


@pytest.fixture
def tiny_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let networks that are built during a test have it in the place of their ResNet."""
    for name, spec in list(BACKBONES.items()):
        tiny = replace(spec, layers="tests.models.tiny:layers", blocks=(("conv", "relu"),), partial_cells=False)
        monkeypatch.setitem(BACKBONES, name, tiny)
