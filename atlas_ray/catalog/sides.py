"""The split of an import: a product's side comes from its source, an earlier catalogue, or a hash of its id."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from atlas_ray.catalog.split import HashedSplit, SplitAssigner, SplitRule, StratifiedSplit, parse_shares
from atlas_ray.schemas import path_keys

ASSIGNERS: dict[bool, type[HashedSplit] | type[StratifiedSplit]] = {False: HashedSplit, True: StratifiedSplit}
"""The classes that assign a side, by whether the shares must be exact."""
UNLABELLED, LEFT_OUT = "unlabelled", "left out"
"""States of a product without a split in an earlier catalogue: it had no label, or is kept out of all splits."""


@dataclass(frozen=True)
class Sides:
    """Assignment of splits to products.

    A product's split is its source's, else that of an earlier catalogue, else a drawn one. One that has no label keeps
    what split it had. One that had a label and no split is kept out of all splits, since its picture is on another
    side, and stays so.
    """

    rule: SplitRule

    def settle(self, products: pa.Table, known: pa.Table, counts: Counter[str]) -> pa.Array:
        """Return the split of each of some products.

        Args:
            products: product_id, category_path, and split as the source states it; with exact shares all products, in
                the order of the source.
            known: product_id, `part`, which is the number of an earlier catalogue, and `split`, the state of the
                product there, as `known_rows` yields them.
            counts: Takes the counts of labelled products by where their split is from: source, previous or drawn; and
                of the others `contradicts_previous`, whose source states another split than the earlier catalogue, and
                `previous_disagree`, which the earlier catalogues have in different splits.
        """
        before = _last_known(known, counts)
        assigner: SplitAssigner = ASSIGNERS[self.rule.exact](parse_shares(self.rule.shares), self.rule.seed)
        splits = products["split"].to_pylist()
        ids = products["product_id"].to_pylist()
        keys = path_keys(products["category_path"]).to_pylist()
        drawn = [key is not None and split is None for key, split in zip(keys, splits, strict=True)]
        origins = {"source": sum(key is not None for key in keys) - sum(drawn), "previous": 0, "drawn": 0}
        # In exact shares a product that an earlier catalogue knows has its place, too.
        places = np.flatnonzero(drawn).tolist()
        sides = assigner.assign([ids[at] for at in places], [keys[at] for at in places])
        for at, side in zip(places, sides, strict=True):
            splits[at] = side
        origins["drawn"] = len(places)
        for at in range(len(ids)) if before else ():
            state = before.get(ids[at])
            if state is not None and splits[at] is not None and not drawn[at]:
                counts["contradicts_previous"] += state not in (UNLABELLED, LEFT_OUT, splits[at])
            elif state is not None and state != UNLABELLED:
                splits[at] = None if state == LEFT_OUT else state
                origins["previous"] += drawn[at]
                origins["drawn"] -= drawn[at]
        counts.update({name: count for name, count in origins.items() if count})
        for name in [name for name, count in counts.items() if not count]:
            del counts[name]
        return pa.array(splits, pa.string())


def _last_known(known: pa.Table, counts: Counter[str]) -> dict[str, str]:
    """Return what the last of the earlier catalogues says of each product, and count those that they disagree on."""
    before: dict[str, str] = {}
    disagree = set()
    known = known.sort_by("part")
    for product_id, state in zip(known["product_id"].to_pylist(), known["split"].to_pylist(), strict=True):
        if before.setdefault(product_id, state) != state:
            disagree.add(product_id)
        before[product_id] = state
    if disagree:
        counts["previous_disagree"] += len(disagree)
    return before


def rule_of(shares: str | None, seed: int | None, *, exact: bool = False, previous: Sequence[str] = ()) -> SplitRule:
    """Return the rule of an import.

    Args:
        shares: Of train, val and test; None for those of the last earlier catalogue.
        seed: Of the draw; likewise.
        exact: Whether each category path is split in exact shares, by the order of the rows.
        previous: Earlier catalogues, whose products keep their split; if they disagree, the last one counts.

    Raises:
        CatalogError: if the last of them cannot be read.
    """
    last = SplitRule.of(previous[-1]) if previous else SplitRule()
    rule = SplitRule(shares=last.shares, seed=last.seed, exact=exact, previous=tuple(previous))
    return rule.changed(shares=shares, seed=seed)


def known_rows(batch: pa.RecordBatch | pa.Table, catalog: int) -> pa.Table:
    """Return what an earlier catalogue knows of some products, for `Sides.settle`.

    Args:
        batch: Its product_id, category_path and split.
        catalog: Its number.
    """
    count = len(batch)
    return pa.table(
        {
            "part": pa.array(np.full(count, catalog, np.int32)),
            "product_id": batch["product_id"],
            "split": pa.array(_states(batch), pa.string()),
        }
    )


def _states(batch: pa.RecordBatch | pa.Table) -> list[str]:
    labelled = batch["category_path"].is_valid().to_pylist()
    splits = batch["split"].to_pylist()
    return [split or (LEFT_OUT if label else UNLABELLED) for split, label in zip(splits, labelled, strict=True)]
