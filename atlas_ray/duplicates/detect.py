"""Pictures that stand under several products: found, reported, and joined to groups of products.

Two products that show one picture must not be trained and tested on; `atlas_ray.catalog.split`
keeps a group on one side.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from atlas_ray.arrays import Integers
from atlas_ray.duplicates.fingerprints import BITS, GRID_PX, WORDS, Fingerprints, fingerprint, near_pairs
from atlas_ray.io import storage
from atlas_ray.modalities.pictures import decode_batch
from atlas_ray.runtime.outcomes import ERROR, KEYS, READ, good_rows, with_errors
from atlas_ray.settings import Settings, setting

FINGERPRINTED = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("image_uri", pa.string(), nullable=False),
        ("sha256", pa.string()),
        pa.field("fingerprint", pa.binary(BITS // 8), nullable=False),
    ]
)
"""One row a picture; the fingerprint is all zero for a picture of one colour."""
OUTCOMES = pa.unify_schemas([FINGERPRINTED, READ, ERROR])
"""A picture with its fingerprint, or a failed one."""

DUPLICATES = pa.schema(
    [
        pa.field("group", pa.int64(), nullable=False),
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("distance", pa.int32(), nullable=False),
    ]
)
"""One row a picture that another product has too.

`kind` is exact if the other's file has the same bytes, near elsewhere; `distance` is the number
of bits in which the fingerprint differs from the closest other picture of its group.
"""

GROUPS = pa.schema([pa.field("product_id", pa.string(), nullable=False), pa.field("group", pa.int64(), nullable=False)])
"""The products that duplicates join, transitively; a product without any is not in it."""

PLACEHOLDERS = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("products", pa.int64(), nullable=False),
    ]
)
"""One row a picture that too many products have, such as "no image available": one copy, and how many there are."""

FILES = ("duplicates.parquet", "groups.parquet", "placeholders.parquet")


@dataclass(frozen=True, kw_only=True)
class DuplicateConfig(Settings):
    """What counts as a duplicate."""

    max_distance: int = setting(
        f"bits of {BITS} in which the fingerprints of a picture and its near duplicate may differ", 24, low=0, high=32
    )
    max_products: int = setting(
        "a picture of more products than this is a placeholder, and joins no products", 100, low=2, high=1_000_000
    )


@dataclass(frozen=True, kw_only=True)
class DuplicateReport:
    """What was found, as tables."""

    duplicates: pa.Table
    """`DUPLICATES`, in the order of groups and products."""
    groups: pa.Table
    """`GROUPS`, in the order of groups and products."""
    placeholders: pa.Table
    """`PLACEHOLDERS`, those of most products first."""

    def write(self, folder_uri: str) -> None:
        """Write each table as a Parquet file of its name."""
        for file in FILES:
            storage.write_table(storage.join(folder_uri, file), getattr(self, file.removesuffix(".parquet")))

    @classmethod
    def read(cls, folder_uri: str) -> Self:
        """Read what `write` wrote."""
        return cls(
            **{file.removesuffix(".parquet"): storage.read_table(storage.join(folder_uri, file)) for file in FILES}
        )


def fingerprint_block(table: pa.Table) -> pa.Table:
    """Turn a block of fetched pictures, with their `bytes`, `sha256` and error columns, into `OUTCOMES`."""
    good = good_rows(table)
    pixels, refused = decode_batch(table["bytes"].take(pa.array(good)).to_pylist(), GRID_PX)
    words = np.zeros((len(table), WORDS), np.uint64)
    words[good] = fingerprint(pixels)
    out = table.select([*KEYS, *READ.names, *ERROR.names]).append_column("fingerprint", fingerprint_column(words))
    out = with_errors(out, "decode", {int(good[i]): error for i, error in refused.items()})
    return out.select(OUTCOMES.names).cast(OUTCOMES)


def fingerprint_column(words: Fingerprints) -> pa.Array:
    """Return fingerprints, (rows, WORDS), as the column of `FINGERPRINTED`."""
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(BITS // 8), len(words), [None, pa.py_buffer(words)])


def find_duplicates(pictures: pa.Table, config: DuplicateConfig) -> DuplicateReport:
    """Find the pictures that several products have, by their bytes and by their fingerprints.

    Pictures are joined if the bytes are the same or the fingerprints are near, transitively;
    products are joined if they have joined pictures. A picture of one colour has no fingerprint,
    and is compared by its bytes alone.

    Args:
        pictures: `FINGERPRINTED`, of a whole catalogue.
        config: What counts as a duplicate.
    """
    files, products = _codes(pictures["sha256"]), _codes(pictures["product_id"])
    fingerprints, prints = _fingerprints(pictures["fingerprint"])
    near = near_pairs(fingerprints, config.max_distance, enough=config.max_products)

    # A graph of fingerprints and files: each picture joins its own two, and near fingerprints are joined. What one
    # component of it shows are copies.
    has_print = np.flatnonzero(fingerprints[prints].any(axis=1))
    own = np.stack([prints, files + len(fingerprints)])  # (2, pictures)
    pairs = np.stack([near.left, near.right])  # (2, pairs)
    nodes = len(fingerprints) + files.max(initial=-1) + 1
    components = _components(np.concatenate([pairs, own[:, has_print]], axis=1), nodes)
    # Look-alikes form chains, and a long one is no group: where too many products come together, only pairs of half
    # the distance join.
    crowded = _distinct_products(components[own[1]], products)[components[near.left]] > config.max_products
    pairs = pairs[:, ~crowded | (near.distance <= config.max_distance // 2)]
    copies = _components(np.concatenate([pairs, own[:, has_print]], axis=1), nodes)[own[1]]
    shared_by = _distinct_products(copies, products)[copies]
    duplicated = (shared_by > 1) & (shared_by <= config.max_products)

    # A graph of products and copies: each picture joins its product to what it is a copy of.
    first_copy = products.max(initial=-1) + 1
    shown = np.stack([products, copies + first_copy])[:, duplicated]
    groups = _components(shown, first_copy + nodes)[products]

    exact = _distinct_products(files, products)[files] > 1
    closest = np.full(len(fingerprints), BITS)
    closest[_distinct_products(prints, products) > 1] = 0
    np.minimum.at(closest, near.left, near.distance)
    np.minimum.at(closest, near.right, near.distance)
    found = pictures.select(["product_id", "image_id", "image_uri"])
    found = found.append_column("group", pa.array(groups))
    found = found.append_column("kind", pa.array(np.where(exact, "exact", "near"), pa.string()))
    found = found.append_column("distance", pa.array(np.where(exact, 0, closest[prints])))
    found = _numbered(found.filter(pa.array(duplicated)))
    return DuplicateReport(
        duplicates=found.select(DUPLICATES.names).cast(DUPLICATES),
        groups=found.group_by(["product_id", "group"], use_threads=False).aggregate([]).cast(GROUPS),
        placeholders=_placeholders(pictures, copies, shared_by, config.max_products),
    )


def _codes(column: pa.ChunkedArray) -> Integers:
    """Return the number of each row's text among the distinct ones."""
    return np.asarray(column.combine_chunks().dictionary_encode().indices).astype(np.int64)


def _fingerprints(column: pa.ChunkedArray) -> tuple[Fingerprints, Integers]:
    """Return the distinct fingerprints, (distinct, WORDS), and which of them each row has."""
    encoded = column.combine_chunks().dictionary_encode()
    distinct = np.frombuffer(b"".join(encoded.dictionary.to_pylist()), np.uint64).reshape(-1, WORDS)
    return distinct, np.asarray(encoded.indices).astype(np.int64)


def _components(edges: Integers, nodes: int) -> Integers:
    """Return the number of the connected component of each node, given the edges, (2, edges)."""
    graph = coo_array((np.ones(edges.shape[1], bool), (edges[0], edges[1])), shape=(nodes, nodes))
    return np.asarray(connected_components(graph, directed=False)[1]).astype(np.int64)


def _distinct_products(things: Integers, products: Integers) -> Integers:
    """Return how many products each thing stands under, given the thing and the product of each picture."""
    pairs = np.unique(things << 32 | products)
    return np.bincount(pairs >> 32)


def _numbered(found: pa.Table) -> pa.Table:
    """Number the groups by their first product, and sort by group and product: the order of the input is no matter."""
    found = found.sort_by([("product_id", "ascending"), ("image_id", "ascending")])
    _, first, group = np.unique(found["group"].to_numpy(), return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first))[group]
    found = found.set_column(found.column_names.index("group"), "group", pa.array(number))
    return found.take(pa.array(np.argsort(number, kind="stable")))


def _placeholders(pictures: pa.Table, copies: Integers, shared_by: Integers, max_products: int) -> pa.Table:
    wide = np.flatnonzero(shared_by > max_products)
    table = pictures.select(["image_id", "image_uri"]).take(pa.array(wide))
    table = table.append_column("copy", pa.array(copies[wide])).append_column("products", pa.array(shared_by[wide]))
    table = table.sort_by([("copy", "ascending"), ("image_id", "ascending")])
    counted = table.group_by("copy", use_threads=False).aggregate(
        [("image_id", "first"), ("image_uri", "first"), ("image_id", "count"), ("products", "first")]
    )
    counted = counted.select(["image_id_first", "image_uri_first", "image_id_count", "products_first"])
    return counted.rename_columns(PLACEHOLDERS.names).sort_by([("products", "descending")]).cast(PLACEHOLDERS)
