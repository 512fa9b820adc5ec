"""The settings of an embedding run, and of what its output is asked."""

from dataclasses import dataclass, field

from atlas_ray.errors import ConfigError
from atlas_ray.modalities.texts import FIELDS
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.runtime.settings import StreamConfig
from atlas_ray.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(StreamConfig):
    """What to embed, with what, and how."""

    catalog: str = setting("a catalogue: its products and images tables")
    model: str | None = setting(
        "what makes the vectors: a trained model, or package:efficientnet_lite0, 1 or 2, an encoder that was trained "
        "on ImageNet and comes with the extra weights",
        None,
    )
    encoder: str | None = setting(
        "what makes the vectors and was not trained here: of a text the folder of a sentence encoder, as Hugging "
        "Face's hub lays it out, or package:minilm, which comes with the extra minilm; of pictures package:NAME",
        None,
    )
    modality: str = setting("text of a product that --encoder reads", "title", choices=tuple(FIELDS))
    prefix: str | None = setting(
        "text that --encoder reads before each text, such as 'query: '; its folder's own if not given", None
    )
    output: str = setting("where embeddings, index, encoder, quarantine and run.json go")
    image_size_px: int | None = setting(
        "side of the square that pictures are resized to, for package:NAME; its usual one if not given",
        None,
        low=32,
        high=2048,
    )
    predictor: PredictorConfig = field(default_factory=PredictorConfig)

    def __post_init__(self) -> None:
        """Refuse values out of range, and more or less than one thing that makes the vectors.

        Raises:
            ConfigError: naming the settings.
        """
        super().__post_init__()
        if (self.model is None) == (self.encoder is None):
            raise ConfigError("expected what makes the vectors: a trained model with --model, or --encoder")
        if self.prefix is not None and self.encoder is None:
            raise ConfigError(f"prefix is {self.prefix!r}, which is for --encoder; leave it out for a trained model")


@dataclass(frozen=True, kw_only=True)
class SimilarConfig(Settings):
    """What to look for: a product's like, that of a picture or a text, or likely label errors."""

    embeddings: str = setting("the output of `atlas-ray embed`")
    product_id: str | None = setting("look for products like this one", None)
    image: str | None = setting("look for products like this picture: a file or an s3:// URI", None)
    title: str | None = setting("with this title, if the model reads titles", None)
    description: str | None = setting("with this description, if the model reads descriptions", None)
    model: str | None = setting(
        "the model that made the embeddings, for a picture or a text; needed if an older version made them, which kept "
        "no copy",
        None,
    )
    label_errors: bool = setting("list nearly identical products whose labels differ, instead", False)
    k: int = setting("products to show; of each product, how many to compare its label with", 10, low=1, high=1_000)
    min_similarity: float = setting("of nearly identical products, the least", 0.98, low=-1, high=1)
    limit: int = setting("pairs of likely label errors, at most", 10_000, low=1, high=1_000_000)

    def __post_init__(self) -> None:
        """Refuse values out of range, and more or less than one question.

        Raises:
            ConfigError: saying what is missing or too much.
        """
        super().__post_init__()
        shown = any(value is not None for value in (self.image, self.title, self.description))
        if (self.product_id is not None) + shown + self.label_errors != 1:
            raise ConfigError(
                "expected one question: --product-id, or --image, --title and --description, or --label-errors"
            )
