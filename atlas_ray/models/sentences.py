"""Sentence encoders: transformers that others trained, which turn the tokens of a text into one vector.

The networks are those of the library transformers, built from a configuration; no code of a model's folder is run.

Dimensions: batch; length (tokens of a text); width (of a vector).
"""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from atlas_ray.errors import ConfigError
from atlas_ray.modalities.texts import FIELDS
from atlas_ray.settings import Settings, setting

MAX_TOKENS = 512
"""The most tokens that are read of a text."""
MAX_NUMBER, MAX_LAYERS, MAX_WEIGHTS = 4_000_000, 200, 4_000_000_000
"""The largest whole number of a configuration, the most layers, and the most weights of a network."""
CODE_SETTINGS = ("auto_map", "quantization_config", "attn_implementation", "dtype", "torch_dtype", "use_kernels")
"""Settings of a configuration that name code, or say how a network is run; they are ignored."""


@dataclass(frozen=True)
class Family:
    """The networks of a `model_type` of transformers."""

    tower: str = ""
    """The key of the text's part, in the configuration of a model of pictures and texts."""
    model_type: str = ""
    """The `model_type` of that part."""
    network: str = ""
    """Name of its class in transformers; "" for what `AutoModel` builds."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class."""
    padded: bool = False
    """Whether every text is padded to `max_tokens`, and the padding is read, as in its training."""
    lower: bool = False
    """Whether its texts are in lower case, which its tokenizer does not see to."""
    pooling: str = "mean"
    """How the tokens' vectors become one, unless the folder says it."""


_UNPOOLED = Family(options={"add_pooling_layer": False})
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("albert", "bert", "camembert", "mpnet", "roberta", "xlm-roberta"), _UNPOOLED),
    **dict.fromkeys(("deberta-v2", "distilbert", "electra", "modernbert"), Family()),
    "siglip": Family("text_config", "siglip_text_model", "SiglipTextModel", padded=True, lower=True, pooling="own"),
    "siglip2": Family("text_config", "siglip2_text_model", "Siglip2TextModel", padded=True, lower=True, pooling="own"),
}
"""By the `model_type` of a folder's `config.json`."""


def _mean(found: Any, present: Tensor) -> Tensor:
    hidden: Tensor = found.last_hidden_state * present[:, :, None]
    return hidden.sum(1) / present.sum(1, keepdim=True).clamp(min=1)


def _first(found: Any, _: Tensor) -> Tensor:
    first: Tensor = found.last_hidden_state[:, 0]
    return first


def _max(found: Any, present: Tensor) -> Tensor:
    hidden: Tensor = found.last_hidden_state.masked_fill(~present[:, :, None], float("-inf"))
    return hidden.amax(1)


def _own(found: Any, _: Tensor) -> Tensor:
    pooled: Tensor = found.pooler_output
    return pooled


POOLINGS: dict[str, Callable[[Any, Tensor], Tensor]] = {"mean": _mean, "cls": _first, "max": _max, "own": _own}
"""Functions of a network's output and of (batch, length) bool, which tokens there are, that return (batch, width)."""


@dataclass(frozen=True, kw_only=True)
class SentenceConfig(Settings):
    """The shape of the network, and how texts are given to it; it is stored in the artifact."""

    field: str = setting("text of a product that is read", choices=tuple(FIELDS))
    transformer: str = setting("configuration of the network: the JSON object of a config.json")
    pooling: str = setting("how the tokens' vectors become one", choices=POOLINGS)
    prefix: str = setting("text that is put before each text", "")
    max_tokens: int = setting("tokens of a text that are read", low=3, high=MAX_TOKENS)

    def __post_init__(self) -> None:
        """Refuse a configuration that no network is built from, or an implausibly large one."""
        super().__post_init__()
        found = self.settings
        if not isinstance(found, dict) or found.get("model_type") not in FAMILIES:
            kind = found.get("model_type") if isinstance(found, dict) else found
            raise ConfigError(f"model_type is {str(kind)[:80]!r}; expected one of {', '.join(FAMILIES)}")
        numbers = {name: number for name, number in self.network_settings.items() if isinstance(number, int)}
        for name, number in numbers.items():
            if abs(number) > (MAX_LAYERS if "layers" in name else MAX_NUMBER):
                raise ConfigError(f"{name} of the transformer is {number}, which is out of any range")

    @functools.cached_property
    def settings(self) -> Any:
        """The content of `transformer`."""
        try:
            return json.loads(self.transformer)
        except (ValueError, RecursionError):
            return None

    @property
    def family(self) -> Family:
        """The family of the network."""
        return FAMILIES[self.settings["model_type"]]

    @property
    def vector_width(self) -> int:
        """The width of a token's and of a text's vector.

        Raises:
            ConfigError: as `SentenceEncoder`.
        """
        with _building():
            return int(_shape(self).hidden_size)

    @property
    def network_settings(self) -> dict[str, Any]:
        """The settings that the network is built from."""
        found = self.settings.get(self.family.tower, {}) if self.family.tower else self.settings
        return {
            name: value
            for name, value in (found.items() if isinstance(found, dict) else ())
            if name not in (*CODE_SETTINGS, "model_type") and not name.startswith("_")
        }


class SentenceEncoder(nn.Module):
    """A transformer and its pooling. The answer for a text does not depend on the others in its batch."""

    def __init__(self, config: SentenceConfig) -> None:
        """Build the network, with random weights.

        Raises:
            ConfigError: if transformers builds none from the configuration.
        """
        super().__init__()
        self.config = config
        with _building():
            with torch.device("meta"):
                count = sum(weights.numel() for weights in _transformer(config).parameters())
            if count > MAX_WEIGHTS:
                raise ConfigError(f"the transformer has {count:,} weights; expected at most {MAX_WEIGHTS:,}")
            self.transformer = _transformer(config)
        self.padding = int(self.transformer.config.pad_token_id or 0)

    @property
    def width(self) -> int:
        """The width of a vector."""
        return int(self.transformer.config.hidden_size)

    def features(self, tokens: Tensor) -> Tensor:
        """Turn tokens, (batch, length) int with -1 past a text's end, into (batch, width)."""
        return POOLINGS[self.config.pooling](*self._read(tokens))

    def token_vectors(self, tokens: Tensor) -> Tensor:
        """Turn tokens, as `features`, into the vector of each, (batch, length, width), 0 past a text's end."""
        found, present = self._read(tokens)
        vectors: Tensor = found.last_hidden_state * present[:, :, None]
        return nn.functional.pad(vectors, (0, 0, 0, tokens.shape[1] - vectors.shape[1]))

    def _read(self, tokens: Tensor) -> tuple[Any, Tensor]:
        """Return the transformer's output, and which tokens it has read, (batch, tokens) bool."""
        present = tokens >= 0
        if self.config.family.padded:
            return self.transformer(self._padded(tokens)), present
        used = max(1, int(present.sum(1).max()))  # skips columns that are padding in every text
        present = present[:, :used]
        return self.transformer(self._padded(tokens[:, :used]), attention_mask=present.long()), present

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn tokens into vectors, as `features`."""
        return self.features(tokens)

    def _padded(self, tokens: Tensor) -> Tensor:
        return tokens.masked_fill(tokens < 0, self.padding).long()


@contextlib.contextmanager
def _building() -> Iterator[None]:
    """Turn what transformers raises for a configuration into a `ConfigError`."""
    try:
        yield
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, ArithmeticError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"no transformer can be built from its configuration: {reason[:200]}") from None


def _transformer(config: SentenceConfig) -> Any:
    """Build a network of transformers."""
    shape, family = _shape(config), config.family
    import transformers

    if family.network:
        network: Any = getattr(transformers, family.network)._from_config(shape)
        return network
    return transformers.AutoModel.from_config(shape, trust_remote_code=False, **family.options)


def _shape(config: SentenceConfig) -> Any:
    """Build a configuration of transformers, which asks no hub for anything."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported
    import transformers

    return transformers.AutoConfig.for_model(
        config.family.model_type or config.settings["model_type"], **config.network_settings
    )
