"""The settings of a training run."""

from dataclasses import asdict, dataclass
from typing import Any

from atlas_ray.errors import ConfigError
from atlas_ray.models.backbone import FEATURES


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train on, and how. The defaults are the Atlas paper's (section 5.2)."""

    catalog: str
    """A catalogue with labelled products."""
    output: str
    """Where the artifact goes; the run's checkpoints lie below it until it is done."""
    taxonomy: str | None = None
    """A taxonomy; the catalogue's own where none is given."""
    backbone: str = "resnet101"
    """resnet18, resnet34, resnet50 or resnet101."""
    weights: str = "none"
    """What the backbone starts from: none, imagenet, or a path to a state dict."""
    image_size_px: int = 150
    """Pictures are squashed to this square."""
    hidden_dim: int = 512
    """Of the embedding, the attention and the LSTM."""
    dropout: float = 0.5
    """Before the decoder's output layer."""
    epochs: int = 3
    batch_size: int = 128
    """Pictures a step, over all workers together."""
    encoder_lr: float = 1e-4
    decoder_lr: float = 4e-4
    schedule: str = "constant"
    """`constant`, or `one-cycle` (Smith): up to the learning rates given and down again."""
    weight_decay: float = 0.0
    """Decoupled, of all but biases and normalizations."""
    label_smoothing: float = 0.0
    attention_regularization: float = 1.0
    """Weight of the doubly stochastic regularization."""
    clip: float = 5.0
    """Gradients are scaled down to this norm."""
    augment: bool = False
    """Random crops, stretches and mirrored pictures; from scratch one needs them."""
    precision: str = "auto"
    """float32, bfloat16 (autocast), or auto."""
    workers: int = 1
    """Processes that train, each on a GPU where there are GPUs."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        choices = {
            "backbone": tuple(FEATURES),
            "schedule": ("constant", "one-cycle"),
            "precision": ("auto", "float32", "bfloat16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}")
        ranges: dict[str, tuple[float, float]] = {
            "image_size_px": (32, 2048),
            "hidden_dim": (1, 8192),
            "dropout": (0, 0.99),
            "epochs": (1, 10_000),
            "batch_size": (2, 65_536),
            "encoder_lr": (0, 10),
            "decoder_lr": (0, 10),
            "weight_decay": (0, 10),
            "label_smoothing": (0, 0.99),
            "attention_regularization": (0, 100),
            "clip": (1e-6, 1e6),
            "workers": (1, 4096),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected {low} to {high}")
        if self.batch_size % self.workers or self.batch_size // self.workers < 2:
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be shared by {self.workers} workers; "
                "it must be a multiple, with at least 2 pictures for each"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)
