"""A catalogue's pictures, each with its product's texts, as the input of models that read texts.

The products and images tables are joined once, by one shuffle, and written as a table. The stream then reads it
instead of the images table.
"""

import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import numbered, or_null, row_at
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.modalities.texts import FIELDS, MAX_RAW_CHARACTERS
from atlas_ray.runtime.shuffle import IMAGE, PRODUCT, by_product
from atlas_ray.runtime.sink import write_table
from atlas_ray.runtime.tables import Catalog
from atlas_ray.schemas import IMAGES, PRODUCTS, image_ids

INPUTS = "inputs"
DONE = "inputs.json"
NO_PICTURE = ""
"""The URI in the row of a product without a picture."""
OF_PICTURES = ("image_id", "product_id", "image_uri", "width", "height")
"""Columns of the images table that are kept; reports make slices by the size."""


def write_inputs(catalog: Catalog, output: str, columns: Sequence[str], *, split: str | None = None) -> Table:
    """Write the table `inputs` into an output, unless an earlier try of the run has; return it, opened.

    It has a row for each distinct picture, and one for each product without a picture, with the URI `NO_PICTURE`.

    Args:
        catalog: The products and images tables.
        output: The run's folder.
        columns: Columns of the products table to add; null for pictures without a product.
        split: Keep only the labelled products of this split; `columns` then has `split` and `category_path`.
    """
    done = storage.join(output, DONE)
    wanted = {"catalog": catalog.uri, "columns": list(columns), "split": split}
    fields = [*(IMAGES.field(name) for name in OF_PICTURES), *(PRODUCTS.field(name) for name in columns)]
    inputs = storage.join(output, INPUTS)
    if not storage.exists(done) or json.loads(storage.read_bytes(done)) != wanted:
        storage.delete_folder(inputs)
        schema = pa.schema([("kind", pa.int8()), *(field.with_nullable(True) for field in fields)])
        join = functools.partial(with_products, columns=tuple(columns), split=split)
        rows = catalog.images.rows + catalog.products.rows
        joined = by_product(((catalog.products, PRODUCT), (catalog.images, IMAGE)), schema, rows, join)
        write_table(joined.write, output, INPUTS)
        storage.write_bytes(done, json.dumps(wanted).encode())
    return open_table(inputs, pa.schema(fields), may_be_missing=True)


def keys_without_picture(product_ids: Sequence[str]) -> dict[str, pa.Array]:
    """Return the `image_id` and the `image_uri` in the rows of products without a picture."""
    uris = [NO_PICTURE] * len(product_ids)
    return {"image_id": pa.array(image_ids(product_ids, uris)), "image_uri": pa.array(uris, pa.string())}


def with_products(table: pa.Table, columns: Sequence[str], split: str | None = None) -> pa.Table:
    """Turn all rows of some products into rows of pictures with their products' columns.

    Args:
        table: Rows of the products and images tables, tagged by their `kind`, with the columns `OF_PICTURES`.
        columns: Columns of the products.
        split: As in `write_inputs`.
    """
    table = table.combine_chunks()
    for name in FIELDS:
        if name in columns:  # models read no more of a text
            cut = pc.utf8_slice_codeunits(table[name], 0, MAX_RAW_CHARACTERS)
            table = table.set_column(table.column_names.index(name), name, cut)
    kind = table["kind"].to_numpy()
    names, owner = numbered(table["product_id"])
    products, pictures = np.flatnonzero(kind == PRODUCT), np.flatnonzero(kind == IMAGE)
    named = np.stack([owner[pictures], table["image_id"].take(pa.array(pictures)).to_numpy()])
    pictures = pictures[np.sort(np.unique(named, axis=1, return_index=True)[1])]  # a catalogue may repeat a picture
    row_of = row_at(owner[products], len(names), products)
    bare = np.flatnonzero((row_of >= 0) & (np.bincount(owner[pictures], minlength=len(names)) == 0))
    ids = names.take(pa.array(bare))
    alone = {
        **keys_without_picture(ids.to_pylist()),
        "product_id": ids,
        "width": pa.nulls(len(bare), pa.int32()),
        "height": pa.nulls(len(bare), pa.int32()),
    }
    take = or_null(np.concatenate([row_of[owner[pictures]], row_of[bare]]))
    merged: dict[str, Any] = {
        name: pa.concat_arrays([table[name].take(pa.array(pictures)).combine_chunks(), column])
        for name, column in alone.items()
    }
    joined = pa.table({**merged, **{name: table[name].take(take) for name in columns}})
    if split is None:
        return joined
    # The pictures of a product stay together, so that each part of the table has whole products.
    joined = joined.take(pa.array(np.argsort(np.concatenate([owner[pictures], bare]), kind="stable")))
    return joined.filter(pc.and_(pc.equal(joined["split"], split), pc.is_valid(joined["category_path"])))


def forget_inputs(output: str) -> None:
    """Delete the files of `write_inputs`."""
    storage.delete_folder(storage.join(output, INPUTS))
    storage.delete_file(storage.join(output, DONE))
