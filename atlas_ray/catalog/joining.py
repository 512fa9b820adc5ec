"""Joins of several rows of one product."""

from typing import Any

from atlas_ray.errors import RowError
from atlas_ray.taxonomy import format_path

DECISIVE = ("store", "title", "category_path", "split")
"""Fields whose values must agree in all rows of a product that have one; of others the first value is kept."""


def join_row(product: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """Add what another row says of a product: values that it lacks, and further pictures.

    Returns:
        The fields in which the row says something else, and the first value was kept.

    Raises:
        RowError: `contradicting_rows`; the product is as before then.
    """
    for name in DECISIVE:
        if row[name] is not None and product[name] is not None and row[name] != product[name]:
            here, there = (format_path(one[name]) if name == "category_path" else one[name] for one in (row, product))
            raise RowError(
                "contradicting_rows",
                f"the {name} is {here[:200]!r}, but {there[:200]!r} in an earlier row of the product "
                f"{product['product_id']!r}, which was kept",
            )
    other = []
    if product["price"] is None and row["price"] is not None:
        product["currency"] = row["currency"] or product["currency"]
    for name, value in row.items():
        if name == "image_uris":
            for uri, position in value.items():
                product[name].setdefault(uri, position)
        elif product[name] is None:
            product[name] = value
        elif value is not None and value != product[name]:
            other.append(name)
    return other


def in_order(positions: dict[str, float]) -> list[str]:
    """Return pictures by their positions; those without one last, as they came."""
    return sorted(positions, key=lambda uri: positions[uri])
