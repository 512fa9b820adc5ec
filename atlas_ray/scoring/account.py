"""The products table of a run, and the audit of its counts after the stream."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from atlas_ray.errors import AuditError
from atlas_ray.formats.fitted import Fitted
from atlas_ray.formats.table_files import TableFile
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.runtime.checkpoint import UNSTREAMED
from atlas_ray.runtime.shuffle import CARRIED, FILTERED, IMAGE, OUTCOME, PRODUCT, QUARANTINED, by_product
from atlas_ray.runtime.sink import write_table
from atlas_ray.runtime.tables import Catalog
from atlas_ray.schemas import FILTERED as FILTERED_ROWS
from atlas_ray.schemas import PREDICTIONS, QUARANTINE
from atlas_ray.scoring.combine import CASCADED, JOINED, Merge, combine
from atlas_ray.scoring.product_labels import merge_labels
from atlas_ray.scoring.product_paths import merge_paths
from atlas_ray.scoring.settings import ScoreConfig
from atlas_ray.scoring.thresholds import TextsAlone

OUTCOMES = ("scored", "carried", "filtered", "quarantined")
PRODUCTS = ("products", "products_categorized")
BY_TEXTS = ("products_by_texts", "pictures_unread")
"""What a cascade answered by the texts alone."""


def combine_products(
    config: ScoreConfig,
    catalog: Catalog,
    images: Sequence[Table],
    output: str,
    identity: dict[str, Any],
    fitted: Fitted | None,
) -> dict[str, int]:
    """Write the products table and return the run's counts, checked.

    Args:
        config: The run's settings.
        catalog: The catalogue.
        images: The tables of what was to be scored.
        output: The run's folder.
        identity: What the run is made of.
        fitted: The products that the model was fitted on; None if that is not known.
    """
    storage.delete_folder(storage.join(output, "products"))
    predictions, filtered, quarantine = (
        open_table(storage.join(output, name), schema, may_be_missing=True)
        for name, schema in (("predictions", PREDICTIONS), ("filtered", FILTERED_ROWS), ("quarantine", QUARANTINE))
    )
    answered, carried = (
        replace(predictions, files=tuple(file for file in predictions.files if _is_carried(file) == whether))
        for whether in (False, True)
    )
    total = sum(table.rows for table in images)
    combined = by_product(
        (
            (catalog.products, PRODUCT),
            *((table, IMAGE) for table in images),
            (answered, OUTCOME),
            (carried, CARRIED),
            (filtered, FILTERED),
            (quarantine, QUARANTINED),
        ),
        JOINED if config.cascade is None else CASCADED,
        total,
        functools.partial(
            _combine,
            fitted=ray.put(fitted),  # once for all tasks of a machine
            merge=_merge(config, identity),
            model_id=identity["model_id"],
            taxonomy_id=identity["taxonomy_id"],
            zoom_threshold=identity["zoom_threshold"],
        ),
    )
    sums = write_table(combined.write, output, "products", _count)
    by_texts = {name: sums[name] for name in BY_TEXTS if config.cascade is not None}
    return _audited(sums, total, output) | by_texts


def account_of_cascade(
    texts_alone: TextsAlone | None, counts: Mapping[str, int], pictures: int
) -> dict[str, Any] | None:
    """Return what `run.json` says of a cascade; None without one.

    Args:
        texts_alone: What calibration measured.
        counts: The run's counts.
        pictures: Number of pictures of the catalogue.
    """
    if texts_alone is None:
        return None
    share_read = 1 - counts["pictures_unread"] / max(pictures, 1)
    return asdict(texts_alone) | {"risk": 1 - texts_alone.precision, "share_read": share_read}


def _merge(config: ScoreConfig, identity: dict[str, Any]) -> Merge:
    if identity["thresholds"] is not None:
        return functools.partial(merge_labels, thresholds=identity["thresholds"])
    return functools.partial(
        merge_paths, top_k=config.predictor.top_k, decision_threshold=identity["decision_threshold"]
    )


def _is_carried(file: TableFile) -> bool:
    return file.uri.rpartition("/")[2].startswith(UNSTREAMED)


def _combine(table: pa.Table, fitted: Any, **options: Any) -> pa.Table:
    return combine(table, fitted=ray.get(fitted), **options)


def _count(products: pa.Table) -> dict[str, int]:
    """Count some products, and their pictures by outcome."""
    counts = {outcome: pc.sum(products[f"images_{outcome}"]).as_py() or 0 for outcome in OUTCOMES}
    paths, labels = products["category_path"], pc.list_value_length(products["labels"]).fill_null(0)
    categorized = len(products) - paths.null_count + (pc.sum(pc.greater(labels, 0)).as_py() or 0)
    unread = products["images_unread"]
    by_texts = (pc.sum(pc.greater(unread, 0)).as_py() or 0, pc.sum(unread).as_py() or 0)
    named = zip((*PRODUCTS, *BY_TEXTS), (len(products), categorized, *by_texts), strict=True)
    return counts | dict(named)


def _audited(sums: Counter[str], total: int, output: str) -> dict[str, int]:
    """Hold the counts of all products against the input."""
    counts = {name: sums[name] for name in (*PRODUCTS, *OUTCOMES)}
    counts["scored"] -= counts["carried"]  # the columns of a product count both
    counts["input"] = sum(counts[outcome] for outcome in OUTCOMES)
    counts["repeated_input_rows"] = total - counts["input"]
    if counts["repeated_input_rows"] < 0:
        raise AuditError(f"{output}: {counts['input']} pictures came out of {total} rows of input")
    return counts
