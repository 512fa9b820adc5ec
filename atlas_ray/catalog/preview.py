"""The preview of an import: what it would read from the first rows of its source; nothing is written."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from atlas_ray.catalog.importer import OpenSource
from atlas_ray.catalog.joining import in_order, join_row
from atlas_ray.catalog.rows import RowReader
from atlas_ray.errors import FetchError, RowError
from atlas_ray.io.addresses import is_web
from atlas_ray.io.objects import ObjectReader

PICTURES = 20
"""The most pictures that are opened."""
THREADS, TIMEOUT_S = 10, 5.0
REACHABLE_CODES = ("too_large",)
"""Error codes of pictures that exist all the same."""


@dataclass
class Preview:
    """The beginning of a source as an import reads it."""

    source: str
    reader: RowReader
    """With the columns that were taken, and what could not be read."""
    assumed: list[str] = field(default_factory=list)
    """Sentences on what was told from the first rows and may be wrong."""
    unused: list[str] = field(default_factory=list)
    """Columns of a table that no field was taken from."""
    rows: int = 0
    """The number of rows that were read."""
    products: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the products table."""
    refused: Counter[str] = field(default_factory=Counter)
    """Counts of refused rows by error code."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first message of each code."""
    opened: int = 0
    """The number of pictures that the preview tried to open."""
    failures: list[FetchError] = field(default_factory=list)
    """The errors of pictures that could not be opened."""
    addresses: int = 0
    """The number of pictures with a web address, which `fetch` downloads."""

    @property
    def warning(self) -> str | None:
        """A sentence about the pictures that could not be opened."""
        if not self.failures:
            return None
        share = "none" if len(self.failures) == self.opened else f"only {self.opened - len(self.failures)}"
        return (
            f"{share} of {self.opened} pictures looked at could be opened: {self.failures[0].message}; relative names "
            f"are below {self.reader.image_base}, another folder is named with --image-base"
        )


def preview(source: OpenSource) -> Preview:
    """Read the first rows of a source, and open some of their pictures."""
    shown = Preview(source.uri, source.reader, source.assumed)
    products: dict[str, dict[str, Any]] = {}
    for raw in source.sample:
        if raw.blank:
            continue
        shown.rows += 1
        try:
            if raw.error:
                raise raw.error
            product = source.reader.product(raw.fields, raw.place)
            first = products.setdefault(product["product_id"], product)
            if first is not product:
                join_row(first, product)
        except RowError as error:
            shown.refused[error.code] += 1
            shown.examples.setdefault(error.code, f"{raw.place}: {error.message}")
    for product in products.values():
        product["image_uris"] = in_order(product["image_uris"])
    shown.products = list(products.values())
    shown.unused = source.unused
    _open_pictures(shown)
    return shown


def _open_pictures(shown: Preview) -> None:
    uris = [uri for product in shown.products for uri in product["image_uris"]]
    here = [uri for uri in uris if not is_web(uri)]
    shown.addresses = len(uris) - len(here)
    sample = here[:: max(1, len(here) // PICTURES)][:PICTURES]
    if not sample:
        return
    with ObjectReader(threads=THREADS, timeout_s=TIMEOUT_S, attempts=1, store_retries=0) as reader:
        outcomes = reader.read_many(sample)
    shown.opened = len(sample)
    shown.failures = [one for one in outcomes if isinstance(one, FetchError) and one.code not in REACHABLE_CODES]
