"""CSV for a person's spreadsheet, whose cells stay text and are read back unchanged."""

import csv
import io
from collections.abc import Iterable, Sequence

from atlas_ray.io import storage

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""First characters of cells that some spreadsheet would compute as a formula."""
GUARD = "'"


def guarded(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: a quote stands before one that could be."""
    return GUARD + text if text.startswith((*FORMULA_STARTS, GUARD)) else text


def unguarded(text: str) -> str:
    """Return the text that was given to `guarded`, even if a spreadsheet removed the quote."""
    return text[1:] if text.startswith(tuple(GUARD + start for start in (*FORMULA_STARTS, GUARD))) else text


def write_csv(uri: str, head: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> None:
    """Write a CSV: texts guarded, numbers with six decimals, None as an empty cell.

    It begins with a byte order mark, without which Excel takes UTF-8 for another encoding.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(head)
    for row in rows:
        writer.writerow([guarded(cell) if isinstance(cell, str) else _number(cell) for cell in row])
    storage.write_bytes(uri, buffer.getvalue().encode("utf-8-sig"))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
