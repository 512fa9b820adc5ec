"""The settings that every stream over pictures has."""

from dataclasses import dataclass

from atlas_ray.settings import Settings, setting

OUTAGE_S = 300.0


@dataclass(frozen=True, kw_only=True)
class ReadConfig(Settings):
    """How the bytes of pictures are read."""

    fetch_threads: int = setting("objects read at a time by each fetching process", 32, low=1, high=1_000)
    timeout_s: float = setting("seconds for one request to the object store", 30.0, low=0.1, high=3_600)
    outage_s: float = setting(
        "seconds that the object store may be away; then the run stops, and the same command goes on later",
        OUTAGE_S,
        low=0,
        high=1500,  # Ray ends a stream that makes no progress for 1800 s
    )
    retry_failed: bool = setting("ask again for the pictures in quarantine for a reason that may have passed", False)


@dataclass(frozen=True, kw_only=True)
class StreamConfig(ReadConfig):
    """How a stream reads, how many processes hold its model, and what it writes."""

    # Several processes of few threads lose less to whatever else runs than one of many.
    workers: int = setting(
        "processes that hold a model; 0: one a GPU, or one a core, at most 8 a machine", 0, low=0, high=10_000
    )
    rows_per_file: int = setting("pictures an output file: what a crash may cost", 2048, low=1, high=10_000_000)
    max_quarantine_fraction: float = setting("exit with 3 where more are quarantined", 0.05, low=0, high=1)
