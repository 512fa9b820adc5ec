"""The account of an import: the outcome of each record, and advice if many were refused."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from atlas_ray.catalog.sources import RawRow, Source
from atlas_ray.errors import AuditError, RowError
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
    "missing_images": lambda _: "name the column of the pictures with --map image_uris=COLUMN",
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
    """The number of lines of the records."""
    quarantined: Counter[str] = field(default_factory=Counter)
    """Counts of quarantined records by error code."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first message of each error code, with its place."""

    @property
    def quarantined_fraction(self) -> float:
        """The share of the records that was refused, without blank ones."""
        return self.quarantined.total() / max(self.records - self.blank, 1)

    def take(self, raw: RawRow) -> None:
        """Count a record."""
        self.records += 1
        self.blank += raw.blank
        self.lines += raw.lines

    def refuse(self, error: RowError, place: str) -> None:
        """Count a record that goes to quarantine."""
        self.quarantined[error.code] += 1
        self.examples.setdefault(error.code, printable(f"{place}: {error.message}")[:MAX_EXAMPLE_CHARACTERS])

    def hint(self) -> str | None:
        """Return what to do about the code that explains most of what was refused, if one does."""
        ((code, count),) = self.quarantined.most_common(1) or [("", 0)]
        if code not in HINTS or (count < 2 and count < self.records - self.blank):
            return None  # one bad record among others needs none
        if 2 * count < self.quarantined.total():
            return None
        return f"{count} of {self.quarantined.total()} are {code}: {HINTS[code](self.source)}"

    def check(self, *, products: int, joined: int, refused: int) -> None:
        """Check that nothing was lost.

        Args:
            products: Rows of the products table.
            joined: Records that say more of a product which another one began.
            refused: Rows of the quarantine table.

        Raises:
            AuditError: if a record is not exactly one of these or blank, or a line of a CSV in no record.
        """
        if self.records != products + joined + refused + self.blank or refused != self.quarantined.total():
            raise AuditError(
                f"{self.records} records do not balance: {products} products, {joined} joined, "
                f"{refused} quarantined, {self.blank} blank"
            )
        if self.source.lines is not None and self.source.lines != self.source.header_lines + self.lines:
            raise AuditError(
                f"{self.source.lines} lines do not balance: {self.source.header_lines} of the header, "
                f"{self.lines} of records"
            )
