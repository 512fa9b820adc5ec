"""What follows the stream: the products table, and counts that must balance."""

import functools
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import ray

from atlas_ray import storage
from atlas_ray.errors import AuditError
from atlas_ray.fitted import Fitted
from atlas_ray.records import CATEGORIZED
from atlas_ray.scoring.combine import FILTERED, IMAGE, JOINED, PREDICTION, PRODUCT, QUARANTINED, combine
from atlas_ray.scoring.config import ScoreConfig
from atlas_ray.streaming.shuffle import by_product
from atlas_ray.streaming.sink import write_table


def combine_products(
    config: ScoreConfig,
    catalog: str,
    source: str,
    output: str,
    identity: dict[str, Any],
    total: int,
    fitted: Fitted | None,
) -> dict[str, int]:
    """Write the products table and return the run's counts, checked.

    Args:
        config: The run's settings.
        catalog: Where the products table is.
        source: The table of what was to be scored.
        output: The run's folder.
        identity: What the run is made of.
        total: Rows of `source`.
        fitted: The products that the model was fitted on; None where that is not known.
    """
    storage.delete_folder(storage.join(output, "products"))

    tables = (
        (catalog, "products", PRODUCT),
        (*split_name(source), IMAGE),
        (output, "predictions", PREDICTION),
        (output, "filtered", FILTERED),
        (output, "quarantine", QUARANTINED),
    )
    combined = by_product(
        tables,
        JOINED,
        total,
        functools.partial(
            _combine,
            fitted=ray.put(fitted),  # once for all tasks of a machine
            model_id=identity["model_id"],
            taxonomy_id=identity["taxonomy_id"],
            top_k=config.predictor.top_k,
            zoom_threshold=identity["zoom_threshold"],
            decision_threshold=identity["decision_threshold"],
        ),
    )
    write_table(combined, output, "products")
    return _counts(output, total)


def _combine(table: pa.Table, fitted: Any, **options: Any) -> pa.Table:
    return combine(table, fitted=ray.get(fitted), **options)


def split_name(uri: str) -> tuple[str, str]:
    """Return a table's folder and its name."""
    folder, _, name = uri.rpartition("/")
    return folder, name


def _counts(output: str, total: int) -> dict[str, int]:
    """Add up the products table and hold it against the input."""
    place = storage.locate(storage.join(output, "products"))
    table = ds.dataset(place.path, filesystem=place.filesystem, schema=CATEGORIZED)
    counts = Counter[str]()
    for batch in table.to_batches(columns=["images_scored", "images_filtered", "images_quarantined", "category_path"]):
        counts["products"] += len(batch)
        counts["products_categorized"] += len(batch) - batch["category_path"].null_count
        for outcome in ("scored", "filtered", "quarantined"):
            counts[outcome] += pc.sum(batch[f"images_{outcome}"]).as_py() or 0
    counts["input"] = counts["scored"] + counts["filtered"] + counts["quarantined"]
    counts["repeated_input_rows"] = total - counts["input"]
    if counts["repeated_input_rows"] < 0:
        raise AuditError(f"{output}: {counts['input']} pictures came out of {total} rows of input")
    return dict(counts)
