"""Parts of a source read as rows of products, each with an account; parts that do not fit together are read again."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from atlas_ray.catalog.fields import Columns
from atlas_ray.catalog.parts import TABLE_ROWS, Part, RawRow
from atlas_ray.catalog.rows import RowReader
from atlas_ray.catalog.sources import Source
from atlas_ray.catalog.table_reader import TableReader


@dataclass
class PartReport:
    """The account of a part."""

    part: Part
    records: int = 0
    """The number of records, including blank ones."""
    blank: int = 0
    lines: int = 0
    """The number of lines of the records."""
    own_lines: int | None = None
    """The number of lines that begin in the part; None if it has none."""
    header_lines: int = 0
    skipped: int = 0
    """The number of lines at its beginning that were left out, for they belong to a record of the part before."""
    beyond: int = 0
    """The number of lines after its own that its last record took."""
    encoding: str | None = None
    encoding_assumed: bool = False
    encoding_told: str = ""
    """The encoding that its bytes gave away; "" if they are all ASCII."""
    reader: RowReader | None = None
    """With the counts of the part."""


@dataclass(frozen=True)
class Reading:
    """What a task needs to read a part of a source."""

    uri: str
    kind: str
    columns: Sequence[str]
    """See `Source`."""
    encoding: str
    advice: str
    sheet: str
    reader: RowReader
    """A reader with the settings of the import."""

    def read(self, part: Part, report: PartReport) -> Iterator[pa.Table]:
        """Yield the rows of a part (`ROWS`), and fill in its account."""
        reader = self.reader.anew()
        source = Source(
            self.uri, self.kind, self.columns, encoding=self.encoding, advice=self.advice, sheet=self.sheet, part=part
        )
        columns = TableReader(reader)
        for table, others in _tables(source, columns):
            blank = sum(one.blank for one in others)
            report.records += len(table) + blank
            report.blank += blank
            yield table
        report.lines = source.row_lines
        report.own_lines = source.lines if source.own_lines is None else source.own_lines
        report.header_lines = 0 if part.continues else source.header_lines
        report.skipped = source.skipped
        if source.own_lines is not None and source.lines is not None:
            report.beyond = max(0, source.lines - source.own_lines)
        report.encoding, report.encoding_assumed = source.encoding, source.encoding_assumed
        report.encoding_told = source.stream.told if source.stream else ""
        report.reader = replace(reader, columns=Columns({}), taxonomy=None)


def _tables(source: Source, columns: TableReader) -> Iterator[tuple[pa.Table, list[RawRow]]]:
    """Yield rows of products, those refused among them, and the records that are not of a table."""
    if source.is_table:
        for raw in source.tables():
            read = columns.read(raw.table, raw.numbers, partial(source.place, name=raw.name))
            yield pa.concat_tables([read, columns.read_rows(raw.others)]), raw.others
        return
    rows = iter(source)
    while batch := list(itertools.islice(rows, TABLE_ROWS)):
        yield columns.read_rows(batch), batch


def fitting(part: Part, before: Sequence[PartReport]) -> Part:
    """Return the next part as it fits to those before it, which are read."""
    if not part.continues:
        return part
    told = next((one.encoding_told for one in before if one.part.uri == part.uri and one.encoding_told), "")
    return replace(part, skip=before[-1].beyond, assumed=told)


def misfits(reports: Sequence[PartReport]) -> list[Part]:
    """Return the parts that have to be read again, and how: their beginning or their encoding was guessed wrong.

    Where a part ends is known for sure once it is known where it begins, and the first part of a file begins at its
    beginning. So after as many rounds as there are parts, and mostly after one, all parts fit together.
    """
    again = []
    encodings: dict[str, str] = {}
    beyond = 0
    for report in reports:
        part = report.part
        if not part.continues:
            beyond = 0
        told = encodings.setdefault(part.uri, report.encoding_told) or report.encoding_told
        encodings[part.uri] = told
        other = bool(report.encoding_told) and report.encoding_told != told
        if report.skipped != beyond or other:
            again.append(replace(part, skip=beyond, assumed=told if other else part.assumed))
        beyond = report.beyond
    return again


def lines_before(reports: Sequence[PartReport]) -> list[int]:
    """Return the lines of its file before each part."""
    before, lines = [], 0
    for report in reports:
        lines = lines if report.part.continues else 0
        before.append(lines)
        lines += report.own_lines or 0
    return before
