"""Recovery of a stream after a crash, by Ray Data's checkpoint.

Ray Data commits in this order: X.pending.parquet (the ids), the data files X, then a move of the pending file to
X.parquet. So data without X.parquet is not part of the run: a stopped command, an attempt that died, or a second
command left it. A pending file beside X.parquet is a leftover.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ray.data import DataContext
from ray.data.checkpoint import CheckpointConfig

from atlas_ray.arrays import Integers
from atlas_ray.errors import RETRYABLE_CODES, OutputError
from atlas_ray.io import storage
from atlas_ray.runs.run_record import RUN, may_pass, read_run
from atlas_ray.runtime.tables import count_rows

CHECKPOINT = "checkpoint"
PENDING = ".pending.parquet"
UNSTREAMED = "carried-"
"""The beginning of the names of files that were written before the stream began, and that no commit names."""
RETRIED = "retried.parquet"
"""The file of the pictures that a run is to read again; it exists while their rows are removed from its tables."""


def checkpointed(output: str) -> DataContext:
    """Return a context in which a stream commits picture ids after its files, and skips committed ones."""
    storage.make_folder(storage.join(output, CHECKPOINT))
    place = storage.locate(storage.join(output, CHECKPOINT))
    context = DataContext.get_current().copy()
    context.checkpoint_config = CheckpointConfig(
        id_column="image_id",
        checkpoint_path=place.path,
        override_filesystem=place.filesystem,
        delete_checkpoint_on_success=False,
    )
    context.wait_for_min_actors_s = 1800  # reading starts after the models are loaded
    return context


def reopen(output: str, folders: Sequence[str], *, retry_failed: bool) -> dict[str, Any] | None:
    """Put an output into the state of its last commit; return the `run.json` of a run with nothing left to do.

    Args:
        output: The run's folder.
        folders: The folders that write tasks make files in.
        retry_failed: Remove the pictures with an error that may have passed from the run, so that its stream reads
            them again.

    Raises:
        OutputError: if there are such pictures, and the run has no checkpoint to go on from.
    """
    run = read_run(output)
    if run is not None and not retry_failed:
        return run
    if run is None:
        _remove_retried(output, folders)  # an earlier try may have been stopped while it did that
        recover(output, folders)
    if retry_failed and len(failed := _failed(output, folders)):
        if not rows_done(output):
            raise OutputError(f"{output} holds a run that kept no checkpoint to go on from; use a new folder")
        storage.write_table(storage.join(output, RETRIED), pa.table({"image_id": failed}))
        _remove_retried(output, folders)
        run = None
    return run


def close(output: str, folders: Sequence[str], run: Mapping[str, Any]) -> None:
    """Delete what a finished run no longer needs, unless `reopen` may need it for a retry.

    Args:
        output: The run's folder.
        folders: Folders of write tasks that are not read later.
        run: The content of `run.json`.
    """
    if not may_pass(run):
        for folder in (*folders, CHECKPOINT):
            storage.delete_folder(storage.join(output, folder))


def _failed(output: str, folders: Sequence[str]) -> Integers:
    """Return the distinct pictures with an error that may have passed."""
    ids = [np.zeros(0, np.int64)]
    for file in _files(output, folders):
        table = storage.read_table(file)
        for name in {"error_code", "picture_error"}.intersection(table.column_names):
            codes = pc.list_element(pc.split_pattern(table[name].fill_null(""), ":", max_splits=1), 0)
            retryable = pc.is_in(codes, pa.array(sorted(RETRYABLE_CODES)))
            ids.append(table["image_id"].filter(retryable).to_numpy())
    return np.unique(np.concatenate(ids))


def _remove_retried(output: str, folders: Sequence[str]) -> None:
    """Delete the rows of the pictures that are to be read again; each step may be repeated."""
    marked = storage.join(output, RETRIED)
    if not storage.exists(marked):
        return
    ids = storage.read_table(marked)["image_id"].combine_chunks()
    storage.delete_file(storage.join(output, RUN))
    for file in _files(output, (*folders, CHECKPOINT)):
        table = storage.read_table(file)
        kept = table.filter(pc.invert(pc.is_in(table["image_id"], ids)))
        if not len(kept):
            storage.delete_file(file)
        elif len(kept) < len(table):
            storage.write_table(file, kept)
    storage.delete_file(marked)


def _files(output: str, folders: Sequence[str]) -> list[str]:
    return [uri for folder in folders for uri in storage.files(storage.join(output, folder), suffix=".parquet")]


def recover(output: str, folders: Sequence[str]) -> int:
    """Put the output into the state of its last commit: delete files that no commit names, but for `UNSTREAMED`.

    Args:
        output: The run's folder.
        folders: The folders that only write tasks make files in.

    Returns:
        The number of deleted files.
    """
    names = [uri.rpartition("/")[2] for uri in storage.files(storage.join(output, CHECKPOINT), suffix=".parquet")]
    committed = {name for name in names if not name.endswith(PENDING)}
    undone = [
        uri
        for folder in folders
        for uri in storage.files(storage.join(output, folder))
        if (name := uri.rpartition("/")[2]) not in committed and not name.startswith(UNSTREAMED)
    ]
    pending = [storage.join(output, CHECKPOINT, name) for name in names if name.endswith(PENDING)]
    for uri in undone + pending:  # pending files last, so that a recovery after a crash here finds their data, too
        storage.delete_file(uri)
    return len(undone)


def rows_done(output: str) -> int:
    """Count the pictures that are committed, from the checkpoint's footers."""
    files = storage.files(storage.join(output, CHECKPOINT), suffix=".parquet")
    return count_rows(file for file in files if not file.endswith(PENDING))  # being written, or left by a crash
