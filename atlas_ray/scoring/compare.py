"""Two scoring runs side by side: which products moved from which path to which, and whether that is better."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atlas_ray import storage
from atlas_ray.metrics.paired import PairedAccuracy, paired_accuracy
from atlas_ray.progress import ProgressDisplay
from atlas_ray.records import CATEGORIZED, CATEGORY_PATH, PATH_KEY_SEPARATOR, path_keys
from atlas_ray.reports.scored import ScoredRun, open_scored
from atlas_ray.streaming.shuffle import by_product

BEFORE, AFTER = range(2)
CHANGES = SAME, MOVED, ONLY_BEFORE, ONLY_AFTER = "same", "moved", "only_before", "only_after"
IDENTITY = ("catalog", "model_id", "taxonomy_id")
SPLITS = ("train", "val", "test", "none", "all")

JOINED = pa.schema(
    [
        ("kind", pa.int8()),
        *(
            CATEGORIZED.field(name)
            for name in ("product_id", "category_path", "probability", "true_category_path", "split", "image_uri")
        ),
    ]
)
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
        ("split", pa.string()),
        ("image_uri", pa.string()),
    ]
)
"""`products.parquet`: a row a product whose answers differ (`moved`), or that one run alone has (`only_before`,
`only_after`). Label and split are the second run's where it has them."""

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
"""`moves.parquet`: a row a pair of different paths, most products first; the probabilities are means, a null path
is no answer, and what is right is counted among the labelled ones."""

KEYS = ("split", "change", "before", "after")
SUMS = ("products", "probability_before", "probability_after", "labelled", "right_before", "right_after", "relabelled")
COUNTED = pa.schema(
    [
        *((name, pa.string()) for name in KEYS),
        *((name, pa.float64() if name.startswith("probability") else pa.int64()) for name in SUMS),
    ]
)
"""Sums over products of the same split, change and paths; a path is one string."""
COMPARED = pa.schema([("product_id", pa.string()), *(CHANGED.field(n) for n in CARRIED), *COUNTED])
"""A product that changed, or, with null in `product_id`, all of a block that stayed on one path."""


def compare(before: str, after: str, output: str) -> dict[str, Any]:
    """Compare two scoring runs, product by product, on Ray.

    Writes `moves.parquet` (`MOVES`), `products.parquet` (`CHANGED`) and `comparison.json`. The runs may
    be of different catalogues, models and taxonomies. Memory grows with the different pairs of paths.

    Args:
        before: The output of a finished scoring run.
        after: That of another one.
        output: Where the tables go; earlier ones are replaced.

    Returns:
        What `comparison.json` holds: both runs, what they differ in, how many products stayed (`same`), `moved`,
        are in one run alone, or have another label in the second run; the share of those in both runs that
        stayed; and by split the accuracy of both (`PairedAccuracy`).

    Raises:
        CatalogError: where one of them is no finished scoring run.
    """
    runs = [open_scored(uri) for uri in (before, after)]
    output = storage.absolute(output)
    total = sum(int(run.products.count_rows()) for run in runs)
    tables = [(run.uri, "products", kind) for kind, run in enumerate(runs)]
    joined = by_product(tables, JOINED, total, compare_block)
    counts = COUNTED.empty_table()
    storage.make_folder(output)
    place = storage.locate(storage.join(output, "products.parquet"))
    with (
        ProgressDisplay("comparing", "rows", total=total) as display,
        pq.ParquetWriter(place.path, CHANGED, filesystem=place.filesystem) as writer,
    ):
        blocks: Any = joined.iter_batches(batch_size=None, batch_format="pyarrow")
        for block in blocks:
            rows = pc.multiply(block["products"], pc.if_else(pc.starts_with(block["change"], "only"), 1, 2))
            display.add({"compared": pc.sum(rows).as_py() or 0})
            writer.write_table(_changed(block.filter(block["product_id"].is_valid())))
            counts = _summed(pa.concat_tables([counts, block.select(COUNTED.names)]))
    return _compared(output, runs[BEFORE], runs[AFTER], counts)


def compare_block(table: pa.Table) -> pa.Table:
    """Turn all rows of some products, of both runs, into rows of what changed, and sums of what stayed.

    Args:
        table: `JOINED`.

    Returns:
        `COMPARED`.
    """
    products = pc.unique(table["product_id"])
    owner = pc.index_in(table["product_id"], products).to_numpy()
    kind = table["kind"].to_numpy()
    at = np.full((2, len(products)), -1)
    at[kind, owner] = np.arange(len(table))
    in_before, in_after = at >= 0
    before, after = (table.take(pa.array(rows, mask=rows < 0)) for rows in at)
    truth = pc.if_else(
        after["true_category_path"].is_valid(), after["true_category_path"], before["true_category_path"]
    )
    keys = [path_keys(paths) for paths in (before["category_path"], after["category_path"], truth)]
    labelled = truth.is_valid().to_numpy() & in_before & in_after
    right = [labelled & pc.equal(key, keys[2]).fill_null(False).to_numpy() for key in keys[:2]]
    stayed = pc.equal(*(key.fill_null("") for key in keys[:2])).to_numpy()
    relabelled = (
        ~pc.equal(*(path_keys(side["true_category_path"]) for side in (before, after))).fill_null(True).to_numpy()
    )
    change = np.select([~in_after, ~in_before, stayed], [ONLY_BEFORE, ONLY_AFTER, SAME], MOVED)
    each = pa.table(
        {
            "product_id": products,
            "change": pa.array(change, pa.string()),
            "before": keys[BEFORE],
            "after": keys[AFTER],
            "probability_before": before["probability"].cast(pa.float64()),
            "probability_after": after["probability"].cast(pa.float64()),
            "true_category_path": truth,
            "split": pc.coalesce(after["split"], before["split"]),
            "image_uri": pc.coalesce(after["image_uri"], before["image_uri"]),
            "products": np.ones(len(products), np.int64),
            "labelled": labelled.astype(np.int64),
            "right_before": right[BEFORE].astype(np.int64),
            "right_after": right[AFTER].astype(np.int64),
            "relabelled": relabelled.astype(np.int64),
        }
    ).select(COMPARED.names)
    same = pa.array(change == SAME)
    together = _summed(each.filter(same).select(COUNTED.names))
    return pa.concat_tables([each.filter(pc.invert(same)).cast(COMPARED), together], promote_options="default")


def _paths(keys: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.split_pattern(keys, PATH_KEY_SEPARATOR).cast(CATEGORY_PATH)


def _summed(rows: pa.Table, by: Sequence[str] = KEYS) -> pa.Table:
    """Add up rows of `COUNTED` that agree in some columns."""
    summed = rows.group_by(list(by)).aggregate([(name, "sum") for name in SUMS])
    return summed.rename_columns([name.removesuffix("_sum") for name in summed.column_names])


def _changed(rows: pa.Table) -> pa.Table:
    """Turn rows of `COMPARED` into `CHANGED`."""
    for side in ("before", "after"):
        rows = rows.append_column(f"category_path_{side}", _paths(rows[side]))
    return rows.select(CHANGED.names).cast(CHANGED)


def _compared(output: str, before: ScoredRun, after: ScoredRun, counts: pa.Table) -> dict[str, Any]:
    """Write what the counts say."""
    changes = {row["change"]: row for row in _summed(counts, ["change"]).to_pylist()}
    moves = _moves(counts.filter(pc.equal(counts["change"], MOVED)))
    place = storage.locate(storage.join(output, "moves.parquet"))
    pq.write_table(moves, place.path, filesystem=place.filesystem)
    sides = [{"run": run.uri, **{name: run.identity.get(name) for name in IDENTITY}} for run in (before, after)]
    products = {change: changes.get(change, {}).get("products", 0) for change in CHANGES}
    both = products[SAME] + products[MOVED]
    account = {
        "before": sides[BEFORE],
        "after": sides[AFTER],
        "differs": [name for name in IDENTITY if sides[BEFORE][name] != sides[AFTER][name]],
        "products": products,
        "relabelled": sum(row["relabelled"] for row in changes.values()),
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
    for row in _summed(counts, ["split", "change"]).to_pylist():
        for split in (row["split"] or "none", "all"):
            total = totals.setdefault(split, Counter())
            total["labelled"] += row["labelled"]
            # A product that stayed is right in both or in none; one that moved is not right in both.
            if row["change"] == SAME:
                total["both"] += row["right_before"]
            else:
                total["lost"] += row["right_before"]
                total["won"] += row["right_after"]
    found = {}
    for split in SPLITS:
        total = totals.get(split, Counter())
        if total["labelled"]:
            neither = total["labelled"] - total["both"] - total["won"] - total["lost"]
            found[split] = paired_accuracy(total["both"], total["won"], total["lost"], neither)
    return found
