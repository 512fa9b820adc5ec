"""Pictures that stand under several products: found, reported, and joined to groups of products.

Two products that show one picture must not be trained and tested on; `atlas_ray.catalog.split`
keeps a group on one side.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from atlas_ray.arrays import Integers, numbered
from atlas_ray.duplicates.pairs import BAND_BITS, Joined, NearPairs, band, band_edges, near_pairs
from atlas_ray.duplicates.sizes import BITS, GRID_PX, WORDS, Fingerprints
from atlas_ray.io import storage
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

BANDS = pa.schema([("key", pa.int64()), ("fingerprint", pa.binary(BITS // 8))])
"""Fingerprints by the number and the value of a band of their bits."""
NEAR = pa.schema([("left", pa.int64()), ("right", pa.int64()), ("distance", pa.int64())])
"""Pairs of ids of fingerprints."""
COPIES = pa.schema(
    [
        ("key", pa.int64()),
        ("print", pa.int64()),
        ("file", pa.int64()),
        ("image_id", pa.int64()),
        ("product_id", pa.string()),
        ("image_uri", pa.string()),
    ]
)
"""Pictures by a key: the id of their fingerprint, which is 0 if there is none, or of their bytes."""

Spread = Callable[[Iterable[pa.Table]], Iterable[pa.Table]]
Combine = Callable[[pa.Table], pa.Table]
Meet = Callable[[Spread, pa.Schema, int, Combine], Iterable[pa.Table]]
"""A function that brings rows together by their `key` and returns what becomes of them.

Its arguments make the rows of `FINGERPRINTED`, their schema, how many they are for each picture, and combine all rows
of some keys.
"""

LEAST_ENOUGH = 100
"""Neighbours of a fingerprint that are looked for at least, however few products make a placeholder: those of one
product are many neighbours, too."""
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
    # Only the processes that see pictures import PyTorch.
    from atlas_ray.duplicates.fingerprints import fingerprint
    from atlas_ray.modalities.pictures import decode_batch

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


def find_duplicates(meet: Meet, config: DuplicateConfig) -> DuplicateReport:
    """Find the pictures that several products have, by their bytes and by their fingerprints.

    Pictures are joined if the bytes are the same or the fingerprints are near, transitively;
    products are joined if they have joined pictures. A picture of one colour has no fingerprint,
    and is compared by its bytes alone.

    Held at once is what concerns pictures that have their bytes or a near fingerprint in common with another: about
    1 KiB each.

    Args:
        meet: Brings together rows that are made of `FINGERPRINTED`, of a whole catalogue.
        config: What counts as a duplicate.
    """
    joined = Joined()
    limits = {"max_distance": config.max_distance, "enough": max(config.max_products, LEAST_ENOUGH)}
    spread = functools.partial(spread_bands, max_distance=config.max_distance)
    for block in meet(spread, BANDS, config.max_distance + 1, functools.partial(near_block, **limits)):
        joined.add(NearPairs(*(block[name].to_numpy() for name in NEAR.names)))
    near = joined.pairs()
    paired = np.unique(np.concatenate([near.left, near.right]))
    shared = meet(spread_copies, COPIES, 2, functools.partial(shared_block, paired=paired))
    pictures = pa.concat_tables([COPIES.empty_table(), *shared]).combine_chunks()
    _, first = np.unique(pictures["image_id"].to_numpy(), return_index=True)  # one may be shared in both ways
    return _report(pictures.take(pa.array(first)), near, config)


def spread_bands(tables: Iterable[pa.Table], max_distance: int) -> Iterator[pa.Table]:
    """Turn `FINGERPRINTED` into rows of `BANDS`: one for each different fingerprint and each of its bands but the last.

    So fingerprints that are near meet: each two have at least two bands in common.
    """
    for table in tables:
        words = _words(table["fingerprint"])
        words = words[np.unique(_ids(words), return_index=True)[1]]
        words = words[words.any(axis=1)]
        places = itertools.pairwise(band_edges(BITS, max_distance).tolist())
        for number, (low, high) in enumerate(itertools.islice(places, max_distance + 1)):
            keys = band(words, low, high) | np.uint64(number << BAND_BITS)
            yield pa.table([keys.astype(np.int64), fingerprint_column(words)], schema=BANDS)


def near_block(table: pa.Table, max_distance: int, enough: int) -> pa.Table:
    """Return the pairs, `NEAR`, among all fingerprints of some keys, `BANDS`; those that span, see `NearPairs`."""
    words = _words(table["fingerprint"])
    ids, first, which = np.unique(_ids(words), return_index=True, return_inverse=True)
    numbers = table["key"].to_numpy() >> BAND_BITS
    of_band = [np.unique(which[numbers == number]) for number in range(max_distance + 1)]
    pairs = near_pairs(words[first], max_distance, enough=enough, of_band=of_band)
    pairs = NearPairs(ids[pairs.left], ids[pairs.right], pairs.distance).spanning()
    return pa.table([pairs.left, pairs.right, pairs.distance], schema=NEAR)


def spread_copies(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Turn `FINGERPRINTED` into rows of `COPIES`: each picture by its bytes, and by its fingerprint if it has one."""
    for table in tables:
        words = _words(table["fingerprint"])
        prints = np.where(words.any(axis=1), _ids(words), 0)
        files = pc.binary_join_element_wise("0x", pc.utf8_slice_codeunits(table["sha256"], 0, 16), "")
        files = files.cast(pa.uint64()).to_numpy().astype(np.int64)
        columns = {
            "print": pa.array(prints),
            "file": pa.array(files),
            **{name: table[name] for name in COPIES.names[3:]},
        }
        by_file = pa.table({"key": columns["file"], **columns})
        by_print = pa.table({"key": columns["print"], **columns}).filter(pa.array(prints != 0))
        yield pa.concat_tables([by_file, by_print]).select(COPIES.names).cast(COPIES)


def shared_block(table: pa.Table, paired: Integers) -> pa.Table:
    """Return the pictures, of all those of some keys, that have bytes or a fingerprint in common, or a near one.

    Args:
        table: Rows of `COPIES`.
        paired: The fingerprints that are near to another, sorted.
    """
    ids = np.stack([table["key"].to_numpy(), table["image_id"].to_numpy()])
    _, once = np.unique(ids, axis=1, return_index=True)  # a catalogue may repeat a picture
    table = table.take(pa.array(once))
    _, which, sharing = np.unique(table["key"].to_numpy(), return_inverse=True, return_counts=True)
    return table.filter(pa.array((sharing[which] > 1) | np.isin(table["print"].to_numpy(), paired)))


def in_memory(pictures: pa.Table) -> Meet:
    """Return how rows made of a table meet in this process."""

    def meet(spread: Spread, schema: pa.Schema, _times: int, combine: Combine) -> Iterable[pa.Table]:
        return [combine(pa.concat_tables([schema.empty_table(), *spread([pictures])]).combine_chunks())]

    return meet


def _words(column: pa.ChunkedArray) -> Fingerprints:
    """Return fingerprints, (rows, WORDS)."""
    column = pa.concat_arrays([pa.array([], column.type), *column.chunks])
    return np.frombuffer(column.buffers()[1] or b"", np.uint64).reshape(-1, WORDS)[column.offset :][: len(column)]


def _ids(words: Fingerprints) -> Integers:
    """Return the ids of fingerprints, (rows,): a hash of 64 bits; among 100 million, two share one with 0.0003."""
    ids = np.zeros(len(words), np.uint64)
    for word in words.T:  # the finalizer of splitmix64, after each word
        ids = (ids ^ word) + np.uint64(0x9E3779B97F4A7C15)
        ids = (ids ^ ids >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        ids = (ids ^ ids >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        ids ^= ids >> np.uint64(31)
    return ids.view(np.int64)


def _report(pictures: pa.Table, near: NearPairs, config: DuplicateConfig) -> DuplicateReport:
    """Make the groups, of `COPIES`, each picture once, and the pairs of their fingerprints."""
    products = numbered(pictures["product_id"])[1]
    files = np.unique(pictures["file"].to_numpy(), return_inverse=True)[1]
    print_ids, prints = np.unique(pictures["print"].to_numpy(), return_inverse=True)
    pairs = np.stack([np.searchsorted(print_ids, near.left), np.searchsorted(print_ids, near.right)])  # (2, pairs)

    # A graph of fingerprints and files: each picture joins its own two, and near fingerprints are joined. What one
    # component of it shows are copies.
    has_print = np.flatnonzero(pictures["print"].to_numpy())
    own = np.stack([prints, files + len(print_ids)])  # (2, pictures)
    nodes = len(print_ids) + files.max(initial=-1) + 1
    components = _components(np.concatenate([pairs, own[:, has_print]], axis=1), nodes)
    closest = np.full(len(print_ids), BITS)
    closest[_distinct_products(prints, products) > 1] = 0
    for ends in pairs:
        np.minimum.at(closest, ends, near.distance)
    # Look-alikes form chains, and a long one is no group: where too many products come together, only pairs of half
    # the distance join.
    crowded = _distinct_products(components[own[1]], products)[components[pairs[0]]] > config.max_products
    pairs = pairs[:, ~crowded | (near.distance <= config.max_distance // 2)]
    copies = _components(np.concatenate([pairs, own[:, has_print]], axis=1), nodes)[own[1]]
    shared_by = _distinct_products(copies, products)[copies]
    duplicated = (shared_by > 1) & (shared_by <= config.max_products)

    # A graph of products and copies: each picture joins its product to what it is a copy of.
    first_copy = products.max(initial=-1) + 1
    shown = np.stack([products, copies + first_copy])[:, duplicated]
    groups = _components(shown, first_copy + nodes)[products]

    exact = _distinct_products(files, products)[files] > 1
    found = pictures.select(["product_id", "image_id", "image_uri"])
    found = found.append_column("group", pa.array(groups))
    found = found.append_column("kind", pa.array(np.where(exact, "exact", "near"), pa.string()))
    found = found.append_column("distance", pa.array(np.where(exact, 0, closest[prints])))
    found = _numbered(found.filter(pa.array(duplicated)))
    members = found.group_by(["product_id", "group"]).aggregate([])
    return DuplicateReport(
        duplicates=found.select(DUPLICATES.names).cast(DUPLICATES),
        groups=members.sort_by([("group", "ascending"), ("product_id", "ascending")]).cast(GROUPS),
        placeholders=_placeholders(pictures, copies, shared_by, config.max_products),
    )


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
    return (
        counted.rename_columns(PLACEHOLDERS.names)
        .cast(PLACEHOLDERS)
        .sort_by([("products", "descending"), ("image_id", "ascending")])
    )
