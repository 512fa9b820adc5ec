"""The outcome of each picture in a stream: bytes, a result, or the error that it failed with.

A row that fails has values in `stage`, `error_code` and `message` from there on, and later stages skip it. This
module does not need PyTorch, so processes that only read and write start fast.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Integers
from atlas_ray.errors import AnswerError, ItemError, PictureError
from atlas_ray.schemas import QUARANTINE

KEYS = ("image_id", "product_id", "image_uri")
READ = pa.schema([("sha256", pa.string()), ("etag", pa.string())])
"""What identifies the bytes that were read of a picture."""
ERROR = pa.schema([("stage", pa.string()), ("error_code", pa.string()), ("message", pa.string())])


def good_rows(table: pa.Table) -> Integers:
    """Return the rows without an error."""
    return np.flatnonzero(table["error_code"].is_null().to_numpy())


def pictured_rows(table: pa.Table) -> Integers:
    """Return the rows with a picture and without an error."""
    picture = table["bytes" if "bytes" in table.column_names else "sha256"]
    return np.flatnonzero((table["error_code"].is_null().to_numpy()) & picture.is_valid().to_numpy())


def with_errors(table: pa.Table, stage: str, errors: Mapping[int, ItemError]) -> pa.Table:
    """Fill the error columns of these rows, unless an earlier stage has."""
    if "error_code" not in table.column_names:
        for name in ERROR.names:
            table = table.append_column(name, pa.nulls(len(table), pa.string()))
    good = table["error_code"].is_null().to_pylist() if errors else []
    errors = {row: error for row, error in errors.items() if good[row]}
    if not errors:
        return table
    for name, value in (
        ("stage", lambda _: stage),
        ("error_code", lambda error: error.code),
        ("message", lambda error: error.message[:500]),
    ):
        cells = table[name].to_pylist()
        for row, error in errors.items():
            cells[row] = value(error)
        table = table.set_column(table.column_names.index(name), name, pa.array(cells, pa.string()))
    return table


def with_refusals(table: pa.Table, refused: Mapping[int, ItemError]) -> pa.Table:
    """Fill the error columns of rows that a predictor refused, for their picture or for an invalid answer."""
    for stage, kind in (("decode", PictureError), ("predict", AnswerError)):
        table = with_errors(table, stage, {row: error for row, error in refused.items() if isinstance(error, kind)})
    return table


def keep_answered(table: pa.Table, answered: pa.ChunkedArray) -> tuple[pa.Table, pa.Array]:
    """Clear the errors of rows with an answer, and give an error to rows with neither.

    Returns:
        The block, and (rows,) the error of the picture of each row with an answer.
    """
    failed = table["error_code"].is_valid()
    both = pc.and_(answered, failed)
    errors = pc.binary_join_element_wise(table["error_code"], table["message"], ": ")
    picture_errors = pc.if_else(both, errors, pa.scalar(None, pa.string()))
    if pc.any(both).as_py():
        for name in ERROR.names:
            column = pc.if_else(both, pa.scalar(None, pa.string()), table[name])
            table = table.set_column(table.column_names.index(name), name, column)
    nothing = np.flatnonzero(pc.invert(pc.or_(answered, failed)).to_numpy())
    reason = ItemError("nothing_to_go_by", "the product has no picture, and no text that the model reads")
    return with_errors(table, "predict", {int(row): reason for row in nothing}), picture_errors


def split_outcomes(table: pa.Table, folder: str, schema: pa.Schema) -> dict[str, pa.Table]:
    """Return the rows of a block by folder: those without an error, in a schema, and the quarantine rows."""
    good, failed = table["error_code"].is_null(), table["error_code"].is_valid()
    return {
        folder: table.filter(good).select(schema.names).cast(schema),
        "quarantine": table.filter(failed).select(QUARANTINE.names).cast(QUARANTINE),
    }
