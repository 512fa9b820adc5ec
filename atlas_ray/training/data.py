"""Labelled pictures as a stream: the products table to decoded, labelled batches."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import ray.data
from ray.data import RandomSeedConfig

from atlas_ray import storage
from atlas_ray.errors import CatalogError, FetchError, PictureError
from atlas_ray.images import decode_batch
from atlas_ray.objects import ObjectReader
from atlas_ray.records import missing_columns
from atlas_ray.taxonomy import Taxonomy

DECODE_ROWS = 64
"""Pictures that one decoding task takes."""
MOST_REPEATS = 10


@dataclass(frozen=True)
class LabelledPictures:
    """A split's pictures: rows of (image_uri, label), label being a leaf's position."""

    dataset: ray.data.Dataset
    count: int
    """Pictures in it."""
    unusable: int
    """Products left out since their label is no leaf of the taxonomy."""
    leaf_counts: tuple[int, ...]
    """Its pictures by leaf, before any of them is repeated."""


def labelled_pictures(catalog: str, split: str, taxonomy: Taxonomy, *, repeat_rare: bool = False) -> LabelledPictures:
    """Open a split of a catalogue's labelled products.

    Args:
        catalog: Its URI.
        split: train, val or test.
        taxonomy: Its leaves are the labels.
        repeat_rare: Show pictures of leaves below the mean count n times as often, n being
            sqrt(mean / count), at most `MOST_REPEATS`.

    Raises:
        CatalogError: where there is no products table.
    """
    uri = storage.join(catalog, "products")
    if not storage.files(uri, suffix=".parquet"):
        raise CatalogError(f"{catalog}: no products table; make one with `atlas-ray import`")
    place = storage.locate(uri)
    labels = {path: position for position, path in enumerate(taxonomy.leaves)}
    explode = functools.partial(_explode, split=split, labels=labels)
    # One pass over the small columns, batch by batch, to know the length of an epoch.
    counts = np.zeros(len(labels), np.int64)
    unusable = 0
    columns = ["image_uris", "category_path", "split"]
    table = ds.dataset(place.path, filesystem=place.filesystem)
    if missing := missing_columns(table.schema, columns):
        raise CatalogError(f"{uri}: no column {missing[0]!r}; it has {table.schema.names[:12]}")
    for batch in table.to_batches(columns=columns):
        labelled = _labelled(pa.Table.from_batches([batch]), split)
        counts += np.bincount(explode(labelled)["label"].to_numpy(), minlength=len(labels))
        unusable += sum(tuple(path) not in labels for path in labelled["category_path"].to_pylist())
    count = int(counts.sum())
    if repeat_rare and count:
        there = np.maximum(counts, 1)
        repeats = np.clip(np.rint(np.sqrt(counts[counts > 0].mean() / there)), 1, MOST_REPEATS).astype(np.int64)
        explode = functools.partial(_explode, split=split, labels=labels, repeats=repeats)
        count = int((counts * repeats).sum())
    dataset = ray.data.read_parquet(place.path, filesystem=place.filesystem).select_columns(columns)
    # Read once: the rows are names and labels, and each epoch starts from them in the object store.
    rows = dataset.map_batches(explode, batch_format="pyarrow", batch_size=None).materialize()
    return LabelledPictures(rows, count, unusable, tuple(counts.tolist()))


def _labelled(table: pa.Table, split: str) -> pa.Table:
    return table.filter(pc.and_(pc.equal(table["split"], split), pc.is_valid(table["category_path"])))


def _explode(
    table: pa.Table,
    split: str,
    labels: dict[tuple[str, ...], int],
    repeats: "np.ndarray[Any, np.dtype[np.int64]] | None" = None,
) -> pa.Table:
    """Products to pictures of one split, repeated by leaf; a label that is no leaf drops out."""
    chosen = _labelled(table, split).combine_chunks()
    paths = chosen["category_path"].to_pylist()
    label = np.array([labels.get(tuple(path), -1) for path in paths], dtype=np.int64)
    uris = chosen["image_uris"].combine_chunks()
    owner = uris.value_parent_indices().to_numpy()
    keep = label[owner] >= 0
    kept = np.flatnonzero(keep)
    if repeats is not None:
        kept = np.repeat(kept, repeats[label[owner][kept]])
    return pa.table({"image_uri": uris.flatten().take(pa.array(kept)), "label": pa.array(label[owner][kept])})


def decoded(pictures: LabelledPictures, image_size_px: int, *, shuffle_seed: int | None) -> ray.data.Dataset:
    """Add the fetching and decoding of the pictures, shuffled anew each epoch where a seed is given.

    Rows: `pixels` (3, size, size) uint8, `label` int64, `image_uri`, and `refused`, "" or the code
    and message of why the picture is only zeros.
    """
    dataset = pictures.dataset
    if shuffle_seed is not None:
        # The rows are names and labels, a few bytes each: shuffling all of them is cheap.
        dataset = dataset.random_shuffle(seed=RandomSeedConfig(seed=shuffle_seed, reseed_after_execution=True))
    decode = functools.partial(_decode_rows, image_size_px=image_size_px)
    dataset = dataset.repartition(target_num_rows_per_block=DECODE_ROWS)
    return dataset.map_batches(decode, batch_size=None, batch_format="pyarrow")


@functools.cache
def _reader() -> ObjectReader:
    """The reader of this worker process: its threads and connections serve many tasks."""
    return ObjectReader(threads=8)


def _decode_rows(table: pa.Table, image_size_px: int) -> dict[str, Any]:
    uris = table["image_uri"].to_pylist()
    contents = _reader().read_many(uris)
    pixels, refused = decode_batch(
        [content if isinstance(content, bytes) else b"" for content in contents], image_size_px
    )
    errors: dict[int, FetchError | PictureError] = dict(refused)
    errors |= {i: content for i, content in enumerate(contents) if isinstance(content, FetchError)}
    return {
        "pixels": pixels.numpy(),
        "label": table["label"].to_numpy(),
        "image_uri": np.array(uris, dtype=object),
        "refused": np.array([str(errors.get(i, "")) for i in range(len(uris))], dtype=object),
    }
