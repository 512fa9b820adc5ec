"""A copy of a catalogue whose products are changed on the way."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from atlas_ray import storage
from atlas_ray.streaming.tables import copy_images

PART_ROWS = 100_000


def copy_catalog(catalog: str, output: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Copy a catalogue's tables and taxonomy; the products pass through `change`, some rows at a time, in order.

    Args:
        catalog: Its URI.
        output: Where the copy goes; tables that are there are replaced.
        change: Returns as many rows as it is given.
    """
    for name in ("products", "images"):
        folder = storage.join(output, name)
        storage.delete_folder(folder)
        storage.make_folder(folder)
    copy_images(catalog, output)
    source = storage.locate(storage.join(catalog, "products"))
    table = ds.dataset(source.path, filesystem=source.filesystem, format="parquet")
    place = storage.locate(storage.join(output, "products"))
    for number, batch in enumerate(table.to_batches(batch_size=PART_ROWS)):
        part = change(pa.Table.from_batches([batch]))
        pq.write_table(part, f"{place.path}/part-{number:05d}.parquet", filesystem=place.filesystem)
    taxonomy = storage.join(catalog, "taxonomy.json")
    if storage.exists(taxonomy):
        storage.write_bytes(storage.join(output, "taxonomy.json"), storage.read_bytes(taxonomy))
