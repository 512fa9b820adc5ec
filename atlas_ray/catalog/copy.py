"""Copies of catalogues whose rows are changed on the way."""

from atlas_ray.errors import OutputError
from atlas_ray.io import storage
from atlas_ray.runtime.tables import Catalog, Change, copy_documents, copy_table, same

CATALOG_ENTRIES = ("run.json", "products", "images", "quarantine")
"""Files and folders by which a catalogue is recognised."""


def check_unused(output: str) -> None:
    """Refuse a folder that holds a catalogue, or pictures in the place of its tables.

    Raises:
        OutputError: naming what is there.
    """
    for name in CATALOG_ENTRIES:
        if storage.exists(storage.join(output, name)):
            raise OutputError(f"{output} already holds a catalogue ({name}); name a new folder, or delete it")


def copy_catalog(catalog: Catalog, output: str, change: Change = same, *, change_images: Change = same) -> None:
    """Copy a catalogue's tables, taxonomy and rule of the split; rows pass through functions, some at a time, in order.

    Args:
        catalog: Opened with its other columns, which are copied, too.
        output: Where the copy goes; tables that are there are replaced.
        change: Takes rows of the products table, and returns those that are written.
        change_images: The same for the images table.
    """
    copy_table(catalog.products, storage.join(output, "products"), change)
    copy_table(catalog.images, storage.join(output, "images"), change_images)
    copy_documents(catalog.uri, output)
