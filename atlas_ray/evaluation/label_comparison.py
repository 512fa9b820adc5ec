"""Two runs of labels side by side: which labels products gained and lost, and whether that is better.

Dimensions: N labels that both runs know.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Booleans, Integers, list_offsets
from atlas_ray.errors import CatalogError, tell
from atlas_ray.evaluation.label_run import named_labels, true_labels
from atlas_ray.evaluation.pairs import AFTER, BEFORE, CHANGES, SAME, Pairs, compared_blocks, joined_schema
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.metrics.labels import MicroF1
from atlas_ray.metrics.paired import paired_accuracy
from atlas_ray.runs.scored import PREDICTED, ScoredRun, open_scored
from atlas_ray.taxonomy import LabelSpace, read_taxonomy

TRUTH = ("true_category_path", "true_category_paths")
JOINED = joined_schema(("product_id", "labels", *TRUTH, "split", "fitted", "image_uri"))
"""What is shuffled: the products of both runs."""
NAMES = pa.list_(pa.string())
CHANGED = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        ("change", pa.string()),
        ("gained", NAMES),
        ("lost", NAMES),
        ("true_labels", NAMES),
        ("split", pa.string()),
        ("image_uri", pa.string()),
    ]
)
"""`products.parquet`: a row for each product whose labels differ (`moved`), or that is in only one run
(`only_before`, `only_after`). `true_labels` are null without a label in the catalogue."""
LABELS = pa.schema(
    [
        ("label", pa.string()),
        ("before", pa.int64()),
        ("after", pa.int64()),
        ("gained", pa.int64()),
        ("lost", pa.int64()),
        ("support", pa.int64()),
        ("right_before", pa.int64()),
        ("right_after", pa.int64()),
    ]
)
"""`labels.parquet`: a row for each label, most changes first. `before` to `lost` count all products, the others those
with a label in the catalogue."""
SUMS = {"applied": (2,), "gained": (), "lost": (), "counts": (2, 3)}
"""Sums for each label: products that it is applied to, that gained and lost it, and of the labelled ones those where it
is right, wrong and missed."""
PRODUCTS = (*CHANGES, "fitted", "both", "won", "lost", "neither")
"""Numbers of products; the last four are labelled ones, by which run has exactly their labels."""
COUNTED = pa.schema([("split", pa.string()), ("labels", pa.list_(pa.int64())), ("products", pa.list_(pa.int64()))])
COMPARED = pa.schema([*(field.with_nullable(True) for field in CHANGED), *list(COUNTED)[1:]])
"""A row of `CHANGED`, or, with null in `product_id`, one of `COUNTED`."""


@dataclass
class LabelCounts:
    """Sums over products.

    Attributes:
        labels: (10, N), the rows of `SUMS` one after the other.
        products: (9,) as in `PRODUCTS`.
    """

    labels: Integers
    products: Integers = field(default_factory=lambda: np.zeros(len(PRODUCTS), np.int64))

    def row(self, name: str) -> Integers:
        """Return a sum for each label, (..., N) as `SUMS` says."""
        start = 0
        for other, shape in SUMS.items():
            size = int(np.prod(shape, dtype=int))
            if other == name:
                return self.labels[start : start + size].reshape(*shape, -1)
            start += size
        raise KeyError(name)


@holding("compare", "output")
def compare_labels(before: str, after: str, output: str) -> dict[str, Any]:
    """Compare two scoring runs of models of labels, product by product, on Ray.

    Labels that only one of the runs knows are left out. Products outside train that one of the models was fitted on
    are counted, and judged by nobody. Writes `labels.parquet` (`LABELS`), `products.parquet` (`CHANGED`) and
    `comparison.json`.

    Args:
        before: The output of a finished scoring run.
        after: The output of another one.
        output: The folder of the tables; earlier ones are replaced.

    Returns:
        The content of `comparison.json`: both runs with their micro-F1 by split, the numbers of products, and by split
        how many have exactly their labels in each run (`PairedAccuracy`).

    Raises:
        CatalogError: if one of them is not a finished run of labels, or they have no label in common.
        TaxonomyError: if no label of the catalogue is in the second run's taxonomy.
    """
    runs = [open_scored(uri, "labels") for uri in (before, after)]
    for note in filter(None, [run.match_labels() for run in runs]):
        tell(note)
    known = [run.thresholds or {} for run in runs]
    names = tuple(name for name in known[AFTER] if name in known[BEFORE])
    if not names:
        raise CatalogError(f"{before} and {after} have no label in common")
    notes = [
        f"{len(one) - len(names)} labels of {run.uri} are left out: the other run does not know them"
        for run, one in zip(runs, known, strict=True)
        if len(one) > len(names)
    ]
    space = LabelSpace(read_taxonomy(storage.join(runs[AFTER].uri, PREDICTED)), names)
    output = storage.absolute(output)
    counts: dict[str, LabelCounts] = {}
    block = functools.partial(compare_block, space=space)
    for rows in compared_blocks(runs, output, JOINED, block, CHANGED, _changed):
        for row in rows.filter(pc.invert(rows["product_id"].is_valid())).to_pylist():
            for split in (row["split"], "all"):
                sums = counts.setdefault(split, LabelCounts(np.zeros((_rows(), len(names)), np.int64)))
                sums.labels += np.array(row["labels"]).reshape(sums.labels.shape)
                sums.products += np.array(row["products"])
    return _written(output, runs, names, counts, notes)


def _changed(rows: pa.Table) -> pa.Table:
    """Turn rows of `COMPARED` into `CHANGED`."""
    return rows.select(CHANGED.names).cast(CHANGED)


def _rows() -> int:
    return sum(int(np.prod(shape, dtype=int)) for shape in SUMS.values())


def compare_block(table: pa.Table, space: LabelSpace) -> pa.Table:
    """Turn all rows of some products, of both runs, into rows of those that changed, and sums by split.

    Args:
        table: Rows of `JOINED`.
        space: The labels.

    Returns:
        Rows of `COMPARED`.
    """
    pairs = Pairs.of(table)
    sides = pairs.sides(table)
    named = np.stack([named_labels(side["labels"].combine_chunks(), space.names) for side in sides])  # (2, products, N)
    truth = [pc.coalesce(*(side[name] for side in reversed(sides))) for name in TRUTH]
    has, labelled = true_labels(truth[0], truth[1], space)
    split = pc.coalesce(sides[AFTER]["split"], sides[BEFORE]["split"]).fill_null("none").to_numpy(zero_copy_only=False)
    fitted = np.any([side["fitted"].fill_null(False).to_numpy() for side in sides], axis=0) & (split != "train")
    both = pairs.in_both
    judged = labelled & both & ~fitted
    change = pairs.changes((named[BEFORE] == named[AFTER]).all(1))
    exact = (named == has).all(2)  # (2, products)
    counted = [
        _counted(name, (split == name), named, has, judged, both, change, exact, fitted & labelled)
        for name in dict.fromkeys(split.tolist())
    ]
    rows = np.flatnonzero(change != SAME)
    columns = {
        "product_id": pairs.products.take(pa.array(rows)),
        "change": pa.array(change[rows], pa.string()),
        "gained": _names((named[AFTER] & ~named[BEFORE])[rows], space.names),
        "lost": _names((named[BEFORE] & ~named[AFTER])[rows], space.names),
        "true_labels": _names(has[rows], space.names, ~labelled[rows]),
        "split": pa.array(split[rows], pa.string()),
        "image_uri": pc.coalesce(sides[AFTER]["image_uri"], sides[BEFORE]["image_uri"]).take(pa.array(rows)),
    }
    columns |= {name: pa.nulls(len(rows), COMPARED.field(name).type) for name in ("labels", "products")}
    return pa.concat_tables([pa.table(columns, schema=COMPARED), pa.Table.from_pylist(counted, schema=COMPARED)])


def _counted(
    split: str,
    chosen: Booleans,
    named: Booleans,
    has: Booleans,
    judged: Booleans,
    both: Booleans,
    change: Any,
    exact: Booleans,
    fitted: Booleans,
) -> dict[str, Any]:
    """Return a row of `COUNTED` of the products of a split."""
    judge = chosen & judged
    sums = [
        named[:, chosen].sum(1),
        (named[AFTER] & ~named[BEFORE])[chosen & both].sum(0)[None],
        (named[BEFORE] & ~named[AFTER])[chosen & both].sum(0)[None],
        *(
            np.stack([(one & has)[judge].sum(0), (one & ~has)[judge].sum(0), (~one & has)[judge].sum(0)])
            for one in named
        ),
    ]
    before, after = exact[:, judge]
    products = [
        *(int((chosen & (change == name)).sum()) for name in PRODUCTS[:4]),
        int((chosen & fitted & both).sum()),
        *(int(one.sum()) for one in (before & after, after & ~before, before & ~after, ~before & ~after)),
    ]
    return {"split": split, "labels": np.concatenate(sums).reshape(-1).tolist(), "products": products}


def _names(chosen: Booleans, names: Sequence[str], null: Booleans | None = None) -> pa.Array:
    """Return the names of the labels of each product."""
    values = pa.array(names, pa.string()).take(pa.array(np.nonzero(chosen)[1]))
    return pa.ListArray.from_arrays(list_offsets(chosen.sum(1)), values, mask=None if null is None else pa.array(null))


def _written(
    output: str,
    runs: Sequence[ScoredRun],
    names: Sequence[str],
    counts: Mapping[str, LabelCounts],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Write the tables and `comparison.json`, and return the content of the latter."""
    whole = counts.get("all", LabelCounts(np.zeros((_rows(), len(names)), np.int64)))
    storage.write_table(
        storage.join(output, "labels.parquet"), pa.Table.from_pylist(list(_label_rows(names, whole)), schema=LABELS)
    )
    accuracy, f1 = {}, {}
    for split in sorted(counts, key=lambda name: (name == "all", name)):
        judged = counts[split].products[-4:].tolist()
        if sum(judged):
            accuracy[split] = asdict(paired_accuracy(*judged))
            f1[split] = [MicroF1.of(*one.sum(1).tolist()).f1 for one in counts[split].row("counts")]
    account = {
        **{
            side: {
                "run": run.uri,
                "model_id": run.identity.get("model_id"),
                "micro_f1": {split: both[number] for split, both in f1.items()},
            }
            for number, (side, run) in enumerate(zip(("before", "after"), runs, strict=True))
        },
        "labels": len(names),
        "products": dict(zip(PRODUCTS[:5], whole.products.tolist(), strict=False)),
        "all_labels_right": accuracy,
        "notes": list(notes),
    }
    text = json.dumps(account, indent=1, ensure_ascii=False)
    storage.write_bytes(storage.join(output, "comparison.json"), text.encode())
    return account


def _label_rows(names: Sequence[str], sums: LabelCounts) -> Iterator[dict[str, Any]]:
    applied, gained, lost, counts = (sums.row(name) for name in SUMS)
    gained, lost = gained.reshape(-1), lost.reshape(-1)
    for label in np.argsort(-(gained + lost), kind="stable").tolist():
        yield {
            "label": names[label],
            "before": int(applied[BEFORE, label]),
            "after": int(applied[AFTER, label]),
            "gained": int(gained[label]),
            "lost": int(lost[label]),
            "support": int(counts[BEFORE, 0, label] + counts[BEFORE, 2, label]),
            "right_before": int(counts[BEFORE, 0, label]),
            "right_after": int(counts[AFTER, 0, label]),
        }
