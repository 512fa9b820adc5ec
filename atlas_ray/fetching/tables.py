"""The last step of a fetch: its outcomes and the source's tables become a catalogue, and are balanced."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Integers
from atlas_ray.errors import AuditError
from atlas_ray.fetching.pictures import OUTCOMES
from atlas_ray.io import storage
from atlas_ray.runtime.shuffle import IMAGE, OUTCOME, PRODUCT
from atlas_ray.schemas import IMAGES, PRODUCTS, QUARANTINE, image_ids

TABLES = {"products": PRODUCTS, "images": IMAGES, "quarantine": QUARANTINE}
"""The schemas of the tables that are written; a stopped run writes them again."""

JOINED = pa.schema(
    {"kind": pa.int8()} | {field.name: field.type for schema in (PRODUCTS, OUTCOMES) for field in schema}
)
"""The common schema in which rows of products, images and outcomes are joined by product."""


def write_products(table: pa.Table, output: str) -> pa.Table:
    """Write all tables' rows of some products, given all `JOINED` rows of these products.

    Returns:
        Rows of (name, count) for the account: pictures, stored, carried_over, quarantined, images,
        products, products_without_picture and bytes.

    Raises:
        AuditError: if a picture of the catalogue has no outcome.
    """
    if not len(table):  # a partition without a product
        return pa.table({"name": pa.array([], pa.string()), "count": pa.array([], pa.int64())})
    kind = table["kind"].to_numpy()
    source, outcomes = table.filter(pa.array(kind == PRODUCT)), _decided(table.filter(pa.array(kind == OUTCOME)))
    wanted = np.unique(table["image_id"].filter(pa.array(kind == IMAGE)).to_numpy())
    # A catalogue that has changed may lack pictures that were asked for.
    outcomes = outcomes.filter(pc.is_in(outcomes["image_id"], pa.array(wanted)))
    _audit(wanted, outcomes["image_id"].to_numpy())
    failed = outcomes.filter(outcomes["error_code"].is_valid())
    stored = outcomes.filter(outcomes["error_code"].is_null())
    tables = {"products": _products(source, stored), "images": _images(stored), "quarantine": _quarantine(failed)}
    for name, rows in tables.items():
        _write(rows, storage.join(output, name), table["product_id"])
    counts = {
        "input": len(wanted),
        "stored": len(stored),
        "carried_over": stored["bytes"].null_count,
        "quarantined": len(failed),
        "images": len(tables["images"]),
        "products": len(source),
        "products_without_picture": int(
            pc.sum(pc.equal(pc.list_value_length(tables["products"]["image_uris"]), 0)).as_py() or 0
        ),
        "bytes": pc.sum(stored["bytes"]).as_py() or 0,
    }
    return pa.table({"name": list(counts), "count": pa.array(counts.values(), pa.int64())})


def _decided(outcomes: pa.Table) -> pa.Table:
    """Keep one outcome a picture: the one that stored it, or else the last failure."""
    outcomes = outcomes.append_column("failed", pc.cast(outcomes["error_code"].is_valid(), pa.int8()))
    outcomes = outcomes.sort_by([("failed", "ascending"), ("asked_at", "descending")])
    _, first = np.unique(outcomes["image_id"].to_numpy(), return_index=True)
    return outcomes.take(pa.array(first))


def _audit(wanted: Integers, found: Integers) -> None:
    missing = np.setdiff1d(wanted, found)
    if len(missing):
        raise AuditError(f"{len(missing)} pictures of the catalogue have no outcome; the first: image_id {missing[0]}")


def _images(stored: pa.Table) -> pa.Table:
    """Return rows of the images table; what a product shows twice under two URLs stands once."""
    ids = image_ids(stored["product_id"].to_pylist(), stored["stored_uri"].to_pylist())
    stored = stored.append_column(IMAGES.field("etag"), pa.nulls(len(stored), pa.string()))  # its name is its content
    images = stored.select(IMAGES.names).set_column(IMAGES.get_field_index("image_id"), "image_id", pa.array(ids))
    images = images.set_column(IMAGES.get_field_index("image_uri"), "image_uri", stored["stored_uri"])
    _, first = np.unique(ids, return_index=True)
    return images.take(pa.array(np.sort(first))).cast(IMAGES)


def _products(products: pa.Table, stored: pa.Table) -> pa.Table:
    """Return rows of the products table, with the stored pictures in place of the source's."""
    keys = zip(stored["product_id"].to_pylist(), stored["image_uri"].to_pylist(), strict=True)
    place = dict(zip(keys, stored["stored_uri"].to_pylist(), strict=True))
    uris = [
        list(dict.fromkeys(place[product, uri] for uri in listed or () if (product, uri) in place))
        for product, listed in zip(products["product_id"].to_pylist(), products["image_uris"].to_pylist(), strict=True)
    ]
    at = PRODUCTS.get_field_index("image_uris")
    products = products.select(PRODUCTS.names).set_column(at, "image_uris", pa.array(uris, pa.list_(pa.string())))
    return products.cast(PRODUCTS)


def _quarantine(failed: pa.Table) -> pa.Table:
    staged = failed.append_column("stage", pa.array(["fetch"] * len(failed), pa.string()))
    staged = staged.append_column("etag", pa.nulls(len(failed), pa.string()))
    return staged.select(QUARANTINE.names).cast(QUARANTINE)


def _write(rows: pa.Table, folder: str, product_ids: pa.ChunkedArray) -> None:
    """Write a file whose name follows from its products, so that a repeated task replaces it."""
    digest = hashlib.blake2b(pc.min(product_ids).as_py().encode(), digest_size=8).hexdigest()
    storage.write_table(storage.join(folder, f"part-{digest}.parquet"), rows, row_group_size=10_000)
