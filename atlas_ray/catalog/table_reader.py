"""The reader of tables of raw rows: column by column if a row's cells are plain, else one by one.

Most rows are plain, and cost a few microseconds each. Any other row is read by `RowReader`; both ways say the same of
every row.
"""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Array, list_offsets
from atlas_ray.catalog.column_readers import (
    READERS,
    Cells,
    Chosen,
    distinct,
    first_of,
    read_texts,
    read_uris,
    readable,
    whole_numbers,
)
from atlas_ray.catalog.fields import FURTHER
from atlas_ray.catalog.parts import Place, RawRow
from atlas_ray.catalog.rows import PATH_FIELDS, Category, RowReader
from atlas_ray.errors import RowError
from atlas_ray.formats.values import is_missing, printable
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

CATEGORY_CELLS = 100_000
"""The most category cells whose reading is kept: most rows have a cell that an earlier row had."""
NUMBERED = ("product_id", "sku")
"""Fields that may be whole numbers."""


class TableReader:
    """A reader of tables of raw rows, with the settings and the counts of a `RowReader`."""

    def __init__(self, reader: RowReader) -> None:
        self._reader = reader
        self._category = functools.lru_cache(CATEGORY_CELLS, typed=True)(self._read_category)

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
            fields[name] = first_of([read(self._reader, columns[column]) for column in there] or [nothing], there)
        cells = fields["product_id"].cells
        fields["product_id"] = fields["product_id"]._replace(cells=cells._replace(plain=cells.plain & cells.there))
        return fields

    def _pictures(self, columns: dict[str, pa.Array], count: int) -> Cells:
        """Read the pictures of all columns of them; those of a row are in the columns' order."""
        names = self._names(columns)
        first = [column for column in names["image_uris"] if column in columns]
        groups = [[column] for column in names[FURTHER] if column in columns]
        chosen = [
            (first_of([read_uris(self._reader, columns[column]) for column in group], group), number)
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
        kept = [(name, read_texts(self._reader, columns[column])) for name, column in names if column is not None]
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
            values, codes = distinct(column)
            ask = self._read_category if any(isinstance(value, list) for value in values) else self._category
            found = [ask(value) for value in values]
            known.extend((value, one or Category()) for value, one in zip(values, found, strict=True))
            start = len(known) - len(values)
            good = np.array([one is not None for one in found] + [True])
            there = np.array([not is_missing(value) and value != [] for value in values] + [False])
            return Cells(pa.array(codes + start, mask=codes < 0), good[codes], there[codes])

        there = [column for column in self._names(columns)["category_path"] if column in columns]
        nothing = Cells(pa.nulls(count, pa.int64()), np.ones(count, bool), np.zeros(count, bool))
        return first_of([read(columns[column]) for column in there] or [nothing], there), known

    def _read_category(self, value: Any) -> Category | None:
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


def _labels(category: Chosen, known: list[tuple[Any, Category]]) -> dict[str, pa.Array]:
    """Return the columns of labels."""
    codes = category.cells.values
    first = pa.array([one.paths[0] if one.paths else None for _, one in known], CATEGORY_PATH)
    several = pa.array(
        [one.paths if len(one.paths) > 1 else None for _, one in known], ROWS.field("category_paths").type
    )
    return {"category_path": first.take(codes), "category_paths": several.take(codes)}
