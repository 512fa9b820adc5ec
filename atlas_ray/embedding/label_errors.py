"""Likely label errors: products that are nearly identical and have different labels."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import Progress

from atlas_ray.embedding.index import COLUMNS, ProductIndex
from atlas_ray.embedding.settings import SimilarConfig
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.runs.embedded import open_embedded
from atlas_ray.runs.leaves import path_lengths, path_prefixes
from atlas_ray.schemas import LABEL_ERRORS, PATH_KEY_SEPARATOR, path_keys

TABLE = "label_errors.parquet"
QUERIES = 256


@holding("similar", "config.embeddings")
def find_label_errors(config: SimilarConfig) -> pa.Table:
    """Compare the label of every product with those of its nearest ones.

    Writes `label_errors.parquet` beside the embeddings, and holds no more than its rows and one batch.

    Returns:
        The same table: rows of `LABEL_ERRORS`, each pair once, at most `limit` of them.

    Raises:
        EmbeddingError: if the run is not finished.
    """
    embedded = open_embedded(config.embeddings)
    output = embedded.uri
    index = ProductIndex.open(output)
    pairs = LABEL_ERRORS.empty_table()
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("comparing", total=embedded.run["counts"]["products"])
        for batch in embedded.table(COLUMNS).batches(batch_rows=QUERIES):
            labelled = batch.filter(batch["category_path"].is_valid())
            if len(labelled):
                found = _pairs(index, labelled, config.k, config.min_similarity)
                pairs = _best(pa.concat_tables([pairs, found]), config.limit)
            progress.advance(task, len(batch))
    storage.write_table(storage.join(output, TABLE), pairs)
    return pairs


def _pairs(index: ProductIndex, products: pa.Table, k: int, min_similarity: float) -> pa.Table:
    """Return the pairs of some products with their nearest ones."""
    vectors = products["vector"].combine_chunks().flatten().to_numpy().reshape(len(products), -1)
    found = index.nearest(vectors, k + 1)
    own = products.take(found["query"])
    labels = [side["category_path"].combine_chunks() for side in (own, found)]
    # A label above the leaf does not contradict one below it: labels are compared as far as both go.
    level = np.minimum(*map(path_lengths, labels))
    label, other = (path_keys(path_prefixes(side, level)) for side in labels)
    # A product without a label compares as null, and is left out with what is not different.
    rows = pc.and_(pc.greater_equal(found["similarity"], min_similarity), pc.not_equal(label, other))
    found, own = found.filter(rows), own.filter(rows)
    names = ["product_id", "category_path"]
    sides = pa.concat_tables([own.select(names), found.select(names)], promote_options="default")
    here = np.arange(len(found))
    swapped = pc.greater(own["product_id"], found["product_id"]).to_numpy()
    first = sides.take(pa.array(np.where(swapped, here + len(found), here)))
    second = sides.take(pa.array(np.where(swapped, here, here + len(found))))
    return pa.table([*first.columns, *second.columns, found["similarity"]], names=LABEL_ERRORS.names).cast(LABEL_ERRORS)


def _best(pairs: pa.Table, limit: int) -> pa.Table:
    """Return the most similar pairs, each once."""
    pairs = pairs.sort_by(
        [("similarity", "descending"), ("product_id", "ascending"), ("other_product_id", "ascending")]
    )
    names = pc.binary_join_element_wise(pairs["product_id"], pairs["other_product_id"], PATH_KEY_SEPARATOR)
    _, first = np.unique(names.combine_chunks().dictionary_encode().indices.to_numpy(), return_index=True)
    return pairs.take(pa.array(np.sort(first)[:limit]))
