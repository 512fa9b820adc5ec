from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data
from ray.data import DataContext

from atlas_ray.runtime import done
from atlas_ray.runtime.block_stats import ForgetBlockStats
from atlas_ray.runtime.room import MakeRoom
from atlas_ray.runtime.settings import MAX_FILES, file_rows


@pytest.mark.parametrize("part_ids", [10_000_000, 40])
def test_done_pictures_are_left_out(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_ids: int
) -> None:
    monkeypatch.setattr(done, "PART_IDS", part_ids)
    monkeypatch.setattr(done, "TASK_ROWS", 50)
    ids = np.random.default_rng(7).integers(-(2**63), 2**63 - 1, 120)
    files = [str(tmp_path / f"{start}.parquet") for start in range(0, 120, 30)]
    for start, file in zip(range(0, 120, 30), files, strict=True):
        errors = [None if start else "timeout"] * 30
        pq.write_table(
            pa.table({"image_id": ids[start : start + 30], "error_code": pa.array(errors, pa.string())}), file
        )
    twice = [*files, files[1]]
    table = pa.table({"image_id": np.concatenate([ids[::2], [1, 2, 3]])})
    known = done.load_done(twice, 150)
    assert (known.count, known.left(table)["image_id"].to_pylist()) == (120, [1, 2, 3])
    stored = done.load_done(twice, 150, failed=False)
    assert (stored.count, stored.left(table)["image_id"].to_pylist()) == (90, [*ids[:30:2].tolist(), 1, 2, 3])
    assert (done.load_done([], 0).count, len(done.load_done([], 0).left(table))) == (0, len(table))


def test_statistics_of_blocks_are_forgotten(local_ray: None) -> None:
    forgotten, left = 0, 0

    class Counted(ForgetBlockStats):
        def on_execution_step(self, executor: Any) -> None:
            nonlocal forgotten, left
            lists = [kept for operator in executor._topology for kept in operator.get_stats().values()]
            forgotten += sum(map(len, lists))
            super().on_execution_step(executor)
            left += sum(map(len, lists))

    context = DataContext.get_current().copy()
    assert context.custom_execution_callback_classes == [ForgetBlockStats, MakeRoom]
    context.custom_execution_callback_classes = [Counted]
    with DataContext.current(context):
        assert ray.data.range(60, override_num_blocks=6).map_batches(lambda batch: batch).materialize().count() == 60
    assert forgotten >= 6
    assert left == 0


def test_files_grow_with_the_catalogue_and_their_number_does_not() -> None:
    assert file_rows(2048, 1_000_000) == 2048
    assert file_rows(2048, 100_000_000) == 100_000_000 // MAX_FILES
