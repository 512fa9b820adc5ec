"""Calibration: the temperature at which a model's probabilities can be trusted, stored in its artifact."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from atlas_ray import storage
from atlas_ray.artifacts import load_artifact, set_temperature
from atlas_ray.errors import CatalogError
from atlas_ray.metrics.calibration import BOUNDS, Reliability, fit_temperature, tempered
from atlas_ray.metrics.decision import Decision, decision_curve
from atlas_ray.predictors import PathPredictor, PredictorConfig
from atlas_ray.progress import ProgressDisplay
from atlas_ray.streaming.inputs import forget_inputs
from atlas_ray.taxonomy import CategoryPath, Taxonomy
from atlas_ray.training.labelled import BATCH, asked_about, batches_of, products_of

MOST_PATHS = 1000
"""Of one product that are looked at; a tree of more leaves is calibrated on the best of them."""
BEAM = 50
"""Of them, where the tree is too large for an exact search."""
MOST_PRODUCTS = 20_000
"""One number needs no more; it bounds the memory."""


@dataclass(frozen=True)
class Calibrated:
    """What calibration found."""

    model_id: str
    """The artifact's new content id."""
    temperature: float
    products: int
    error_before: float
    """Expected calibration error of the whole path, on the products that the temperature was fitted on."""
    error_after: float


def calibrate(model: str, catalog: str, *, split: str = "val") -> Calibrated:
    """Fit a model's temperature on the labelled products of a split, and store it in the artifact.

    The id of the artifact changes, since what it says does.

    Args:
        model: The artifact.
        catalog: Where the products are.
        split: Which of them: one that the model was not trained on.

    Raises:
        CatalogError: where the split has no labelled product that the model can say something of.
    """
    model, catalog = storage.absolute(model), storage.absolute(catalog)
    artifact = load_artifact(model)
    labels = artifact.taxonomy.leaf_positions
    try:
        with ProgressDisplay("asking the model", "products") as display:
            stream = asked_about(catalog, model, split, artifact.reads, Judge, (model, labels), board=display.board)
            parts = list(batches_of(stream.limit(MOST_PRODUCTS)))
    finally:
        forget_inputs(model)
    if not parts or not sum(len(part["label"]) for part in parts):
        raise CatalogError(f"{catalog}: no labelled product in the split {split!r} that the model can say something of")
    leaf, log_p, label = (np.concatenate([part[name] for part in parts]) for name in ("leaf", "log_p", "label"))
    place = np.where((leaf == label[:, None]).any(1), (leaf == label[:, None]).argmax(1), -1)
    factor = fit_temperature(log_p, place)
    errors = [_reliability(log_p, place, temperature) for temperature in (1.0, factor)]
    temperature = float(np.clip(artifact.temperature * factor, *BOUNDS))
    found = {
        "temperature": temperature,
        "split": split,
        "products": len(label),
        "error_before": errors[0].expected_error,
        "error_after": errors[1].expected_error,
        "bins": [asdict(one) for one in errors[1].bins],
        "decisions": [asdict(one) for one in _decisions(artifact.taxonomy, leaf, tempered(log_p, factor), label)],
    }
    model_id = set_temperature(model, temperature, found)
    return Calibrated(model_id, temperature, len(label), errors[0].expected_error, errors[1].expected_error)


def _decisions(taxonomy: Taxonomy, leaf: Any, probability: Any, label: Any) -> list[Decision]:
    """Return what comes of answering with an ancestor where the leaf is not sure enough.

    Args:
        taxonomy: Whose leaves are meant.
        leaf: (products, paths) positions of leaves; -1 for none.
        probability: (products, paths), 0 where there is no leaf.
        label: (products,) the position of the right leaf.
    """
    number: dict[CategoryPath, int] = {}
    above = np.full((len(taxonomy.leaves) + 1, taxonomy.depth), -1)  # of each leaf, its node at each level
    for row, path in enumerate(taxonomy.leaves):
        above[row, : len(path)] = [number.setdefault(path[:level], len(number)) for level in range(1, len(path) + 1)]
    best = above[leaf[np.arange(len(leaf)), probability.argmax(1)]]  # (products, depth)
    levels = np.stack(
        [(probability * (above[leaf, level] == best[:, level, None])).sum(1) for level in range(taxonomy.depth)], 1
    )
    there = best >= 0
    shared = ((best == above[label]) & there).cumprod(1).sum(1)
    return decision_curve(levels, there.sum(1), shared)


def _reliability(log_p: Any, place: Any, temperature: float) -> Reliability:
    found = Reliability()
    probability = tempered(log_p, temperature)
    found.add(probability.max(1), probability.argmax(1) == place)
    return found


class Judge:
    """Asks the model about blocks of products."""

    def __init__(self, model: str, labels: dict[CategoryPath, int], threads: int) -> None:
        settings = PredictorConfig(top_k=min(len(labels), MOST_PATHS), beam_width=min(len(labels), BEAM))
        artifact = load_artifact(model)
        if threads:
            torch.set_num_threads(threads)
        self._predictor = PathPredictor(artifact, settings)
        self._labels = labels
        # A search names leaves in the trie's order.
        order = [labels[path] for path in self._predictor.scope.tree.trie.leaves]
        self._position = np.array([*order, -1])

    def __call__(self, table: pa.Table) -> dict[str, Any]:
        """Return rows of `leaf` (paths,), `log_p` (paths,) and `label`; a product with nothing to go by drops out."""
        predictor = self._predictor
        _, label, products = products_of(table, self._labels, predictor.reads, predictor.image_size_px)
        kept = predictor.answerable(products)
        width = predictor.config.top_k
        leaf, log_p = np.full((len(kept), width), -1), np.full((len(kept), width), -np.inf, np.float32)
        start = 0
        for batch in products.take(kept).split(BATCH):
            found = predictor.infer(batch)
            rows = slice(start, start + len(batch))
            start += len(batch)
            paths = found.leaf.shape[1]
            leaf[rows, :paths] = self._position[found.leaf.cpu().numpy()]
            log_p[rows, :paths] = found.probability.log().cpu().numpy()
        return {"leaf": leaf, "log_p": log_p, "label": label[kept]}
