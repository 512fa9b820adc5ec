"""A copy of a catalogue whose rows are changed on the way."""

from atlas_ray.errors import OutputError
from atlas_ray.io import storage
from atlas_ray.runtime.tables import Catalog, Change, copy_documents, copy_table, same

HELD = ("run.json", "products", "images", "quarantine")
"""What of a catalogue a folder may hold."""


def check_unused(output: str) -> None:
    """Refuse a folder that holds a catalogue, or pictures where one's tables would go.

    Raises:
        OutputError: naming what is there.
    """
    for name in HELD:
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
