"""The network of the zoom filter, which tells whether a picture is a close-up that hides the product.

It is the small convolutional network of the Atlas paper (Umaashankar et al. 2019): three times convolution, ReLU and
maximum pooling, then a hidden layer with dropout.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atlas_ray.settings import Settings, setting

CHANNELS = (32, 32, 64)
HIDDEN_DIM = 64
DROPOUT = 0.5


@dataclass(frozen=True, kw_only=True)
class ZoomConfig(Settings):
    """The shape of the network and the threshold of its decision; it is stored in the artifact."""

    image_size_px: int = setting("side of the square picture that the network takes", 150, low=22, high=2048)
    threshold: float = setting("lowest probability at which a picture counts as zoomed", 0.5, low=0, high=1)


class ZoomNetwork(nn.Module):
    """A network that gives each picture a logit of being zoomed."""

    def __init__(self, config: ZoomConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        channels, side = 3, config.image_size_px
        for wider in CHANNELS:
            layers += [nn.Conv2d(channels, wider, 3), nn.ReLU(), nn.MaxPool2d(2)]
            channels, side = wider, (side - 2) // 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * side * side, HIDDEN_DIM), nn.ReLU(), nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN_DIM, 1),
        )  # fmt: skip

    def forward(self, pictures: Tensor) -> Tensor:
        """Turn (batch, 3, size, size) pictures, RGB 0 to 255, into logits (batch,) of being zoomed."""
        scaled = (pictures / 255).to(next(self.parameters()).dtype).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.head(self.features(scaled))  # (batch, 1)
        return logits[:, 0].float()
