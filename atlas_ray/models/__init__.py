"""Networks: single-device PyTorch modules that know nothing of Ray."""

from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

PathModel = Classifier | EncoderDecoder
"""A network that puts pictures into a taxonomy."""

__all__ = ["Classifier", "ClassifierConfig", "EncoderDecoder", "EncoderDecoderConfig", "PathModel"]
