"""Evaluation of a scoring run against the labels that its catalogue had."""

import json
from collections import Counter
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from atlas_ray import storage
from atlas_ray.errors import CatalogError
from atlas_ray.metrics import PathMetrics, measure
from atlas_ray.records import CATEGORIZED, PATH_KEY_SEPARATOR
from atlas_ray.taxonomy import CategoryPath

Pairs = Counter[tuple[CategoryPath, CategoryPath | None]]

PATH_ROWS = pa.schema(
    [
        ("split", pa.string()),
        ("category_path", pa.list_(pa.string())),
        ("precision", pa.float64()),
        ("recall", pa.float64()),
        ("f1", pa.float64()),
        ("support", pa.int64()),
        ("predicted", pa.int64()),
    ]
)


def evaluate(run: str, output: str | None = None) -> dict[str, PathMetrics]:
    """Measure a scoring run, for each split and for all labelled products together.

    Writes `evaluation/metrics.json` and `evaluation/paths.parquet` below the output. Memory grows
    with the number of different (true, predicted) pairs, not with the products.

    Args:
        run: The output of a finished scoring run.
        output: Where `evaluation/` goes; the run itself where None.

    Raises:
        CatalogError: where the run is not finished, or no product had a label.
    """
    run = storage.absolute(run)
    if not storage.exists(storage.join(run, "run.json")):
        raise CatalogError(f"{run} is no finished scoring run; run `atlas-ray score` to its end first")
    place = storage.locate(storage.join(run, "products"))
    table = ds.dataset(place.path, filesystem=place.filesystem, schema=CATEGORIZED)
    splits: dict[str, Pairs] = {}
    for batch in table.to_batches(columns=["true_category_path", "category_path", "split"]):
        labelled = batch.filter(batch["true_category_path"].is_valid())
        pairs = pa.table(
            {
                "split": pc.fill_null(labelled["split"], "none"),
                "true": pc.binary_join(labelled["true_category_path"], PATH_KEY_SEPARATOR),
                "guess": pc.binary_join(labelled["category_path"], PATH_KEY_SEPARATOR),
            }
        )
        counted = pairs.group_by(["split", "true", "guess"]).aggregate([([], "count_all")])
        for row in counted.to_pylist():
            guess = tuple(row["guess"].split(PATH_KEY_SEPARATOR)) if row["guess"] is not None else None
            pair = (tuple(row["true"].split(PATH_KEY_SEPARATOR)), guess)
            for name in (row["split"], "all"):
                splits.setdefault(name, Counter())[pair] += row["count_all"]
    if not splits:
        raise CatalogError(f"{run}: no product of its catalogue has a label, so there is nothing to compare")
    order = [name for name in ("train", "val", "test", "none", "all") if name in splits]
    metrics: dict[str, PathMetrics] = {name: measure(splits[name]) for name in order}
    _write(storage.join(storage.absolute(output) if output else run, "evaluation"), metrics)
    return metrics


def _write(folder: str, metrics: dict[str, PathMetrics]) -> None:
    storage.make_folder(folder)
    summary = {
        split: {name: value for name, value in asdict(one).items() if name != "paths"} for split, one in metrics.items()
    }
    storage.write_bytes(storage.join(folder, "metrics.json"), json.dumps(summary, indent=1).encode())
    rows = [
        {
            "split": split,
            "category_path": list(row.path),
            **{k: v for k, v in asdict(row).items() if k != "path"},
        }
        for split, one in metrics.items()
        for row in one.paths
    ]
    place = storage.locate(storage.join(folder, "paths.parquet"))
    pq.write_table(pa.Table.from_pylist(rows, schema=PATH_ROWS), place.path, filesystem=place.filesystem)
