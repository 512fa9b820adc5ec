"""What lets a stream go on after a crash: its identity and the recovery of half-written files.

Ray Data commits in this order: X.pending.parquet (the ids), the data files X, then a move of the
pending file to X.parquet. So data without X.parquet is no part of the run, whoever left it: a stopped command, an
attempt that died, or a second command that wrote here; where a pending file lies beside X.parquet it is a leftover.
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
    """Put the output into the state of its last commit: only files that a commit names are left.

    Args:
        output: The run's folder.
        folders: What write tasks make files in, and nobody else.

    Returns:
        How many files were deleted.
    """
    names = [uri.rpartition("/")[2] for uri in storage.files(storage.join(output, CHECKPOINT), suffix=".parquet")]
    committed = {name for name in names if not name.endswith(PENDING)}
    undone = [
        uri
        for folder in folders
        for uri in storage.files(storage.join(output, folder))
        if uri.rpartition("/")[2] not in committed
    ]
    pending = [storage.join(output, CHECKPOINT, name) for name in names if name.endswith(PENDING)]
    for uri in undone + pending:  # a pending file goes last: until then the next recovery knows of its data, too
        storage.delete_file(uri)
    return len(undone)


def rows_done(output: str) -> int:
    """Count the pictures that are committed, from the checkpoint's footers."""
    files = storage.files(storage.join(output, CHECKPOINT), suffix=".parquet")
    return count_rows(file for file in files if not file.endswith(PENDING))  # being written, or left by a crash
