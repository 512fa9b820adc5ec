"""What differs between kinds of models stands in dicts by kind, and is asked for nowhere else."""

import ast
from pathlib import Path

import atlas_ray
from atlas_ray.artifacts.kinds import ENCODER_KINDS, KINDS, MEMBER_KINDS, PATH_KINDS, VECTOR_KINDS
from atlas_ray.models.zoom import ZoomNetwork
from atlas_ray.prediction.networks import ENCODERS, INFERENCES, SINGLES
from atlas_ray.training.networks import NETWORKS, SENTENCE_SHAPES
from atlas_ray.training.objectives import LABEL_OBJECTIVES, OBJECTIVES
from atlas_ray.training.settings import TRAININGS, ReadingTraining

PACKAGE = Path(atlas_ray.__file__).parent
MAX_CHECKS = 8
SUFFIXES = (
    "Training",
    "Inference",
    "Objective",
    "Kind",
    "Network",
    "Classifier",
    "EncoderDecoder",
    "Decoder",
    "Single",
)
"""How the names of classes end that are of a kind of model, of its training or of its inference."""


def kind_checks() -> list[str]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance"):
                continue
            names = [part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)]
            if any(name.removesuffix("Config").endswith(SUFFIXES) for name in names):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    return found


def test_hardly_any_code_asks_what_kind_a_model_is() -> None:
    assert len(kind_checks()) <= MAX_CHECKS, kind_checks()


def test_every_kind_has_its_inference_and_its_training() -> None:
    assert INFERENCES.keys() == set(PATH_KINDS)
    assert SINGLES.keys() == set(MEMBER_KINDS)
    assert ENCODERS.keys() == set(VECTOR_KINDS) > set(ENCODER_KINDS)
    # The network of image labels is a classifier; trainings on texts make one over a sentence encoder, too.
    assert TRAININGS.keys() == {*PATH_KINDS, "image-labels"} - {"sentence", "sentence-encoder-decoder"}
    assert SENTENCE_SHAPES.keys() == {name for name, kind in TRAININGS.items() if issubclass(kind, ReadingTraining)}
    assert NETWORKS.keys() == {name for name in TRAININGS if name not in KINDS or not KINDS[name].has_members}
    assert OBJECTIVES.keys() | LABEL_OBJECTIVES.keys() == TRAININGS.keys()
    assert KINDS["zoom"].network is ZoomNetwork
