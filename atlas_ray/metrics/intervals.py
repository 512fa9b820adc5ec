"""Bootstrap confidence intervals of the measures of paths (Efron 1979, percentile method)."""

from collections.abc import Mapping

import numpy as np

from atlas_ray.arrays import Array
from atlas_ray.metrics.paths import common_prefix
from atlas_ray.taxonomy import CategoryPath

REPLICATES = 1_000
MAX_CELLS = 2_000_000
"""The most counts that are drawn at a time, which bounds the memory."""
LEVEL = 0.95


def intervals(
    pairs: Mapping[tuple[CategoryPath, CategoryPath | None], int], *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the 95% intervals of `exact`, `hierarchical_f1`, `macro_f1` and `level_1` and so on.

    To draw products with replacement is to draw how often each pair of paths comes up, so that the
    cost is that of the different pairs, and not of the products.

    Args:
        pairs: How many products have each (true, predicted) pair; None if there is no prediction.
        seed: Of the draws.
    """
    from scipy.sparse import csr_matrix

    listed = list(pairs)
    count = np.array([pairs[pair] for pair in listed], np.float64)
    total = int(count.sum())
    number: dict[CategoryPath, int] = {}
    true = np.array([number.setdefault(path, len(number)) for path, _ in listed])
    guess = np.array([-1 if path is None else number.setdefault(path, len(number)) for _, path in listed])
    deep = np.array([len(path) for path, _ in listed])
    guess_deep = np.array([len(path or ()) for _, path in listed])
    shared = np.array([common_prefix(path, other or ()) for path, other in listed])
    exact = true == guess
    rows = np.arange(len(listed))
    of_true = csr_matrix((np.ones(len(listed)), (rows, true)), (len(listed), len(number)))
    guessed = guess >= 0
    of_guess = csr_matrix((np.ones(int(guessed.sum())), (rows[guessed], guess[guessed])), of_true.shape)

    def measures(drawn: Array) -> dict[str, Array]:
        """Return each measure of (replicates, pairs) counts."""
        values = {"exact": drawn @ exact / total}
        for level in range(1, int(deep.max()) + 1):
            have = drawn @ (deep >= level)
            values[f"level_{level}"] = drawn @ ((shared >= level) & (deep >= level)) / np.maximum(have, 1)
        # The names of the longest common prefix, of those said and of those that are true.
        values["hierarchical_f1"] = 2 * (drawn @ shared) / (drawn @ (deep + guess_deep))
        support, predicted, hits = drawn @ of_true, drawn @ of_guess, (drawn * exact) @ of_true
        f1 = 2 * hits / np.maximum(support + predicted, 1)
        values["macro_f1"] = (f1 * (support > 0)).sum(1) / np.maximum((support > 0).sum(1), 1)
        return values

    random = np.random.default_rng(seed)
    at_once = max(1, MAX_CELLS // len(listed))
    parts = [
        measures(random.multinomial(total, count / total, size=min(at_once, REPLICATES - start)).astype(np.float64))
        for start in range(0, REPLICATES, at_once)
    ]
    edges = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    bounds = {name: np.quantile(np.concatenate([part[name] for part in parts]), edges) for name in parts[0]}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
