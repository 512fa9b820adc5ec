"""The account of an import: the outcome of each record, and advice if many were refused."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from atlas_ray.catalog.reading import PartReport
from atlas_ray.catalog.settling import Tally
from atlas_ray.catalog.sources import Source
from atlas_ray.errors import AuditError
from atlas_ray.formats.values import printable

MAX_EXAMPLE_CHARACTERS = 300


def _of_rows(source: Source) -> str:
    if source.separator is None:
        return f"the source was read as {source.kind}: name another format with --format"
    return (
        f"a row needs as many cells as the header, with {source.separator!r} between them; a cell that holds one, or a "
        "quote, stands in quotes, and its own quotes are doubled"
    )


def _of_ids(source: Source) -> str:
    columns = f"; the columns are {', '.join(name for name in source.header[:12] if name)}" if source.header else ""
    return f"name the column of the product ids with --map product_id=COLUMN{columns}"


HINTS: dict[str, Callable[[Source], str]] = {
    "bad_encoding": lambda source: (
        f"the file was read as {source.encoding}: name its encoding, such as --encoding windows-1252"
        if source.encoding
        else "rename the files: their names are not UTF-8"
    ),
    "bad_row": _of_rows,
    "missing_product_id": _of_ids,
    "contradicting_rows": _of_ids,
    "missing_images": lambda _: "name the column of the pictures with --map image_uris=COLUMN, or of titles with --map "
    "title=COLUMN",
    "bad_image_uri": lambda _: "name the folder of the pictures with --image-base, what stands between several of one "
    "cell with --image-separator",
    "bad_category_path": lambda _: "name what stands between the names of a path with --path-separator, between "
    "several paths in one cell with --category-separator (none if a cell is one)",
    "unknown_category": lambda _: "compare the labels with `atlas-ray taxonomy show`; name what is between the names "
    "of a path with --path-separator, between several paths with --category-separator, their column with "
    "--map category_path=COLUMN",
    "not_a_picture": lambda _: "it was read as a folder of pictures: name a file, or another format with --format",
}  # fmt: skip
"""Advice by error code, for when a single code explains most of the refused records."""


@dataclass
class ImportAccount:
    """Counts of a source's records by their outcome."""

    source: Source
    records: int = 0
    """The number of records below the header, including blank ones."""
    blank: int = 0
    lines: int = 0
    """The number of lines of the records, and of headers."""
    own_lines: int | None = None
    """The number of lines of the source, counted apart; None if it has none, or they were not counted."""
    encoding: str | None = None
    """The encoding that a text file was read with."""
    encoding_assumed: bool = False
    """Whether the encoding is a guess."""
    quarantined: Counter[str] = field(default_factory=Counter)
    """Counts of quarantined records by error code."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first message of each error code, with its place."""

    @classmethod
    def of(cls, source: Source, reports: Sequence[PartReport], tally: Tally) -> Self:
        """Add up the accounts of all parts."""
        counted = source.table is not None and all(report.own_lines is not None for report in reports)
        told = [report for report in reports if report.encoding_told] or list(reports[:1])
        return cls(
            source,
            records=sum(report.records for report in reports),
            blank=sum(report.blank for report in reports),
            lines=sum(report.lines + report.header_lines for report in reports),
            own_lines=sum(report.own_lines or 0 for report in reports) if counted else None,
            encoding=told[0].encoding if told else None,
            encoding_assumed=any(report.encoding_assumed for report in reports),
            quarantined=tally.quarantined,
            examples={
                code: printable(f"{place}: {message}")[:MAX_EXAMPLE_CHARACTERS]
                for code, (place, message) in tally.examples.items()
            },
        )

    @property
    def quarantined_fraction(self) -> float:
        """The share of the records that was refused, without blank ones."""
        return self.quarantined.total() / max(self.records - self.blank, 1)

    def hint(self) -> str | None:
        """Return what to do about the code that explains most of what was refused, if one does."""
        ((code, count),) = self.quarantined.most_common(1) or [("", 0)]
        if code not in HINTS or (count < 2 and count < self.records - self.blank):
            return None  # one bad record among others needs none
        if 2 * count < self.quarantined.total():
            return None
        return f"{count} of {self.quarantined.total()} are {code}: {HINTS[code](self.source)}"

    def check(self, tally: Tally) -> None:
        """Check that nothing was lost.

        Raises:
            AuditError: if a record is not exactly one of a product, joined to one, quarantined or blank, or a line of a
                CSV in no record.
        """
        products, refused = tally.written["products"], tally.written["quarantine"]
        counted = tally.said + tally.joined + tally.deleted + refused + self.blank
        kept = products - tally.changes["absent"]
        if self.records != counted or refused != self.quarantined.total() or kept != tally.said:
            raise AuditError(
                f"{self.records} records do not balance: {products} products, {tally.joined} joined, {tally.deleted} "
                f"deleted, {refused} quarantined, {self.blank} blank; {tally.changes['absent']} products from before"
            )
        if self.own_lines is not None and self.own_lines != self.lines:
            raise AuditError(f"{self.own_lines} lines do not balance: {self.lines} of headers and records")
