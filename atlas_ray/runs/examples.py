"""Examples of a scoring run's products for reports."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.runs.leaves import find_leaves, judged_paths
from atlas_ray.runs.scored import ScoredRun
from atlas_ray.runs.tally import ALL, HELD_OUT, TRAIN
from atlas_ray.schemas import CATEGORY_PATH, PATH_KEY_SEPARATOR, path_keys
from atlas_ray.taxonomy import CategoryPath

COLUMNS = (
    "product_id", "image_uri", "split", "probability", "outside_probability", "true_category_path", "category_path",
    "level_probabilities", "alternatives", "decided_level", "fitted",
)  # fmt: skip
KEPT = pa.schema(
    [
        ("product_id", pa.string()),
        ("image_uri", pa.string()),
        ("probability", pa.float32()),
        ("outside_probability", pa.float32()),
        ("true_category_path", CATEGORY_PATH),
        ("category_path", CATEGORY_PATH),
    ]
)


@dataclass
class Wanted:
    """The surest products of some kind, `count` at most; rows of `KEPT`."""

    by: str
    """The column by whose greatest values rows are kept."""
    count: int
    table: pa.Table = field(default_factory=KEPT.empty_table)

    def offer(self, rows: pa.Table) -> None:
        """Take in rows, and keep the best."""
        if len(rows):
            joined = pa.concat_tables([self.table, rows])
            order = pc.select_k_unstable(joined, self.count, [(self.by, "descending"), ("product_id", "ascending")])
            self.table = joined.take(order)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The kept rows, the greatest value first."""
        found: list[dict[str, Any]] = self.table.to_pylist()
        return found


@dataclass
class Examples:
    """Products of one split that a report shows."""

    confused: dict[tuple[CategoryPath, CategoryPath | None], Wanted]
    """The most probable wrong answers of each confusion."""
    right: Wanted
    wrong: Wanted
    outside: Wanted
    """The products with the highest `outside_probability`."""


def find_examples(
    scored: ScoredRun,
    split: str,
    confusions: Sequence[tuple[CategoryPath, CategoryPath | None]],
    *,
    each: int,
    explained: int,
    outside: int,
) -> Examples:
    """Read the products of a run once more, and keep those to look at.

    Args:
        scored: The run.
        split: Its products, `HELD_OUT` or `ALL`, but for those that are left out since the model was fitted on them.
        confusions: (true, predicted) paths, as `Tally.pairs` has them.
        each: How many products of each confusion.
        explained: How many right and how many wrong ones.
        outside: How many that may belong nowhere.
    """
    examples = Examples(
        {pair: Wanted("probability", each) for pair in confusions},
        Wanted("probability", explained),
        Wanted("probability", explained),
        Wanted("outside_probability", outside),
    )
    for batch in scored.batches(COLUMNS):
        chosen = batch["true_category_path"].is_valid()
        seen = pc.fill_null(batch["fitted"], False)
        leaked = pc.and_(seen, pc.not_equal(pc.fill_null(batch["split"], "none"), TRAIN))
        chosen = pc.and_(chosen, pc.invert(seen if split == HELD_OUT else leaked))
        if split not in (ALL, HELD_OUT):
            chosen = pc.and_(chosen, pc.equal(pc.fill_null(batch["split"], "none"), split))
        rows = batch.filter(chosen)
        best = find_leaves(rows)
        leaves, true = best.paths, path_keys(rows["true_category_path"])
        above = pc.is_in(true, scored.above_leaves).to_numpy(zero_copy_only=False)
        predicted = pc.fill_null(path_keys(judged_paths(leaves, rows["true_category_path"], above)), "")
        kept = pa.table([*(rows[name] for name in KEPT.names[:-1]), leaves], schema=KEPT)
        kept = kept.set_column(2, "probability", pc.fill_null(best.probability, 0.0))
        for (one, other), wanted in examples.confused.items():
            keys = (PATH_KEY_SEPARATOR.join(path or ()) for path in (one, other))
            same = pc.and_(*(pc.equal(column, key) for column, key in zip((true, predicted), keys, strict=True)))
            wanted.offer(kept.filter(same))
        pictured = pc.greater(pc.fill_null(pc.utf8_length(rows["image_uri"]), 0), 0)
        examples.right.offer(kept.filter(pc.and_(pc.equal(true, predicted), pictured)))
        examples.wrong.offer(kept.filter(pc.and_(pc.and_(pc.not_equal(true, predicted), pictured), leaves.is_valid())))
        examples.outside.offer(kept.filter(pictured))
    return examples


def image_uris(scored: ScoredRun, product_ids: Sequence[str]) -> dict[str, str | None]:
    """Return the picture to show of each of some products; those that the run does not have are left out."""
    wanted = pa.array(sorted(set(product_ids)), pa.string())
    uris: dict[str, str | None] = {}
    for batch in scored.batches(("product_id", "image_uri")):
        rows = batch.filter(pc.is_in(batch["product_id"], wanted))
        uris |= zip(rows["product_id"].to_pylist(), rows["image_uri"].to_pylist(), strict=True)
    return uris
