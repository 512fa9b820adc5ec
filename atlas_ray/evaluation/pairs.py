"""The frame of a comparison of two scoring runs: their products side by side, and the table of those that changed."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atlas_ray.arrays import Booleans, Integers, numbered, or_null
from atlas_ray.io import storage
from atlas_ray.runs.scored import ScoredRun
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.shuffle import by_product
from atlas_ray.schemas import CATEGORIZED

BEFORE, AFTER = range(2)
CHANGES = SAME, MOVED, ONLY_BEFORE, ONLY_AFTER = "same", "moved", "only_before", "only_after"
Rows = Callable[[pa.Table], pa.Table]


def joined_schema(columns: Sequence[str]) -> pa.Schema:
    """Return the schema of what is shuffled: these columns of the products of both runs, and whose each row is."""
    return pa.schema([("kind", pa.int8()), *(CATEGORIZED.field(name) for name in columns)])


@dataclass(frozen=True)
class Pairs:
    """The products of a block of both runs, and where each run has them."""

    products: pa.Array
    """The ids, each once."""
    rows: Integers
    """(2, products) the row of each product in the block, for each run; -1 if the run does not have it."""

    @classmethod
    def of(cls, block: pa.Table) -> "Pairs":
        """Find the products of a block of `joined_schema`."""
        products, owner = numbered(block["product_id"])
        rows = np.full((2, len(products)), -1)
        rows[block["kind"].to_numpy(), owner] = np.arange(len(block))
        return cls(products, rows)

    @property
    def in_both(self) -> Booleans:
        """Which products both runs have, (products,)."""
        before, after = self.rows >= 0
        in_both: Booleans = before & after
        return in_both

    def sides(self, columns: pa.Table) -> list[pa.Table]:
        """Return the rows of the products in each run, null where it does not have one, given those of the block."""
        return [columns.take(or_null(rows)) for rows in self.rows]

    def changes(self, same: Booleans) -> "np.ndarray[tuple[int], np.dtype[np.str_]]":
        """Return the change of each product, one of `CHANGES`, given which products of both runs have not changed."""
        before, after = self.rows >= 0
        return np.select([~after, ~before, same], [ONLY_BEFORE, ONLY_AFTER, SAME], MOVED)


def compared_blocks(
    runs: Sequence[ScoredRun], output: str, joined: pa.Schema, compare: Rows, changed: pa.Schema, written: Rows
) -> Iterator[pa.Table]:
    """Bring both runs' products together on Ray, and write `products.parquet`.

    Args:
        runs: The runs.
        output: The folder of the table.
        joined: Of `joined_schema`.
        compare: Turns all rows of some products into rows with a `product_id` that changed, and others with null.
        changed: The schema of `products.parquet`.
        written: Turns rows of products that changed into its rows.

    Yields:
        What `compare` made, block by block.
    """
    total = sum(run.products.rows for run in runs)
    tables = [(run.products, kind) for kind, run in enumerate(runs)]
    compared = by_product(tables, joined, total, functools.partial(_with_count, compare=compare))
    with (
        ProgressDisplay("comparing", "rows", total=total) as display,
        storage.writing(storage.join(output, "products.parquet")) as stream,
        pq.ParquetWriter(stream, changed) as writer,
    ):
        for block in compared.blocks():
            made = block.drop_columns([COUNT])
            writer.write_table(written(made.filter(made["product_id"].is_valid())))
            yield made
            display.add({"compared": pc.sum(block[COUNT]).as_py() or 0})


COUNT = "compared_rows"
"""The column of a block that says how many rows were compared for it."""


def _with_count(table: pa.Table, compare: Rows) -> pa.Table:
    made = compare(table)
    counts = np.zeros(len(made), np.int64)
    counts[:1] = len(table)
    return made.append_column(COUNT, pa.array(counts))
