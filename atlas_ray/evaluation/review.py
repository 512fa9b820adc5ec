"""The review queue: the products of a scoring run, or of a list, that are most worth a person's look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.errors import CatalogError, ConfigError, OutputError, StorageError
from atlas_ray.evaluation.review_list import add_pictures, read_list
from atlas_ray.formats.spreadsheet import write_csv
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.prediction.label_lists import names_of, read_labels
from atlas_ray.reports.review_page import review_page
from atlas_ray.runs.catalog_products import read_products
from atlas_ray.runs.leaves import find_leaves
from atlas_ray.runs.scored import ScoredRun, catalog_of, find_taxonomies, open_scored
from atlas_ray.schemas import CATEGORIZED, CATEGORY_PATH, LABELS
from atlas_ray.settings import Settings, setting
from atlas_ray.taxonomy import Taxonomy, format_path, read_taxonomy

CARRIED = ("product_id", "category_path", "probability", "alternatives", "image_uri", "true_category_path")
ADDED = ("title", "labels", "note", "corrected_category_path")
MAX_TITLE_CHARACTERS = 300
READ = (*CARRIED, "level_probabilities", "decided_level", *(field.name for field in LABELS))
QUEUE = pa.schema(
    [
        *(CATEGORIZED.field(name) for name in CARRIED[:3]),
        ("margin", pa.float32()),
        *(CATEGORIZED.field(name) for name in CARRIED[3:]),
        ("title", pa.string()),
        CATEGORIZED.field("labels"),
        ("note", pa.string()),
        ("corrected_category_path", CATEGORY_PATH),
    ]
)
"""`margin` is the best leaf's probability minus the second best one's, or of labels the least distance of a probability
from its threshold; null if the run has no answer, and for products of a list. `title` is the catalogue's, `note` is the
reason that a product is on a list. A person fills `corrected_category_path`, and `atlas-ray relabel` reads it."""


@dataclass(frozen=True, kw_only=True)
class ReviewConfig(Settings):
    """The settings of a review: the products that a person looks at."""

    run: str | None = setting("output of `atlas-ray score`", None)
    products: str | None = setting(
        "list of products to decide on instead: the folder rescore or relabel of a migration, or the quarantine of "
        "`atlas-ray relabel`; pictures come from --run or --catalog",
        None,
    )
    catalog: str | None = setting("catalogue of the titles; the run's by default", None)
    taxonomy: str | None = setting("taxonomy to choose paths from; the catalogue's own by default", None)
    output: str = setting("folder of queue.parquet, queue.csv and review.html")
    count: int = setting("number of products in the queue, and the most without any answer", 200, low=1, high=100_000)
    model: str | None = setting("folder of a model whose attention maps the page shows, if it has them", None)
    unlabelled_only: bool = setting("only products that the catalogue has no label for", False)
    split: str | None = setting("only products of this split", None, choices=("train", "val", "test"))

    def __post_init__(self) -> None:
        """Refuse values out of range, and settings that name no products.

        Raises:
            ConfigError: naming what is missing or too much.
        """
        super().__post_init__()
        if not (self.run or (self.products and self.catalog)):
            raise ConfigError(
                "nothing to review; name a scoring run with --run, or a list with --products and its --catalog"
            )
        if self.products and (self.split or self.unlabelled_only):
            raise ConfigError("--split and --unlabelled-only choose products of a run; a list holds what it names")


@dataclass(frozen=True)
class Review:
    """The outcome of a review: the products to look at."""

    output: str
    catalog: str | None
    """The catalogue of the products."""
    products: int
    """The number of products that were asked for."""
    unanswered: int
    """The number of those without any answer, in the queue or not."""
    queue: pa.Table
    """Rows of `QUEUE`: smallest margin first, then those without any answer, by id."""
    note: str
    """A note about the attention strips, and about data that could not be read."""
    listed: bool = False
    """Whether the products are those of a list instead of the least sure ones of a run."""


@holding("review", "config.output")
def review(config: ReviewConfig) -> Review:
    """Write the products with the smallest margin, and some of those without any answer.

    Products without an answer have no margin. They are a separate group, so that an outage of the pictures' store does
    not fill the queue. The run's products are read once, and memory grows only with `count`.

    Writes `queue.parquet` (`QUEUE`), `queue.csv` and `review.html`, of under 5 MB.

    Raises:
        CatalogError: if there is no finished run, or no product in it that was asked for.
        OutputError: if the output holds a queue already, which somebody may have filled.
        ArtifactError: if the model cannot be used.
    """
    output = storage.absolute(config.output)
    scored = open_scored(config.run, target=None) if config.run else None
    for name in ("queue.csv", "queue.parquet"):
        if storage.exists(storage.join(output, name)):
            raise OutputError(
                f"{output} holds a queue, which may be filled in already; name a new folder, or open that one with "
                f"`atlas-ray review --serve --output {config.output}`"
            )
    explainer = None
    if config.model and scored:
        from atlas_ray.reports.explainer import Explainer  # it imports PyTorch

        explainer = Explainer(config.model, scored)
    catalog = config.catalog or (catalog_of(scored) if scored else None)
    if config.products:
        rows, products = read_list(config.products, config.count)
        if not rows:
            raise CatalogError(f"{config.products}: no product on this list; there is nothing to review")
        add_pictures(rows, scored, catalog)
        queue, unanswered = pa.Table.from_pylist(rows, schema=QUEUE), 0
    else:
        assert scored is not None
        products, unanswered, queue = _queue(scored, config)
    if not products:
        asked = f" of the split {config.split!r}" if config.split else ""
        asked += " without a label" if config.unlabelled_only else ""
        raise CatalogError(f"{config.run}: no product{asked}; there is nothing to review")
    queue, notes = _with_titles(queue, catalog)
    taxonomy = _taxonomy(config, scored, catalog)
    storage.make_folder(output)
    page, note = review_page(_about(config, scored), queue, taxonomy, scored, explainer)
    storage.write_bytes(storage.join(output, "review.html"), page.encode())
    storage.write_table(storage.join(output, "queue.parquet"), queue)
    write_csv(storage.join(output, "queue.csv"), QUEUE.names, map(_cells, queue.to_pylist()))
    return Review(
        output, catalog, products, unanswered, queue, "; ".join(filter(None, [note, *notes])), bool(config.products)
    )


def _about(config: ReviewConfig, scored: ScoredRun | None) -> str:
    """Return a phrase about what is reviewed."""
    if config.products:
        return config.products
    assert scored is not None
    return f"{scored.uri} · model {scored.identity.get('model_id')}"


def _with_titles(queue: pa.Table, catalog: str | None) -> tuple[pa.Table, list[str]]:
    """Add the products' titles; return the rows, and notes about titles that cannot be read."""
    titles: dict[str, str | None] = {}
    notes = []
    if catalog:
        try:
            for row in read_products(catalog, queue["product_id"].to_pylist(), ("title",)):
                titles[row["product_id"]] = (row["title"] or "")[:MAX_TITLE_CHARACTERS] or None
        except (CatalogError, StorageError) as error:
            notes.append(f"the products' titles cannot be read: {str(error).splitlines()[0]}")
    column = pa.array([titles.get(product_id) for product_id in queue["product_id"].to_pylist()], pa.string())
    return queue.set_column(queue.column_names.index("title"), QUEUE.field("title"), column), notes


def _taxonomy(config: ReviewConfig, scored: ScoredRun | None, catalog: str | None) -> Taxonomy | None:
    """Return what a person may choose from: what `relabel` takes, as far as that is known."""
    if config.taxonomy:
        return read_taxonomy(config.taxonomy)
    return next(find_taxonomies(scored, catalog), None)


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


def label_margins(batch: pa.RecordBatch, thresholds: Mapping[str, float]) -> pa.Array:
    """Return the least distance of a label's probability from its threshold, (products,) float32; null without answer.

    Args:
        batch: With the columns `LABELS`.
        thresholds: The thresholds of the run.
    """
    names, least = names_of(thresholds)
    listed = read_labels(pa.Table.from_batches([batch]), names, np.arange(len(batch)), len(batch))
    margin = np.full(len(batch), least.min())  # a label that is not listed has a probability of 0
    np.minimum.at(margin, listed.picture, np.abs(listed.probability - least[listed.answer]))
    return pa.array(margin, pa.float32(), mask=batch["labels"].is_null().to_numpy(zero_copy_only=False))


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
        columns = {name: pa.nulls(len(batch), QUEUE.field(name).type) for name in ADDED}
        columns |= {name: batch[name] for name in (*CARRIED, "labels")}
        thresholds = scored.thresholds
        columns["margin"] = margins(batch) if thresholds is None else label_margins(batch, thresholds)
        rows = pa.table(columns).select(QUEUE.names).cast(QUEUE)
        without = rows.filter(rows["margin"].is_null())
        products, unanswered = products + len(rows), unanswered + len(without)
        ranked = _first(ranked, rows.filter(rows["margin"].is_valid()), ["margin", "product_id"], config.count)
        silent = _first(silent, without, ["product_id"], config.count)
    return products, unanswered, pa.concat_tables([ranked, silent])


def _first(kept: pa.Table, rows: pa.Table, order: Sequence[str], count: int) -> pa.Table:
    """Return the first rows of two tables in an order, without sorting rows that cannot be among them."""
    if len(kept) == count:
        rows = rows.filter(pc.less_equal(rows[order[0]], kept[order[0]][-1]))
    if not len(rows):
        return kept
    both = pa.concat_tables([kept, rows])
    return both.take(pc.select_k_unstable(both, count, [(name, "ascending") for name in order]))


def _cells(row: dict[str, Any]) -> list[str | float | None]:
    """Return a row of the queue as cells of a spreadsheet."""
    alternatives = [format_path(other["category_path"]) for other in row["alternatives"] or ()]
    labels = [one["label"] for one in row["labels"] or ()]
    written = row | {
        name: " | ".join(some) or None for name, some in (("alternatives", alternatives), ("labels", labels))
    }
    return [format_path(cell) if isinstance(cell, list) else cell for cell in (written[name] for name in QUEUE.names)]


def print_review(review: Review) -> None:
    """Print the number of products to look at, and the next steps."""
    answered = review.queue.filter(review.queue["margin"].is_valid())["margin"]
    if review.listed:
        print(f"{len(review.queue)} products to decide on, of {review.products} rows of the list")
    else:
        print(f"{len(answered)} of {review.products} products to look at", end="")
        if len(answered):
            print(f", margins {answered[0].as_py():.4f} to {answered[-1].as_py():.4f}", end="")
        print(f"; {len(review.queue) - len(answered)} more of {review.unanswered} without any answer")
    if review.note:
        print(review.note)
    print(f"  {review.output}/review.html, to decide in a browser, which saves corrections.csv; or")
    print(f"  {review.output}/queue.csv, to fill in corrected_category_path, or queue.parquet; then")
    catalog = review.catalog or "CATALOG"
    print(f"  atlas-ray relabel --catalog {catalog} --corrections {review.output}/queue.csv --output NEW")
