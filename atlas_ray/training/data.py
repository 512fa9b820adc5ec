"""Labelled examples, streamed from the products table as batches of decoded pictures or of words."""

import functools
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from ray.data import RandomSeedConfig

from atlas_ray.arrays import Integers
from atlas_ray.errors import CatalogError, FetchError, PictureError
from atlas_ray.formats.fitted import product_keys
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.io.objects import ObjectReader
from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.modalities.tokens import TextIndex
from atlas_ray.runtime.settings import OUTAGE_S
from atlas_ray.runtime.source import read_table
from atlas_ray.runtime.tables import label_pairs
from atlas_ray.schemas import PRODUCTS
from atlas_ray.taxonomy import CategoryPath, LabelSpace, Taxonomy
from atlas_ray.taxonomy.labels import Targets, united

BLOCK_ROWS, LARGEST_BLOCK_ROWS = 64, 256
"""Number of examples that a decoding task takes at least, and at most."""
READ_THREADS = 32
"""Pictures that a decoding process reads at once, of which each of a distant store takes 40 ms and more."""
MAX_REPEATS = 10
"""The most times that an example of a rare leaf is shown in an epoch."""


@dataclass(frozen=True)
class Labelled:
    """The examples of a split: rows of `name`, `labels`, and for texts `text`.

    `labels` are positions of `Taxonomy.label_positions`: a product's first one, which may be above the leaf, or for a
    model of labels all that are leaves.
    """

    stream: Callable[[], ray.data.Dataset]
    """Starts to read the rows on Ray. The other fields are known without it."""
    count: int
    """Number of examples, with repeated ones."""
    unusable: int
    """Number of products left out because the taxonomy has no such path, or for a model of labels no such leaf."""
    leaf_counts: tuple[int, ...]
    """Number of examples of each leaf, before any of them is repeated; of a product's leaves the first counts."""
    above: int
    """Number of examples that are labelled above the leaf."""
    label_products: tuple[int, ...]
    """Number of products of each label of the taxonomy; only for a model of labels."""
    inner: Counter[CategoryPath]
    """Number of products left out, by their first label."""
    products: "np.ndarray[Any, np.dtype[np.uint64]]"
    """Keys of the products that the examples belong to (`atlas_ray.formats.fitted.product_keys`)."""
    unusable_rows: int
    """Number of rows of the products table, of all splits, without a key."""
    losses: tuple[str, ...]
    """A line about these rows, and one about each column with values that cannot be read."""

    @functools.cached_property
    def dataset(self) -> ray.data.Dataset:
        """The rows, read when they are first used; each epoch starts from them in the object store."""
        rows: ray.data.Dataset = self.stream().materialize()
        return rows


def labelled_pictures(
    catalog: str, split: str, taxonomy: Taxonomy, *, several: bool = False, repeat_rare: bool = False
) -> Labelled:
    """Open the pictures of the labelled products of a split; the name of a row is the picture's URI.

    Args:
        catalog: The URI of the catalogue.
        split: train, val or test.
        taxonomy: The taxonomy whose leaves are the labels.
        several: Take the leaves of all category paths of a product, and not of the first alone: for a model of labels.
        repeat_rare: Repeat the examples of a leaf below the mean count sqrt(mean / count) times, at most
            `MAX_REPEATS`. Those labelled above the leaf are shown once: nobody knows how rare their leaf is.

    Raises:
        CatalogError: if there is no products table, or it lacks a column.
    """
    return _labelled(catalog, split, taxonomy, "image_uris", several=several, repeat_rare=repeat_rare)


def labelled_texts(
    catalog: str, split: str, taxonomy: Taxonomy, field: str, *, several: bool = False, repeat_rare: bool = False
) -> Labelled:
    """Open the titles or descriptions of labelled products; the name of a row is the product's id.

    As `labelled_pictures`. Products without the text are kept, because a model should also answer for them.
    """
    return _labelled(catalog, split, taxonomy, field, several=several, repeat_rare=repeat_rare)


def _labelled(
    catalog: str, split: str, taxonomy: Taxonomy, source: str, *, several: bool, repeat_rare: bool
) -> Labelled:
    needed = ["product_id", source, "category_path", "split"]
    columns = [*needed, "category_paths"] if several else needed
    table = open_table(storage.join(catalog, "products"), PRODUCTS, columns=columns, needed=needed, foreign=True)
    # What a model of labels would have to answer below a node is not known.
    positions = taxonomy.leaf_positions if several else taxonomy.label_positions
    explode = functools.partial(_explode, source=source, split=split, positions=positions, several=several)
    space = LabelSpace(taxonomy) if several else None
    labels_of = pa.array([space.of(path) if space else [] for path in taxonomy.leaves], pa.list_(pa.int64()))
    # One pass over the small columns, batch by batch, gives the length of an epoch.
    counts, products = np.zeros(len(positions), np.int64), np.zeros(len(space) if space else 0, np.int64)
    inner, keys = Counter[CategoryPath](), [np.zeros(0, np.uint64)]
    for batch in table.batches():
        chosen = _of_split(batch, split)
        counts += np.bincount(_first(explode(chosen)["labels"]), minlength=len(positions))
        row, label = label_pairs(chosen, positions, several=several)
        if space is not None:
            products += _label_counts(row, labels_of.take(pa.array(label)), len(space))
        placed = np.isin(np.arange(len(chosen)), row)
        inner.update(tuple(path) for path in chosen["category_path"].filter(pa.array(~placed)).to_pylist())
        used = placed & _has_example(chosen[source])
        keys.append(product_keys(chosen["product_id"].filter(pa.array(used)).to_pylist()))
    count, leaf_counts = int(counts.sum()), counts[: len(taxonomy.leaves)]
    if repeat_rare:
        repeats = repeats_of(leaf_counts, len(positions))
        explode = functools.partial(explode, repeats=repeats)
        count = int((counts * repeats).sum())

    def stream() -> ray.data.Dataset:
        # One task for each file. By default a small catalogue is cut finer, and starts processes for one block each.
        read = read_table(table, columns, blocks=max(len(table.files), 1))
        return read.map_batches(explode, batch_format="pyarrow", batch_size=None)

    fitted, rows = np.unique(np.concatenate(keys), return_counts=True)
    if (rows > 1).any():
        raise CatalogError(_repeated(table, fitted[rows > 1], split))
    return Labelled(
        stream, count, inner.total(), tuple(leaf_counts.tolist()), int(counts.sum() - leaf_counts.sum()),
        tuple(products.tolist()), inner, fitted, table.unusable_rows, tuple(table.losses),
    )  # fmt: skip


def repeats_of(counts: Integers, labels: int) -> Integers:
    """Return how often to show the examples of each label, (labels,).

    It is sqrt(mean / count) for a leaf, at most `MAX_REPEATS`, and 1 for a label above the leaf.

    Args:
        counts: (leaves,) the number of examples of each leaf.
        labels: How many labels there are, the leaves first.
    """
    repeats = np.ones(labels, np.int64)
    if counts.any():
        scarcity = counts[counts > 0].mean() / np.maximum(counts, 1)
        repeats[: len(counts)] = np.clip(np.rint(np.sqrt(scarcity)), 1, MAX_REPEATS)
    return repeats


def _repeated(table: Table, keys: "np.ndarray[Any, np.dtype[np.uint64]]", split: str) -> str:
    """Return the message about products with several rows, given their keys."""
    batches = (batch["product_id"].to_pylist() for batch in table.batches(["product_id"]))
    example = next(name for ids in batches for name in np.array(ids)[np.isin(product_keys(ids), keys)].tolist())
    return (
        f"{table.uri}: {len(keys)} labelled products of the split {split!r} have several rows, such as {example!r}, "
        "and would count several times; keep one row of each (`atlas-ray select` with a list of the products does)"
    )


def _has_example(column: pa.ChunkedArray) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Return which products have a picture; in a column of texts every product has an example."""
    if not pa.types.is_list(column.type):
        return np.ones(len(column), bool)
    pictured: np.ndarray[Any, np.dtype[np.bool_]] = pc.greater(pc.list_value_length(column).fill_null(0), 0).to_numpy()
    return pictured


def _of_split(table: pa.Table, split: str) -> pa.Table:
    return table.filter(pc.and_(pc.equal(table["split"], split), pc.is_valid(table["category_path"])))


def _label_counts(row: Integers, labels: pa.Array, count: int) -> Integers:
    """Count the products that have each of `count` labels; a product's label counts once, whatever its paths.

    Args:
        row: (pairs,) the product of each leaf.
        labels: (pairs,) a list of labels for each leaf.
        count: How many labels there are.
    """
    owner = row[labels.value_parent_indices().to_numpy()]
    pairs = np.unique(owner * count + labels.flatten().to_numpy())
    return np.bincount(pairs % count, minlength=count)


def _first(labels: pa.ChunkedArray) -> Integers:
    """Return the first of each example's labels."""
    first: Integers = pc.list_element(labels, 0).to_numpy()
    return first


def _explode(
    table: pa.Table,
    source: str,
    split: str,
    positions: dict[CategoryPath, int],
    several: bool,
    repeats: Integers | None = None,
) -> pa.Table:
    """Turn products into the examples of a split, repeated by label; products without a position are dropped."""
    chosen = _of_split(table, split).combine_chunks()
    row, label = label_pairs(chosen, positions, several=several)
    placed, first = np.unique(row, return_index=True)
    chosen = chosen.take(pa.array(placed)).combine_chunks()
    labels = pa.ListArray.from_arrays(pa.array([*first, len(label)], pa.int32()), pa.array(label))
    uris = chosen["image_uris"].combine_chunks() if source == "image_uris" else None
    owner = np.arange(len(chosen)) if uris is None else uris.value_parent_indices().to_numpy()
    kept = np.arange(len(owner))
    if repeats is not None:
        kept = np.repeat(kept, repeats[label[first]][owner])
    rows, taken = pa.array(kept), labels.take(pa.array(owner[kept]))
    if uris is not None:
        return pa.table({"name": uris.flatten().take(rows), "labels": taken})
    text = chosen[source].take(rows)
    return pa.table({"name": chosen["product_id"].take(rows), "text": text, "labels": taken})


def block_rows(batch_size: int) -> int:
    """Return how many examples a decoding task takes for batches of a size: a quarter of one.

    A task costs the driver some milliseconds, and GPUs take tens of thousands of pictures a second in large batches.
    """
    return min(max(batch_size // 4, BLOCK_ROWS), LARGEST_BLOCK_ROWS)


def with_pixels(
    pictures: Labelled,
    image_size_px: int,
    limits: PictureLimits,
    has: Targets | None,
    *,
    shuffle_seed: int | None,
    rows: int = BLOCK_ROWS,
) -> ray.data.Dataset:
    """Fetch and decode pictures; with a seed they are shuffled anew each epoch.

    Rows: `inputs` (3, size, size) uint8, `label`, `name`, and `refused`, which is "", or the code and message of a
    picture that could not be used and is all zeros. `label` is a position of `Taxonomy.label_positions`, or with `has`,
    (leaves, labels), the labels of all leaves, (labels,) bool.
    """
    decode = functools.partial(_decode_rows, image_size_px=image_size_px, limits=limits, has=has)
    return _streamed(pictures, decode, shuffle_seed, rows)


def with_words(
    texts: Labelled,
    index: TextIndex,
    has: Targets | None,
    *,
    shuffle_seed: int | None,
    rows: int = BLOCK_ROWS,
) -> ray.data.Dataset:
    """Turn texts into words or tokens; with a seed they are shuffled anew each epoch.

    Rows: `inputs` (length,) int32, `name`, `refused`, which is "", and `label` as in `with_pixels`.
    """
    return _streamed(texts, functools.partial(_encode_rows, index=index, has=has), shuffle_seed, rows)


def shuffled(dataset: ray.data.Dataset, *, shuffle_seed: int) -> ray.data.Dataset:
    """Shuffle a dataset, anew each time that it is read."""
    return dataset.random_shuffle(seed=RandomSeedConfig(seed=shuffle_seed, reseed_after_execution=True))


class EachStart:
    """The training examples, in another order each time that Ray Train starts its workers.

    Ray counts the readings of a dataset from the start of the workers. With one seed, workers that go on from a
    checkpoint would see the first epoch's first examples again, and after many stops those alone.
    """

    def __init__(self, examples: Callable[..., ray.data.Dataset], seed: int, *, goes_on: bool) -> None:
        """Keep how the examples are read.

        Args:
            examples: Returns them, given `shuffle_seed`.
            seed: The seed of a run's first start; each later one draws its own.
            goes_on: Whether the run was started before.
        """
        self._examples, self._seed = examples, seed
        self._goes_on = goes_on

    def __call__(self) -> ray.data.Dataset:
        """Return the examples for workers that start."""
        seed = secrets.randbits(31) if self._goes_on else self._seed
        self._goes_on = True
        return self._examples(shuffle_seed=seed)


def _label(labels: pa.ChunkedArray, has: Targets | None) -> "np.ndarray[Any, Any]":
    """Return the label of each example, as in `with_pixels`."""
    lists = labels.combine_chunks()
    first = lists.offsets.to_numpy()[:-1] - lists.offsets[0].as_py()
    label = lists.flatten().to_numpy()
    return label[first] if has is None else united(has, label, first)


def _streamed(examples: Labelled, encode: Any, shuffle_seed: int | None, rows: int) -> ray.data.Dataset:
    # The rows are names and positions of a few bytes, so it is cheap to shuffle all of them.
    dataset = examples.dataset if shuffle_seed is None else shuffled(examples.dataset, shuffle_seed=shuffle_seed)
    dataset = dataset.repartition(target_num_rows_per_block=rows)
    return dataset.map_batches(encode, batch_size=None, batch_format="pyarrow")


@functools.cache
def _reader() -> ObjectReader:
    """Return the reader of this worker process, whose threads and connections serve many tasks.

    It waits for a store that is away: an epoch of only the pictures that could be read would be another training.
    """
    return ObjectReader(threads=READ_THREADS, outage_s=OUTAGE_S)


def _decode_rows(table: pa.Table, image_size_px: int, limits: PictureLimits, has: Targets | None) -> dict[str, Any]:
    # Only the processes that decode pictures import PyTorch, and not those that plan the stream.
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
        "label": _label(table["labels"], has),
        "name": np.array(uris, dtype=object),
        "refused": np.array([str(errors.get(i, "")) for i in range(len(uris))], dtype=object),
    }


def _encode_rows(table: pa.Table, index: TextIndex, has: Targets | None) -> dict[str, Any]:
    return {
        "inputs": index.encode(table["text"].to_pylist()),
        "label": _label(table["labels"], has),
        "name": np.array(table["name"].to_pylist(), dtype=object),
        "refused": np.full(len(table), "", dtype=object),
    }
