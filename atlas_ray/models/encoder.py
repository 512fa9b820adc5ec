"""The bare encoder: a backbone that turns pictures into features, and answers nothing."""

from dataclasses import dataclass

from torch import Tensor, nn

from atlas_ray.models.backbones import BACKBONES
from atlas_ray.models.backbones.backbone import Backbone
from atlas_ray.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(Settings):
    """The shape of the network; it is stored in the artifact."""

    backbone: str = setting("picture encoder", choices=BACKBONES)
    image_size_px: int = setting("side of the square picture that the encoder takes", low=32, high=8192)


class EncoderNetwork(nn.Module):
    """A backbone with the size of its pictures."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Backbone(config.backbone)

    def forward(self, pictures: Tensor) -> Tensor:
        """Turn (batch, 3, size, size) pictures, RGB 0 to 255, into (batch, features, rows, columns)."""
        grid: Tensor = self.encoder(pictures)
        return grid
