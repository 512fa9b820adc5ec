"""Two scoring runs side by side: which products moved from which path to which, and whether that is better."""

import functools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import or_null
from atlas_ray.errors import tell
from atlas_ray.evaluation.pairs import AFTER, BEFORE, CHANGES, MOVED, SAME, Pairs, compared_blocks, joined_schema
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.metrics.paired import PairedAccuracy, paired_accuracy
from atlas_ray.runs.leaves import find_leaves, judged_paths, path_lengths
from atlas_ray.runs.scored import ScoredRun, open_scored
from atlas_ray.schemas import CATEGORY_PATH, PATH_KEY_SEPARATOR, path_keys

IDENTITY = ("catalog", "model_id", "taxonomy_id")
SPLITS = ("train", "val", "test", "none", "all")

JOINED = joined_schema(
    (
        "product_id", "category_path", "probability", "level_probabilities", "alternatives", "decided_level",
        "true_category_path", "split", "fitted", "image_uri",
    )
)  # fmt: skip
"""What is shuffled: the products of both runs."""

CHANGED = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("change", pa.string(), nullable=False),
        ("category_path_before", CATEGORY_PATH),
        ("category_path_after", CATEGORY_PATH),
        ("probability_before", pa.float32()),
        ("probability_after", pa.float32()),
        ("true_category_path", CATEGORY_PATH),
        ("right_before", pa.bool_()),
        ("right_after", pa.bool_()),
        ("split", pa.string()),
        ("image_uri", pa.string()),
    ]
)
"""`products.parquet`: a row for each product whose best leaves differ (`moved`), or that is in only one run
(`only_before`, `only_after`). Label and split are the second run's if it has them; `right_before` and `right_after`
are null if there is no label to judge by."""

CARRIED = ("true_category_path", "image_uri")

MOVES = pa.schema(
    [
        ("from", CATEGORY_PATH),
        ("to", CATEGORY_PATH),
        ("products", pa.int64()),
        ("probability_before", pa.float64()),
        ("probability_after", pa.float64()),
        ("labelled", pa.int64()),
        ("right_before", pa.int64()),
        ("right_after", pa.int64()),
    ]
)
"""`moves.parquet`: a row for each pair of different leaves, most products first. The probabilities are means, a null
path means no answer, and right answers are counted among the labelled products."""

KEYS = ("split", "change", "before", "after")
SUMS = (
    "products", "probability_before", "probability_after", "labelled", "right_before", "right_after", "right_both",
    "relabelled", "unjudged", "fitted", "above_before", "above_after",
)  # fmt: skip
COUNTED = pa.schema(
    [
        *((name, pa.string()) for name in KEYS),
        *((name, pa.float64() if name.startswith("probability") else pa.int64()) for name in SUMS),
    ]
)
"""Sums over products of the same split, change and paths; a path is one string."""
NO_KEYS = pa.array([], pa.string())
"""No nodes, as `ScoredRun.above_leaves` names them."""
COMPARED = pa.schema([("product_id", pa.string()), *(CHANGED.field(n) for n in CARRIED), *COUNTED])
"""A row for a product that changed, or, with null in `product_id`, for all of a block that stayed on one path."""


@holding("compare", "output")
def compare(before: str, after: str, output: str) -> dict[str, Any]:
    """Compare two scoring runs, product by product, on Ray.

    The best leaves are compared, even if a target precision made a run answer with an ancestor. Both runs are judged
    by a product's label in the second run, or in the first if it has none there. Runs of different taxonomies are each
    judged by their own labels, because the same category may have two paths, and products with a label in only one of
    them are not judged. Nor are products outside train that one of the models was
    fitted on, which are counted.

    Writes `moves.parquet` (`MOVES`), `products.parquet` (`CHANGED`) and `comparison.json`. The runs may
    be of different catalogues, models and taxonomies. Memory grows with the different pairs of paths.

    Args:
        before: The output of a finished scoring run.
        after: The output of another one.
        output: The folder of the tables; earlier ones are replaced.

    Returns:
        The content of `comparison.json`: both runs, with the numbers of products that were answered above the leaf or
        not at all; the settings that differ; the numbers of products that stayed (`same`), `moved`, are in only one
        run, have another label in the second run (`relabelled`), are left out because a model was `fitted` on them, or
        have a label that only one run can be judged by (`unjudged`); the share of products of both runs that stayed;
        and the accuracy of both by split (`PairedAccuracy`).

    Raises:
        CatalogError: if one of them is not a finished scoring run.
        TaxonomyError: if no label of one is in its own taxonomy.
    """
    runs = [open_scored(uri) for uri in (before, after)]
    notes = [note for run in runs if (note := run.match_labels())]
    for note in notes:
        tell(note)
    output = storage.absolute(output)
    own_labels = runs[BEFORE].identity.get("taxonomy_id") != runs[AFTER].identity.get("taxonomy_id")
    counts = COUNTED.empty_table()
    block = functools.partial(compare_block, own_labels=own_labels, above_leaves=[run.above_leaves for run in runs])
    for rows in compared_blocks(runs, output, JOINED, block, CHANGED, _changed):
        counts = _summed(pa.concat_tables([counts, rows.select(COUNTED.names)]))
    return _compared(output, runs[BEFORE], runs[AFTER], counts, notes)


def compare_block(
    table: pa.Table, *, own_labels: bool = False, above_leaves: Sequence[pa.Array] = (NO_KEYS, NO_KEYS)
) -> pa.Table:
    """Turn all rows of some products, of both runs, into rows of products that changed and sums of those that did not.

    Args:
        table: Rows of `JOINED`.
        own_labels: Whether each run is judged by its own labels.
        above_leaves: The nodes above the leaves of each run (`ScoredRun.above_leaves`). A leaf below one is right if
            that is the label.

    Returns:
        Rows of `COMPARED`.
    """
    pairs = Pairs.of(table)
    leaves = find_leaves(table)
    answers = table.select(["true_category_path", "split", "image_uri", "fitted"]).add_column(
        0, "leaf", path_keys(leaves.paths)
    )
    answers = answers.add_column(1, "probability", leaves.probability).add_column(2, "above", pa.array(leaves.above))
    before, after = pairs.sides(answers)
    both = pairs.in_both
    labels = [side["true_category_path"] for side in (before, after)]
    truth = pc.if_else(labels[AFTER].is_valid(), labels[AFTER], labels[BEFORE])
    own_keys = [path_keys(label) for label in labels]
    judges = labels if own_labels else [truth] * 2
    known = [both & (path_lengths(judge) > 0) for judge in judges]
    split = pc.coalesce(after["split"], before["split"])
    fitted = _true(before["fitted"]) | _true(after["fitted"])
    fitted &= _true(pc.not_equal(split.fill_null("none"), "train")) & known[BEFORE] & known[AFTER]
    labelled = known[BEFORE] & known[AFTER] & ~fitted
    right = [
        labelled & _right(leaves.paths.take(or_null(rows)), judge.combine_chunks(), above)
        for rows, judge, above in zip(pairs.rows, judges, above_leaves, strict=True)
    ]
    stayed = _true(pc.equal(*(side["leaf"].fill_null("") for side in (before, after))))
    change = pairs.changes(stayed)
    each = pa.table(
        {
            "product_id": pairs.products,
            "change": pa.array(change, pa.string()),
            "before": before["leaf"],
            "after": after["leaf"],
            "probability_before": before["probability"].cast(pa.float64()),
            "probability_after": after["probability"].cast(pa.float64()),
            "true_category_path": truth,
            "split": split,
            "image_uri": pc.coalesce(after["image_uri"], before["image_uri"]),
            "products": np.ones(len(change), np.int64),
            "labelled": labelled.astype(np.int64),
            "right_before": right[BEFORE].astype(np.int64),
            "right_after": right[AFTER].astype(np.int64),
            "right_both": (right[BEFORE] & right[AFTER]).astype(np.int64),
            "relabelled": _true(pc.not_equal(*own_keys)).astype(np.int64),
            "fitted": fitted.astype(np.int64),
            "unjudged": (known[BEFORE] != known[AFTER]).astype(np.int64),
            "above_before": _true(before["above"]).astype(np.int64),
            "above_after": _true(after["above"]).astype(np.int64),
        }
    ).select(COMPARED.names)
    same = pa.array(change == SAME)
    together = _summed(each.filter(same).select(COUNTED.names))
    return pa.concat_tables([each.filter(pc.invert(same)).cast(COMPARED), together], promote_options="default")


def _right(paths: pa.Array, labels: pa.Array, above_leaves: pa.Array) -> Any:
    """Return whether leaves are those of the labels, or below them, (rows,) bool."""
    keys = path_keys(labels)
    above = pc.is_in(keys, above_leaves).to_numpy(zero_copy_only=False)
    judged = path_keys(judged_paths(paths, labels, above))
    return pc.equal(judged, keys).fill_null(False).to_numpy(zero_copy_only=False)


def _true(column: pa.ChunkedArray) -> Any:
    """Return a column as (rows,) bool, with null as False."""
    return column.fill_null(False).to_numpy()


def _paths(keys: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.split_pattern(keys, PATH_KEY_SEPARATOR).cast(CATEGORY_PATH)


def _summed(rows: pa.Table, by: Sequence[str] = KEYS) -> pa.Table:
    """Add up rows of `COUNTED` with the same values in these columns."""
    summed = rows.group_by(list(by)).aggregate([(name, "sum") for name in SUMS])
    return summed.rename_columns([name.removesuffix("_sum") for name in summed.column_names])


def _changed(rows: pa.Table) -> pa.Table:
    """Turn rows of `COMPARED` into `CHANGED`."""
    for side in ("before", "after"):
        rows = rows.append_column(f"category_path_{side}", _paths(rows[side]))
        right = pc.if_else(pc.equal(rows["labelled"], 1), pc.equal(rows[f"right_{side}"], 1), None)
        rows = rows.drop_columns([f"right_{side}"]).append_column(f"right_{side}", right)
    return rows.select(CHANGED.names).cast(CHANGED)


def _compared(output: str, before: ScoredRun, after: ScoredRun, counts: pa.Table, notes: list[str]) -> dict[str, Any]:
    """Write the tables and `comparison.json`, and return the content of the latter."""
    changes = {row["change"]: row for row in _summed(counts, ["change"]).to_pylist()}
    moves = _moves(counts.filter(pc.equal(counts["change"], MOVED)))
    storage.write_table(storage.join(output, "moves.parquet"), moves)
    sides = [
        {
            "run": run.uri,
            **{name: run.identity.get(name) for name in IDENTITY},
            "above_leaf": sum(row[above] for row in changes.values()),
        }
        for run, above in ((before, "above_before"), (after, "above_after"))
    ]
    products = {change: changes.get(change, {}).get("products", 0) for change in CHANGES}
    both = products[SAME] + products[MOVED]
    account = {
        "before": sides[BEFORE],
        "after": sides[AFTER],
        "differs": [name for name in IDENTITY if sides[BEFORE][name] != sides[AFTER][name]],
        "products": products,
        **{name: sum(row[name] for row in changes.values()) for name in ("relabelled", "unjudged", "fitted")},
        "notes": notes,
        "agreement": products[SAME] / both if both else None,
        "accuracy": {split: asdict(one) for split, one in _accuracy(counts).items()},
        "moves": len(moves),
    }
    text = json.dumps(account, indent=1, ensure_ascii=False)
    storage.write_bytes(storage.join(output, "comparison.json"), text.encode())
    return account


def _moves(counts: pa.Table) -> pa.Table:
    """Return `MOVES`, most products first."""
    rows = _summed(counts, ["before", "after"]).sort_by(
        [("products", "descending"), ("before", "ascending"), ("after", "ascending")]
    )
    means = {name: pc.divide(rows[name], rows["products"]) for name in ("probability_before", "probability_after")}
    return pa.table(
        {
            "from": _paths(rows["before"]),
            "to": _paths(rows["after"]),
            "products": rows["products"],
            **means,
            **{name: rows[name] for name in ("labelled", "right_before", "right_after")},
        }
    ).cast(MOVES)


def _accuracy(counts: pa.Table) -> dict[str, PairedAccuracy]:
    """Return how often each run is right, by split, and for all together."""
    totals: dict[str, Counter[str]] = {}
    for row in _summed(counts, ["split"]).to_pylist():
        for split in (row["split"] or "none", "all"):
            total = totals.setdefault(split, Counter())
            total["labelled"] += row["labelled"]
            total["both"] += row["right_both"]
            total["lost"] += row["right_before"] - row["right_both"]
            total["won"] += row["right_after"] - row["right_both"]
    accuracy = {}
    for split in SPLITS:
        total = totals.get(split, Counter())
        if total["labelled"]:
            neither = total["labelled"] - total["both"] - total["won"] - total["lost"]
            accuracy[split] = paired_accuracy(total["both"], total["won"], total["lost"], neither)
    return accuracy
