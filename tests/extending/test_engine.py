"""An engine is added as its page says: one function, one entry; and those that there are give the same answers."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from atlas_ray.artifacts import load_artifact
from atlas_ray.errors import ConfigError
from atlas_ray.prediction.engines import ENGINES
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from tests.docs.test_walks import walk
from tests.support.parts import picture


def answers(engine: str, pictures: Sequence[bytes]) -> pa.Table:
    predict = PathPredictor(load_artifact("model"), PredictorConfig(engine=engine, precision="float32"))
    found, refused = predict(pictures)
    assert refused == {}
    return found


def assert_as_torch(engine: str) -> None:
    pictures = [picture(number) for number in range(6)]
    one, other = answers(engine, pictures), answers("torch", pictures)
    assert one["category_path"].to_pylist() == other["category_path"].to_pylist()
    probabilities = (torch.tensor(table["probability"].to_pylist()) for table in (one, other))
    torch.testing.assert_close(*probabilities, rtol=1e-3, atol=1e-4)


@pytest.mark.long
def test_an_engine_from_outside_is_one_entry(folder: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"engine is 'parts'; expected one of torch, cuda-graph, compiled, openvino, openvino-int8, auto$",
    ):
        PredictorConfig(engine="parts")
    try:
        found = walk("extending/engine.md")
        assert len(found["answers"]) == 6
        assert found["refused"] == {}
        assert_as_torch("parts")
    finally:
        ENGINES.pop("parts", None)


@pytest.mark.slow
def test_the_compiled_encoder_answers_the_same(folder: Path) -> None:
    assert_as_torch("compiled")
