"""Accuracy of category paths: exact, per level, hierarchical, and per path."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from atlas_ray.taxonomy import CategoryPath


@dataclass(frozen=True)
class PathRow:
    """The figures of one category path."""

    path: CategoryPath
    precision: float
    """The share of products predicted as this path that are of it; 0 if none was predicted."""
    recall: float
    """The share of products of this path that are predicted as it; 0 if there are none."""
    f1: float
    support: int
    """The number of products of this path."""
    predicted: int
    """The number of products predicted as this path."""

    @property
    def missed(self) -> int:
        """Products whose path it is and that were predicted as another, or not at all."""
        return round(self.support * (1 - self.recall))


@dataclass(frozen=True)
class Confusion:
    """A category path that is predicted in the place of another one."""

    true: CategoryPath
    predicted: CategoryPath
    products: int


@dataclass(frozen=True)
class PathMetrics:
    """The figures of a set of products."""

    products: int
    unscored: int
    """The number of products without a prediction, which count as wrong."""
    exact: float
    """Share of products with the whole path right: micro-F1 for one path a product."""
    levels: tuple[float, ...]
    """Share of the products that have a level whose names down to it are right, level 1 first."""
    hierarchical_f1: float
    """Micro-averaged over the names of the longest common prefix (MLPerf product catalogue)."""
    macro_f1: float
    """Mean F1 over the paths with support."""
    level_macro_f1: tuple[float, ...]
    """Mean F1 over the paths cut off at each level, level 1 first."""
    paths: tuple[PathRow, ...]
    """One row a path that is true or predicted somewhere, most support first."""
    confusion: Confusion | None = None
    """The most frequent confusion; None if every prediction is right."""
    calibration_error: float = 0.0
    """Expected calibration error of the whole path's probability, over the scored products."""
    calibration_by_chance: float = 0.0
    """About what that error is on as many products if the probabilities are right."""
    level_calibration_errors: tuple[float, ...] = ()
    """Expected calibration error of each level's probability, level 1 first."""
    answered: float = 1.0
    """Share of products with an answer: all that are scored, if no target precision was given."""
    precision: float = 0.0
    """Share of the answers that hold: of the path, or of the ancestor of it that was answered with."""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """95% bootstrap intervals of `exact`, `hierarchical_f1`, `macro_f1`, `level_1` and so on."""
    fitted: int = 0
    """The number of products that the model was fitted on, which prove nothing."""
    labelled_above: int = 0
    """The number of products whose label is above the leaf, which are judged at its level in all figures."""
    left_out: int = 0
    """Labelled products that are in no figure, since the model was fitted on them though they are not in train."""


def measure(pairs: Mapping[tuple[CategoryPath, CategoryPath | None], int]) -> PathMetrics:
    """Compute the metrics from counts of (true path, predicted path).

    Args:
        pairs: How many products have each pair; the prediction is None if there is none.

    Raises:
        ValueError: for no products at all.
    """
    products = sum(pairs.values())
    if products == 0:
        raise ValueError("no product with a true path to measure on")
    depth = max(len(true) for true, _ in pairs)
    right, have = [0] * depth, [0] * depth
    exact = common = true_names = predicted_names = unscored = 0
    support: Counter[CategoryPath] = Counter()
    predicted: Counter[CategoryPath] = Counter()
    hits: Counter[CategoryPath] = Counter()
    for (true, guess), count in pairs.items():
        prefix = common_prefix(true, guess or ())
        for level in range(len(true)):
            have[level] += count
            right[level] += count * (prefix > level)
        support[true] += count
        common += prefix * count
        true_names += len(true) * count
        if guess is None:
            unscored += count
            continue
        predicted_names += len(guess) * count
        predicted[guess] += count
        if guess == true:
            exact += count
            hits[true] += count
    rows = []
    for path in sorted(support.keys() | predicted.keys(), key=lambda path: (-support[path], path)):
        precision, recall = _ratio(hits[path], predicted[path]), _ratio(hits[path], support[path])
        rows.append(PathRow(path, precision, recall, _f1(precision, recall), support[path], predicted[path]))
    return PathMetrics(
        products=products,
        unscored=unscored,
        exact=exact / products,
        levels=tuple(_ratio(a, b) for a, b in zip(right, have, strict=True)),
        hierarchical_f1=_f1(_ratio(common, predicted_names), _ratio(common, true_names)),
        macro_f1=sum(row.f1 for row in rows if row.support) / len(support),
        level_macro_f1=tuple(_macro_f1(pairs, level) for level in range(1, depth + 1)),
        paths=tuple(rows),
        confusion=_most_frequent(pairs),
    )


def _most_frequent(pairs: Mapping[tuple[CategoryPath, CategoryPath | None], int]) -> Confusion | None:
    wrong = (Confusion(true, guess, count) for (true, guess), count in pairs.items() if guess and guess != true)
    return min(wrong, key=lambda one: (-one.products, one.true, one.predicted), default=None)


def _macro_f1(pairs: Mapping[tuple[CategoryPath, CategoryPath | None], int], level: int) -> float:
    """Return the mean F1 over the nodes of a level that have support; of the products that go so deep."""
    support, predicted, hits = Counter[CategoryPath](), Counter[CategoryPath](), Counter[CategoryPath]()
    for (true, guess), count in pairs.items():
        if len(true) < level:
            continue
        node, answer = true[:level], (guess or ())[:level]
        support[node] += count
        predicted[answer] += count
        hits[node] += count * (node == answer)
    return sum(2 * hits[node] / (support[node] + predicted[node]) for node in support) / len(support)


def common_prefix(first: CategoryPath, second: CategoryPath) -> int:
    """Return how many names two paths share from the top."""
    shared = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        shared += 1
    return shared


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _f1(precision: float, recall: float) -> float:
    return _ratio(2 * precision * recall, precision + recall)
