"""Decoders by name, which spell a category path from an encoded picture. Importing this imports no torch.

How to add one: `docs/extending/decoder.md`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atlas_ray.errors import ConfigError


def _accept(settings: Any, width: str) -> None:
    """Accept all settings."""


def _check_heads(settings: Any, width: str) -> None:
    if getattr(settings, width) % settings.heads:
        raise ConfigError(f"{width} is {getattr(settings, width)}; expected a multiple of the {settings.heads} heads")


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """The description of a decoder."""

    network: str
    """`module:class` of a subclass of `Decoder`."""
    check: Callable[[Any, str], None] = _accept
    """A function of settings and the name of their field for the decoder's width; ConfigError if they are invalid."""


DECODERS: dict[str, DecoderSpec] = {
    "lstm": DecoderSpec(network="atlas_ray.models.decoders.lstm:LstmDecoder"),
    "transformer": DecoderSpec(network="atlas_ray.models.decoders.transformer:TransformerDecoder", check=_check_heads),
}
