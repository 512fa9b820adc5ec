"""Rows of a source as a table, read column by column wherever a row's cells are plain.

A cell is plain if `RowReader` returns it as it is, but for white space around it; most are. A row of plain cells costs
a few microseconds here; any other row is read by `RowReader`, so that both ways say the same of every row.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Array, list_offsets
from atlas_ray.catalog.fields import FURTHER
from atlas_ray.catalog.parts import Place, RawRow
from atlas_ray.catalog.rows import (
    MAX_ID_CHARACTERS,
    NO_TEXT,
    NO_VALUE,
    PATH_FIELDS,
    Category,
    RowReader,
)
from atlas_ray.errors import RowError
from atlas_ray.formats.columns import kind_of, plain
from atlas_ray.formats.values import MAX_PRICE, is_missing, printable
from atlas_ray.schemas import CATEGORY_PATH, IMAGES, PRODUCTS

ROWS = pa.schema(
    [
        ("kind", pa.int8()),
        ("part", pa.int32()),
        ("number", pa.int64()),
        ("name", pa.string()),
        *(field.with_nullable(True) for field in PRODUCTS),
        ("image_position", pa.float64()),
        ("deleted", pa.bool_()),
        *(field.with_nullable(True) for field in list(IMAGES)[2:]),
        ("error_code", pa.string()),
        ("message", pa.string()),
    ]
)
"""Rows of an import on their way to the tables: with their place, and, if they were refused, the reason."""
ROW, REFUSED, KNOWN, PRODUCT, PICTURE, CORRECTED = range(6)
"""Kinds of rows: one of the source that says something of a product; one that was refused; what an earlier catalogue
knows of a product; and of the catalogue that is updated a product, a picture, and a label that a person corrected."""

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
NUMBERED = ("product_id", "sku")
"""Fields that may be whole numbers."""


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


class ColumnReader:
    """A reader of tables of raw rows, with the settings and the counts of a `RowReader`."""

    def __init__(self, reader: RowReader) -> None:
        self._reader = reader

    def read(self, table: pa.Table, numbers: Sequence[int], place: Callable[[int], Place]) -> pa.Table:
        """Read raw rows.

        Args:
            table: The columns of the source.
            numbers: Where each row stands, as `Place.number`.
            place: Makes the place of a row of its number.

        Returns:
            A row of `ROWS` for each.
        """
        count = len(table)
        if not count:
            return ROWS.empty_table()
        columns = {name: readable(table[name]) for name in table.column_names}
        numbered = [name for field in NUMBERED for name in self._names(columns)[field] if name in columns]
        columns |= {name: whole_numbers(columns[name]) for name in numbered}
        fields = self._fields(columns, count)
        category, categories = self._categories(columns, count)
        pictures = self._pictures(columns, count)
        attributes = self._attributes(columns, count)
        fast = np.logical_and.reduce(
            [one.cells.plain for one in fields.values()] + [category.cells.plain, pictures.plain, attributes.plain]
        )
        fast &= not self._is_of_levels(columns)
        self._note(fast, {**fields, "category_path": category})
        self._note_categories(fast, category, categories, numbers, place)
        read = {name: one.cells.values for name, one in fields.items()}
        read |= {"image_uris": pictures.values, "attributes": attributes.values}
        read |= _labels(category, categories)
        empty = pc.equal(pc.list_value_length(pictures.values), 0)
        read["image_position"] = pc.if_else(empty, None, read["image_position"])  # it is a picture's
        if self._reader.store:
            read["store"] = pc.fill_null(read["store"], self._reader.store)
        first = place(numbers[0])
        read |= {
            "kind": pa.array(np.full(count, ROW, np.int8)),
            "part": pa.array(np.full(count, first.part, np.int32)),
            "number": pa.array(numbers, pa.int64()),
            "name": pa.repeat(pa.scalar(first.name or None, pa.string()), count),
        }
        whole = pa.table([read.get(f.name, pa.nulls(count, f.type)) for f in ROWS], schema=ROWS)
        slow = np.flatnonzero(~fast)
        if not len(slow):
            return whole
        raw = pa.table(columns).take(pa.array(slow)).to_pylist()
        rest = [RawRow(place(numbers[at]), row) for at, row in zip(slow.tolist(), raw, strict=True)]
        return pa.concat_tables([whole.filter(pa.array(fast)), self.read_rows(rest)])

    def read_rows(self, rows: Sequence[RawRow]) -> pa.Table:
        """Read raw rows one by one; blank ones are left out."""
        return pa.Table.from_pylist([self._row(row) for row in rows if not row.blank], schema=ROWS)

    def _row(self, row: RawRow) -> dict[str, Any]:
        place = row.place
        found = {"part": place.part, "number": place.number, "name": place.name or None}
        try:
            if row.error:
                raise row.error
            product = self._reader.product(row.fields, place)
        except RowError as error:
            return found | {
                "kind": REFUSED,
                "product_id": printable(self._reader.known_id(row.fields) or ""),
                "error_code": error.code,
                "message": printable(error.message),
            }
        positions = product["image_uris"]
        position = next((one for one in positions.values() if one != np.inf), None)
        return found | {"kind": ROW} | product | {"image_uris": list(positions), "image_position": position}

    def _names(self, columns: dict[str, pa.Array]) -> Any:
        return self._reader.columns.of(dict.fromkeys(columns))

    def _is_of_levels(self, columns: dict[str, pa.Array]) -> bool:
        names = self._names(columns)
        return any(self._reader.columns.is_of_levels(name, names[name]) for name in PATH_FIELDS)

    def _fields(self, columns: dict[str, pa.Array], count: int) -> dict[str, Chosen]:
        names = self._names(columns)
        fields = {}
        for name, read in READERS.items():
            there = [column for column in names[name] if column in columns]
            nothing = Cells(pa.nulls(count, ROWS.field(name).type), np.ones(count, bool), np.zeros(count, bool))
            fields[name] = _first_of([read(self._reader, columns[column]) for column in there] or [nothing], there)
        cells = fields["product_id"].cells
        fields["product_id"] = fields["product_id"]._replace(cells=cells._replace(plain=cells.plain & cells.there))
        return fields

    def _pictures(self, columns: dict[str, pa.Array], count: int) -> Cells:
        """Read the pictures of all columns of them; those of a row are in the columns' order."""
        names = self._names(columns)
        first = [column for column in names["image_uris"] if column in columns]
        groups = [[column] for column in names[FURTHER] if column in columns]
        chosen = [
            (_first_of([_uris(self._reader, columns[column]) for column in group], group), number)
            for number, group in enumerate([first, *groups])
            if group
        ]
        self._picture_columns = [one for one, _ in chosen]
        plain = np.logical_and.reduce([np.ones(count, bool), *(one.cells.plain for one, _ in chosen)])
        lists = [one.cells.values for one, _ in chosen]
        if not lists:
            return Cells(pa.array([[]] * count, pa.list_(pa.string())), plain, np.zeros(count, bool))
        if len(lists) == 1:
            return Cells(pc.fill_null(lists[0], []), plain, plain)
        lengths = np.stack([pc.fill_null(pc.list_value_length(one), 0).to_numpy(zero_copy_only=False) for one in lists])
        owner = np.concatenate([np.repeat(np.arange(count), one) for one in lengths])
        order = np.argsort(owner, kind="stable")
        values = pa.concat_arrays([pc.list_flatten(one) for one in lists]).take(pa.array(order))
        return Cells(pa.ListArray.from_arrays(list_offsets(lengths.sum(0)), values), plain, plain)

    def _attributes(self, columns: dict[str, pa.Array], count: int) -> Cells:
        """Read the further columns that were asked for."""
        kind = ROWS.field("attributes").type
        names = [(name, self._reader.columns.spelt(columns, name)) for name in self._reader.keep]
        kept = [(name, _texts(self._reader, columns[column])) for name, column in names if column is not None]
        plain = np.logical_and.reduce([np.ones(count, bool), *(one.plain for _, one in kept)])
        there = np.array([one.there for _, one in kept]).reshape(len(kept), count)
        if not there.any():
            return Cells(pa.nulls(count, kind), plain, np.zeros(count, bool))
        row, which = np.nonzero(there.T)
        texts = pa.concat_arrays([one.values for _, one in kept]).take(pa.array(which * count + row))
        keys = pa.array([name for name, _ in kept]).take(pa.array(which))
        maps = pa.MapArray.from_arrays(list_offsets(there.sum(0)), keys, texts)
        some: Array = np.logical_or.reduce(there)
        return Cells(maps.take(pa.array(np.arange(count), mask=~some)), plain, some)

    def _categories(self, columns: dict[str, pa.Array], count: int) -> tuple[Chosen, list[tuple[Any, Category]]]:
        """Read the labels, each different cell once; return their codes, and what each code stands for."""
        known: list[tuple[Any, Category]] = []

        def read(column: pa.Array) -> Cells:
            values, codes = _distinct(column)
            found = [self._category(value) for value in values]
            known.extend((value, one or Category()) for value, one in zip(values, found, strict=True))
            start = len(known) - len(values)
            good = np.array([one is not None for one in found] + [True])
            there = np.array([not is_missing(value) and value != [] for value in values] + [False])
            return Cells(pa.array(codes + start, mask=codes < 0), good[codes], there[codes])

        there = [column for column in self._names(columns)["category_path"] if column in columns]
        nothing = Cells(pa.nulls(count, pa.int64()), np.ones(count, bool), np.zeros(count, bool))
        return _first_of([read(columns[column]) for column in there] or [nothing], there), known

    def _category(self, value: Any) -> Category | None:
        if is_missing(value) or value == []:
            return Category()
        try:
            return self._reader.read_category(value)
        except RowError:
            return None

    def _note(self, fast: Array, fields: dict[str, Chosen]) -> None:
        """Count the columns that plain rows took their values from."""
        chosen = [*fields.items(), *(("image_uris", one) for one in self._picture_columns)]
        for name, one in chosen:
            for number, column in enumerate(one.columns):
                self._reader.taken[name, column] += int((fast & (one.which == number)).sum())
        self._reader.taken += Counter()  # drops those that were not taken

    def _note_categories(
        self,
        fast: Array,
        category: Chosen,
        known: list[tuple[Any, Category]],
        numbers: Sequence[int],
        place: Callable[[int], Place],
    ) -> None:
        """Count what the category cells of plain rows say."""
        codes = category.cells.values.fill_null(-1).to_numpy(zero_copy_only=False)
        codes = np.where(fast & (category.which >= 0), codes, -1)
        different, first, counts = np.unique(codes, return_index=True, return_counts=True)
        for code, at, count in zip(different.tolist(), first.tolist(), counts.tolist(), strict=True):
            if code >= 0:
                value, found = known[code]
                self._reader.tally.add(value, count)
                self._reader.note_category(found, count, place(numbers[at]))


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
    """Return whole numbers as such; pandas writes them as floats if some are missing."""
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


def _first_of(cells: Sequence[Cells], columns: Sequence[str]) -> Chosen:
    """Take each row's value from the first column that has one."""
    values, plain, there = cells[0]
    which = np.where(there, 0, -1)
    for number, one in enumerate(cells[1:], 1):
        absent = which < 0
        plain = plain & (~absent | one.plain)
        values = pc.if_else(pa.array(absent), one.values, values)
        which = np.where(absent & one.there, number, which)
    return Chosen(Cells(values, plain, which >= 0), columns, which)


def _all(count: int) -> Array:
    return np.ones(count, bool)


def _mask(array: Any) -> Array:
    found: Array = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
    return found


def _none(array: pa.Array, field: str) -> Cells:
    """Return cells that are all left to the reader of rows."""
    return Cells(pa.nulls(len(array), ROWS.field(field).type), _mask(array.is_null()), np.zeros(len(array), bool))


def _texts(_: RowReader, array: pa.Array) -> Cells:
    kind = kind_of(array.type)
    if kind == "int":
        return Cells(array.cast(pa.string()), _all(len(array)), _mask(array.is_valid()))
    if kind != "text":
        return _none(array, "title")
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
        return Cells(array.cast(pa.string()), _all(len(array)), _mask(array.is_valid()))
    if kind != "text":
        return _none(array, "product_id")
    good = _mask(pc.match_substring_regex(array, PLAIN_ID))
    good &= _mask(pc.less_equal(pc.binary_length(array), MAX_ID_CHARACTERS))
    good &= ~_mask(pc.match_substring_regex(array, ODD_ID)) & ~_is_word(array, NO_VALUE)
    empty = _mask(pc.equal(pc.binary_length(array), 0)) | _mask(array.is_null())
    return Cells(array, good | empty, good)


def _prices(_: RowReader, array: pa.Array) -> Cells:
    kind = kind_of(array.type)
    if kind == "text":
        good = _mask(pc.match_substring_regex(array, PLAIN_PRICE))
        empty = _mask(pc.equal(pc.binary_length(array), 0)) | _mask(array.is_null())
        array = pc.if_else(pa.array(good), array, None)
        return Cells(array.cast(pa.float64()), good | empty, good)
    if kind not in ("int", "float", "decimal"):
        return _none(array, "price")
    if kind == "decimal":
        array = array.cast(pa.string())  # Arrow's own way to a float is not exact
    values = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
    missing = np.isnan(values)
    good = ~missing & (values >= 0) & (values < MAX_PRICE)
    return Cells(pa.array(values, mask=~good), good | missing, good)


def _distinct(array: pa.Array) -> tuple[list[Any], Array]:
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


def _words(name: str) -> "ReadColumn":
    """Return the reader of a field with few different values."""

    def read(reader: RowReader, array: pa.Array) -> Cells:
        values, codes = _distinct(array)
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
        column = pa.array(found, ROWS.field(name).type).take(pa.array(codes, mask=codes < 0))
        return Cells(column, np.array([*good, True])[codes], there[codes])

    return read


def _times(_: RowReader, array: pa.Array) -> Cells:
    if not pa.types.is_timestamp(array.type):
        return _none(array, "crawled_at")
    try:
        moments = array.cast(pa.timestamp(array.type.unit, tz="UTC")).cast(pa.timestamp("us", tz="UTC"))
    except pa.ArrowInvalid:
        return _none(array, "crawled_at")
    return Cells(moments, _all(len(array)), _mask(array.is_valid()))


def _positions(_: RowReader, array: pa.Array) -> Cells:
    if kind_of(array.type) == "text":
        good = _mask(pc.match_substring_regex(array, r"^\d{1,9}$"))
        empty = _mask(pc.equal(pc.binary_length(array), 0)) | _mask(array.is_null())
        return Cells(pc.if_else(pa.array(good), array, None).cast(pa.float64()), good | empty, good)
    if kind_of(array.type) == "int":
        return Cells(array.cast(pa.float64(), safe=False), _all(len(array)), _mask(array.is_valid()))
    return _none(array, "image_position")


def _flags(reader: RowReader, array: pa.Array) -> Cells:
    if kind_of(array.type) == "bool":
        return Cells(array, _all(len(array)), _mask(array.is_valid()))
    return _words("deleted")(reader, array)


def _uris(reader: RowReader, array: pa.Array) -> Cells:
    """Read pictures: a name or an address a cell, or a list of them."""
    kind = kind_of(array.type)
    if kind == "text":
        empty = _mask(pc.equal(pc.binary_length(array), 0)) | _mask(array.is_null())
        there = np.ones(len(array), np.int64)
        there[empty] = 0
        values, good = _names(reader, array.filter(pa.array(~empty)))
        lists = pa.ListArray.from_arrays(list_offsets(there), values)
        plain = empty.copy()
        plain[~empty] = good
        return Cells(lists, plain, ~empty)
    if array.type != pa.list_(pa.string()):
        return _none(array, "image_uris")
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


def _labels(category: Chosen, known: list[tuple[Any, Category]]) -> dict[str, pa.Array]:
    """Return the columns of labels."""
    codes = category.cells.values
    first = pa.array([one.paths[0] if one.paths else None for _, one in known], CATEGORY_PATH)
    several = pa.array(
        [one.paths if len(one.paths) > 1 else None for _, one in known], ROWS.field("category_paths").type
    )
    return {"category_path": first.take(codes), "category_paths": several.take(codes)}


ReadColumn = Callable[[RowReader, pa.Array], Cells]
READERS: dict[str, ReadColumn] = {
    "product_id": _ids,
    **dict.fromkeys(("url", "title", "description", "sku"), _texts),
    **{name: _words(name) for name in ("store", "currency", "brand", "availability", "split", "breadcrumb")},
    "price": _prices,
    "crawled_at": _times,
    "image_position": _positions,
    "deleted": _flags,
}
"""Readers of columns by field; those of pictures and labels stand apart."""
