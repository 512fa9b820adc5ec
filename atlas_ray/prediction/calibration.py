"""The temperature of a model, fitted to its answers about labelled products as a scoring run combines them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from atlas_ray.arrays import Integers
from atlas_ray.decoding.posterior import Posterior
from atlas_ray.metrics.calibration import BOUNDS, Reliability, doubt_of, fit_temperature, tempered
from atlas_ray.metrics.decision import Decision, decision_curve
from atlas_ray.prediction.aggregate import ListedPaths, has_a_say, is_below, label_nodes
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.taxonomy import Taxonomy

MAX_PICTURES = 20_000
"""Largest number of pictures that the temperature is fitted on; one number needs no more."""
MAX_PATHS = 1000
"""Number of paths that are held for each picture, the most probable ones; the others are summed."""
TOP_K = PredictorConfig().top_k
"""Number of paths that a scoring run lists for a picture; it does not know the probabilities of others."""
ROUNDING = 1e-5
"""Tolerance within which a sum of probabilities counts as 1."""


@dataclass(frozen=True)
class FittedTemperature:
    """A temperature, and what was measured with it."""

    temperature: float
    products: int
    """Number of products that it was fitted on."""
    error_before: float
    """Expected calibration error of the whole path on them."""
    error_after: float
    doubt: str | None
    """A sentence about a temperature that the products do not determine."""
    metrics: dict[str, Any]
    """The artifact's metrics `calibration`."""


def fit_answers(
    rows: dict[str, Any],
    taxonomy: Taxonomy,
    *,
    temperature: float = 1.0,
    texts_alone: dict[str, Any] | None = None,
) -> FittedTemperature:
    """Fit the temperature of a model to its answers.

    Args:
        rows: As `PictureScores.of` takes them.
        taxonomy: The taxonomy of the answers.
        temperature: The one that the answers were made with.
        texts_alone: Such rows of the answers without pictures, which are measured at the temperature, too.
    """
    scores = PictureScores.of(rows, taxonomy)
    factor = fit_temperature(scores.log_p, scores.place, scores.product, left_out=scores.left_out)
    before, after = (scores.answers(taxonomy, change) for change in (1.0, factor))
    errors = [answers.reliability.expected_error for answers in (before, after)]
    fitted = float(np.clip(temperature * factor, *BOUNDS))
    products = len(after.label)
    metrics = {
        "temperature": fitted,
        "products": products,
        "error_before": errors[0],
        "error_after": errors[1],
        "bins": [asdict(bin_) for bin_ in after.reliability.bins],
        "decisions": [asdict(decision) for decision in after.decisions(taxonomy)],
    }
    if texts_alone is not None and len(texts_alone["product"]):
        by_texts = PictureScores.of(texts_alone, taxonomy).answers(taxonomy, factor)
        curve = [asdict(decision) for decision in by_texts.leaf_decisions(taxonomy)]
        metrics["texts_alone"] = {"products": len(by_texts.label), "decisions": curve}
    right = int(after.right.sum())
    doubt = doubt_of((fitted, factor), right=right, answers=products)
    return FittedTemperature(fitted, products, errors[0], errors[1], doubt, metrics)


def listed_paths(posteriors: Sequence[Posterior], position: Integers, width: int) -> tuple[Any, Any]:
    """Return the `leaf` and `log_p` of `PictureScores.of`, from what searches found.

    Args:
        posteriors: The results of the batches.
        position: The position of each leaf of the search, and -1 last, which stands for none.
        width: How many columns there are.
    """
    pictures = sum(len(one.leaf) for one in posteriors)
    leaf, log_p = np.full((pictures, width), -1, np.int32), np.full((pictures, width), -np.inf, np.float32)
    start = 0
    for one in posteriors:
        count, paths = one.leaf.shape
        rows = slice(start, start + count)
        start += count
        leaf[rows, :paths] = position[one.leaf.cpu().numpy()]
        log_p[rows, :paths] = one.probability.log().cpu().numpy()
        left_out = 1 - one.probability.double().sum(1).cpu().numpy()
        log_p[rows, -1] = np.log(left_out, where=left_out > ROUNDING, out=np.full(count, -np.inf))
    return leaf, log_p


@dataclass(frozen=True)
class Answers:
    """The answers of a scoring run, which are the mean over each product's pictures."""

    best: Any
    """(products,) position of the leaf."""
    probability: Any
    """(products,) probability of the leaf, or for a label above it of its node at that level."""
    levels: Any
    """(products, depth) probability of each of its prefixes."""
    label: Any
    """(products,) position of the right label (`Taxonomy.label_positions`)."""
    right: Any
    """(products,) whether the leaf is at or below the label."""

    @property
    def reliability(self) -> Reliability:
        """The probabilities of the answers, and whether they are right."""
        reliability = Reliability()
        reliability.add(self.probability, self.right)
        return reliability

    def decisions(self, taxonomy: Taxonomy) -> list[Decision]:
        """Return the decisions to answer with an ancestor if the leaf's probability is too low."""
        nodes = label_nodes(taxonomy)
        best = nodes[self.best]
        has_level = best >= 0
        lengths = has_level.sum(1)
        shared = ((best == nodes[self.label]) & has_level).cumprod(1).sum(1)
        # Below a label nothing is known to be wrong.
        return decision_curve(self.levels, lengths, np.where(self.right, lengths, shared))

    def leaf_decisions(self, taxonomy: Taxonomy) -> list[Decision]:
        """Return the decisions not to answer if the leaf's probability is too low."""
        lengths = (label_nodes(taxonomy)[self.best] >= 0).sum(1)
        leaf = self.levels[np.arange(len(lengths)), lengths - 1]
        return decision_curve(leaf[:, None], np.ones_like(lengths), self.right.astype(int))


@dataclass(frozen=True)
class PictureScores:
    """The model's outputs for pictures.

    Attributes:
        leaf: (pictures, paths) positions of leaves, best first; -1 for none, and in the last column, which stands for
            the leaves that are left out.
        log_p: (pictures, paths) their log-probabilities.
        place: (pictures, right) the columns of the right leaf, or of those below a label above the leaf, -1 past their
            end; the last one if all were left out.
        product: (pictures,) the product's number.
        label: (products,) position of the right label (`Taxonomy.label_positions`).
        left_out: The number of leaves that the last column stands for.
    """

    leaf: Any
    log_p: Any
    place: Any
    product: Any
    label: Any
    left_out: int

    @classmethod
    def of(cls, rows: dict[str, Any], taxonomy: Taxonomy) -> Self:
        """Keep the pictures that count in a scoring run.

        Args:
            rows: Arrays of `leaf`, `log_p`, `label`, `product`, `left_out`, and `seen`: whether the picture was read.
            taxonomy: The taxonomy of leaves and labels.
        """
        _, first, product = np.unique(rows["product"], return_index=True, return_inverse=True)
        kept = has_a_say(product, rows["seen"])
        right = is_below(label_nodes(taxonomy), rows["leaf"], rows["label"][:, None])
        right[~right.any(1), -1] = True
        picture, column = np.nonzero(right)
        nth = np.arange(len(picture)) - np.searchsorted(picture, picture)
        place = np.full((len(right), nth.max(initial=0) + 1), -1)
        place[picture, nth] = column
        left_out = int(rows["left_out"][0])
        return cls(rows["leaf"][kept], rows["log_p"][kept], place[kept], product[kept], rows["label"][first], left_out)

    def answers(self, taxonomy: Taxonomy, factor: float) -> Answers:
        """Return the answers of `atlas_ray.scoring.combine` at `factor` times the model's temperature."""
        probability = tempered(self.log_p, factor, left_out=self.left_out)
        picture, column = np.nonzero(self.leaf[:, :TOP_K] >= 0)
        listed = ListedPaths(
            picture=picture,
            answer=self.leaf[picture, column],
            probability=probability[picture, column],
            product=self.product,
            pictures=np.bincount(self.product),
        )
        best, most = listed.means().best(len(self.label))
        nodes, first = label_nodes(taxonomy), self.leaf[:, 0]
        # For the nodes of its best path a picture has the whole probability, also that of paths that it does not list.
        picture_levels = [(probability * (node[self.leaf] == node[first][:, None])).sum(1) for node in nodes.T]
        levels = listed.levels(nodes, best, first, np.stack(picture_levels, 1))
        # An answer that is judged above its leaf is as sure as its node there.
        level = (nodes[self.label] >= 0).sum(1) - 1
        is_judged_above = (self.label >= len(taxonomy.leaves)) & (nodes[best, level] >= 0)
        sure = np.where(is_judged_above, levels[np.arange(len(best)), level], most)
        return Answers(best, sure, levels, self.label, is_below(nodes, best, self.label))
