"""Terminal output of `embed` and `similar`."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from rich.table import Table

from atlas_ray.reports.terminal import SHOWN, wide_console
from atlas_ray.taxonomy import format_path


def print_embed(output: str, run: Mapping[str, Any]) -> None:
    """Print the result of an embedding run.

    Args:
        output: Its folder.
        run: Its account.
    """
    counts = run["counts"]
    print(
        f"{counts['products']} products have a vector; {counts['embedded']} of {counts['input']} pictures embedded, "
        f"{counts['quarantined']} in quarantine; {run['seconds']['total']:.0f} s in all"
    )
    for title, codes in (
        ("quarantine", run["quarantined_by_code"]),
        ("embedded by texts alone", run["without_picture_by_code"]),
    ):
        if codes:
            print(f"  {title}: {', '.join(f'{code} {count}' for code, count in sorted(codes.items()))}")
    print(f"vectors: {output}/embeddings; ask them with `atlas-ray similar --embeddings {output}`")


def print_similar(rows: pa.Table) -> None:
    """Print the most similar products, a row each."""
    table = Table("product", "similarity", "category path")
    table.columns[1].justify = "right"
    for row in rows.to_pylist():
        table.add_row(row["product_id"], f"{row['similarity']:.4f}", _path(row["category_path"]))
    wide_console().print(table)


def print_label_errors(output: str, pairs: pa.Table, limit: int) -> None:
    """Print the most similar of the pairs whose labels differ.

    Args:
        output: The folder that holds all of them.
        pairs: Rows of `LABEL_ERRORS`.
        limit: How many pairs there could be.
    """
    console = wide_console()
    if len(pairs):
        table = Table("product", "category path", "other product", "its category path", "similarity")
        table.columns[4].justify = "right"
        for row in pairs.slice(0, SHOWN).to_pylist():
            table.add_row(
                row["product_id"],
                _path(row["category_path"]),
                row["other_product_id"],
                _path(row["other_category_path"]),
                f"{row['similarity']:.4f}",
            )
        console.print(table)
    more = f", and more past --limit {limit}" if len(pairs) == limit else ""
    console.print(
        f"{len(pairs)} nearly identical pairs have different labels{more}; all in {output}/label_errors.parquet"
    )


def _path(names: list[str] | None) -> str:
    return format_path(names) if names is not None else ""
