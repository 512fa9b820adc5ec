"""The split of an import: a product's side comes from its source, an earlier catalogue, or a hash of its id."""

import contextlib
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from atlas_ray.catalog.split import HashedSplit, SplitAssigner, SplitRule, StratifiedSplit, known_products, parse_shares
from atlas_ray.taxonomy import CategoryPath

ASSIGNERS: dict[bool, type[HashedSplit] | type[StratifiedSplit]] = {False: HashedSplit, True: StratifiedSplit}
"""The classes that assign a side, by whether the shares must be exact."""
UNLABELLED, LEFT_OUT = "unlabelled", "left out"
"""States of a product without a split in an earlier catalogue: it had no label, or is kept out of all splits."""


class Sides:
    """Assignment of splits to products as they stream by.

    Attributes:
        rule: How the new ones get theirs.
        counts: Labelled products by where their split is from: source, previous or drawn; and of the others
            `contradicts_previous`, whose source states another split than the earlier catalogue, and
            `previous_disagree`, which the earlier catalogues have in different splits.
    """

    def __init__(self, rule: SplitRule, known: "sqlite3.Connection | None") -> None:
        self.rule = rule
        self.counts = Counter[str]()
        self._known = known
        self._assigner: SplitAssigner = ASSIGNERS[rule.exact](parse_shares(rule.shares), rule.seed)
        self._trained: dict[CategoryPath, list[int]] = {}  # products, and those of them in train

    def settle(self, product: dict[str, Any]) -> None:
        """Fill in a product's `split`: the source's, else the earlier catalogue's, else a drawn one.

        A product that has no label keeps what split it had. One that had a label and no split is kept out of all
        splits, since its picture is on another side, and stays so.
        """
        before = self._before(product["product_id"])
        split, path = product["split"], tuple(product["category_path"] or ())
        known = None if before in (None, UNLABELLED, LEFT_OUT) else before
        if split:
            origin = "source"
            if known is not None and known != split:
                self.counts["contradicts_previous"] += 1
        elif before is not None and before != UNLABELLED:
            origin, split = "previous", known
            if path:
                self._assigner.assign(product["product_id"], path)  # in exact shares a known product has its place, too
        elif path:
            origin, split = "drawn", self._assigner.assign(product["product_id"], path)
        product["split"] = split
        if path:
            self.counts[origin] += 1
            there = self._trained.setdefault(path, [0, 0])
            there[0] += 1
            there[1] += split == "train"

    def _before(self, product_id: str) -> str | None:
        if self._known is None:
            return None
        found = self._known.execute("SELECT split FROM known WHERE id = ?", (product_id,)).fetchone()
        return found and str(found[0])

    @property
    def untrained(self) -> list[tuple[CategoryPath, int]]:
        """Category paths of which no product is in train, and how many they have, the most first."""
        found = [(path, count) for path, (count, trained) in self._trained.items() if not trained]
        return sorted(found, key=lambda item: -item[1])


@contextlib.contextmanager
def open_sides(
    shares: str | None, seed: int | None, *, exact: bool = False, previous: Sequence[str] = ()
) -> Iterator[Sides]:
    """Open the split of an import; what earlier catalogues know lies in a database on disk meanwhile.

    Args:
        shares: Of train, val and test; None for those of the last earlier catalogue.
        seed: Of the draw; likewise.
        exact: Whether each category path is split in exact shares, by the order of the rows.
        previous: Earlier catalogues, whose products keep their split; if they disagree, the last one counts.

    Raises:
        CatalogError: if one of them is no catalogue.
    """
    last = SplitRule.of(previous[-1]) if previous else SplitRule()
    rule = SplitRule(shares=last.shares, seed=last.seed, exact=exact, previous=tuple(previous))
    rule = rule.changed(shares=shares, seed=seed)
    if not previous:
        yield Sides(rule, None)
        return
    with (
        tempfile.TemporaryDirectory(prefix="atlas-ray-import-") as folder,
        contextlib.closing(sqlite3.connect(os.path.join(folder, "known.sqlite"), isolation_level=None)) as known,
    ):
        for line in ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", "BEGIN"):
            known.execute(line)
        known.execute("CREATE TABLE known (id TEXT PRIMARY KEY, split TEXT, disagree INTEGER DEFAULT 0) WITHOUT ROWID")
        for catalog in previous:
            for batch in known_products(catalog, ("product_id", "category_path", "split")):
                known.executemany(
                    "INSERT INTO known (id, split) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET "
                    "disagree = disagree OR split <> excluded.split, split = excluded.split",
                    zip(batch["product_id"].to_pylist(), _states(batch), strict=True),
                )
        sides = Sides(rule, known)
        (disagree,) = known.execute("SELECT count(*) FROM known WHERE disagree").fetchone()
        sides.counts.update({"previous_disagree": disagree} if disagree else {})
        yield sides


def _states(batch: pa.RecordBatch) -> list[str]:
    labelled = batch["category_path"].is_valid().to_pylist()
    splits = batch["split"].to_pylist()
    return [split or (LEFT_OUT if label else UNLABELLED) for split, label in zip(splits, labelled, strict=True)]
