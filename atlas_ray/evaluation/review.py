"""The review queue: the products of a scoring run that are most worth a person's look."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.errors import CatalogError, OutputError
from atlas_ray.formats.spreadsheet import write_csv
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.reports.explainer import Explainer
from atlas_ray.reports.review_page import review_page
from atlas_ray.runs.leaves import find_leaves
from atlas_ray.runs.scored import ScoredRun, open_scored
from atlas_ray.schemas import CATEGORIZED, CATEGORY_PATH
from atlas_ray.settings import check_settings, setting
from atlas_ray.taxonomy import format_path

CARRIED = ("product_id", "category_path", "probability", "alternatives", "image_uri", "true_category_path")
READ = (*CARRIED, "level_probabilities", "decided_level")
QUEUE = pa.schema(
    [
        *(CATEGORIZED.field(name) for name in CARRIED[:3]),
        ("margin", pa.float32()),
        *(CATEGORIZED.field(name) for name in CARRIED[3:]),
        ("corrected_category_path", CATEGORY_PATH),
    ]
)
"""`margin`: the best leaf's probability minus the second best one's; null where the run has no answer at all.
`corrected_category_path` is for a person to fill, and for `atlas-ray relabel` to read."""


@dataclass(frozen=True, kw_only=True)
class ReviewConfig:
    """Which products of which run are to be looked at."""

    run: str = setting("the output of `atlas-ray score`")
    output: str = setting("where queue.parquet, queue.csv and review.html go")
    count: int = setting("products in the queue, and at most so many without any answer", 200, low=1, high=100_000)
    model: str | None = setting("a model; the page then shows where it looked, where it can say so", None)
    unlabelled_only: bool = setting("only products that the catalogue has no label for", False)
    split: str | None = setting("only products of this split", None, choices=("train", "val", "test"))

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_settings(self)


@dataclass(frozen=True)
class Review:
    """What there is to look at."""

    output: str
    catalog: str | None
    """That the run scored."""
    products: int
    """That were asked for."""
    unanswered: int
    """Those of them that have no answer at all, in the queue or not."""
    queue: pa.Table
    """`QUEUE`: smallest margin first, then those without any answer, by id."""
    note: str
    """What there is to say of the attention strips."""


@holding("review", "config.output")
def review(config: ReviewConfig) -> Review:
    """Write the products with the smallest margin, and some of those without any answer.

    A product without an answer has no margin; it stands in a group of its own, so that an outage
    of the pictures' store does not fill the queue. One pass over the run's products; memory grows
    with `count` alone.

    Writes `queue.parquet` (`QUEUE`), `queue.csv` and `review.html`, of under 5 MB.

    Raises:
        CatalogError: where there is no finished run, or no product in it that was asked for.
        OutputError: where the output holds a queue already, which somebody may have filled.
        ArtifactError: where the model cannot be used.
    """
    output = storage.absolute(config.output)
    scored = open_scored(config.run)
    for name in ("queue.csv", "queue.parquet"):
        if storage.exists(storage.join(output, name)):
            raise OutputError(f"{output} holds a queue, which may be filled in already; name a new folder")
    explainer = Explainer(config.model, scored) if config.model else None
    products, unanswered, queue = _queue(scored, config)
    if not products:
        asked = f" of the split {config.split!r}" if config.split else ""
        asked += " without a label" if config.unlabelled_only else ""
        raise CatalogError(f"{scored.uri}: no product{asked}; there is nothing to review")
    storage.make_folder(output)
    page, note = review_page(scored, queue, explainer)
    storage.write_bytes(storage.join(output, "review.html"), page.encode())
    storage.write_table(storage.join(output, "queue.parquet"), queue)
    write_csv(storage.join(output, "queue.csv"), QUEUE.names, map(_cells, queue.to_pylist()))
    return Review(output, scored.identity.get("catalog"), products, unanswered, queue, note)


def margins(batch: pa.RecordBatch) -> pa.Array:
    """Return the best leaf's probability minus the second best's, (products,) float32; null without any answer.

    A leaf that is not among the alternatives counts as 0. Where the answer ends above its leaf, that
    leaf is the first alternative.
    """
    leaves = find_leaves(batch)
    two = pc.list_slice(batch["alternatives"], 0, 2, return_fixed_size_list=True)
    listed = np.nan_to_num(two.values.flatten()[1].to_numpy(zero_copy_only=False)).reshape(-1, 2)
    second = np.where(leaves.above, listed[:, 1], listed[:, 0])
    best = leaves.probability.to_numpy(zero_copy_only=False)
    return pa.array(best - second, pa.float32(), mask=leaves.paths.is_null().to_numpy(zero_copy_only=False))


def _queue(scored: ScoredRun, config: ReviewConfig) -> tuple[int, int, pa.Table]:
    """Return how many products there are, how many without an answer, and the queue."""
    chosen = None
    if config.split:
        chosen = pc.field("split") == config.split
    if config.unlabelled_only:
        unlabelled = pc.field("true_category_path").is_null()
        chosen = unlabelled if chosen is None else chosen & unlabelled
    ranked = silent = QUEUE.empty_table()
    products = unanswered = 0
    for batch in scored.batches((*READ, "split"), chosen):
        columns = {name: batch[name] for name in CARRIED} | {"margin": margins(batch)}
        columns["corrected_category_path"] = pa.nulls(len(batch), CATEGORY_PATH)
        rows = pa.table(columns).select(QUEUE.names).cast(QUEUE)
        without = rows.filter(rows["margin"].is_null())
        products, unanswered = products + len(rows), unanswered + len(without)
        ranked = _first(ranked, rows.filter(rows["margin"].is_valid()), ["margin", "product_id"], config.count)
        silent = _first(silent, without, ["product_id"], config.count)
    return products, unanswered, pa.concat_tables([ranked, silent])


def _first(kept: pa.Table, rows: pa.Table, order: Sequence[str], count: int) -> pa.Table:
    """Return the first of what was kept and what came, in order; what cannot be among them is not sorted."""
    if len(kept) == count:
        rows = rows.filter(pc.less_equal(rows[order[0]], kept[order[0]][-1]))
    if not len(rows):
        return kept
    both = pa.concat_tables([kept, rows])
    return both.take(pc.select_k_unstable(both, count, [(name, "ascending") for name in order]))


def _cells(row: dict[str, Any]) -> list[str | float | None]:
    """Return a row of the queue as cells of a spreadsheet."""
    alternatives = [format_path(other["category_path"]) for other in row["alternatives"] or ()]
    written = row | {"alternatives": " | ".join(alternatives) or None}
    return [format_path(cell) if isinstance(cell, list) else cell for cell in (written[name] for name in QUEUE.names)]


def print_review(found: Review) -> None:
    """Say what there is to look at, and what to do with it."""
    answered = found.queue.filter(found.queue["margin"].is_valid())["margin"]
    print(f"{len(answered)} of {found.products} products to look at", end="")
    if len(answered):
        print(f", margins {answered[0].as_py():.4f} to {answered[-1].as_py():.4f}", end="")
    print(f"; {len(found.queue) - len(answered)} more of {found.unanswered} without any answer")
    if found.note:
        print(found.note)
    print(f"  {found.output}/review.html")
    print(f"  {found.output}/queue.csv, to fill in corrected_category_path, or queue.parquet; then")
    catalog = found.catalog or "CATALOG"
    print(f"  atlas-ray relabel --catalog {catalog} --corrections {found.output}/queue.csv --output NEW")
