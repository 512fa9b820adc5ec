"""Rows of CSV files, each with a header of its own."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from atlas_ray.catalog.parts import TABLE_ROWS, Origin, Part, RawRow, RawTable
from atlas_ray.errors import CatalogError
from atlas_ray.formats.delimited import Delimited, Layout
from atlas_ray.formats.text_files import Utf8Stream, open_text


def read_csv(source: Origin, parts: Sequence[Part]) -> Iterator[RawTable]:
    """Read CSV files, each with a header of its own."""
    for part in parts:
        layout = None
        if part.continues:
            layout = _delimited(source, open_text(part.uri, CatalogError, source.encoding_asked), part.uri).layout
        table = source.table = _delimited(source, source.open_part(part), part.uri, layout)
        source.header, source.header_lines, source.separator = table.header, table.header_lines, table.separator
        if part.continues:
            source.skipped = table.guess_beginning() if part.skip is None else table.skip(part.skip)
        yield from _csv_tables(source, table, part)


def _delimited(source: Origin, stream: Utf8Stream, uri: str, layout: Layout | None = None) -> Delimited:
    return Delimited(
        stream,
        source.columns,
        source=uri,
        error=CatalogError,
        cut_off=source.cut_off,
        advice=source.advice,
        layout=layout,
    )


def _csv_tables(source: Origin, table: Delimited, part: Part) -> Iterator[RawTable]:
    names = [name for name in table.header if name]
    at = [number for number, name in enumerate(table.header) if name]
    records = iter(table)
    more = True
    while more:
        numbers: list[int] = []
        cells: list[list[str]] = []
        others: list[RawRow] = []
        lines: list[int] = []
        while len(cells) + len(others) < TABLE_ROWS:
            if source.own_lines is not None and table.lines >= source.own_lines:
                more = False
                break
            record = next(records, None)
            if record is None:
                more = False
                break
            source.row_lines += record.lines
            if record.cells:
                numbers.append(record.line)
                cells.append(record.cells)
                lines.append(record.lines)
            else:
                place = source.place(record.line, part.name)
                others.append(RawRow(place, error=record.error, blank=record.error is None, lines=record.lines))
        columns = [pa.array([row[column] for row in cells], pa.string()) for column in at]
        yield RawTable(pa.Table.from_arrays(columns, names=names), numbers, lines, others, part.name)
