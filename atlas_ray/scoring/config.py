"""The settings of a scoring run."""

from dataclasses import asdict, dataclass, field
from typing import Any

from atlas_ray.errors import ConfigError
from atlas_ray.predictors import PredictorConfig


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What to score, with what, and how."""

    catalog: str
    """A catalogue: its products and images tables."""
    model: str
    """An artifact."""
    output: str
    """Where predictions, quarantine, products and run.json go."""
    taxonomy: str | None = None
    """What may be predicted; the model's own taxonomy where none is given."""
    within: str | None = None
    """Predict at and below this path alone, written `Women > Ethnic Wear`."""
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    """How the model runs."""
    workers: int = 0
    """Processes that hold a model; 0 for one a GPU, or without GPUs one a core, at most 8 a machine.
    Several processes of few threads lose less to whatever else runs than one of many."""
    decode_stage: str = "auto"
    """Where pictures are decoded: `actor`, in threads beside the model; `stage`, in CPU tasks of
    their own that scale apart; `auto`, a stage of its own where the cluster has GPUs and CPU nodes
    without one."""
    fetch_threads: int = 32
    """Objects read at a time by each fetching process."""
    timeout_s: float = 30.0
    """For one request to the object store."""
    rows_per_file: int = 2048
    """Pictures an output file; what a crash may cost is what was not yet in a file."""
    max_quarantine_fraction: float = 0.05
    """A larger share of pictures in quarantine is reported as such."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.decode_stage not in ("auto", "actor", "stage"):
            raise ConfigError(f"decode_stage is {self.decode_stage!r}; expected auto, actor or stage")
        for name, low, high in (
            ("workers", 0, 10_000),
            ("fetch_threads", 1, 1_000),
            ("timeout_s", 0.1, 3_600),
            ("rows_per_file", 1, 10_000_000),
            ("max_quarantine_fraction", 0.0, 1.0),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected {low} to {high}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)
