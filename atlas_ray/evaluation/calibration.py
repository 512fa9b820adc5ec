"""Calibration: the temperature at which a model's probabilities can be trusted, stored in its artifact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from atlas_ray.artifacts import load_artifact, set_temperature
from atlas_ray.errors import CatalogError, NotFiniteError, tell
from atlas_ray.evaluation.label_thresholds import ChosenThresholds, choose_thresholds
from atlas_ray.formats.fitted import CALIBRATED, TRAINED, Fitted, product_keys
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.metrics.decision import Decision
from atlas_ray.modalities import PICTURE
from atlas_ray.modalities.products import Products
from atlas_ray.models.fusion import POLICIES
from atlas_ray.prediction.calibration import MAX_PATHS, MAX_PICTURES, fit_answers, listed_paths
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.runtime.joined import forget_inputs
from atlas_ray.runtime.labelled import BATCH, batches_of, products_of, stream_labelled
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.tables import count_labels
from atlas_ray.taxonomy import CategoryPath, match_labels


@dataclass(frozen=True)
class Calibrated:
    """The outcome of a calibration."""

    model_id: str
    """The artifact's new content id."""
    temperature: float
    products: int
    error_before: float
    """Expected calibration error of the whole path, on the products that the temperature was fitted on."""
    error_after: float
    trained_on: int | None
    """Number of these products that its weights were trained on; None if that is not known."""
    was_fitted_on: bool
    """Whether the products are those that a policy was fitted on that can memorize them."""
    doubt: str | None
    """A sentence about a temperature that the products do not determine."""
    texts_alone: Sequence[Decision]
    """For a model of pictures and texts: what its answers by the texts alone come to, if those with a leaf of at least
    a threshold's probability are taken."""


@holding("calibrate", "model")
def calibrate(model: str, catalog: str, *, split: str = "val") -> Calibrated | ChosenThresholds:
    """Fit a model's temperature on the labelled products of a split, and store it in the artifact.

    Of a model of labels the thresholds are chosen instead (`choose_thresholds`). The id of the artifact changes, since
    its answers do.

    Args:
        model: The artifact.
        catalog: The catalogue of the products.
        split: The split of the products, on which the model should not have been trained.

    Raises:
        CatalogError: if the split has no labelled product whose path the model knows.
        TaxonomyError: if none of their labels is in the model's taxonomy.
    """
    model, catalog = storage.absolute(model), storage.absolute(catalog)
    artifact = load_artifact(model, target=None)
    if artifact.labels is not None:
        return choose_thresholds(model, artifact, catalog, split)
    labels = artifact.taxonomy.label_positions
    labelled = f"the catalogue {catalog}, split {split!r},"
    note = match_labels(
        count_labels(catalog, split), artifact.taxonomy, labelled=labelled, predicted=f"the model {model}"
    )
    if note:
        tell(note)
    try:
        with ProgressDisplay("running the model", "products") as display:
            stream, lost = stream_labelled(
                catalog, model, split, artifact.modalities, CalibrationActor, (model, labels), display=display
            )
            answers_each = 2 if artifact.texts and PICTURE in artifact.modalities else 1  # with it, and by texts alone
            parts = list(batches_of(stream.limit(answers_each * MAX_PICTURES)))
    finally:
        forget_inputs(model)
    if not parts or not sum(len(part["label"]) for part in parts):
        raise CatalogError(f"{catalog}: the model can answer for no labelled product in the split {split!r}")
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    without = rows.pop("texts_alone")
    answers, by_texts = ({name: column[side] for name, column in rows.items()} for side in (~without, without))
    found = fit_answers(answers, artifact.taxonomy, temperature=artifact.temperature, texts_alone=by_texts)
    metrics = found.metrics | {"split": split, "unusable_rows": lost}
    product_ids = np.unique(rows["product"]).tolist()
    uses = None if artifact.fitted is None else artifact.fitted.uses(product_ids)
    fitted = artifact.fitted and artifact.fitted | Fitted.of(product_keys(product_ids), CALIBRATED)
    model_id = set_temperature(model, found.temperature, metrics, fitted)
    settings = artifact.metrics.get("settings", {})
    policy = POLICIES.get(settings.get("policy", ""))
    memorized = policy is not None and policy.memorizes and settings.get("fit_split") == split
    trained_on = None if uses is None else int((uses & TRAINED > 0).sum())
    return Calibrated(
        model_id, found.temperature, found.products, found.error_before, found.error_after, trained_on, memorized,
        found.doubt, [Decision(**row) for row in metrics.get("texts_alone", {}).get("decisions", ())],
    )  # fmt: skip


class CalibrationActor:
    """An actor that runs the model over blocks of products, as a scoring run does."""

    def __init__(self, model: str, labels: dict[CategoryPath, int], threads: int) -> None:
        artifact = load_artifact(model)
        leaves = artifact.taxonomy.leaf_positions
        settings = PredictorConfig(top_k=min(len(leaves), MAX_PATHS))
        if threads:
            torch.set_num_threads(threads)
        self._predictor = PathPredictor(artifact, settings)
        self._labels = labels
        # The answers of a search are in the trie's order of leaves.
        order = [leaves[path] for path in self._predictor.scope.tree.trie.leaves]
        self._position = np.array([*order, -1])
        size = self._predictor.image_size_px
        sample = Products(
            torch.zeros((1, 3, size, size), dtype=torch.uint8), {name: ["one"] for name in artifact.texts}
        )
        self._width = self._predictor.infer(sample).leaf.shape[1] + 1
        """Number of leaves that are kept, the best ones or a beam's, and one column for those left out."""
        is_beam = self._width <= settings.top_k
        # The mass that a beam leaves out is one number in a scoring run, too.
        self._left_out = 1 if is_beam else max(len(leaves) - settings.top_k, 1)

    def __call__(self, table: pa.Table) -> dict[str, Any]:
        """Return rows for `PictureScores.of`, without products that have none of the modalities.

        Of a model of pictures and texts there is a further row for each product, by its texts alone.
        """
        modalities = self._predictor.modalities
        table, label, products = products_of(table, self._labels, modalities, self._predictor.image_size_px)
        product = np.array(table["product_id"].to_pylist(), dtype=object)
        parts = [self._rows(products, label, product)]
        if PICTURE in modalities and products.texts:
            first = np.unique(product, return_index=True)[1]
            texts = Products.of_texts({name: [column[row] for row in first] for name, column in products.texts.items()})
            parts.append(self._rows(texts, label[first], product[first], texts_alone=True))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _rows(self, products: Products, label: Any, product: Any, *, texts_alone: bool = False) -> dict[str, Any]:
        predictor = self._predictor
        kept = predictor.answerable(products)
        posteriors = []
        for batch in products.take(kept).split(BATCH):
            posteriors.append(predictor.infer(batch))
            if wrong := int((~posteriors[-1].finite).sum()):
                raise NotFiniteError(
                    f"model {predictor.model_id}: its answers for {wrong} of {len(batch)} products are NaN or "
                    "infinite; train it again before you calibrate it"
                )
        leaf, log_p = listed_paths(posteriors, self._position, self._width)
        seen = np.ones(len(products), bool) if products.seen is None else products.seen.numpy()
        seen = seen | (PICTURE not in predictor.modalities)
        return {
            "leaf": leaf, "log_p": log_p, "label": label[kept], "product": product[kept], "seen": seen[kept],
            "left_out": np.full(len(kept), self._left_out), "texts_alone": np.full(len(kept), texts_alone),
        }  # fmt: skip
