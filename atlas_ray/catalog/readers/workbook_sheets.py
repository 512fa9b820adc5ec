"""Rows of a workbook's sheet."""

from collections.abc import Iterator, Sequence
from typing import Any

from atlas_ray.catalog.parts import Origin, Part, RawRow
from atlas_ray.errors import CatalogError, RowError
from atlas_ray.formats.delimited import column_key
from atlas_ray.formats.values import clean_name
from atlas_ray.formats.workbooks import read_sheet


def read_workbook(source: Origin, parts: Sequence[Part]) -> Iterator[RawRow]:
    """Read the rows below the header, which is the first row that is not blank."""
    for part in parts:
        header: list[str] = []
        for number, cells in enumerate(read_sheet(part.uri, source.sheet), 1):
            place = source.place(number, part.name)
            blank = not any(str(cell).strip() for cell in cells)
            if not header:
                if not blank:
                    header = _header(source, part, number, cells)
                continue
            if blank:
                yield RawRow(place, blank=True)
            elif [clean_name(str(cell)) for cell in cells] == header:
                yield RawRow(place, error=RowError("bad_row", "the header once more"))
            else:
                yield RawRow(place, {name: cell for name, cell in zip(header, cells, strict=True) if name})
        if not header:
            raise CatalogError(f"{part.uri}: an empty sheet; expected a header and rows below it")


def _header(source: Origin, part: Part, number: int, cells: Sequence[Any]) -> list[str]:
    header = [clean_name(str(cell)) for cell in cells]
    named = [name for name in header if name]
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise CatalogError(f"{part.uri}, row {number}: a column stands twice, {twice!r}; rename or delete one of them")
    if not {column_key(name) for name in source.columns} & {column_key(name) for name in named}:
        advice = f"; {source.advice}" if source.advice else ""
        raise CatalogError(
            f"{part.uri}, row {number}: no known column in {named[:12]}; expected some of "
            f"{', '.join(source.columns[:12])}{advice}"
        )
    source.header = source.header or named
    return header
