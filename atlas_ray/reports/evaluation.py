"""Evaluation of a scoring run against the labels that its catalogue had."""

import json
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atlas_ray import storage
from atlas_ray.errors import CatalogError
from atlas_ray.metrics import PathMetrics, common_prefix, measure
from atlas_ray.metrics.calibration import Reliability
from atlas_ray.records import PATH_KEY_SEPARATOR
from atlas_ray.reports.scored import open_scored
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
RELIABILITY_ROWS = pa.schema(
    [
        ("split", pa.string()),
        ("level", pa.int32()),  # 0: the whole path
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("count", pa.int64()),
        ("probability", pa.float64()),
        ("accuracy", pa.float64()),
    ]
)
PAIR_SEPARATOR = "\x1e"


def evaluate(run: str, output: str | None = None) -> dict[str, PathMetrics]:
    """Measure a scoring run, for each split and for all labelled products together.

    Writes `evaluation/metrics.json`, `evaluation/paths.parquet` and `evaluation/reliability.parquet`
    below the output. Memory grows with the number of different (true, predicted) pairs, not with the
    products.

    Args:
        run: The output of a finished scoring run.
        output: Where `evaluation/` goes; the run itself where None.

    Raises:
        CatalogError: where the run is not finished, or no product had a label.
    """
    scored = open_scored(run)
    splits: dict[str, Pairs] = {}
    trust: dict[str, list[Reliability]] = {}
    columns = ["true_category_path", "category_path", "split", "probability", "level_probabilities"]
    for batch in scored.batches(columns):
        labelled = batch.filter(batch["true_category_path"].is_valid())
        _trust(labelled, trust)
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
        raise CatalogError(f"{scored.uri}: no product of its catalogue has a label, so there is nothing to compare")
    order = [name for name in ("train", "val", "test", "none", "all") if name in splits]
    metrics: dict[str, PathMetrics] = {}
    for name in order:
        whole, *levels = trust.get(name) or [Reliability()]
        metrics[name] = replace(
            measure(splits[name]),
            calibration_error=whole.expected_error,
            level_calibration_errors=tuple(level.expected_error for level in levels),
        )
    folder = storage.join(storage.absolute(output) if output else scored.uri, "evaluation")
    _write(folder, metrics)
    _write_reliability(folder, {name: trust[name] for name in order if name in trust})
    return metrics


def _trust(labelled: pa.RecordBatch, into: dict[str, list[Reliability]]) -> None:
    """Take in how sure the answers are and which of them are right: of the whole path, then of each level."""
    rows = labelled.filter(labelled["category_path"].is_valid())
    if not len(rows):
        return
    true, guess = (pc.binary_join(rows[name], PATH_KEY_SEPARATOR) for name in ("true_category_path", "category_path"))
    pairs = pc.binary_join_element_wise(true, guess, PAIR_SEPARATOR).dictionary_encode()
    shared, deep = np.zeros((2, len(pairs.dictionary)), np.int64)
    for number, pair in enumerate(pairs.dictionary.to_pylist()):
        one, other = (tuple(side.split(PATH_KEY_SEPARATOR)) for side in pair.split(PAIR_SEPARATOR))
        shared[number] = common_prefix(one, other)
        deep[number] = max(len(one), len(other))
    index = pairs.indices.to_numpy()
    right, shared = (shared == deep)[index], shared[index]
    probability = rows["probability"].to_numpy(zero_copy_only=False)
    levels = rows["level_probabilities"]
    owner = levels.value_parent_indices().to_numpy()
    level = np.arange(len(owner)) - np.searchsorted(owner, owner)
    level_probability = levels.flatten().to_numpy(zero_copy_only=False)
    level_right = shared[owner] > level
    split = pc.fill_null(rows["split"], "none")
    for name in (*pc.unique(split).to_pylist(), "all"):
        chosen = np.ones(len(rows), bool) if name == "all" else pc.equal(split, name).to_numpy(zero_copy_only=False)
        found = into.setdefault(name, [Reliability()])
        found += [Reliability() for _ in range(int(level.max(initial=-1)) + 2 - len(found))]
        found[0].add(probability[chosen], right[chosen])
        for number, reliability in enumerate(found[1:]):
            there = chosen[owner] & (level == number)
            reliability.add(level_probability[there], level_right[there])


def _write_reliability(folder: str, trust: dict[str, list[Reliability]]) -> None:
    rows = [
        {"split": split, "level": level, **asdict(one)}
        for split, found in trust.items()
        for level, reliability in enumerate(found)
        for one in reliability.bins
    ]
    place = storage.locate(storage.join(folder, "reliability.parquet"))
    pq.write_table(pa.Table.from_pylist(rows, schema=RELIABILITY_ROWS), place.path, filesystem=place.filesystem)


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
