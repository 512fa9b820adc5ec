"""A copy of a catalogue whose rows are changed on the way."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.dataset as ds

from atlas_ray import storage
from atlas_ray.errors import OutputError
from atlas_ray.streaming.tables import copy_documents, copy_images

PART_ROWS = 100_000
HELD = ("run.json", "products", "images", "quarantine")
"""What of a catalogue a folder may hold."""
Change = Callable[[pa.Table], pa.Table]


def check_unused(output: str) -> None:
    """Refuse a folder that holds a catalogue, or pictures where one's tables would go.

    Raises:
        OutputError: naming what is there.
    """
    for name in HELD:
        if storage.exists(storage.join(output, name)):
            raise OutputError(f"{output} already holds a catalogue ({name}); name a new folder, or delete it")


def copy_catalog(catalog: str, output: str, change: Change, *, change_images: Change | None = None) -> None:
    """Copy a catalogue's tables, taxonomy and rule of the split; rows pass through functions, some at a time, in order.

    Args:
        catalog: Its URI.
        output: Where the copy goes; tables that are there are replaced.
        change: Takes rows of the products table, and returns those that are written.
        change_images: The same for the images table; None: it is copied as it is.
    """
    for name in ("products", "images"):
        folder = storage.join(output, name)
        storage.delete_folder(folder)
        storage.make_folder(folder)
    _copy_table(catalog, output, "products", change)
    if change_images:
        _copy_table(catalog, output, "images", change_images)
    else:
        copy_images(catalog, output)
    copy_documents(catalog, output)


def _copy_table(catalog: str, output: str, name: str, change: Change) -> None:
    source = storage.locate(storage.join(catalog, name))
    table = ds.dataset(source.path, filesystem=source.filesystem, format="parquet")
    for number, batch in enumerate(table.to_batches(batch_size=PART_ROWS)):
        part = change(pa.Table.from_batches([batch]))
        if number and not len(part):  # one file there has to be
            continue
        storage.write_table(storage.join(output, name, f"part-{number:05d}.parquet"), part)
