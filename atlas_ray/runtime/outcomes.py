"""What becomes of a picture on its way: bytes, a result, or the reason why not.

A row that fails carries `stage`, `error_code` and `message` from there on, and the later stages
leave it alone. Nothing here needs PyTorch, so that the processes that only read and write start fast.
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
    """Return the rows that no stage has given up."""
    return np.flatnonzero(table["error_code"].is_null().to_numpy())


def pictured_rows(table: pa.Table) -> Integers:
    """Return the rows that no stage has given up and that have a picture."""
    picture = table["bytes" if "bytes" in table.column_names else "sha256"]
    return np.flatnonzero((table["error_code"].is_null().to_numpy()) & picture.is_valid().to_numpy())


def with_errors(table: pa.Table, stage: str, errors: Mapping[int, ItemError]) -> pa.Table:
    """Fill the error columns of some rows; what an earlier stage wrote stays."""
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
    """Fill the error columns of rows that a predictor refused: pictures, and answers that are none."""
    for stage, kind in (("decode", PictureError), ("predict", AnswerError)):
        table = with_errors(table, stage, {row: error for row, error in refused.items() if isinstance(error, kind)})
    return table


def keep_answered(table: pa.Table, answered: pa.ChunkedArray) -> tuple[pa.Table, pa.Array]:
    """Take the errors from the rows that have an answer all the same, and give one to those that have neither.

    Returns:
        The block, and (rows,) what was wrong with the picture of a row that has an answer.
    """
    failed = table["error_code"].is_valid()
    both = pc.and_(answered, failed)
    errors = pc.binary_join_element_wise(table["error_code"], table["message"], ": ")
    kept = pc.if_else(both, errors, pa.scalar(None, pa.string()))
    if pc.any(both).as_py():
        for name in ERROR.names:
            column = pc.if_else(both, pa.scalar(None, pa.string()), table[name])
            table = table.set_column(table.column_names.index(name), name, column)
    nothing = np.flatnonzero(pc.invert(pc.or_(answered, failed)).to_numpy())
    reason = ItemError("nothing_to_go_by", "the product has no picture, and no text that the model reads")
    return with_errors(table, "predict", {int(row): reason for row in nothing}), kept


def split_outcomes(table: pa.Table, folder: str, schema: pa.Schema) -> dict[str, pa.Table]:
    """Return the rows of a block that went well, in their folder and schema, and its quarantine rows."""
    well, failed = table["error_code"].is_null(), table["error_code"].is_valid()
    return {
        folder: table.filter(well).select(schema.names).cast(schema),
        "quarantine": table.filter(failed).select(QUARANTINE.names).cast(QUARANTINE),
    }
