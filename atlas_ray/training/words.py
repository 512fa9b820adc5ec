"""The words of a training's texts: the vocabulary of its model, and how much of them has a word vector."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from atlas_ray.arrays import Integers
from atlas_ray.modalities.texts import FIRST, PAD, WordCount, WordIndex
from atlas_ray.training.data import Labelled


def common_words(texts: Labelled, field: str, *, limit: int, min_count: int) -> list[str]:
    """Return the words of at least `min_count` of the texts, the most common first, at most `limit`."""
    count = WordCount(field)
    for batch in _batches(texts):
        count.add(batch["text"].to_pylist())
    return count.most_common(limit, min_count=min_count)


def vector_coverage(texts: Labelled, words: WordIndex, found: Integers) -> dict[str, float]:
    """Return how much of a training's texts the word vectors of a file cover.

    Args:
        texts: The training texts.
        words: The vocabulary.
        found: The numbers of its words that are in the file.

    Returns:
        `words_with_vectors`, the share of the vocabulary's words, and `tokens_with_vectors`, the share of all words of
        the texts, each as often as it is read. A word outside the vocabulary has no vector.
    """
    counts = np.zeros(len(words), np.int64)
    for batch in _batches(texts):
        counts += np.bincount(words.encode(batch["text"].to_pylist()).reshape(-1), minlength=len(words))
    counts[PAD] = 0
    return {
        "words_with_vectors": len(found) / (len(words) - FIRST),
        "tokens_with_vectors": float(counts[found].sum() / max(counts.sum(), 1)),
    }


def _batches(texts: Labelled) -> Iterable[pa.Table]:
    batches: Iterable[pa.Table] = texts.dataset.iter_batches(batch_format="pyarrow", batch_size=None)
    return batches
