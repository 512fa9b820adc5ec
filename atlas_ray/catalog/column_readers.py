"""Readers of the columns of a source, by field: all cells of a column at once, as far as they are plain.

A cell is plain if `RowReader` returns it as it is, but for white space around it. A reader tells which cells are plain,
and leaves the others to `RowReader`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Array, list_offsets
from atlas_ray.catalog.rows import MAX_ID_CHARACTERS, NO_TEXT, NO_VALUE, RowReader
from atlas_ray.errors import RowError
from atlas_ray.formats.columns import kind_of, plain
from atlas_ray.formats.values import MAX_PRICE, is_missing
from atlas_ray.schemas import PRODUCTS

DIRTY = "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\x{2028}\\x{2029}\\x{200b}\\x{feff}]"
"""A pattern of characters that a text must be rid of."""
PLAIN_ID = r"^[!-~](?:[ -~]*[!-~])?$"
ODD_ID = r"^=|^\d[.,]\d+E\+\d+$"
"""A pattern of ids that a spreadsheet guarded, or rounded."""
PLAIN_PRICE = r"^\d{1,9}(?:\.\d{1,2})?$"
SEGMENT = r"[A-Za-z0-9_\-][A-Za-z0-9_\-.]*"
PLAIN_NAME = rf"^(?:{SEGMENT}/)*{SEGMENT}\.(?:jpg|jpeg|png|webp|gif)$"
PLAIN_ADDRESS = r"^(?:https?|s3)://[A-Za-z0-9.\-]+/[A-Za-z0-9_\-./%~+=&?!$*@]+$"
MAX_WORD = max(map(len, NO_VALUE | NO_TEXT))
"""The length of the longest text that may stand for a missing one."""
WHOLE = 2**53
BETWEEN_NAMES = "\x1f"
"""A separator of the names of a list in a key."""


class Cells(NamedTuple):
    """The cells of a column, read as a field."""

    values: pa.Array
    """(rows,) of the field's type, null if there is none."""
    plain: Array
    """(rows,) whether each cell is plain."""
    there: Array
    """(rows,) whether each plain cell has a value."""


class Chosen(NamedTuple):
    """The cells of a field that may have several columns."""

    cells: Cells
    columns: Sequence[str]
    which: Array
    """(rows,) the column, as an index, that each row's value is from; -1 if it has none."""


def readable(column: pa.ChunkedArray) -> pa.Array:
    """Return a column without layouts that only save room, and bytes as text."""
    array = plain(column.combine_chunks())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = kind_of(array.type)
    if kind == "text":
        array = array.cast(pa.string())
        try:
            array.validate(full=True)
        except pa.ArrowInvalid:  # bytes that another program did not check
            return pa.array([_as_text(value) for value in array.cast(pa.binary()).to_pylist()], pa.string())
    elif kind == "binary":
        return pa.array([_as_text(value) for value in array.to_pylist()], pa.string())
    elif kind == "list" and kind_of(array.type.value_type) in ("text", "null"):
        return array.cast(pa.list_(pa.string()))
    return array


def whole_numbers(array: pa.Array) -> pa.Array:
    """Return whole numbers as such; pandas writes them as floats if some are missing, and warehouses as decimals."""
    if pa.types.is_decimal(array.type):
        try:
            return array.cast(pa.decimal256(76, 0)).cast(pa.string())
        except pa.ArrowInvalid:  # some are not whole
            return array
    if kind_of(array.type) == "float":
        wide = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
        there = np.isfinite(wide)
        if (
            np.isnan(wide[~there]).all()
            and (np.floor(wide[there]) == wide[there]).all()
            and (np.abs(wide[there]) < WHOLE).all()
        ):
            return pa.array(np.where(there, wide, 0).astype(np.int64), mask=~there)
    return array


def _as_text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def first_of(cells: Sequence[Cells], columns: Sequence[str]) -> Chosen:
    """Take each row's value from the first column that has one."""
    values, plain, there = cells[0]
    which = np.where(there, 0, -1)
    for number, one in enumerate(cells[1:], 1):
        absent = which < 0
        plain = plain & (~absent | one.plain)
        values = pc.if_else(pa.array(absent), one.values, values)
        which = np.where(absent & one.there, number, which)
    return Chosen(Cells(values, plain, which >= 0), columns, which)


def _mask(array: Any) -> Array:
    found: Array = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
    return found


def _empty(texts: pa.Array) -> Array:
    """Return which texts are null or have no character."""
    return _mask(texts.is_null()) | _mask(pc.equal(pc.binary_length(texts), 0))


def _all_plain(values: pa.Array) -> Cells:
    """Return cells of which each is plain."""
    return Cells(values, np.ones(len(values), bool), _mask(values.is_valid()))


def _none(array: pa.Array, kind: pa.DataType) -> Cells:
    """Return cells of a type that are all left to the reader of rows."""
    return Cells(pa.nulls(len(array), kind), _mask(array.is_null()), np.zeros(len(array), bool))


def read_texts(_: RowReader, array: pa.Array) -> Cells:
    """Read texts, in Unicode's composed form and without white space around them."""
    kind = kind_of(array.type)
    if kind == "int":
        return _all_plain(array.cast(pa.string()))
    if kind != "text":
        return _none(array, pa.string())
    bad = _mask(pc.match_substring_regex(array, DIRTY))
    foreign = pc.invert(pc.fill_null(pc.string_is_ascii(array), True))
    if pc.any(foreign).as_py():
        array = pc.replace_with_mask(array, foreign, pc.utf8_normalize(array.filter(foreign), form="NFC"))
        array = pc.utf8_trim_whitespace(array)
    else:
        array = pc.ascii_trim_whitespace(array)
    length = pc.binary_length(array)
    array = pc.if_else(pc.equal(length, 0), None, array)
    bad |= _is_word(array, NO_TEXT)
    return Cells(array, ~bad, _mask(array.is_valid()))


def _is_word(array: pa.Array, words: Any) -> Array:
    """Return which texts are one of some words, in any case."""
    short = _mask(pc.less_equal(pc.binary_length(array), MAX_WORD))
    found = np.zeros(len(array), bool)
    at = np.flatnonzero(short)
    if len(at):
        some = pc.utf8_lower(array.take(pa.array(at)))
        found[at] = _mask(pc.is_in(some, pa.array(sorted(words))))
    return found


def _ids(_: RowReader, array: pa.Array) -> Cells:
    kind = kind_of(array.type)
    if kind == "int":
        return _all_plain(array.cast(pa.string()))
    if kind != "text":
        return _none(array, pa.string())
    good = _mask(pc.match_substring_regex(array, PLAIN_ID))
    good &= _mask(pc.less_equal(pc.binary_length(array), MAX_ID_CHARACTERS))
    good &= ~_mask(pc.match_substring_regex(array, ODD_ID)) & ~_is_word(array, NO_VALUE)
    empty = _empty(array)
    return Cells(array, good | empty, good)


def _prices(_: RowReader, array: pa.Array) -> Cells:
    kind = kind_of(array.type)
    if kind == "text":
        good = _mask(pc.match_substring_regex(array, PLAIN_PRICE))
        empty = _empty(array)
        array = pc.if_else(pa.array(good), array, None)
        return Cells(array.cast(pa.float64()), good | empty, good)
    if kind not in ("int", "float", "decimal"):
        return _none(array, pa.float64())
    if kind == "decimal":
        array = array.cast(pa.string())  # Arrow's own way to a float is not exact
    values = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
    missing = np.isnan(values)
    good = ~missing & (values >= 0) & (values < MAX_PRICE)
    return Cells(pa.array(values, mask=~good), good | missing, good)


def distinct(array: pa.Array) -> tuple[list[Any], Array]:
    """Return the different cells, and the code of each; -1 for null."""
    names = array.flatten() if kind_of(array.type) == "list" else None
    if names is not None and names.type == pa.string() and not names.null_count and not _have(names, BETWEEN_NAMES):
        lengths = pc.list_value_length(array).cast(pa.string())
        keys = pc.binary_join_element_wise(lengths, pc.binary_join(array, BETWEEN_NAMES), " ")
        codes = keys.dictionary_encode().indices.fill_null(-1).to_numpy()
        different, first = np.unique(codes, return_index=True)
        first = first[different >= 0]
        return array.take(pa.array(first)).to_pylist(), codes.astype(np.int64)
    if kind_of(array.type) in ("text", "int"):
        codes = array.dictionary_encode()
        return codes.dictionary.to_pylist(), codes.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return array.to_pylist(), np.arange(len(array))


def _have(texts: pa.Array, sign: str) -> bool:
    return bool(pc.any(pc.match_substring(texts, sign)).as_py())


def _words(name: str, kind: pa.DataType) -> "ReadColumn":
    """Return the reader of a field with few different values."""

    def read(reader: RowReader, array: pa.Array) -> Cells:
        values, codes = distinct(array)
        found: list[Any] = []
        good: list[bool] = []
        for value in values:
            try:
                found.append(None if is_missing(value) else reader.read_word(name, value))
                good.append(True)
            except RowError:
                found.append(None)
                good.append(False)
        there = np.array([one is not None for one in found] + [False])
        column = pa.array(found, kind).take(pa.array(codes, mask=codes < 0))
        return Cells(column, np.array([*good, True])[codes], there[codes])

    return read


def _times(_: RowReader, array: pa.Array) -> Cells:
    if not pa.types.is_timestamp(array.type):
        return _none(array, PRODUCTS.field("crawled_at").type)
    try:
        moments = array.cast(pa.timestamp(array.type.unit, tz="UTC")).cast(pa.timestamp("us", tz="UTC"))
    except pa.ArrowInvalid:
        return _none(array, PRODUCTS.field("crawled_at").type)
    return _all_plain(moments)


def _positions(_: RowReader, array: pa.Array) -> Cells:
    if kind_of(array.type) == "text":
        good = _mask(pc.match_substring_regex(array, r"^\d{1,9}$"))
        empty = _empty(array)
        return Cells(pc.if_else(pa.array(good), array, None).cast(pa.float64()), good | empty, good)
    if kind_of(array.type) == "int":
        return _all_plain(array.cast(pa.float64(), safe=False))
    return _none(array, pa.float64())


def _flags(reader: RowReader, array: pa.Array) -> Cells:
    if kind_of(array.type) == "bool":
        return _all_plain(array)
    return _words("deleted", pa.bool_())(reader, array)


def read_uris(reader: RowReader, array: pa.Array) -> Cells:
    """Read pictures: a name or an address a cell, or a list of them."""
    kind = kind_of(array.type)
    if kind == "text":
        empty = _empty(array)
        there = np.ones(len(array), np.int64)
        there[empty] = 0
        values, good = _names(reader, array.filter(pa.array(~empty)))
        lists = pa.ListArray.from_arrays(list_offsets(there), values)
        plain = empty.copy()
        plain[~empty] = good
        return Cells(lists, plain, ~empty)
    if array.type != pa.list_(pa.string()):
        return _none(array, pa.list_(pa.string()))
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    values, good = _names(reader, pc.list_flatten(array))
    owner = np.repeat(np.arange(len(array)), lengths)
    bad = np.bincount(owner[~good], minlength=len(array)) > 0
    return Cells(pa.ListArray.from_arrays(list_offsets(lengths), values), ~bad, lengths > 0)


def _names(reader: RowReader, names: pa.Array) -> tuple[pa.Array, Array]:
    """Return names of pictures as URIs, and which are plain."""
    whole = _mask(pc.match_substring_regex(names, PLAIN_ADDRESS))
    below = _mask(pc.match_substring_regex(names, PLAIN_NAME))
    if reader.image_separator is not None:
        divided = _mask(pc.match_substring(names, reader.image_separator))
        whole, below = whole & ~divided, below & ~divided
    if not reader.image_base:
        below = np.zeros(len(names), bool)
    if below.any():
        base = reader.image_base.rstrip("/") + "/"
        names = pc.if_else(pa.array(below), pc.binary_join_element_wise(base, names, ""), names)
    return names, whole | below


ReadColumn = Callable[[RowReader, pa.Array], Cells]
READERS: dict[str, ReadColumn] = {
    "product_id": _ids,
    **dict.fromkeys(("url", "title", "description", "sku"), read_texts),
    **{
        name: _words(name, PRODUCTS.field(name).type)
        for name in ("store", "currency", "brand", "availability", "split", "breadcrumb")
    },
    "price": _prices,
    "crawled_at": _times,
    "image_position": _positions,
    "deleted": _flags,
}
"""Readers of columns by field; of pictures see `read_uris`, of labels the reader of tables."""
