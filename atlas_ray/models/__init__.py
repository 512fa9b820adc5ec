"""Networks: single-device PyTorch modules that know nothing of Ray."""

from atlas_ray.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

__all__ = ["EncoderDecoder", "EncoderDecoderConfig"]
