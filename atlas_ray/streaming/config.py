"""The settings that every stream over pictures has."""

from dataclasses import asdict, dataclass
from typing import Any

from atlas_ray.config import check_settings, setting


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How a stream reads, how many processes hold its model, and what it writes."""

    # Several processes of few threads lose less to whatever else runs than one of many.
    workers: int = setting(
        "processes that hold a model; 0: one a GPU, or one a core, at most 8 a machine", 0, low=0, high=10_000
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
