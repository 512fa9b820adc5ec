"""The settings of a scoring run."""

from dataclasses import dataclass, field

from atlas_ray.errors import ConfigError
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.runtime.settings import StreamConfig
from atlas_ray.scoring.trust import TRUST
from atlas_ray.settings import setting


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(StreamConfig):
    """What to score, with what, and how."""

    catalog: str = setting("a catalogue: its products and images tables")
    model: str = setting("a trained model")
    zoom_model: str | None = setting("a zoom filter; pictures that it finds zoomed are left out", None)
    zoom_threshold: float | None = setting(
        "pictures of at least this probability are zoomed; the filter's own by default", None, low=0, high=1
    )
    embeddings: str | None = setting(
        "vectors of the catalogue's products, the output of `atlas-ray embed`, that a head answers from; no picture "
        "and no text is read; of a head over several modalities those of any of them",
        None,
        several=True,
    )
    output: str = setting("where predictions, quarantine, products and run.json go")
    taxonomy: str | None = setting("what may be predicted; the model's own taxonomy if none is given", None)
    target_precision: float | None = setting(
        "answer with an ancestor, or not at all, if the leaf is not sure enough for this share of right answers; "
        "the model has to be calibrated",
        None,
        low=0.5,
        high=0.9999,
    )
    cascade: float | None = setting(
        "answer by the texts alone, and do not read the pictures, if the leaf is sure enough for this share of right "
        "answers; the model has to be calibrated",
        None,
        low=0.5,
        high=0.9999,
    )
    within: str | None = setting("predict at and below this path alone: 'Women > Ethnic Wear'", None)
    previous: str | None = setting(
        "an earlier run of the same model; its answers are kept for what has not changed since", None
    )
    trust: str = setting(
        "what pictures are compared by with --previous: the etag, which costs one request for each; the content, which "
        "is read again; or the URI alone, if what it names never changes",
        "etag",
        choices=TRUST,
    )
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    decode_stage: str = setting(
        "where pictures are decoded: beside the model, in a stage of CPU tasks that scales by itself, or "
        "auto: a stage if the cluster has GPUs, and 8 cores beside one of them or nodes without",
        "auto",
        choices=("auto", "actor", "stage"),
    )

    def __post_init__(self) -> None:
        """Refuse values out of range, and what has no use without pictures.

        Raises:
            ConfigError: naming the setting.
        """
        super().__post_init__()
        of_pictures = [name for name in ("zoom_model", "previous", "cascade") if getattr(self, name)]
        if self.embeddings and of_pictures:
            raise ConfigError(
                f"{of_pictures[0]} goes with pictures, and embeddings are read instead of them; leave one out"
            )
