"""Products of a catalogue and what a source says of them now, merged."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Array
from atlas_ray.schemas import PRODUCTS, path_keys

UNCOMPARED = ("crawled_at", "split")
"""Columns whose change alone does not make a product a changed one."""


def merge(
    said: pa.Table, before: pa.Table, gone: pa.Array, refused: pa.Array, *, full: bool, changes: Counter[str]
) -> pa.Table:
    """Return the products of a catalogue after an update.

    What the source says of a product replaces what was known; what it leaves empty stays.

    Args:
        said: The source's products (`PRODUCTS`), whose `split` is what the source states.
        before: The catalogue's products.
        gone: Ids of products that are no longer there.
        refused: Ids of products that the source names in rows that were refused; they stay as they were.
        full: Whether a product that the source does not name is no longer there, too.
        changes: Takes the counts: added, changed, same, absent, removed.

    Returns:
        The products that there are now, those of the source first.
    """
    before = _without_split(before)
    place = pc.index_in(said["product_id"], before["product_id"].combine_chunks())
    known = place.is_valid().to_numpy(zero_copy_only=False)
    old = before.take(place)
    columns = []
    changed = np.zeros(len(said), bool)
    for field in PRODUCTS:
        new, last = (table[field.name].combine_chunks() for table in (said, old))
        # The paths of a product belong together: one that is named now is not beside others of before.
        stays = known & ~_says(said["category_path"].combine_chunks() if field.name == "category_paths" else new)
        column = pa.concat_arrays([new, last.cast(new.type)]).take(pa.array(np.arange(len(said)) + len(said) * stays))
        columns.append(column)
        if field.name not in UNCOMPARED:
            changed |= known & ~_equal(column, last)
    absent = before.filter(pc.invert(pc.is_in(before["product_id"], said["product_id"].combine_chunks())))
    left = absent.filter(pc.invert(pc.is_in(absent["product_id"], gone)))
    if full:
        left = left.filter(pc.is_in(left["product_id"], refused))
    changes.update(
        {
            "added": int((~known).sum()),
            "changed": int(changed.sum()),
            "same": int((known & ~changed).sum()),
            "absent": len(left),
            "removed": len(absent) - len(left),
        }
    )
    merged = pa.table(columns, names=PRODUCTS.names)
    return pa.concat_tables([merged, left.select(PRODUCTS.names).cast(merged.schema)])


def with_labels(products: pa.Table, corrected: pa.Table) -> pa.Table:
    """Return products with the labels that a person gave them, whatever the source says."""
    if not len(corrected):
        return products
    place = pc.index_in(products["product_id"], corrected["product_id"].combine_chunks())
    there = place.is_valid()
    for name, values in (("category_path", corrected["category_path"].combine_chunks()), ("category_paths", None)):
        at = products.column_names.index(name)
        own = products[name].combine_chunks()
        given = pa.nulls(len(own), own.type) if values is None else values.take(place).cast(own.type)
        row = np.arange(len(own)) + len(own) * there.to_numpy(zero_copy_only=False)
        products = products.set_column(at, name, pa.concat_arrays([own, _in_one(given)]).take(pa.array(row)))
    return products


def _in_one(column: Any) -> pa.Array:
    """Return a column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _without_split(products: pa.Table) -> pa.Table:
    """Leave the splits out, which the rule of the split hands on."""
    at = products.column_names.index("split")
    return products.set_column(at, "split", pa.nulls(len(products), pa.string()))


def _says(column: pa.Array) -> Array:
    """Return which values say anything: those that are there, and not empty lists."""
    there: Any = column.is_valid()
    if pa.types.is_list(column.type):
        there = pc.and_(there, pc.greater(pc.list_value_length(column), 0).fill_null(False))
    found: Array = there.to_numpy(zero_copy_only=False)
    return found


def _equal(one: pa.Array, other: pa.Array) -> Array:
    """Return which values of two columns are equal; null is equal to null."""
    if pa.types.is_list(one.type) and one.type.value_type == pa.string():
        one, other = path_keys(one), path_keys(other)
    if pa.types.is_nested(one.type):
        texts = [[str(value) for value in column.to_pylist()] for column in (one, other)]
        return np.array([a == b for a, b in zip(*texts, strict=True)], bool)
    same = pc.equal(one, other).fill_null(False)
    same = pc.or_(same, pc.and_(one.is_null(), other.is_null()))
    found: Array = same.to_numpy(zero_copy_only=False)
    return found
