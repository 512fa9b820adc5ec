"""CSV as spreadsheets and shops write it: the one reader of catalogues, taxonomies, mappings, lists and stores.

Commas, semicolons and tabs are told apart by the header. Each line belongs to the header or to one record: one that
begins in it, or one whose quoted cell goes on in it. A quote that never closes costs the line that it stands in, not
those after it.
"""

import csv
import itertools
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from atlas_ray.errors import RowError, UserError
from atlas_ray.formats.text_files import MAX_LINE_BYTES, Line, Utf8Stream, read_lines
from atlas_ray.formats.values import clean_name

SEPARATORS = (",", ";", "\t", "|")
"""The accepted separators: spreadsheets write semicolons where the decimal point is a comma, and some feeds bars."""
SEPARATOR_LINE = re.compile(r'"?sep=([,;|\t])"?[,;|\s]*')
"""A pattern of the line `sep=;` above a header, which some spreadsheets read."""
BLANK = ',;|\t\r\n "'
"""The characters of a line without any cell."""
MAX_RECORD_LINES = 10_000
SWALLOWED_SHARE = 0.9
MIN_SWALLOWED_SEPARATORS, MIN_TIGHT_SEPARATORS = 3, 2
"""A record of several lines is several records if so many of its lines have as many cells as the header, and so many
separators in all; fewer will do if no space follows a separator, as one does in prose."""


GUESSED_LINES, GUESSED_RECORDS = 200, 3
"""The number of lines among which the first record of a part of a file is looked for, and how many records that begin
there have to be sound."""


class Layout(NamedTuple):
    """What the header of a CSV says."""

    header: list[str]
    """The names of the columns; "" for one without a name."""
    cells: list[str]
    """The same as they are written."""
    separator: str
    """The separator of cells."""


class Record(NamedTuple):
    """A record of a CSV below its header."""

    line: int
    """The number of the line in which the record begins."""
    lines: int
    """The number of lines of the record."""
    cells: list[str]
    """The record's cells, as many as the header has; [] for a blank record and for one with an error."""
    error: RowError | None = None
    """The reason why the record cannot be used: `bad_row` or `bad_encoding`."""


def column_key(column: str) -> str:
    """Return what two spellings of a column's name share: `Image Src`, `image-src` and `g:IMAGE_SRC` are `imagesrc`."""
    return re.sub(r"[\W_]", "", column.casefold().removeprefix("g:"))


class Delimited:
    """The records of a CSV, one by one.

    Attributes:
        header: The names of the columns; "" for one without a name.
        header_lines: How many lines there are up to the end of the header.
        separator: What stands between cells.
    """

    def __init__(
        self,
        stream: Utf8Stream,
        columns: Sequence[str],
        *,
        source: str,
        error: type[UserError],
        cut_off: bool = False,
        advice: str = "",
        layout: Layout | None = None,
    ) -> None:
        """Read the header.

        Args:
            stream: The file.
            columns: What its columns may be called; the separator is the one that makes most of them known.
            source: Its name, for messages.
            error: The error that is raised if the file as a whole cannot be read.
            cut_off: Take the last cells that a record lacks as empty, and leave out what stands beside the named
                columns: spreadsheets do both. Otherwise such a record is refused, for a cell may have been torn apart.
            advice: Further advice for the message if no column is known.
            layout: What the header says, for a part of a file in which there is none.

        Raises:
            UserError: of the kind that was given, for a file without a header, or with none of the columns.
        """
        csv.field_size_limit(MAX_LINE_BYTES)
        self._lines = _Lines(read_lines(stream))
        self._cut_off = cut_off
        self._advice = f"; {advice}" if advice else ""
        self.header: list[str] = []
        self._header_cells: list[str] = []
        if layout is not None:
            self.header, self._header_cells, self.separator = layout
            self.header_lines = 0
            return
        self.separator, place = self._read_header(columns, source, error)
        self.header_lines = self._lines.taken
        named = [name for name in self.header if name]
        if len(set(named)) < len(named):
            twice = next(name for name in named if named.count(name) > 1)
            raise error(f"{source}, {place}: a column stands twice, {twice!r}; rename or delete one of them")

    @property
    def lines(self) -> int:
        """How many lines were read so far."""
        return self._lines.taken

    @property
    def layout(self) -> Layout:
        """What the header says."""
        return Layout(self.header, self._header_cells, self.separator)

    def skip(self, count: int) -> int:
        """Leave out lines; return how many there were."""
        return sum(1 for _ in itertools.islice(self._lines, count))

    def guess_beginning(self) -> int:
        """Leave out the lines up to the first one in which a record seems to begin; return how many they are.

        The reader of the lines before knows for sure.
        """
        for skipped in range(GUESSED_LINES):
            self._lines.keep()
            records = list(itertools.islice(self, GUESSED_RECORDS))
            self._lines.rewind()
            if all(record.error is None for record in records):
                return skipped
            self.skip(1)
        return GUESSED_LINES

    def __iter__(self) -> Iterator[Record]:
        for number, text, broken in self._lines:
            if '"' in text:
                cells, more, damage = self._quoted(text, self.separator)
                broken = damage or broken or next((line[2] for line in more if line[2]), None)
                yield self._record(number, 1 + len(more), cells, broken)
            else:
                yield self._record(number, 1, text.rstrip("\r\n").split(self.separator), broken)

    def _record(self, number: int, lines: int, cells: list[str], error: RowError | None) -> Record:
        """Check the cells of a record against the header."""
        if error is not None or not any(map(str.strip, cells)):
            return Record(number, lines, [], error)
        count, width = len(cells), len(self.header)
        while len(cells) > width and (self._cut_off or not cells[-1].strip()):
            del cells[-1]  # a spreadsheet may add empty columns
        if self._cut_off:
            cells += [""] * (width - len(cells))
        if len(cells) != width:
            return Record(number, lines, [], RowError("bad_row", f"{count} cells where the header has {width}"))
        if cells[0].strip() == self._header_cells[0] and list(map(str.strip, cells)) == self._header_cells:
            return Record(number, lines, [], RowError("bad_row", "the header once more"))
        return Record(number, lines, cells)

    def _quoted(self, text: str, separator: str) -> tuple[list[str], list[Line], RowError | None]:
        """Read a record with quotes, which may go on in the next lines.

        Returns:
            Its cells, the lines after its first one, and what is wrong with it. A damaged record is its first line
            alone; the others will be read again.
        """
        more: list[Line] = []

        def lines() -> Iterator[str]:
            yield text
            size = len(text)
            while len(more) < MAX_RECORD_LINES and size < MAX_LINE_BYTES and (line := next(self._lines, None)):
                more.append(line)
                size += len(line[1])
                yield line[1]

        try:
            cells = next(csv.reader(lines(), delimiter=separator, skipinitialspace=True, strict=True), [])
        except csv.Error as error:
            below = f" in any of {len(more)} lines" if more else ""
            if "expected after" in str(error):
                reason = "text after the quote that closes a cell"
            else:
                reason = f"a quote that opens a cell and is not closed{below}"
        else:
            begins_whole = text.count(separator) >= len(self.header) - 1
            if not (more and (begins_whole or len(cells) < len(self.header)) and self._swallowed(more, separator)):
                return cells, more, None
            reason = f"a quote that opens a cell and is closed {len(more)} lines below, with whole rows between"
        self._lines.push_back(more)
        return [], [], RowError("bad_row", f"{reason}; a quote that is part of a text has to be doubled")

    def _swallowed(self, more: list[Line], separator: str) -> bool:
        """Tell whether the lines of a record are rows of their own, each with as many cells as the header."""
        wanted = len(self.header) - 1
        if wanted < 1:
            return False
        lines = [line for _, line, _ in more if line.strip(BLANK)]
        alike = sum(line.count(separator) == wanted for line in lines)
        tight = not any(f"{separator} " in line for line in lines)
        least = MIN_TIGHT_SEPARATORS if tight else MIN_SWALLOWED_SEPARATORS
        return alike >= SWALLOWED_SHARE * len(lines) and alike * wanted >= least

    def _read_header(self, columns: Sequence[str], source: str, error: type[UserError]) -> tuple[str, str]:
        """Read up to the record that names the columns, tell the separator from it, and return its place."""
        separators: tuple[str, ...] = SEPARATORS if not source.lower().endswith(".tsv") else ("\t", *SEPARATORS)
        wanted = set(map(column_key, columns))
        for number, text, broken in self._lines:
            place = f"line {number}"
            if broken:
                raise error(f"{source}, {place}: {broken.message}; name the encoding, or save it as a CSV in UTF-8")
            if stated := SEPARATOR_LINE.fullmatch(text):
                separators = (stated[1], *separators)
            elif text.strip(BLANK):
                names: dict[str, list[str]] = {}
                for separator in separators:
                    cells, more, _ = self._quoted(text, separator)
                    self._lines.push_back(more)
                    names[separator] = [clean_name(cell) for cell in cells]
                known = {
                    separator: len(wanted.intersection(map(column_key, names[separator]))) for separator in separators
                }
                best = max(separators, key=lambda separator: known[separator])  # of several the first one
                if not known[best]:
                    raise error(
                        f"{source}, {place}: no known column in {max(names.values(), key=len)[:12] or [text[:80]]}; "
                        f"expected some of {', '.join(columns[:12])}, with commas, semicolons, tabs or bars between "
                        f"them{self._advice}"
                    )
                cells, _, _ = self._quoted(text, best)  # takes the lines of the header
                self.header = names[best]
                while not self.header[-1]:
                    del self.header[-1]
                self._header_cells = [cell.strip() for cell in cells[: len(self.header)]]
                return best, place
        raise error(f"{source}: an empty file; expected a CSV with a header")


class _Lines:
    """Lines that may be put back."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._again: deque[Line] = deque()
        self._read = 0
        self._kept: list[Line] | None = None

    @property
    def taken(self) -> int:
        """How many lines were taken and not put back."""
        return self._read - len(self._again)

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        if self._again:
            line = self._again.popleft()
        else:
            line = next(self._lines)
            self._read += 1
        if self._kept is not None:
            self._kept.append(line)
        return line

    def push_back(self, lines: list[Line]) -> None:
        self._again.extendleft(reversed(lines))
        if self._kept is not None and lines:
            del self._kept[-len(lines) :]

    def keep(self) -> None:
        """Remember the lines from here on."""
        self._kept = []

    def rewind(self) -> None:
        """Go back to where lines were remembered from."""
        kept, self._kept = self._kept or [], None
        self.push_back(kept)
