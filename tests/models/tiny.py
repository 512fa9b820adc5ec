"""An encoder of one layer, for tests of what stands behind the encoder."""

import pytest
from torch import Tensor, nn

from atlas_ray.models.resnet import FEATURES, STRIDE


class TinyEncoder(nn.Module):
    """A grid of the same size and depth as a ResNet's, from one convolution."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.features = FEATURES[name]
        self.conv = nn.Conv2d(3, self.features, STRIDE, STRIDE)

    def forward(self, pictures: Tensor) -> Tensor:
        x: Tensor = self.conv(pictures.float() / 64 - 2)
        return x.relu()


@pytest.fixture
def tiny_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let networks that are built during a test have it in the place of their ResNet."""
    for module in ("classifier", "encoder_decoder"):
        monkeypatch.setattr(f"atlas_ray.models.{module}.Backbone", TinyEncoder)
