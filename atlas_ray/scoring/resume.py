"""What lets a run go on after a crash: its identity and the recovery of half-written files.

Ray Data commits in this order: X.pending.parquet (the ids), the data files X, then a move of the
pending file to X.parquet. So data beside a pending file alone is not committed and is deleted
here; where both exist the data is whole and the pending file is a leftover.
"""

from typing import Any

from atlas_ray import storage
from atlas_ray.config import hold_settings
from atlas_ray.errors import OutputError

CHECKPOINT = "checkpoint"
IDENTITY = "score.json"
PENDING = ".pending.parquet"


def hold_identity(output: str, identity: dict[str, Any]) -> None:
    """Write what the run is made of, or check that the run in the output is made of the same.

    Raises:
        OutputError: naming the first difference: one output never holds two models, taxonomies or
            catalogues.
    """
    if not storage.exists(storage.join(output, IDENTITY)):
        for name in ("predictions", "quarantine", "products"):
            if storage.files(storage.join(output, name)):
                raise OutputError(f"{output} holds {name} of another origin; score into a new folder")
    hold_settings(output, IDENTITY, identity)


def recover(output: str) -> int:
    """Put the output into the state of its last commit; return how many writes were undone."""
    checkpoint = storage.join(output, CHECKPOINT)
    files = set(storage.files(checkpoint, suffix=".parquet"))
    undone = 0
    for pending in sorted(uri for uri in files if uri.endswith(PENDING)):
        name = pending.rpartition("/")[2].removesuffix(PENDING)
        if storage.join(checkpoint, f"{name}.parquet") not in files:
            undone += 1
            for folder in ("predictions", "quarantine"):
                storage.delete_file(storage.join(output, folder, f"{name}.parquet"))
        storage.delete_file(pending)
    return undone


def rows_done(output: str) -> int:
    """Count the pictures that are committed, from the checkpoint's footers."""
    import pyarrow.parquet as pq

    count = 0
    for uri in storage.files(storage.join(output, CHECKPOINT), suffix=".parquet"):
        if uri.endswith(PENDING):  # being written, or left by a crash
            continue
        place = storage.locate(uri)
        count += pq.read_metadata(place.path, filesystem=place.filesystem).num_rows
    return count
