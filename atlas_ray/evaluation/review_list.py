"""The lists of products for a person to decide on, of a migration (`rescore`, `relabel`) or of `relabel`."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.errors import CatalogError
from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.runs.catalog_products import read_products
from atlas_ray.runs.scored import ScoredRun
from atlas_ray.taxonomy import format_path

WHY = ("reason", "error_code")
"""The columns with the reason that a product is on a list; each list has one of them."""


def read_list(uri: str, count: int) -> tuple[list[dict[str, Any]], int]:
    """Read the first products of a list.

    Args:
        uri: The folder `rescore/`, `relabel/` or `quarantine/`, or a Parquet file in it.
        count: The most products to read.

    Returns:
        Distinct products with `product_id`, `alternatives` (the candidates, without probabilities), `image_uri` if
        the list has it, and `note` (the reason); and the number of rows of the list.

    Raises:
        CatalogError: if there is no such list, or it is of another kind.
    """
    table = open_table(storage.absolute(uri), pa.schema([]), others=True)
    names = table.schema.names
    if "product_id" not in names or not any(name in names for name in WHY):
        raise CatalogError(
            f"{uri}: no list of products to decide on; it has {names[:12]}, expected the folder rescore or relabel of "
            "a migration, or the quarantine of `atlas-ray relabel`"
        )
    listed: dict[str, dict[str, Any]] = {}
    rows = 0
    for batch in table.batches():
        known = batch.filter(batch["product_id"].is_valid())
        rows += len(known)
        if len(listed) < count:
            for row in known.to_pylist():
                listed.setdefault(row["product_id"], _listed(row))
    return list(listed.values())[:count], rows


def _listed(row: Mapping[str, Any]) -> dict[str, Any]:
    if row.get("error_code"):
        note = f"{row['error_code']}: {row.get('message') or ''}"
    else:
        old = row.get("category_path")
        note = f"{row.get('reason') or 'undetermined'}" + (f"; it was {format_path(old)}" if old else "")
    candidates = [{"category_path": path, "probability": None} for path in row.get("candidates") or () if path]
    image = row.get("image_uri")
    return {
        "product_id": row["product_id"], "alternatives": candidates, "image_uri": image or None, "note": note,
        "true_category_path": None,
    }  # fmt: skip


def add_pictures(rows: list[dict[str, Any]], scored: ScoredRun | None, catalog: str | None) -> None:
    """Add `image_uri` and `true_category_path` to products of a list, from a run or from a catalogue.

    Raises:
        CatalogError, StorageError: if neither can be read.
    """
    by_id = {row["product_id"]: row for row in rows}
    if scored is not None:
        wanted = pa.array(by_id, pa.string())
        for batch in scored.batches(("product_id", "image_uri", "true_category_path")):
            for product in batch.filter(pc.is_in(batch["product_id"], wanted)).to_pylist():
                row = by_id[product["product_id"]]
                row["image_uri"] = row["image_uri"] or product["image_uri"]
                row["true_category_path"] = product["true_category_path"]
    elif catalog:
        for product in read_products(catalog, by_id.keys(), ("image_uris", "category_path")):
            row = by_id[product["product_id"]]
            row["image_uri"] = row["image_uri"] or next(iter(product["image_uris"] or ()), None)
            row["true_category_path"] = product["category_path"]
