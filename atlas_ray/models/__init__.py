"""Networks: single-device PyTorch modules that know nothing of Ray."""

from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from atlas_ray.models.fusion import FusionConfig, FusionNetwork
from atlas_ray.models.text import TextConfig, TextNetwork

PictureModel = Classifier | EncoderDecoder
"""A network that looks at a picture."""
PathModel = PictureModel | TextNetwork | FusionNetwork
"""A network that puts products into a taxonomy."""

__all__ = [
    "Classifier",
    "ClassifierConfig",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "FusionConfig",
    "FusionNetwork",
    "PathModel",
    "PictureModel",
    "TextConfig",
    "TextNetwork",
]
