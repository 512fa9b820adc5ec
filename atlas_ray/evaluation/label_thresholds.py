"""The thresholds of a model of labels, chosen on labelled products and stored in its artifact."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from atlas_ray.arrays import Array, Booleans
from atlas_ray.artifacts import Artifact, set_thresholds
from atlas_ray.errors import CatalogError, tell
from atlas_ray.evaluation.label_answers import LabelledProducts, LabelsActor, products_of_answers
from atlas_ray.formats.fitted import CALIBRATED, TRAINED, Fitted, product_keys
from atlas_ray.metrics.labels import MicroF1, ThresholdCurve
from atlas_ray.models.fusion import POLICIES
from atlas_ray.prediction.calibration import MAX_PICTURES
from atlas_ray.prediction.engines import AUTO
from atlas_ray.runtime.joined import forget_inputs
from atlas_ray.runtime.labelled import stream_labelled
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.tables import count_labels
from atlas_ray.taxonomy import match_labels


@dataclass(frozen=True)
class ChosenThresholds:
    """The outcome of choosing thresholds."""

    model_id: str
    """The artifact's new content id."""
    products: int
    f1_before: float
    """Micro-F1 on the products that the thresholds were chosen on."""
    f1_after: float
    unseen: int
    """Number of labels that none of the products has, whose thresholds stay as they were."""
    trained_on: int | None
    """Number of these products that its weights were trained on; None if that is not known."""
    was_fitted_on: bool
    """Whether the products are those that a policy was fitted on that can memorize them."""


def choose_thresholds(model: str, artifact: Artifact, catalog: str, split: str) -> ChosenThresholds:
    """Choose the threshold of each label with the highest F1 on a split, and store them in the artifact.

    Beside each, the metrics of the artifact hold what other thresholds reach, for a target precision.

    Args:
        model: The artifact's folder.
        artifact: What is in it.
        catalog: The catalogue of the products.
        split: The split of the products, on which the model should not have been trained.

    Raises:
        CatalogError: if the split has no labelled product that the model can answer about.
        TaxonomyError: if none of their labels is in the model's taxonomy.
    """
    assert artifact.labels is not None
    labelled, predicted = f"the catalogue {catalog}, split {split!r},", f"the model {model}"
    note = match_labels(
        count_labels(catalog, split), artifact.taxonomy, labelled=labelled, predicted=predicted, leaves_only=True
    )
    if note:
        tell(note)
    try:
        with ProgressDisplay("running the model", "products") as display:
            stream, lost = stream_labelled(
                catalog, model, split, artifact.modalities, LabelsActor, ([model], "auto", AUTO), display=display
            )
            parts = list(stream.limit(MAX_PICTURES).iter_batches(batch_size=None, batch_format="pyarrow"))
    finally:
        forget_inputs(model)
    names = artifact.labels.names
    found = products_of_answers(pa.concat_tables(parts), 0, len(names), artifact.modalities) if parts else None
    if found is None or not found.answered.any():
        raise CatalogError(f"{catalog}: the model can answer for no labelled product in the split {split!r}")
    probability, has = _matrix(found, len(names))
    curves = [
        ThresholdCurve.of(probability[:, label], has[:, label], artifact.thresholds[label])
        for label in range(len(names))
    ]
    best = np.array([curve.best for curve in curves])
    before, after = (_micro_f1(probability, has, least) for least in (np.array(artifact.thresholds), best))
    metrics: dict[str, Any] = {
        "products": len(has),
        "micro_f1_before": before,
        "micro_f1_after": after,
        "labels": {name: asdict(curve) for name, curve in zip(names, curves, strict=True)},
        "split": split,
        "unusable_rows": lost,
    }
    product_ids = found.ids.to_pylist()
    uses = None if artifact.fitted is None else artifact.fitted.uses(product_ids)
    fitted = artifact.fitted and artifact.fitted | Fitted.of(product_keys(product_ids), CALIBRATED)
    model_id = set_thresholds(model, best.tolist(), metrics, fitted)
    settings = artifact.metrics.get("settings", {})
    policy = POLICIES.get(settings.get("policy", ""))
    return ChosenThresholds(
        model_id=model_id,
        products=len(has),
        f1_before=before,
        f1_after=after,
        unseen=sum(not curve.support for curve in curves),
        trained_on=None if uses is None else int((uses & TRAINED > 0).sum()),
        was_fitted_on=policy is not None and policy.memorizes and settings.get("fit_split") == split,
    )


def _matrix(found: LabelledProducts, labels: int) -> tuple[Array, Booleans]:
    """Return the probabilities and the labels of the products with an answer, (products, N) each."""
    table = np.zeros((len(found.ids), labels))
    table[found.means.product, found.means.answer] = found.means.probability
    return table[found.answered], found.has[found.answered]


def _micro_f1(probability: Array, has: Booleans, thresholds: Array) -> float:
    named = probability >= thresholds
    return MicroF1.of(int((named & has).sum()), int((named & ~has).sum()), int((~named & has).sum())).f1
