"""The probabilities from which a run answers, as the calibration of its model found them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atlas_ray.errors import ArtifactError, ConfigError, tell
from atlas_ray.metrics.decision import Decision, least_threshold
from atlas_ray.metrics.labels import ThresholdCurve
from atlas_ray.modalities import PICTURE
from atlas_ray.scoring.settings import ScoreConfig

if TYPE_CHECKING:
    from atlas_ray.artifacts import Artifact

NEVER = 2.0
"""The threshold of a label that is never applied, which no probability reaches."""


@dataclass(frozen=True)
class TextsAlone:
    """When the texts alone answer, and what that comes to, as measured by calibration."""

    threshold: float
    """The least probability of the leaf."""
    precision: float
    """Share of these answers that are right."""
    coverage: float
    """Share of the products with a text that get such an answer."""
    products: int
    """Number of products with a text that it was measured on."""


def decision_threshold(artifact: "Artifact", config: ScoreConfig) -> float | None:
    """Return how sure a path has to be; None if every leaf will do, and for a model of labels."""
    if config.target_precision is None or artifact.labels is not None:
        return None
    curve = _curve(_calibration(artifact, config).get("decisions", ()))
    return _least(curve, config.target_precision, config.model).threshold


def texts_alone(artifact: "Artifact", config: ScoreConfig, least: float) -> TextsAlone | None:
    """Return when the texts alone answer; None without a cascade.

    Args:
        artifact: The model.
        config: The settings of the run.
        least: How sure a leaf has to be in any case, so that the run answers with it.

    Raises:
        ConfigError: if the model names labels, or does not read both pictures and texts.
        ArtifactError: if it was not calibrated for this, or no threshold reaches the precision.
    """
    if config.cascade is None:
        return None
    if artifact.labels is not None:
        raise ConfigError(f"{config.model} names labels, each by itself; leave --cascade out, which is for paths")
    if not (artifact.texts and PICTURE in artifact.modalities):
        raise ConfigError(
            f"{config.model} reads {' and '.join(artifact.modalities)} alone; --cascade is for a model of pictures and "
            "texts, such as `atlas-ray train fusion` makes"
        )
    measured = artifact.metrics.get("calibration", {}).get("texts_alone")
    if not measured:
        raise ArtifactError(
            f"{config.model}: it is not known how often its answers without a picture are right; "
            f"run `atlas-ray calibrate --model {config.model} --catalog CATALOG` first"
        )
    curve = [one for one in _curve(measured["decisions"]) if one.threshold >= least]
    chosen = _least(curve, config.cascade, f"{config.model}, by the texts alone")
    return TextsAlone(chosen.threshold, chosen.precision, chosen.answered, measured["products"])


def label_thresholds(artifact: "Artifact", config: ScoreConfig) -> dict[str, float] | None:
    """Return the least probability of each label that is applied; None for a model of paths."""
    if artifact.labels is None:
        return None
    own = dict(zip(artifact.labels.names, artifact.thresholds, strict=True))
    if config.target_precision is None:
        return own
    curves = {name: ThresholdCurve(**row) for name, row in _calibration(artifact, config)["labels"].items()}
    found = {name: curve.least(config.target_precision) for name, curve in curves.items()}
    never = [name for name in own if found.get(name) is None]
    if len(never) == len(own):
        best = max((max(curve.precisions, default=0.0) for curve in curves.values()), default=0.0)
        raise _missed(config.model, config.target_precision, best)
    if never:
        tell(
            f"{len(never)} of {len(own)} labels are not applied, since no threshold of theirs reached the precision "
            f"{config.target_precision} on the products that the model was calibrated on: {', '.join(never[:10])}"
        )
    return {name: NEVER if (least := found.get(name)) is None else least for name in own}


def _calibration(artifact: "Artifact", config: ScoreConfig) -> dict[str, Any]:
    measured: dict[str, Any] = artifact.metrics.get("calibration", {})
    if not measured.get("decisions" if artifact.labels is None else "labels"):
        raise ArtifactError(
            f"{config.model}: not calibrated, so that no precision can be promised; "
            f"run `atlas-ray calibrate --model {config.model} --catalog CATALOG` first"
        )
    return measured


def _curve(rows: Sequence[dict[str, Any]]) -> list[Decision]:
    return [Decision(**row) for row in rows]


def _least(curve: Sequence[Decision], precision: float, model: str) -> Decision:
    decision = least_threshold(curve, precision)
    if decision is None:
        raise _missed(model, precision, max((one.precision for one in curve), default=0.0))
    return decision


def _missed(model: str, precision: float, best: float) -> ArtifactError:
    return ArtifactError(
        f"{model}: no threshold reached the precision {precision} on the products that it was "
        f"calibrated on; the best reached {best:.4f}"
    )
