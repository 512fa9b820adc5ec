"""The settings of a scoring run."""

from dataclasses import asdict, dataclass, field
from typing import Any

from atlas_ray.config import check_settings, setting
from atlas_ray.predictors import PredictorConfig


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What to score, with what, and how."""

    catalog: str = setting("a catalogue: its products and images tables")
    model: str = setting("a trained model")
    zoom_model: str | None = setting("a zoom filter; pictures that it finds zoomed are left out", None)
    zoom_threshold: float | None = setting(
        "pictures of at least this probability are zoomed; the filter's own by default", None, low=0, high=1
    )
    output: str = setting("where predictions, quarantine, products and run.json go")
    taxonomy: str | None = setting("what may be predicted; the model's own taxonomy where none is given", None)
    target_precision: float | None = setting(
        "answer with an ancestor, or not at all, where the leaf is not sure enough for this share of right answers; "
        "the model has to be calibrated",
        None,
        low=0.5,
        high=0.9999,
    )
    within: str | None = setting("predict at and below this path alone: 'Women > Ethnic Wear'", None)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    # Several processes of few threads lose less to whatever else runs than one of many.
    workers: int = setting(
        "processes that hold a model; 0: one a GPU, or one a core, at most 8 a machine", 0, low=0, high=10_000
    )
    decode_stage: str = setting(
        "where pictures are decoded: beside the model, in a stage of CPU tasks that scales apart, or "
        "auto: apart where the cluster has GPUs and CPU nodes without one",
        "auto",
        choices=("auto", "actor", "stage"),
    )
    fetch_threads: int = setting("objects read at a time by each fetching process", 32, low=1, high=1_000)
    timeout_s: float = setting("seconds for one request to the object store", 30.0, low=0.1, high=3_600)
    rows_per_file: int = setting("pictures an output file: what a crash may cost", 2048, low=1, high=10_000_000)
    max_quarantine_fraction: float = setting("exit with 3 where more are quarantined", 0.05, low=0, high=1)

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_settings(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)
