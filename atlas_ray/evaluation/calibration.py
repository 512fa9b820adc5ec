"""Calibration: the temperature at which a model's probabilities can be trusted, stored in its artifact."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch

from atlas_ray.artifacts import load_artifact, set_temperature
from atlas_ray.errors import CatalogError, NotFiniteError, tell
from atlas_ray.formats.fitted import CALIBRATED, TRAINED, Fitted, product_keys
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.metrics.calibration import BOUNDS, Reliability, doubt_of, fit_temperature, tempered
from atlas_ray.metrics.decision import Decision, decision_curve
from atlas_ray.modalities.products import PICTURE, Products
from atlas_ray.models.fusion import POLICIES
from atlas_ray.prediction.aggregate import ListedPaths, has_a_say, path_nodes
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.runtime.joined import forget_inputs
from atlas_ray.runtime.labelled import BATCH, batches_of, products_of, stream_labelled
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.tables import count_labels
from atlas_ray.taxonomy import CategoryPath, Taxonomy, match_labels

MAX_PICTURES = 20_000
"""Largest number of pictures that the temperature is fitted on; one number needs no more."""
MAX_PATHS = 1000
"""Number of paths that are held for each picture, the most probable ones; the others are summed."""
TOP_K = PredictorConfig().top_k
"""Number of paths that a scoring run lists for a picture; it does not know the probabilities of others."""


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


@holding("calibrate", "model")
def calibrate(model: str, catalog: str, *, split: str = "val") -> Calibrated:
    """Fit a model's temperature on the labelled products of a split, and store it in the artifact.

    The id of the artifact changes, since its answers do.

    Args:
        model: The artifact.
        catalog: The catalogue of the products.
        split: The split of the products, on which the model should not have been trained.

    Raises:
        CatalogError: if the split has no labelled product whose path the model knows.
        TaxonomyError: if none of their labels is in the model's taxonomy.
    """
    model, catalog = storage.absolute(model), storage.absolute(catalog)
    artifact = load_artifact(model)
    labels = artifact.taxonomy.leaf_positions
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
            parts = list(batches_of(stream.limit(MAX_PICTURES)))
    finally:
        forget_inputs(model)
    if not parts or not sum(len(part["label"]) for part in parts):
        raise CatalogError(f"{catalog}: the model can answer for no labelled product in the split {split!r}")
    scores = _PictureScores.of({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    factor = fit_temperature(scores.log_p, scores.place, scores.product, left_out=scores.left_out)
    before, after = (scores.answers(artifact.taxonomy, change) for change in (1.0, factor))
    errors = [answers.reliability.expected_error for answers in (before, after)]
    temperature = float(np.clip(artifact.temperature * factor, *BOUNDS))
    right = int((after.best == after.label).sum())
    doubt = doubt_of((temperature, factor), right=right, answers=len(after.label))
    metrics = {
        "temperature": temperature,
        "split": split,
        "products": len(after.label),
        "unusable_rows": lost,
        "error_before": errors[0],
        "error_after": errors[1],
        "bins": [asdict(bin_) for bin_ in after.reliability.bins],
        "decisions": [asdict(decision) for decision in after.decisions(artifact.taxonomy)],
    }
    product_ids = np.unique(np.concatenate([part["product"] for part in parts])).tolist()
    uses = None if artifact.fitted is None else artifact.fitted.uses(product_ids)
    fitted = artifact.fitted and artifact.fitted | Fitted.of(product_keys(product_ids), CALIBRATED)
    model_id = set_temperature(model, temperature, metrics, fitted)
    settings = artifact.metrics.get("settings", {})
    policy = POLICIES.get(settings.get("policy", ""))
    memorized = policy is not None and policy.memorizes and settings.get("fit_split") == split
    trained_on = None if uses is None else int((uses & TRAINED > 0).sum())
    return Calibrated(model_id, temperature, len(after.label), errors[0], errors[1], trained_on, memorized, doubt)


@dataclass(frozen=True)
class _Answers:
    """The answers of a scoring run, which are the mean over each product's pictures."""

    best: Any
    """(products,) position of the leaf."""
    probability: Any
    """(products,) probability of the leaf."""
    levels: Any
    """(products, depth) probability of each of its prefixes."""
    label: Any
    """(products,) position of the right leaf."""

    @property
    def reliability(self) -> Reliability:
        """The probabilities of the leaves, and whether they are right."""
        reliability = Reliability()
        reliability.add(self.probability, self.best == self.label)
        return reliability

    def decisions(self, taxonomy: Taxonomy) -> list[Decision]:
        """Return the decisions to answer with an ancestor if the leaf's probability is too low."""
        nodes = path_nodes(taxonomy.leaves)
        best = nodes[self.best]
        has_level = best >= 0
        shared = ((best == nodes[self.label]) & has_level).cumprod(1).sum(1)
        return decision_curve(self.levels, has_level.sum(1), shared)


@dataclass(frozen=True)
class _PictureScores:
    """The model's outputs for pictures.

    Attributes:
        leaf: (pictures, paths) positions of leaves, best first; -1 for none, and in the last column, which stands for
            the leaves that are left out.
        log_p: (pictures, paths) their log-probabilities.
        place: (pictures,) the column of the right leaf; the last one if it was left out.
        product: (pictures,) the product's number.
        label: (products,) position of the right leaf.
        left_out: The number of leaves that the last column stands for.
    """

    leaf: Any
    log_p: Any
    place: Any
    product: Any
    label: Any
    left_out: int

    @classmethod
    def of(cls, rows: dict[str, Any]) -> Self:
        """Keep the pictures that count in a scoring run."""
        _, first, product = np.unique(rows["product"], return_index=True, return_inverse=True)
        kept = has_a_say(product, rows["seen"])
        right = rows["leaf"] == rows["label"][:, None]
        place = np.where(right.any(1), right.argmax(1), right.shape[1] - 1)
        left_out = int(rows["left_out"][0])
        return cls(rows["leaf"][kept], rows["log_p"][kept], place[kept], product[kept], rows["label"][first], left_out)

    def answers(self, taxonomy: Taxonomy, factor: float) -> _Answers:
        """Return the answers of `atlas_ray.scoring.combine` at `factor` times the model's temperature."""
        probability = tempered(self.log_p, factor, left_out=self.left_out)
        picture, column = np.nonzero(self.leaf[:, :TOP_K] >= 0)
        listed = ListedPaths(
            picture=picture,
            path=self.leaf[picture, column],
            probability=probability[picture, column],
            product=self.product,
            pictures=np.bincount(self.product),
        )
        best, most = listed.means().best(len(self.label))
        nodes, first = path_nodes(taxonomy.leaves), self.leaf[:, 0]
        # For the nodes of its best path a picture has the whole probability, also that of paths that it does not list.
        levels = [(probability * (node[self.leaf] == node[first][:, None])).sum(1) for node in nodes.T]
        return _Answers(best, most, listed.levels(nodes, best, first, np.stack(levels, 1)), self.label)


ROUNDING = 1e-5
"""Tolerance within which a sum of probabilities counts as 1."""


class CalibrationActor:
    """An actor that runs the model over blocks of products, as a scoring run does."""

    def __init__(self, model: str, labels: dict[CategoryPath, int], threads: int) -> None:
        settings = PredictorConfig(top_k=min(len(labels), MAX_PATHS))
        artifact = load_artifact(model)
        if threads:
            torch.set_num_threads(threads)
        self._predictor = PathPredictor(artifact, settings)
        self._labels = labels
        # The answers of a search are in the trie's order of leaves.
        order = [labels[path] for path in self._predictor.scope.tree.trie.leaves]
        self._position = np.array([*order, -1])
        size = self._predictor.image_size_px
        sample = Products(
            torch.zeros((1, 3, size, size), dtype=torch.uint8), {name: ["one"] for name in artifact.texts}
        )
        self._width = self._predictor.infer(sample).leaf.shape[1] + 1
        """Number of leaves that are kept, the best ones or a beam's, and one column for those left out."""
        is_beam = self._width <= settings.top_k
        # The mass that a beam leaves out is one number in a scoring run, too.
        self._left_out = 1 if is_beam else max(len(labels) - settings.top_k, 1)

    def __call__(self, table: pa.Table) -> dict[str, Any]:
        """Return rows for `_PictureScores.of`, without products that have none of the modalities."""
        predictor = self._predictor
        table, label, products = products_of(table, self._labels, predictor.modalities, predictor.image_size_px)
        kept = predictor.answerable(products)
        leaf = np.full((len(kept), self._width), -1, np.int32)
        log_p = np.full((len(kept), self._width), -np.inf, np.float32)
        start = 0
        for batch in products.take(kept).split(BATCH):
            posterior = predictor.infer(batch)
            if wrong := int((~posterior.finite).sum()):
                raise NotFiniteError(
                    f"model {predictor.model_id}: its answers for {wrong} of {len(batch)} products are NaN or "
                    "infinite; train it again before you calibrate it"
                )
            rows = slice(start, start + len(batch))
            start += len(batch)
            paths = posterior.leaf.shape[1]
            leaf[rows, :paths] = self._position[posterior.leaf.cpu().numpy()]
            log_p[rows, :paths] = posterior.probability.log().cpu().numpy()
            left_out = 1 - posterior.probability.double().sum(1).cpu().numpy()
            log_p[rows, -1] = np.log(left_out, where=left_out > ROUNDING, out=np.full(len(batch), -np.inf))
        product = np.array(table["product_id"].to_pylist(), dtype=object)
        seen = np.ones(len(table), bool) if products.seen is None else products.seen.numpy()
        seen = seen | (PICTURE not in predictor.modalities)
        return {
            "leaf": leaf, "log_p": log_p, "label": label[kept], "product": product[kept], "seen": seen[kept],
            "left_out": np.full(len(kept), self._left_out),
        }  # fmt: skip
