"""Evaluation of a run of labels: those that it applied to products, compared with those that they have.

Dimensions: N labels.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Array, Booleans, Integers
from atlas_ray.errors import CatalogError, tell
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.metrics.labels import MicroF1
from atlas_ray.reports.label_page import write_label_page
from atlas_ray.runs.scored import PREDICTED, ScoredRun, open_scored
from atlas_ray.runs.tally import ALL, TRAIN
from atlas_ray.runtime.tables import label_pairs
from atlas_ray.taxonomy import LabelSpace, Taxonomy, read_taxonomy
from atlas_ray.taxonomy.labels import united

COLUMNS = ("true_category_path", "true_category_paths", "labels", "split", "fitted")
HEADLINE = ("products", "unscored", "exact", "micro_f1", "micro_precision", "micro_recall", "macro_f1")
"""Fields of `LabelMetrics`."""
SPLITS = ("train", "val", "test", "none", ALL)
TABLES: dict[str, pa.Schema] = {
    "headline": pa.schema([("split", pa.string()), ("figure", pa.string()), ("value", pa.float64())]),
    "labels": pa.schema(
        [
            ("split", pa.string()),
            ("label", pa.string()),
            ("threshold", pa.float64()),
            ("precision", pa.float64()),
            ("recall", pa.float64()),
            ("f1", pa.float64()),
            ("support", pa.int64()),
            ("predicted", pa.int64()),
            ("missed", pa.int64()),
        ]
    ),
}
"""What is written beside `metrics.json`, a Parquet file each."""


@dataclass(frozen=True)
class LabelMetrics:
    """The figures of a set of products."""

    products: int
    unscored: int
    """The number of products without an answer, of which all labels are missed."""
    exact: float
    """Share of products to which exactly their labels are applied."""
    micro_f1: float
    micro_precision: float
    micro_recall: float
    macro_f1: float
    """Mean F1 over the labels with support."""
    left_out: int
    """Products outside train that the model was fitted on, which are in no figure."""
    labels: list[dict[str, Any]]
    """Rows of the table `labels`, most support first."""


@dataclass
class _Counts:
    labels: Integers
    """(3, N): products to which a label is applied rightly, wrongly, and of which it is missed."""
    products: int = 0
    unscored: int = 0
    exact: int = 0
    left_out: int = 0


@holding("evaluate", "output", "run")
def evaluate_run(run: str, output: str | None = None) -> dict[str, LabelMetrics]:
    """Measure the labels that a scoring run applied, for each split and for all labelled products together.

    Products that the model was fitted on are measured only in the split train; in others they are counted and left out.
    Writes `evaluation/report.html`, `evaluation/metrics.json` and the `TABLES` into the output.

    Args:
        run: The output of a finished scoring run of a model of labels.
        output: The folder of `evaluation/`; None for the run itself.

    Raises:
        CatalogError: if the run is not finished or not one of labels, or no product had a label and was not trained on.
        TaxonomyError: if no label is in the run's taxonomy.
    """
    scored = open_scored(run, "labels")
    notes = list(filter(None, [scored.match_labels()]))
    thresholds = scored.thresholds or {}
    counts = tally_labels(scored, read_taxonomy(storage.join(scored.uri, PREDICTED)), tuple(thresholds))
    notes += [
        f"{one.left_out} labelled products of the split {split!r} are left out of all figures: the model was fitted on "
        "them"
        for split, one in counts.items()
        if one.left_out and split != ALL
    ]
    for note in notes:
        tell(note)
    measured = {name: one for name, one in counts.items() if one.products}
    if not measured:
        raise CatalogError(
            f"{scored.uri}: no product has a label that was not trained on, so there is nothing to compare"
        )
    order = sorted(measured, key=lambda name: (SPLITS.index(name) if name in SPLITS else 3, name))
    metrics = {name: _measured(measured[name], thresholds) for name in order}
    folder = storage.join(storage.absolute(output) if output else scored.uri, "evaluation")
    summary = {
        split: {name: value for name, value in asdict(one).items() if name != "labels"}
        for split, one in metrics.items()
    }
    storage.make_folder(folder)
    storage.write_bytes(storage.join(folder, "metrics.json"), json.dumps(summary, indent=1).encode())
    for name, rows in _tables(metrics).items():
        storage.write_table(
            storage.join(folder, f"{name}.parquet"), pa.Table.from_pylist(list(rows), schema=TABLES[name])
        )
    write_label_page(folder, scored, metrics, notes)
    return metrics


def tally_labels(scored: ScoredRun, taxonomy: Taxonomy, names: tuple[str, ...]) -> dict[str, _Counts]:
    """Count the labels of a run's labelled products by split.

    Memory grows with the number of labels, not of products.

    Args:
        scored: The run.
        taxonomy: What its labels are of.
        names: (N,) the labels.
    """
    space = LabelSpace(taxonomy, names)
    tally: dict[str, _Counts] = {}
    for batch in scored.batches(COLUMNS):
        table = pa.Table.from_batches([batch])
        has, known = true_labels(table["true_category_path"], table["true_category_paths"], space)
        table, has = table.filter(pa.array(known)).combine_chunks(), has[known]
        named, unscored = named_labels(table["labels"].combine_chunks(), names), table["labels"].is_null().to_numpy()
        split = np.array(table["split"].fill_null("none").to_pylist(), dtype=object)
        leaked = table["fitted"].fill_null(False).to_numpy() & (split != TRAIN)
        for name in (*dict.fromkeys(split.tolist()), ALL):
            chosen = (split == name) | (name == ALL)
            counts = tally.setdefault(name, _Counts(np.zeros((3, len(names)), np.int64)))
            counts.left_out += int((chosen & leaked).sum())
            _count(counts, has[chosen & ~leaked], named[chosen & ~leaked], unscored[chosen & ~leaked])
    return tally


def _count(counts: _Counts, has: Booleans, named: Booleans, unscored: Booleans) -> None:
    counts.labels += np.stack([(named & has).sum(0), (named & ~has).sum(0), (~named & has).sum(0)])
    counts.products += len(has)
    counts.unscored += int(unscored.sum())
    counts.exact += int(((named == has).all(1) & ~unscored).sum())


def true_labels(first: pa.ChunkedArray, several: pa.ChunkedArray, space: LabelSpace) -> tuple[Booleans, Booleans]:
    """Return the labels of products, (products, N) bool, and which have a path that is a leaf, (products,) bool.

    Args:
        first: (products,) the category path of each, null without one.
        several: (products,) all paths of those that have several.
        space: The labels.
    """
    known = np.flatnonzero(first.is_valid().to_numpy())
    paths = {
        name: column.take(pa.array(known)) for name, column in (("category_path", first), ("category_paths", several))
    }
    row, leaf = label_pairs(pa.table(paths), space.taxonomy.leaf_positions, several=True)
    rows, start = np.unique(row, return_index=True)
    has, labelled = np.zeros((len(first), len(space)), bool), np.zeros(len(first), bool)
    has[known[rows]] = united(space.of_leaves, leaf, start)
    labelled[known[rows]] = True
    return has, labelled


def named_labels(labels: pa.Array, names: Sequence[str]) -> Booleans:
    """Return which of some labels are applied to each product, (products, N) bool.

    Args:
        labels: (products,) the column `labels` of a run.
        names: (N,) the labels; others are passed over.
    """
    table = np.zeros((len(labels), len(names)), bool)
    number = pc.index_in(labels.flatten().field("label"), pa.array(names, pa.string()))
    known = number.is_valid().to_numpy(zero_copy_only=False)
    row = labels.value_parent_indices().to_numpy()
    table[row[known], number.drop_null().to_numpy()] = True
    return table


def _measured(counts: _Counts, thresholds: Mapping[str, float]) -> LabelMetrics:
    right, wrong, missed = counts.labels
    micro = MicroF1.of(*counts.labels.sum(1).tolist())
    f1 = 2 * right / np.maximum(2 * right + wrong + missed, 1)
    support = right + missed
    order = np.argsort(-support, kind="stable")
    each = [MicroF1.of(*counts.labels[:, label].tolist()) for label in range(len(thresholds))]
    names, least = list(thresholds), list(thresholds.values())
    return LabelMetrics(
        products=counts.products,
        unscored=counts.unscored,
        exact=counts.exact / counts.products,
        micro_f1=micro.f1,
        micro_precision=micro.precision,
        micro_recall=micro.recall,
        macro_f1=_mean(f1[support > 0]),
        left_out=counts.left_out,
        labels=[
            {
                "label": names[label], "threshold": least[label], "precision": each[label].precision,
                "recall": each[label].recall, "f1": each[label].f1, "support": int(support[label]),
                "predicted": int(right[label] + wrong[label]), "missed": int(missed[label]),
            }
            for label in order.tolist()
        ],
    )  # fmt: skip


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else 0.0


def _tables(metrics: Mapping[str, LabelMetrics]) -> dict[str, Iterator[dict[str, Any]]]:
    return {
        "headline": (
            {"split": split, "figure": name, "value": getattr(one, name)}
            for split, one in metrics.items()
            for name in HEADLINE
        ),
        "labels": ({"split": split, **row} for split, one in metrics.items() for row in one.labels),
    }
