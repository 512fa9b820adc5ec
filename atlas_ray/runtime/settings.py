"""The settings that every stream over pictures has."""

from dataclasses import dataclass

from atlas_ray.settings import Settings, setting

OUTAGE_S = 300.0
"""Seconds that a store may be away by default."""

MAX_FILES = 4_000
"""About the most files of a table that a stream writes, however many pictures there are."""


def file_rows(rows_per_file: int, total: int) -> int:
    """Return the least number of rows in a file, so that a table of `total` rows has at most `MAX_FILES` files."""
    return max(rows_per_file, -(-total // MAX_FILES))


@dataclass(frozen=True, kw_only=True)
class ReadConfig(Settings):
    """How the bytes of pictures are read."""

    fetch_threads: int = setting("number of objects that each fetching process reads at a time", 64, low=1, high=1_000)
    timeout_s: float = setting("timeout of a request to the object store in seconds", 30.0, low=0.1, high=3_600)
    outage_s: float = setting(
        "longest outage of the object store in seconds; then the run stops, and the same command goes on later",
        OUTAGE_S,
        low=0,
        high=1500,  # Ray ends a stream that makes no progress for 1800 s
    )
    retry_failed: bool = setting("read the quarantined pictures again whose error may have passed", False)


@dataclass(frozen=True, kw_only=True)
class StreamConfig(ReadConfig):
    """How a stream reads, how many processes hold its model, and what it writes."""

    # Several processes of few threads lose less to other programs than one process of many.
    workers: int = setting(
        "number of processes with a model; 0: one for each GPU, or for each core, at most 8 on a machine",
        0,
        low=0,
        high=10_000,
    )
    workers_per_gpu: int = setting(
        "number of processes that share a GPU, each with the model in its memory; more where the GPU waits for what "
        "else its process does",
        1,
        low=1,
        high=16,
    )
    rows_per_file: int = setting(
        f"least number of pictures in an output file, which a crash may cost; more in a table that would have over "
        f"{MAX_FILES:,} files",
        2048,
        low=1,
        high=10_000_000,
    )
    max_quarantine_fraction: float = setting(
        "largest share of pictures in quarantine; above it the exit code is 3", 0.05, low=0, high=1
    )


@dataclass(frozen=True, kw_only=True)
class PlanConfig(Settings):
    """Whether to plan a run instead of running it, and what its plan tells."""

    plan: bool = setting("try the stages on a sample of the pictures, and forecast the run; nothing is written", False)
    plan_pictures: int = setting(
        "number of pictures that --plan tries; 0: some blocks for each process", 0, low=0, high=1_000_000
    )
    json: bool = setting("print the plan as JSON, for a program", False)
    price_per_hour: float | None = setting(
        "price of a machine for an hour, for the cost that --plan forecasts", None, low=0, high=1e6
    )
