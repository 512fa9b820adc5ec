"""Vectors of several embedding runs, brought together by product."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.arrays import matrix
from atlas_ray.errors import EmbeddingError
from atlas_ray.runs.embedded import open_several, summed
from atlas_ray.schemas import embeddings

COLUMNS = ("product_id", "category_path", "vector")


def write_run(folder: Path, vectors: dict[str, list[float]], width: int, path: list[str] | None = None) -> str:
    """Write what `embed` leaves."""
    (folder / "embeddings").mkdir(parents=True)
    rows = [{"product_id": name, "vector": vector, "category_path": path} for name, vector in vectors.items()]
    pq.write_table(pa.Table.from_pylist(rows, embeddings(width)), folder / "embeddings" / "0.parquet")
    identity = {"model_id": folder.name, "width": width, "catalog": "c"}
    account = {"job": "embed", "identity": identity, "counts": {"products": len(vectors)}}
    (folder / "run.json").write_text(json.dumps(account))
    return str(folder)


def test_parts_of_a_product_are_summed(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"x": [1.0, 2.0], "y": [3.0, 4.0]}, 2)
    second = write_run(tmp_path / "b", {"y": [5.0], "z": [6.0]}, 1, ["Men"])
    runs = open_several(f"{first},{second}")
    assert [run.model_id for run in runs] == ["a", "b"]
    tables = [runs[0].part(COLUMNS, 0, 3), runs[1].part(COLUMNS, 2, 3)]
    both = pa.concat_tables([table for part in tables for table in part.batches()])
    found = summed(both)
    assert dict(zip(found["product_id"].to_pylist(), matrix(found["vector"]).tolist(), strict=True)) == {
        "x": [1, 2, 0], "y": [3, 4, 5], "z": [0, 0, 6],
    }  # fmt: skip
    assert found["category_path"].to_pylist() == [None, ["Men"], ["Men"]]
    assert summed(found).equals(found)


def test_a_run_alone_is_read_as_it_is(tmp_path: Path) -> None:
    (run,) = open_several(write_run(tmp_path / "a", {"x": [1.0, 2.0]}, 2))
    assert run.part(COLUMNS, 0, 2).change is None
    (table,) = run.part(COLUMNS, 0, 2, [pa.field("image_id", pa.int64())]).batches()
    np.testing.assert_array_equal(matrix(table["vector"]), [[1, 2]])
    with pytest.raises(EmbeddingError, match="no finished embedding run"):
        open_several(f"{run.uri},{tmp_path}/nothing")
