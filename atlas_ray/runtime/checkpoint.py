"""What lets a stream go on after a crash: its identity and the recovery of half-written files.

Ray Data commits in this order: X.pending.parquet (the ids), the data files X, then a move of the
pending file to X.parquet. So data without X.parquet is no part of the run, whoever left it: a stopped command, an
attempt that died, or a second command that wrote here; where a pending file lies beside X.parquet it is a leftover.
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
"""The pictures that a run is to ask for again, while their rows are being taken out of its tables."""


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


def reopen(output: str, folders: Sequence[str], *, retry_failed: bool) -> dict[str, Any] | None:
    """Put an output into the state of its last commit; return the account of a run with nothing left to do.

    Args:
        output: The run's folder.
        folders: What a write task makes files in.
        retry_failed: Take the pictures that failed for a passing reason out of the run, so that its
            stream asks for them again.

    Raises:
        OutputError: where there are such pictures, and the run has kept no checkpoint to go on from.
    """
    run = read_run(output)
    if run is not None and not retry_failed:
        return run
    if run is None:
        _take_out(output, folders)  # if it was stopped while it did that
        recover(output, folders)
    if retry_failed and len(failed := _failed(output, folders)):
        if not rows_done(output):
            raise OutputError(f"{output} holds a run that kept no checkpoint to go on from; use a new folder")
        storage.write_table(storage.join(output, RETRIED), pa.table({"image_id": failed}))
        _take_out(output, folders)
        run = None
    return run


def close(output: str, folders: Sequence[str], run: Mapping[str, Any]) -> None:
    """Delete what a finished run needs no longer; what `reopen` needs to take it up again stays.

    Args:
        output: The run's folder.
        folders: What a write task makes files in, and nobody reads later.
        run: The run's account.
    """
    if not may_pass(run):
        for folder in (*folders, CHECKPOINT):
            storage.delete_folder(storage.join(output, folder))


def _failed(output: str, folders: Sequence[str]) -> Integers:
    """Return the pictures, distinct, whose row has an error that may have passed."""
    found = [np.zeros(0, np.int64)]
    for file in _files(output, folders):
        table = storage.read_table(file)
        for name in {"error_code", "picture_error"}.intersection(table.column_names):
            codes = pc.list_element(pc.split_pattern(table[name].fill_null(""), ":", max_splits=1), 0)
            passing = pc.is_in(codes, pa.array(sorted(RETRYABLE_CODES)))
            found.append(table["image_id"].filter(passing).to_numpy())
    return np.unique(np.concatenate(found))


def _take_out(output: str, folders: Sequence[str]) -> None:
    """Delete the rows of the pictures that are to be asked for again; each step may be done twice."""
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
    """Put the output into the state of its last commit: only files that a commit names, and `UNSTREAMED`, are left.

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
        if (name := uri.rpartition("/")[2]) not in committed and not name.startswith(UNSTREAMED)
    ]
    pending = [storage.join(output, CHECKPOINT, name) for name in names if name.endswith(PENDING)]
    for uri in undone + pending:  # a pending file goes last: until then the next recovery knows of its data, too
        storage.delete_file(uri)
    return len(undone)


def rows_done(output: str) -> int:
    """Count the pictures that are committed, from the checkpoint's footers."""
    files = storage.files(storage.join(output, CHECKPOINT), suffix=".parquet")
    return count_rows(file for file in files if not file.endswith(PENDING))  # being written, or left by a crash
