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
import pyarrow.parquet as pq
import ray
from ray.data import DataContext
from ray.data.checkpoint import CheckpointConfig, CheckpointFilter, CheckpointManager

from atlas_ray.arrays import Integers
from atlas_ray.errors import RETRYABLE_CODES, OutputError
from atlas_ray.io import storage
from atlas_ray.io.ahead import ahead
from atlas_ray.runs.run_record import RUN, error_codes, may_pass, read_run
from atlas_ray.runtime.done import DoneIds, is_in_sorted, load_done
from atlas_ray.runtime.tables import count_rows

CHECKPOINT = "checkpoint"
PENDING = ".pending.parquet"
UNSTREAMED = "carried-"
"""The beginning of the names of files that were written before the stream began, and that no commit names."""
RETRIED = "retried.parquet"
"""The file of the pictures that a run is to read again; it exists while their rows are removed from its tables."""


def committed_ids(output: str) -> DoneIds | None:
    """Return the pictures that are committed; None if there are none."""
    files = _committed(output)
    # An id takes 8 bytes at most: to count them exactly, every file would be asked twice.
    return load_done(list(files), sum(files.values()) // 8) if files else None


def checkpointed(output: str, done: DoneIds | None) -> DataContext:
    """Return a context in which a stream commits picture ids after its files, and skips committed ones.

    Args:
        output: The run's folder.
        done: `committed_ids` of it.
    """
    storage.make_folder(storage.join(output, CHECKPOINT))
    context = DataContext.get_current().copy()
    context.checkpoint_config = _Checkpoint(output, done)
    return context


class _Checkpoint(CheckpointConfig):
    """The checkpoint of an output."""

    def __init__(self, output: str, done: DoneIds | None) -> None:
        place = storage.locate(storage.join(output, CHECKPOINT))
        super().__init__(
            id_column="image_id",
            checkpoint_path=place.path,
            override_filesystem=place.filesystem,
            delete_checkpoint_on_success=False,
            checkpoint_manager_cls=_LoadDone,
            checkpoint_filter_cls=_LeaveOutDone,
        )
        self.done = done


class _LoadDone(CheckpointManager):
    """Gives a stream what is committed; Ray's own would bring all ids together in one block."""

    def __init__(self, checkpoint_config: _Checkpoint, data_context: DataContext) -> None:
        super().__init__(checkpoint_config, data_context)
        self._done = checkpoint_config.done

    def load_checkpoint(self, *_: Any) -> tuple[Any, int]:
        """Return a reference to the done pictures, and the memory that each filter needs of its own."""
        return (ray.put(self._done) if self._done else None), 0


class _LeaveOutDone(CheckpointFilter):
    """Leaves what is committed out of a stream."""

    def __init__(self, config: CheckpointConfig, checkpoint_ref: Any = None) -> None:
        super().__init__(config, checkpoint_ref)
        self._done: DoneIds = ray.get(checkpoint_ref)

    def filter_rows_for_block(self, block: pa.Table) -> pa.Table:
        """Return the rows of a block that are left to do."""
        return self._done.left(block)


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
    return np.unique(np.concatenate([np.zeros(0, np.int64), *ahead(_failed_in, _files(output, folders))]))


def _failed_in(uri: str) -> Integers:
    ids = [np.zeros(0, np.int64)]
    place = storage.locate(uri)
    with storage.named(uri), pq.ParquetFile(place.path, filesystem=place.filesystem) as file:
        for name in {"error_code", "picture_error"}.intersection(file.schema_arrow.names):
            errors = file.read([name])[name]
            if errors.null_count == len(errors):  # as in most files; their ids are not needed
                continue
            codes = error_codes(errors.fill_null(""))
            retryable = pc.is_in(codes, pa.array(sorted(RETRYABLE_CODES)))
            ids.append(file.read(["image_id"])["image_id"].filter(retryable).to_numpy())
    return np.concatenate(ids)


def _remove_retried(output: str, folders: Sequence[str]) -> None:
    """Delete the rows of the pictures that are to be read again; each step may be repeated."""
    marked = storage.join(output, RETRIED)
    if not storage.exists(marked):
        return
    ids = np.sort(storage.read_table(marked)["image_id"].to_numpy())
    storage.delete_file(storage.join(output, RUN))
    for _ in ahead(lambda file: _remove_ids(file, ids), _files(output, (*folders, CHECKPOINT)), threads=4):
        pass
    storage.delete_file(marked)


def _remove_ids(file: str, ids: Integers) -> None:
    gone = is_in_sorted(storage.read_table(file, ["image_id"])["image_id"].to_numpy(), ids)
    if gone.all():
        storage.delete_file(file)
    elif gone.any():
        storage.write_table(file, storage.read_table(file).filter(pa.array(~gone)))


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
    storage.delete_files(undone)
    storage.delete_files(pending)  # last, so that a recovery after a crash here finds their data, too
    return len(undone)


def rows_done(output: str) -> int:
    """Count the pictures that are committed, from the checkpoint's footers."""
    return count_rows(list(_committed(output)))


def _committed(output: str) -> dict[str, int]:
    files = storage.file_sizes(storage.join(output, CHECKPOINT), suffix=".parquet")
    return {
        file: size for file, size in files.items() if not file.endswith(PENDING)
    }  # those are being written, or a crash left them
