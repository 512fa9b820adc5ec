"""The classifier, which gives a picture one of N leaf paths.

It is a backbone with the head that the Atlas paper takes from fastai: the average and the maximum of the feature grid
joined, then two blocks of batch normalization, dropout, linear and ReLU, without a ReLU after the last. With a
`hidden_dim` of 0 the head is the late-fusion paper's: one dense layer over the average.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atlas_ray.models.backbones import BACKBONES
from atlas_ray.models.backbones.backbone import Backbone
from atlas_ray.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Settings):
    """The shape of the network; it is stored in the artifact."""

    classes: int = setting("number of leaf paths, in the taxonomy's order, or of labels", low=1, high=10_000_000)
    backbone: str = setting("picture encoder", "resnet34", choices=BACKBONES)
    image_size_px: int = setting("side of the square picture that the encoder takes", 150, low=32, high=8192)
    hidden_dim: int = setting(
        "width between the head's two blocks; 0: one dense layer over the average", 512, low=0, high=8192
    )
    dropout: float = setting(
        "share of values dropped before the last layer; half of it before the first", 0.5, low=0, high=0.99
    )


class Classifier(nn.Module):
    """The encoder and the head together."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Backbone(config.backbone)
        features = BACKBONES[config.backbone].features
        last = nn.Linear(config.hidden_dim or features, config.classes)
        blocks = [] if not config.hidden_dim else [
            nn.BatchNorm1d(2 * features),
            nn.Dropout(config.dropout / 2),
            nn.Linear(2 * features, config.hidden_dim),
            nn.ReLU(),
            nn.BatchNorm1d(config.hidden_dim),
        ]  # fmt: skip
        self.head = nn.Sequential(*blocks, nn.Dropout(config.dropout), last)

    def classify(self, features: Tensor) -> Tensor:
        """Turn encoded pictures, (batch, features, rows, columns), into logits (batch, classes)."""
        pooled = features.mean((2, 3))
        if self.config.hidden_dim:
            pooled = torch.cat([pooled, features.amax((2, 3))], 1)
        logits: Tensor = self.head(pooled)
        return logits

    def forward(self, pictures: Tensor) -> Tensor:
        """Turn (batch, 3, size, size) pictures, RGB 0 to 255, into logits (batch, classes)."""
        return self.classify(self.encoder(pictures))
