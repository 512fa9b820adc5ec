"""The products, images and quarantine tables of an import, written as Parquet files of `PART_ROWS` rows."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Self

import pyarrow as pa

from atlas_ray.errors import OutputError, StorageError
from atlas_ray.formats.tables import UNFINISHED
from atlas_ray.io import storage
from atlas_ray.runtime.tables import SPLIT
from atlas_ray.schemas import IMAGES, PRODUCTS, QUARANTINE, image_ids

PART_ROWS = 50_000
TABLES = ("products", "images", "quarantine")
PART = re.compile(r"part-\d{5,}\.parquet")
FILES = ("taxonomy.json", SPLIT)


@contextlib.contextmanager
def unfinished(output: str) -> Iterator[None]:
    """Mark an output while an import writes it. What an earlier one left that did not finish is deleted first.

    Where the import fails, its quarantine stays, to see why; the next one deletes it.

    Raises:
        OutputError: if the output holds a catalogue, or files that no import left.
    """
    marker = storage.join(output, UNFINISHED)
    if storage.exists(marker) and not storage.exists(storage.join(output, "run.json")):
        _delete(output, TABLES)
        for name in FILES:
            storage.delete_file(storage.join(output, name))
    if storage.exists(storage.join(output, "run.json")) or any(
        storage.files(storage.join(output, name)) for name in TABLES
    ):
        raise OutputError(f"{output} already holds a catalogue; import into a new folder, or delete it")
    storage.write_bytes(marker, json.dumps({"job": "import"}).encode())
    try:
        yield
    except BaseException:
        with contextlib.suppress(StorageError):  # the first error is the one to tell
            _delete(output, ("products", "images"))
        raise
    storage.delete_file(marker)


def _delete(output: str, tables: Iterable[str]) -> None:
    for table in tables:
        for file in storage.files(storage.join(output, table)):
            if PART.fullmatch(file.rpartition("/")[2]):
                storage.delete_file(file)


class ProductParts:
    """Collects rows and writes them; a part can be written again, with changes.

    Attributes:
        part: The file that the next product goes to.
        images: How many pictures the products so far have.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._products: list[dict[str, Any]] = []
        self._quarantine: list[dict[str, Any]] = []
        self._quarantine_parts = 0
        self._rows: dict[tuple[str, int], int] = {}
        self.part = 0
        self.images = 0

    def add(self, product: dict[str, Any]) -> None:
        """Take a product; its pictures go into the images table."""
        self.images += len(product["image_uris"])
        self._products.append(product)
        if len(self._products) >= PART_ROWS:
            self.flush()

    def refuse(self, row: dict[str, Any]) -> None:
        """Take a row of the quarantine table."""
        self._quarantine.append(row)
        if len(self._quarantine) >= PART_ROWS:
            self._flush_quarantine()

    def rows(self, table: str) -> int:
        """Return how many rows were written to a table."""
        return sum(count for (name, _), count in self._rows.items() if name == table)

    def finish(self) -> None:
        """Write all that is left."""
        self.flush()
        self._flush_quarantine()

    def flush(self) -> None:
        """Write the products so far."""
        if self._products:
            self._write_products(self.part, self._products)
            self.part += 1
            self._products = []

    def read(self, part: int) -> list[dict[str, Any]]:
        """Return the products of a part that was written."""
        rows: list[dict[str, Any]] = storage.read_table(self._uri("products", part)).to_pylist()
        return rows

    def replace(self, part: int, products: list[dict[str, Any]], more_images: int) -> None:
        """Write a part again, whose products have some more pictures now."""
        self.images += more_images
        self._write_products(part, products)

    def _flush_quarantine(self) -> None:
        if self._quarantine:
            table = pa.Table.from_pylist(self._quarantine, schema=QUARANTINE)
            self._write("quarantine", self._quarantine_parts, table)
            self._quarantine_parts += 1
            self._quarantine = []

    def _write_products(self, part: int, rows: Iterable[dict[str, Any]]) -> None:
        products = pa.Table.from_pylist(list(rows), schema=PRODUCTS)
        uris = products["image_uris"].combine_chunks()
        owners = products["product_id"].combine_chunks().take(uris.value_parent_indices())
        pictures = uris.flatten()
        count = len(pictures)
        images = pa.table(
            [
                pa.array(image_ids(owners.to_pylist(), pictures.to_pylist())),
                owners,
                pictures,
                *(pa.nulls(count, field.type) for field in list(IMAGES)[3:]),
            ],
            schema=IMAGES,
        )
        self._write("images", part, images)
        self._write("products", part, products)

    def _uri(self, name: str, part: int) -> str:
        return storage.join(self._output, name, f"part-{part:05d}.parquet")

    def _write(self, name: str, part: int, table: pa.Table) -> None:
        storage.write_table(self._uri(name, part), table, row_group_size=10_000)
        self._rows[name, part] = len(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.finish()
