"""The decision of the zoom filter: which pictures of a product a catalogue keeps, and which it rejects as close-ups.

Importing this imports no torch: the processes that combine and write use it.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import first_of_each, numbered
from atlas_ray.errors import AuditError
from atlas_ray.runtime.shuffle import IMAGE, OUTCOME, PRODUCT, QUARANTINED
from atlas_ray.schemas import IMAGES, PRODUCTS

KEPT, REJECTED, LISTED, FAILED = range(4)
"""What a row of `CHOSEN` is: a picture that is kept, rejected or in quarantine, or the product itself."""

JOINED = pa.schema(
    [
        ("kind", pa.int8()),
        *PRODUCTS,
        *(field.with_nullable(True) for field in IMAGES if field.name not in PRODUCTS.names),
        ("zoomed_probability", pa.float32()),
    ]
)
"""What is shuffled: rows of four tables in one shape."""
CHOSEN = JOINED.append(pa.field("least_zoomed", pa.bool_()))
ZOOMED = pa.schema([*IMAGES, ("zoomed_probability", pa.float32())])
"""A picture that was looked at."""
JUDGED = pa.schema([*ZOOMED, ("least_zoomed", pa.bool_())])
"""A kept or rejected picture; `least_zoomed` if it is zoomed, and kept since its product has no other."""
PLACES = {LISTED: ("kept/products", PRODUCTS), KEPT: ("kept/images", JUDGED), REJECTED: ("rejected", JUDGED)}
COUNTED = {"kept": KEPT, "rejected": REJECTED, "quarantined": FAILED, "products": LISTED}
"""The counts of a run, by what rows of `CHOSEN` are."""


def choose(table: pa.Table, threshold: float) -> pa.Table:
    """Decide over all pictures of some products; the product's own rows name those that are kept.

    A picture is rejected if its probability reaches the threshold. A product whose pictures would
    all be rejected keeps the least zoomed one, flagged.

    Args:
        table: All rows of the products, as `JOINED`.
        threshold: Of the zoom filter.

    Raises:
        AuditError: if a picture is neither looked at nor quarantined, or both.
    """
    table = table.combine_chunks()
    _, owner = numbered(table["product_id"])
    kind = table["kind"].to_numpy()
    image_id = table["image_id"].fill_null(0).to_numpy()
    looked, failed = (_once(owner, image_id, np.flatnonzero(kind == k)) for k in (OUTCOME, QUARANTINED))
    wanted = _once(owner, image_id, np.flatnonzero(kind == IMAGE))
    found = np.concatenate([looked, failed])
    if len(found) != len(wanted) or len(_once(owner, image_id, np.concatenate([found, wanted]))) != len(wanted):
        raise AuditError(f"{len(wanted)} pictures went in, and {len(looked)} looked at, {len(failed)} quarantined out")
    probability = table["zoomed_probability"].take(pa.array(looked)).to_numpy()
    zoomed = probability >= threshold
    # Each product's least zoomed picture, ties by id; it is kept in any case.
    least = first_of_each(owner[looked], probability, image_id[looked])
    saved = zoomed & least
    kept = looked[~zoomed | saved]
    rejected = looked[zoomed & ~saved]
    listed = np.flatnonzero(kind == PRODUCT)
    rows = np.concatenate([kept, rejected, failed, listed])
    chosen = table.take(pa.array(rows))
    what = np.repeat([KEPT, REJECTED, FAILED, LISTED], [len(kept), len(rejected), len(failed), len(listed)])
    chosen = chosen.set_column(0, "kind", pa.array(what.astype(np.int8)))
    uris = chosen["image_uris"].to_pylist()
    good = _kept_uris(table, owner, kept)
    for row, index in enumerate(listed, len(rows) - len(listed)):
        mine = good.get(int(owner[index]), set())
        uris[row] = [uri for uri in uris[row] or [] if uri in mine]
    at = chosen.schema.get_field_index("image_uris")
    chosen = chosen.set_column(at, "image_uris", pa.array(uris, pa.list_(pa.string())))
    flags = np.isin(rows, looked[saved])
    return chosen.append_column("least_zoomed", pa.array(flags)).cast(CHOSEN)


def _once(owner: Any, image_id: Any, rows: Any) -> Any:
    """Return the rows of different pictures; a catalogue may hold one twice."""
    _, first = np.unique(np.stack([owner[rows], image_id[rows]]), axis=1, return_index=True)
    return rows[first]


def _kept_uris(table: pa.Table, owner: Any, kept: Any) -> dict[int, set[str]]:
    uris: dict[int, set[str]] = {}
    for product, uri in zip(owner[kept].tolist(), table["image_uri"].take(pa.array(kept)).to_pylist(), strict=True):
        uris.setdefault(product, set()).add(uri)
    return uris


def count_chosen(table: pa.Table) -> dict[str, int]:
    """Count rows of `CHOSEN`, in which each picture stands once."""
    counts = {name: pc.sum(pc.equal(table["kind"], kind)).as_py() or 0 for name, kind in COUNTED.items()}
    least = pc.and_(pc.equal(table["kind"], KEPT), table["least_zoomed"])
    return counts | {"kept_least_zoomed": pc.sum(least).as_py() or 0}


def split_chosen(table: pa.Table) -> dict[str, pa.Table]:
    """Return the rows of `CHOSEN` that go to each place."""
    return {
        folder: table.filter(pc.equal(table["kind"], what)).select(schema.names).cast(schema)
        for what, (folder, schema) in PLACES.items()
    }
