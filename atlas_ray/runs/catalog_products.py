"""Products of a catalogue, read by their ids."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow.compute as pc

from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.runs.scored import BATCH_ROWS
from atlas_ray.schemas import PRODUCTS


def read_products(catalog: str, product_ids: Collection[str], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield rows of some products, in one pass over a catalogue's products table.

    Args:
        catalog: Its folder.
        product_ids: Whose rows; those that the catalogue lacks are left out.
        columns: What is read beside `product_id`.

    Raises:
        CatalogError, StorageError: if the table cannot be read.
    """
    uri = storage.join(storage.absolute(catalog), "products")
    table = open_table(uri, PRODUCTS, columns=["product_id", *columns], foreign=True)
    for batch in table.batches(where=pc.field("product_id").isin(list(product_ids)), batch_rows=BATCH_ROWS):
        yield from batch.to_pylist()
