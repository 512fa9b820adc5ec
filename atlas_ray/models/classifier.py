"""The classifier, which gives a picture one of N leaf paths.

It is a backbone with the head that the Atlas paper takes from fastai: the average and the maximum of the feature grid
joined, then two blocks of batch normalization, dropout, linear and ReLU, without a ReLU after the last.
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
    hidden_dim: int = setting("width between the head's two blocks", 512, low=1, high=8192)
    dropout: float = setting(
        "share of values dropped before the last layer; half of it before the first", 0.5, low=0, high=0.99
    )


class Classifier(nn.Module):
    """The encoder and the head together."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Backbone(config.backbone)
        pooled = 2 * BACKBONES[config.backbone].features
        self.head = nn.Sequential(
            nn.BatchNorm1d(pooled),
            nn.Dropout(config.dropout / 2),
            nn.Linear(pooled, config.hidden_dim),
            nn.ReLU(),
            nn.BatchNorm1d(config.hidden_dim),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_dim, config.classes),
        )

    def classify(self, features: Tensor) -> Tensor:
        """Turn encoded pictures, (batch, features, rows, columns), into logits (batch, classes)."""
        logits: Tensor = self.head(torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1))
        return logits

    def forward(self, pictures: Tensor) -> Tensor:
        """Turn (batch, 3, size, size) pictures, RGB 0 to 255, into logits (batch, classes)."""
        return self.classify(self.encoder(pictures))
