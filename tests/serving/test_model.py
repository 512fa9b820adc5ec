"""A replica of a model, without Serve around it."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atlas_ray.client import Categorized
from atlas_ray.client import _result as read_result
from atlas_ray.modalities.products import Products
from atlas_ray.prediction.paths import PathPredictor
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.serving.documents import Answered
from atlas_ray.serving.gateway import CategorizeOptions, _result
from atlas_ray.serving.model import MAX_FAILURES, Model
from atlas_ray.serving.question import Answer, Question
from atlas_ray.taxonomy import LabelSpace, Taxonomy
from tests.support.parts import make_text_artifact


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


@pytest.mark.long
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


def test_a_model_of_labels_answers_with_labels(tmp_path: Path) -> None:
    taxonomy = Taxonomy([("Men", "Shirts"), ("Women", "Dresses")], name="small")
    make_text_artifact(str(tmp_path), taxonomy, "title", ["shirt", "dress"], LabelSpace(taxonomy))
    model = Model(str(tmp_path), PredictorConfig(batch_size=4, precision="float32"))
    texts = {"title": ["red shirt", "dress"]}
    asked = [Question(np.zeros((2, 3, 0, 0), np.uint8), texts=texts, within=within) for within in ((), ("Men",))]
    asked.append(Question(np.zeros((2, 3, 0, 0), np.uint8), texts=texts, explain=True))
    answer, narrowed, explained = model._answers_or_errors(asked)
    assert isinstance(answer, Answer)
    rows = [_result(answer, place, CategorizeOptions(top_k=3)) for place in range(2)]
    for row in rows:
        shown = Answered(name="shirt", **row)
        found = read_result({"name": "shirt", **row})
        assert isinstance(found, Categorized)
        assert found.category_path == ()
        labels = (*found.labels, *found.other_labels)
        assert {one.label for one in labels} == {"Men", "Shirts", "Women", "Dresses"}
        assert [one.label for one in found.labels] == [one.label for one in shown.labels or ()]
        assert all((one.probability >= 0.5) == (one in found.labels) for one in labels)
    for refused, code in ((narrowed, "unknown_category"), (explained, "cannot_explain")):
        assert isinstance(refused, Answer)
        assert refused.error is not None
        assert refused.error[0] == code
    described = asyncio.run(model.describe())
    assert (described["answers"], described["search"], described["explains"]) == ("labels", None, False)
    assert asyncio.run(model.taxonomy())["labels"] == dict.fromkeys(LabelSpace(taxonomy).names, 0.5)
