"""Parts of a catalogue's source, which tasks read at the same time, and what the readers of all formats share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from atlas_ray.errors import CatalogError, RowError
from atlas_ray.formats.delimited import Delimited
from atlas_ray.formats.spans import Span, SpanText
from atlas_ray.formats.table_files import TableFile
from atlas_ray.formats.text_files import Utf8Stream

TABLE_ROWS = 10_000
"""The number of rows that are read at a time."""


class Place(NamedTuple):
    """Where a row stands in its source."""

    part: int
    """The number of the part."""
    number: int
    """The row's number within the part, from 1; that of its first line in a text file."""
    word: str = ""
    """What is numbered: `line`, `item`, `row`; "" if the name says it all."""
    name: str = ""
    """The name of the file within the source, if there are several."""

    def __str__(self) -> str:
        """Return it for a message: `line 7`, `a.csv, line 7`, or the name of a picture."""
        return ", ".join(filter(None, (self.name, self.word and f"{self.word} {self.number}")))

    def after(self, lines: int) -> "Place":
        """Return the place, counted from further up."""
        return self._replace(number=self.number + lines)


@dataclass
class RawRow:
    """A record as its source has it."""

    place: Any
    """A `Place`; in other lists, a text."""
    fields: dict[str, Any] = field(default_factory=dict)
    error: RowError | None = None
    """The reason why the row could not be read."""
    blank: bool = False
    """Whether the row is blank, such as an empty line."""
    lines: int = 1
    """The number of lines of the row in a text file."""


class RawTable(NamedTuple):
    """Some rows of a source whose rows all have the same columns, and the other records between them."""

    table: pa.Table
    numbers: list[int]
    """Where each row stands, as `Place.number`."""
    lines: list[int]
    """The number of lines of each row in a text file."""
    others: list[RawRow]
    """Blank records, and those that could not be read."""
    name: str
    """As `Place.name`."""


@dataclass(frozen=True)
class Part:
    """A part of a source, which one task reads."""

    number: int
    uri: str
    """The file."""
    rows: int
    """About how many rows it has."""
    bytes: int
    """About how many bytes it has."""
    name: str = ""
    """The name of the file within the source, if there are several."""
    span: Span | None = None
    """The lines of a text file that it consists of."""
    groups: TableFile | None = None
    """The row groups of a Parquet file that it consists of."""
    before: int = 0
    """The number of rows of the Parquet file before them."""
    handle: Any = None
    """What else its reader has to know to find it."""
    skip: int | None = None
    """The number of lines at its beginning that belong to a record of the part before; None to guess it."""
    assumed: str = ""
    """The encoding that another part of the file was read with, if that is a guess."""

    @property
    def continues(self) -> bool:
        """Whether it begins within its file."""
        return self.span is not None and self.span.start > 0


class Origin:
    """A source as the reader of its format sees it: what was asked for, and what the reader says of it.

    Attributes:
        uri: The source.
        columns: What the columns of a CSV may be called.
        encoding_asked: The encoding of text files.
        cut_off: See `Delimited`.
        advice: See `Delimited`.
        sheet: The sheet of a workbook; "" for the first one.
        word: What `Place.number` numbers.
        part: The part that is read; None: all.
        header: The columns of a table; None for formats whose rows may differ.
        header_lines: How many lines of a CSV come before its records.
        separator: What stands between the cells of a CSV; None for other formats.
        row_lines: How many lines of a CSV its records had so far.
        skipped: How many lines at the beginning were left out, which belong to a record of the part before.
        stream: The text that is read, if it is one.
        own_lines: How many of its lines begin in the part.
        table: The CSV that is read, if it is one.
        snapshot: The version of a table that is read, in its format's own terms.
    """

    def __init__(
        self,
        uri: str,
        columns: Sequence[str],
        *,
        word: str = "",
        encoding: str,
        cut_off: bool = False,
        advice: str = "",
        sheet: str = "",
        part: Part | None = None,
    ) -> None:
        self.uri, self.columns, self.word = uri, columns, word
        self.encoding_asked, self.cut_off, self.advice, self.sheet = encoding, cut_off, advice, sheet
        self.part = part
        self.header: list[str] | None = None
        self.header_lines = 0
        self.separator: str | None = None
        self.skipped = 0
        self.row_lines = 0
        self.stream: Utf8Stream | None = None
        self.own_lines: int | None = None
        self.table: Delimited | None = None
        self.snapshot: Any = None

    def place(self, number: int, name: str = "") -> Place:
        """Return the place of a row."""
        return Place(self.part.number if self.part else 0, number, self.word, name)

    def open_part(self, part: Part) -> Utf8Stream:
        """Open the text of a part."""
        text = SpanText(part.span or Span(part.uri), CatalogError, self.encoding_asked, assumed=part.assumed)
        self.stream, self.own_lines = text.stream, text.own_lines
        return text.stream


@dataclass(frozen=True)
class Format:
    """A format of sources."""

    help: str
    """What it reads, as a phrase."""

    parts: Callable[..., list[Part]]
    """Cuts a source into parts; with `whole` into one for each file."""
    rows: Callable[[Origin, Sequence[Part]], Iterator[RawRow]] | None = None
    """Reads the rows of some parts."""
    tables: Callable[[Origin, Sequence[Part]], Iterator[RawTable]] | None = None
    """Reads the rows of some parts if all of them have the same columns."""
    word: str = ""
    """What `Place.number` numbers."""
