"""Joins of several rows of one product, which may be far apart; memory does not grow with the catalogue."""

import json
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import groupby
from math import inf
from operator import itemgetter
from typing import Any, Self

from atlas_ray.catalog.product_parts import ProductParts
from atlas_ray.errors import RowError
from atlas_ray.taxonomy import format_path

DECISIVE = ("store", "title", "category_path", "split")
"""Fields whose values must agree in all rows of a product that have one; of others the first value is kept."""

LateRow = tuple[int, str, list[float] | None, str, dict[str, Any]]
"""A row that is joined at the end: its product's part, id and picture positions, the row's place, and its fields."""
Refuse = Callable[[RowError, str, str], None]
"""A function that refuses a row: it is called with the error, the row's place and the product's id."""


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


class JoinedProducts:
    """Joins the rows of a product and hands it on: at once those that follow each other, others at the end.

    A product is written when the next one begins. A later row of it waits in a database on disk, as does a row without
    any picture, whose product's pictures may be anywhere; at the end the files that they belong to are written again.

    Attributes:
        products: How many were handed on.
        rows: How many rows were joined to an earlier one.
        kept: In how many of them a field, by its name, had another value than the first one, which was kept.
    """

    def __init__(self, parts: ProductParts, settle: Callable[[dict[str, Any]], None], refuse: Refuse) -> None:
        """Begin with no product.

        Args:
            parts: Takes the whole products.
            settle: Called with each whole product, to give it its split; again if it gets a label later.
            refuse: Called for each row that is not used.
        """
        self.products = 0
        self.rows = 0
        self.kept: Counter[str] = Counter()
        self._parts, self._settle, self._refuse = parts, settle, refuse
        self._open: dict[str, Any] | None = None

    def take(self, product: dict[str, Any], place: str) -> None:
        """Take a row, as `RowReader` read it."""
        product_id = product["product_id"]
        if self._open is not None and self._open["product_id"] == product_id:
            self._join(self._open, product, place)
        elif product["image_uris"] and self._is_new(product_id):
            part = self._parts.part
            self._close()
            if self._parts.part != part:
                self._database.execute("UPDATE ids SET part = ? WHERE id = ?", (self._parts.part, product_id))
            self._open = product
        else:
            row = json.dumps(product, default=datetime.isoformat)
            self._database.execute("INSERT INTO late (id, place, row) VALUES (?, ?, ?)", (product_id, place, row))

    def finish(self) -> None:
        """Write the last product, and those again whose rows stood apart."""
        self._close()
        self._parts.flush()
        for part, rows in groupby(self._late(), key=itemgetter(0)):
            products = self._parts.read(part)
            self._parts.replace(part, products, self._join_late(rows, products))
        query = "SELECT id, place FROM late WHERE id NOT IN (SELECT id FROM ids) ORDER BY number"
        for product_id, place in self._database.execute(query):
            self._refuse(RowError("missing_images", "the row names no picture"), place, product_id)

    def _is_new(self, product_id: str) -> bool:
        """Remember a product; tell whether it is new."""
        values = (product_id, self._parts.part)
        return self._database.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, NULL)", values).rowcount == 1

    def _join(self, product: dict[str, Any], row: dict[str, Any], place: str) -> None:
        try:
            self.kept.update(join_row(product, row))
            self.rows += 1
        except RowError as error:
            self._refuse(error, place, product["product_id"])

    def _close(self) -> None:
        product, self._open = self._open, None
        if product is None:
            return
        positions = product["image_uris"]
        product["image_uris"] = in_order(positions)
        if any(position < inf for position in positions.values()):
            text = json.dumps([positions[uri] for uri in product["image_uris"]])
            self._database.execute("UPDATE ids SET positions = ? WHERE id = ?", (text, product["product_id"]))
        self._settle(product)
        self.products += 1
        self._parts.add(product)

    def _join_late(self, rows: Iterator[LateRow], products: list[dict[str, Any]]) -> int:
        """Join the rows that waited for a part; return how many pictures they brought."""
        by_id = {product["product_id"]: product for product in products}
        more = 0
        changed: dict[str, tuple[int, bool]] = {}
        for _, product_id, positions, place, row in rows:
            product = by_id[product_id]
            if product_id not in changed:
                uris = product["image_uris"]
                changed[product_id] = len(uris), bool(product["category_path"])
                product["image_uris"] = dict(zip(uris, positions or [inf] * len(uris), strict=True))
            self._join(product, row, place)
        for product_id, (before, labelled) in changed.items():
            product = by_id[product_id]
            product["image_uris"] = in_order(product["image_uris"])
            more += len(product["image_uris"]) - before
            if product["category_path"] and not labelled:
                self._settle(product)
        return more

    def _late(self) -> Iterator[LateRow]:
        """Yield the rows that waited, whose product was written, by its part."""
        query = "SELECT part, id, positions, place, row FROM late JOIN ids USING (id) ORDER BY part, number"
        for part, product_id, positions, place, text in self._database.execute(query):
            row = json.loads(text)
            row["crawled_at"] = datetime.fromisoformat(row["crawled_at"]) if row["crawled_at"] else None
            yield part, product_id, json.loads(positions) if positions else None, place, row

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="atlas-ray-import-")
        self._database = sqlite3.connect(os.path.join(self._folder.name, "rows.sqlite"), isolation_level=None)
        for statement in (
            "PRAGMA journal_mode=OFF",
            "PRAGMA synchronous=OFF",
            "CREATE TABLE ids (id TEXT PRIMARY KEY, part INTEGER, positions TEXT) WITHOUT ROWID",
            "CREATE TABLE late (number INTEGER PRIMARY KEY, id TEXT, place TEXT, row TEXT)",
            "BEGIN",
        ):
            self._database.execute(statement)
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._folder.cleanup()


def in_order(positions: dict[str, float]) -> list[str]:
    """Return pictures by their positions; those without one last, as they came."""
    return sorted(positions, key=lambda uri: positions[uri])
