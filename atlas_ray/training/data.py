"""Labelled examples as a stream: the products table to batches of decoded pictures or of words."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from ray.data import RandomSeedConfig

from atlas_ray.errors import CatalogError, FetchError, PictureError
from atlas_ray.formats.fitted import product_keys
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.io.objects import ObjectReader
from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.modalities.texts import WordCount, WordIndex
from atlas_ray.runtime.settings import OUTAGE_S
from atlas_ray.runtime.source import read_table
from atlas_ray.schemas import PRODUCTS
from atlas_ray.taxonomy import CategoryPath, Taxonomy

BLOCK_ROWS = 64
"""Examples that one task of decoding takes."""
MOST_REPEATS = 10


@dataclass(frozen=True)
class Labelled:
    """A split's examples: rows of (name, label), label being a leaf's position, and of texts also `text`."""

    stream: Callable[[], ray.data.Dataset]
    """Begins to read them, on Ray; what the other fields say is known without it."""
    count: int
    """Examples in it."""
    unusable: int
    """Products left out since their label is no leaf of the taxonomy."""
    leaf_counts: tuple[int, ...]
    """Its examples by leaf, before any of them is repeated."""
    leaf_products: tuple[int, ...]
    """Its products by leaf."""
    inner: Counter[CategoryPath]
    """Products left out, by their label."""
    products: "np.ndarray[Any, np.dtype[np.uint64]]"
    """Keys of the products that its examples are of (`atlas_ray.formats.fitted.product_keys`)."""
    unusable_rows: int
    """Rows of the products table, of all splits, that are no product."""
    losses: tuple[str, ...]
    """A line about these rows, and about each column with values that cannot be read."""

    @functools.cached_property
    def dataset(self) -> ray.data.Dataset:
        """The rows, read once, when they are first asked for: each epoch starts from them in the object store."""
        read: ray.data.Dataset = self.stream().materialize()
        return read


def labelled_pictures(catalog: str, split: str, taxonomy: Taxonomy, *, repeat_rare: bool = False) -> Labelled:
    """Open the pictures of a split of a catalogue's labelled products; a row's name is the picture's URI.

    Args:
        catalog: Its URI.
        split: train, val or test.
        taxonomy: Its leaves are the labels.
        repeat_rare: Show examples of leaves below the mean count n times as often, n being
            sqrt(mean / count), at most `MOST_REPEATS`.

    Raises:
        CatalogError: where there is no products table, or it lacks a column.
    """
    return _labelled(catalog, split, taxonomy, "image_uris", repeat_rare=repeat_rare)


def labelled_texts(catalog: str, split: str, taxonomy: Taxonomy, field: str, *, repeat_rare: bool = False) -> Labelled:
    """Open the titles or descriptions of labelled products; a row's name is the product's id.

    As `labelled_pictures`. A product without the text stays: what its model answers then is of use.
    """
    return _labelled(catalog, split, taxonomy, field, repeat_rare=repeat_rare)


def _labelled(catalog: str, split: str, taxonomy: Taxonomy, source: str, *, repeat_rare: bool) -> Labelled:
    columns = ["product_id", source, "category_path", "split"]
    table = open_table(storage.join(catalog, "products"), PRODUCTS, columns=columns, needed=columns, foreign=True)
    labels = taxonomy.leaf_positions
    explode = functools.partial(_explode, source=source, split=split, labels=labels)
    # One pass over the small columns, batch by batch, to know the length of an epoch.
    counts, products = np.zeros((2, len(labels)), np.int64)
    inner, keys = Counter[CategoryPath](), [np.zeros(0, np.uint64)]
    for batch in table.batches():
        chosen = _of_split(batch, split)
        counts += np.bincount(explode(chosen)["label"].to_numpy(), minlength=len(labels))
        leaf = _leaves(chosen, labels)
        products += np.bincount(leaf[leaf >= 0], minlength=len(labels))
        inner.update(tuple(path) for path in chosen["category_path"].filter(pa.array(leaf < 0)).to_pylist())
        used = (leaf >= 0) & _has_example(chosen[source])
        keys.append(product_keys(chosen["product_id"].filter(pa.array(used)).to_pylist()))
    count = int(counts.sum())
    if repeat_rare and count:
        there = np.maximum(counts, 1)
        repeats = np.clip(np.rint(np.sqrt(counts[counts > 0].mean() / there)), 1, MOST_REPEATS).astype(np.int64)
        explode = functools.partial(explode, repeats=repeats)
        count = int((counts * repeats).sum())

    def stream() -> ray.data.Dataset:
        # A task a file: cut finer, as it is by default, a small catalogue starts processes that have one block to do.
        read = read_table(table, columns, blocks=max(len(table.files), 1))
        return read.map_batches(explode, batch_format="pyarrow", batch_size=None)

    fitted, rows = np.unique(np.concatenate(keys), return_counts=True)
    if (rows > 1).any():
        raise CatalogError(_repeated(table, fitted[rows > 1], split))
    return Labelled(
        stream, count, inner.total(), tuple(counts.tolist()), tuple(products.tolist()), inner, fitted,
        table.unusable_rows, tuple(table.losses),
    )  # fmt: skip


def _repeated(table: Table, keys: "np.ndarray[Any, np.dtype[np.uint64]]", split: str) -> str:
    """Return in a sentence that products have several rows, given the keys of those, and how to come by one each."""
    batches = (batch["product_id"].to_pylist() for batch in table.batches(["product_id"]))
    example = next(name for ids in batches for name in np.array(ids)[np.isin(product_keys(ids), keys)].tolist())
    return (
        f"{table.uri}: {len(keys)} labelled products of the split {split!r} have several rows, such as {example!r}, "
        "and would count several times; keep one row of each (`atlas-ray select` with a list of the products does)"
    )


def _has_example(column: pa.ChunkedArray) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Return which products have a picture; with a text all do, an empty one too."""
    if not pa.types.is_list(column.type):
        return np.ones(len(column), bool)
    there: np.ndarray[Any, np.dtype[np.bool_]] = pc.greater(pc.list_value_length(column).fill_null(0), 0).to_numpy()
    return there


def _of_split(table: pa.Table, split: str) -> pa.Table:
    return table.filter(pc.and_(pc.equal(table["split"], split), pc.is_valid(table["category_path"])))


def _leaves(products: pa.Table, labels: dict[tuple[str, ...], int]) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return the position of each product's leaf; -1 where its label is none."""
    return np.array([labels.get(tuple(path), -1) for path in products["category_path"].to_pylist()], dtype=np.int64)


def _explode(
    table: pa.Table,
    source: str,
    split: str,
    labels: dict[tuple[str, ...], int],
    repeats: "np.ndarray[Any, np.dtype[np.int64]] | None" = None,
) -> pa.Table:
    """Products to examples of one split, repeated by leaf; a label that is no leaf drops out."""
    chosen = _of_split(table, split).combine_chunks()
    label = _leaves(chosen, labels)
    pictures = source == "image_uris"
    uris = chosen["image_uris"].combine_chunks() if pictures else None
    owner = np.arange(len(chosen)) if uris is None else uris.value_parent_indices().to_numpy()
    kept = np.flatnonzero(label[owner] >= 0)
    if repeats is not None:
        kept = np.repeat(kept, repeats[label[owner][kept]])
    rows, found = pa.array(kept), pa.array(label[owner][kept])
    if uris is not None:
        return pa.table({"name": uris.flatten().take(rows), "label": found})
    text = chosen[source].take(rows)
    return pa.table({"name": chosen["product_id"].take(rows), "text": text, "label": found})


def with_pixels(
    pictures: Labelled, image_size_px: int, limits: PictureLimits, *, shuffle_seed: int | None
) -> ray.data.Dataset:
    """Add the fetching and decoding of pictures, shuffled anew each epoch where a seed is given.

    Rows: `inputs` (3, size, size) uint8, `label` int64, `name`, and `refused`, "" or the code and
    message of why the picture is only zeros.
    """
    decode = functools.partial(_decode_rows, image_size_px=image_size_px, limits=limits)
    return _streamed(pictures, decode, shuffle_seed)


def with_words(texts: Labelled, index: WordIndex, *, shuffle_seed: int | None) -> ray.data.Dataset:
    """Turn texts into words, shuffled anew each epoch where a seed is given.

    Rows: `inputs` (length,) int32, `label` int64, `name`, and `refused`, which is "".
    """
    return _streamed(texts, functools.partial(_encode_rows, index=index), shuffle_seed)


def _streamed(rows: Labelled, encode: Any, shuffle_seed: int | None) -> ray.data.Dataset:
    dataset = rows.dataset
    if shuffle_seed is not None:
        # The rows are names and labels, a few bytes each: shuffling all of them is cheap.
        dataset = dataset.random_shuffle(seed=RandomSeedConfig(seed=shuffle_seed, reseed_after_execution=True))
    dataset = dataset.repartition(target_num_rows_per_block=BLOCK_ROWS)
    return dataset.map_batches(encode, batch_size=None, batch_format="pyarrow")


def common_words(texts: Labelled, field: str, *, limit: int, min_count: int) -> list[str]:
    """Return the words of at least `min_count` of the texts, the most common first, at most `limit`."""
    count = WordCount(field)
    batches: Iterable[pa.Table] = texts.dataset.iter_batches(batch_format="pyarrow", batch_size=None)
    for batch in batches:
        count.add(batch["text"].to_pylist())
    return count.most_common(limit, min_count=min_count)


@functools.cache
def _reader() -> ObjectReader:
    """The reader of this worker process: its threads and connections serve many tasks.

    It waits for a store that is away: an epoch of the pictures that happened to come would be another training.
    """
    return ObjectReader(threads=8, outage_s=OUTAGE_S)


def _decode_rows(table: pa.Table, image_size_px: int, limits: PictureLimits) -> dict[str, Any]:
    # PyTorch is imported where pictures are decoded, and not in Ray's processes that only plan the stream.
    from atlas_ray.modalities.pictures import decode_batch

    uris = table["name"].to_pylist()
    contents = _reader().read_many(uris)
    pixels, refused = decode_batch(
        [content if isinstance(content, bytes) else b"" for content in contents], image_size_px, limits=limits
    )
    errors: dict[int, FetchError | PictureError] = dict(refused)
    errors |= {i: content for i, content in enumerate(contents) if isinstance(content, FetchError)}
    return {
        "inputs": pixels.numpy(),
        "label": table["label"].to_numpy(),
        "name": np.array(uris, dtype=object),
        "refused": np.array([str(errors.get(i, "")) for i in range(len(uris))], dtype=object),
    }


def _encode_rows(table: pa.Table, index: WordIndex) -> dict[str, Any]:
    return {
        "inputs": index.encode(table["text"].to_pylist()),
        "label": table["label"].to_numpy(),
        "name": np.array(table["name"].to_pylist(), dtype=object),
        "refused": np.full(len(table), "", dtype=object),
    }
