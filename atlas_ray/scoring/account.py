"""What follows the stream: the products table, and counts that must balance."""

import functools
from collections import Counter
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import ray.data

from atlas_ray import storage
from atlas_ray.errors import AuditError
from atlas_ray.records import CATEGORIZED
from atlas_ray.scoring.combine import IMAGE, PREDICTION, PRODUCT, QUARANTINED, combine, read_tagged
from atlas_ray.scoring.config import ScoreConfig

PRODUCTS_A_PARTITION = 100_000
MAX_READ_TASKS = 1_000


def combine_products(
    config: ScoreConfig, catalog: str, output: str, identity: dict[str, Any], total: int
) -> dict[str, int]:
    """Write the products table and return the run's counts, checked."""
    storage.delete_folder(storage.join(output, "products"))

    tables = (
        (catalog, "products", PRODUCT),
        (catalog, "images", IMAGE),
        (output, "predictions", PREDICTION),
        (output, "quarantine", QUARANTINED),
    )
    files = [
        {"uri": uri, "kind": kind}
        for root, name, kind in tables
        for uri in storage.files(storage.join(root, name), suffix=".parquet")
    ]
    partitions = max(1, -(-total // PRODUCTS_A_PARTITION))
    combined = (
        ray.data.from_items(files, override_num_blocks=min(len(files), MAX_READ_TASKS))
        .map_batches(read_tagged, batch_size=1, batch_format="pyarrow")
        .repartition(partitions, keys=["product_id"])
        .map_batches(
            functools.partial(
                combine,
                model_id=identity["model_id"],
                taxonomy_id=identity["taxonomy_id"],
                top_k=config.predictor.top_k,
            ),
            batch_size=None,
            batch_format="pyarrow",
        )
    )
    place = storage.locate(storage.join(output, "products"))
    combined.write_parquet(place.path, filesystem=place.filesystem)
    return _counts(output, total)


def _counts(output: str, total: int) -> dict[str, int]:
    """Add up the products table and hold it against the input."""
    place = storage.locate(storage.join(output, "products"))
    table = ds.dataset(place.path, filesystem=place.filesystem, schema=CATEGORIZED)
    counts = Counter[str]()
    for batch in table.to_batches(columns=["images_scored", "images_quarantined", "category_path"]):
        counts["products"] += len(batch)
        counts["products_categorized"] += len(batch) - batch["category_path"].null_count
        counts["scored"] += pc.sum(batch["images_scored"]).as_py() or 0
        counts["quarantined"] += pc.sum(batch["images_quarantined"]).as_py() or 0
    counts["filtered"] = 0
    counts["input"] = counts["scored"] + counts["filtered"] + counts["quarantined"]
    counts["repeated_input_rows"] = total - counts["input"]
    if counts["repeated_input_rows"] < 0:
        raise AuditError(f"{output}: {counts['input']} pictures came out of {total} rows of input")
    return dict(counts)


def quarantine_codes(output: str) -> dict[str, int]:
    """Count the quarantine by error code."""
    uri = storage.join(output, "quarantine")
    codes = Counter[str]()
    for file in storage.files(uri, suffix=".parquet"):
        place = storage.locate(file)
        column = pq.read_table(place.path, filesystem=place.filesystem, columns=["error_code"])
        codes.update(column["error_code"].to_pylist())
    return dict(codes)
