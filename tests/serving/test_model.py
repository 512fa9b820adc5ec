"""A replica of a model, without Serve around it."""

from typing import Any

import numpy as np
import pytest

from atlas_ray.modalities.products import Products
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.serving.model import MAX_FAILURES, Model
from atlas_ray.serving.question import Answer, Question


@pytest.fixture
def model(small_model: str, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model that fails where a picture is all white."""
    made = Model(small_model, PredictorConfig(batch_size=4, precision="float32"))
    predict = PathPredictor.predict_within

    def broken(self: PathPredictor, products: Products, scopes: Any) -> Any:
        if (products.pixels == 255).all(1).all(1).all(1).any():
            raise RuntimeError("out of luck")
        return predict(self, products, scopes)

    monkeypatch.setattr(PathPredictor, "predict_within", broken)
    return made


def question(model: Model, color: int) -> Question:
    size = model._predictor.image_size_px
    return Question(np.full((1, 3, size, size), color, np.uint8))


def test_one_that_fails_takes_no_other_with_it(model: Model) -> None:
    found = model._answers_or_errors([question(model, color) for color in (0, 255, 100)])
    assert [isinstance(one, Answer) for one in found] == [True, False, True]
    assert "out of luck" in str(found[1])


@pytest.mark.long
def test_a_replica_that_answers_nothing_any_more_is_not_well(model: Model) -> None:
    for _ in range(MAX_FAILURES - 1):
        model._answers_or_errors([question(model, 255)])
    model.check_health()
    model._answers_or_errors([question(model, 0)])  # one that can be answered
    for _ in range(MAX_FAILURES):
        model.check_health()
        model._answers_or_errors([question(model, 255)])
    with pytest.raises(RuntimeError, match=f"the last {MAX_FAILURES} questions failed"):
        model.check_health()
