"""Rows of several tables brought together by product."""

import functools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.formats.tables import open_table
from atlas_ray.runtime.shuffle import by_product

SCHEMA = pa.schema({"kind": pa.int8(), "product_id": pa.string(), "price": pa.int64(), "note": pa.string()})


def _sums(table: pa.Table, largest: int) -> pa.Table:
    assert len(table) <= largest
    assert table.schema.equals(SCHEMA)
    totals = table.group_by("product_id").aggregate([("price", "sum"), ("kind", "max"), ("note", "count")])
    return totals.append_column("rows", pa.array([len(table)] * len(totals), pa.int64()))


@pytest.mark.parametrize(("partition_rows", "in_one"), [(1_000, True), (30, False)])
def test_all_rows_of_a_product_meet(local_ray: None, tmp_path: Path, partition_rows: int, in_one: bool) -> None:
    for name, column in (("left", "price"), ("right", "note")):
        (tmp_path / name).mkdir()
        for part in range(3):
            mine = [number for number in range(50) if number % 3 == part]
            values = mine if column == "price" else [f"no. {number}" for number in mine]
            table = pa.table({"product_id": [f"P{number % 20}" for number in mine], column: values})
            pq.write_table(table, tmp_path / name / f"part-{part}.parquet")
    names = ("left", "right", "missing")
    tables = [(open_table(str(tmp_path / name), SCHEMA, may_be_missing=True), kind) for kind, name in enumerate(names)]
    sums = functools.partial(_sums, largest=100)
    combined = by_product(tables, SCHEMA, 300 if in_one else 301, sums, partition_rows=300 if in_one else 30)
    joined = [row for block in combined.blocks() for row in block.to_pylist()]
    found = {row["product_id"]: row for row in joined}
    assert len(found) == len(joined) == 20
    assert sum(row["price_sum"] for row in joined) == sum(range(50))
    assert sum(row["note_count"] for row in joined) == 50
    assert {row["kind_max"] for row in joined} == {1}
    assert ({row["rows"] for row in joined} == {100}) == in_one


def test_tables_without_a_row_are_combined_too(local_ray: None, tmp_path: Path) -> None:
    (tmp_path / "left").mkdir()
    empty = pa.schema({"product_id": pa.string()}).empty_table()
    pq.write_table(empty, tmp_path / "left" / "part-0.parquet")
    made = by_product(
        ((open_table(str(tmp_path / "left"), SCHEMA), 0),), SCHEMA, 0, functools.partial(_sums, largest=0)
    )
    assert [len(block) for block in made.blocks()] == [0]
