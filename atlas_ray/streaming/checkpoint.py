"""What lets a stream go on after a crash: its identity and the recovery of half-written files.

Ray Data commits in this order: X.pending.parquet (the ids), the data files X, then a move of the
pending file to X.parquet. So data beside a pending file alone is not committed and is deleted
here; where both exist the data is whole and the pending file is a leftover.
"""

from collections.abc import Sequence

from ray.data import DataContext
from ray.data.checkpoint import CheckpointConfig

from atlas_ray import storage
from atlas_ray.streaming.tables import count_rows

CHECKPOINT = "checkpoint"
PENDING = ".pending.parquet"


def checkpointed(output: str) -> DataContext:
    """Return a context in which a stream commits picture ids after its files, and leaves out committed ones."""
    storage.make_folder(storage.join(output, CHECKPOINT))
    place = storage.locate(storage.join(output, CHECKPOINT))
    context = DataContext.get_current().copy()
    context.checkpoint_config = CheckpointConfig(
        id_column="image_id",
        checkpoint_path=place.path,
        override_filesystem=place.filesystem,
        delete_checkpoint_on_success=False,
    )
    context.wait_for_min_actors_s = 1800  # nothing is read before the models are loaded
    return context


def recover(output: str, folders: Sequence[str]) -> int:
    """Put the output into the state of its last commit; return how many writes were undone.

    Args:
        output: The run's folder.
        folders: What a write task makes files in.
    """
    checkpoint = storage.join(output, CHECKPOINT)
    files = set(storage.files(checkpoint, suffix=".parquet"))
    undone = 0
    for pending in sorted(uri for uri in files if uri.endswith(PENDING)):
        name = pending.rpartition("/")[2].removesuffix(PENDING)
        if storage.join(checkpoint, f"{name}.parquet") not in files:
            undone += 1
            for folder in folders:
                storage.delete_file(storage.join(output, folder, f"{name}.parquet"))
        storage.delete_file(pending)
    return undone


def rows_done(output: str) -> int:
    """Count the pictures that are committed, from the checkpoint's footers."""
    files = storage.files(storage.join(output, CHECKPOINT), suffix=".parquet")
    return count_rows(file for file in files if not file.endswith(PENDING))  # being written, or left by a crash
