"""The networks that put products into a taxonomy."""

from atlas_ray.models.classifier import Classifier
from atlas_ray.models.encoder_decoder import EncoderDecoder
from atlas_ray.models.fusion.policy import FusionNetwork
from atlas_ray.models.head import Head
from atlas_ray.models.sentence_classifier import SentenceClassifier
from atlas_ray.models.text import TextNetwork

PictureModel = Classifier | EncoderDecoder
"""A network that reads pictures."""
PathModel = PictureModel | TextNetwork | SentenceClassifier | FusionNetwork | Head
"""A network that puts products into a taxonomy."""
