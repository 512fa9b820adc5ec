"""The predictor of an artifact, by what it answers."""

from atlas_ray.artifacts import Artifact
from atlas_ray.errors import ConfigError
from atlas_ray.prediction.labels import LabelPredictor
from atlas_ray.prediction.paths import PathPredictor
from atlas_ray.prediction.predictor import Predictor
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.taxonomy import CategoryPath, Taxonomy


def build_predictor(
    artifact: Artifact,
    config: PredictorConfig | None = None,
    *,
    taxonomy: Taxonomy | None = None,
    within: CategoryPath = (),
) -> Predictor:
    """Prepare a model for inference; the artifact's network is changed.

    Args:
        artifact: The model.
        config: The settings of inference.
        taxonomy: As in `PathPredictor`; a model of labels has its own alone.
        within: As in `PathPredictor`; a model of labels has no parts.

    Raises:
        TaxonomyError: as `PathPredictor`.
        ConfigError: if the machine does not have the device, or labels are asked for in a taxonomy or a part of one.
    """
    if artifact.labels is None:
        return PathPredictor(artifact, config, taxonomy=taxonomy, within=within)
    if within or (taxonomy is not None and taxonomy.id != artifact.taxonomy.id):
        raise ConfigError(
            f"model {artifact.id} names labels, each by itself; leave taxonomy and within out, which are for paths"
        )
    return LabelPredictor(artifact, config)
