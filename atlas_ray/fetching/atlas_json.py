"""The Atlas JSON: all pictures of a catalogue of URLs in one file, in the layout of the published dataset."""

import functools
import json
from collections.abc import Iterator

import pyarrow as pa

from atlas_ray.fetching.pictures import JOURNAL, OUTCOMES
from atlas_ray.fetching.tables import JOINED
from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.runtime.shuffle import OUTCOME, PRODUCT, by_product
from atlas_ray.schemas import PRODUCTS

FURTHER = ("product_id", "currency", "brand", "sku", "availability", "url", "store", "breadcrumb")
"""Fields of a product that stand in each of its entries beside those of the published layout."""
READ = (*FURTHER, "title", "description", "price", "category_path", "category_paths", "split", "image_uris")


def write_atlas_json(catalog: str, uri: str, fetched: str | None = None) -> None:
    """Write `{"images": [{filename, image_url, title, description, price, sentences, split}]}`, an entry a picture.

    `image_url` is the picture's address, `filename` the stored picture, relative to the file's folder if it lies
    below it. `sentences` has the tokens of each category path of the product. A picture that could not be had has no
    entry, nor has a product without a picture. Memory does not grow with the catalogue.

    Args:
        catalog: A catalogue whose pictures are addresses.
        uri: The file to write.
        fetched: The output of a fetch of this catalogue; without it each `filename` is the address.
    """
    products = open_table(storage.join(catalog, "products"), PRODUCTS, columns=READ, foreign=True)
    tables = [(products, PRODUCT)]
    if fetched is not None:
        journal = storage.join(fetched, JOURNAL)
        tables.append((open_table(journal, OUTCOMES, may_be_missing=True), OUTCOME))
    entries = functools.partial(_entries, folder=uri.rpartition("/")[0] + "/", stored=fetched is not None)
    storage.write_lines(uri, _lines(by_product(tables, JOINED, products.rows, entries).blocks()))


def _lines(blocks: Iterator[pa.Table]) -> Iterator[str]:
    between = ""
    yield '{"images": [\n'
    for block in blocks:
        for entry in block["entry"].to_pylist():
            yield between + entry
            between = ",\n"
    yield "\n]}\n"


def _entries(rows: pa.Table, folder: str, stored: bool) -> pa.Table:
    """Return the entries of some products as JSON texts, given all of their rows in `JOINED`."""
    found = rows.select([*READ, "kind", "image_uri", "stored_uri", "error_code"]).to_pylist()
    files = {
        (row["product_id"], row["image_uri"]): row["stored_uri"]
        for row in found
        if row["kind"] == OUTCOME and row["error_code"] is None
    }
    entries = []
    for product in (row for row in found if row["kind"] == PRODUCT):
        paths = product["category_paths"] or [product["category_path"]]
        shared = {name: product[name] for name in ("title", "description", "price")}
        shared["sentences"] = [{"tokens": path} for path in paths if path]
        shared |= {name: product[name] for name in ("split", *FURTHER)}
        for address in product["image_uris"] or ():
            file = files.get((product["product_id"], address)) if stored else address
            if file is not None:
                entry = {"filename": file.removeprefix(folder), "image_url": address, **shared}
                entries.append(json.dumps(entry, ensure_ascii=False))
    return pa.table({"entry": pa.array(entries, pa.string())})
