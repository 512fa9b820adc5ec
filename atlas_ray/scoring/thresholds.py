"""The probabilities from which a run answers, as the calibration of its model found them."""

from typing import TYPE_CHECKING, Any

from atlas_ray.errors import ArtifactError, tell
from atlas_ray.metrics.decision import Decision, least_threshold
from atlas_ray.metrics.labels import ThresholdCurve
from atlas_ray.scoring.settings import ScoreConfig

if TYPE_CHECKING:
    from atlas_ray.artifacts import Artifact

NEVER = 2.0
"""The threshold of a label that is never applied, which no probability reaches."""


def decision_threshold(artifact: "Artifact", config: ScoreConfig) -> float | None:
    """Return how sure a path has to be; None if every leaf will do, and for a model of labels."""
    if config.target_precision is None or artifact.labels is not None:
        return None
    curve = [Decision(**row) for row in _calibration(artifact, config).get("decisions", ())]
    decision = least_threshold(curve, config.target_precision)
    if decision is None:
        raise _missed(config, max(one.precision for one in curve))
    return decision.threshold


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
        raise _missed(config, max((max(curve.precisions, default=0.0) for curve in curves.values()), default=0.0))
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


def _missed(config: ScoreConfig, best: float) -> ArtifactError:
    return ArtifactError(
        f"{config.model}: no threshold reached the precision {config.target_precision} on the products that it was "
        f"calibrated on; the best reached {best:.4f}"
    )
