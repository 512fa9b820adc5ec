"""Answers and training on a CUDA GPU against those on the CPU; skipped where there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch

from atlas_ray.artifacts import load_artifact
from atlas_ray.modalities.products import Products
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.taxonomy import Taxonomy
from atlas_ray.training.batches import Examples
from atlas_ray.training.objectives import build_objective
from atlas_ray.training.settings import ClassifierTraining
from atlas_ray.training.step import OptimizerStep
from tests.support.parts import make_artifact, picture

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture
def files() -> list[bytes | None]:
    return [picture(number) for number in range(40)]


def predictor(uri: str, **settings: object) -> PathPredictor:
    return PathPredictor(load_artifact(uri), PredictorConfig(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("search", ["exact", "beam"])
def test_the_answers_are_those_of_the_cpu(
    tmp_path: Path, garments: Taxonomy, files: list[bytes | None], search: str
) -> None:
    uri = make_artifact(str(tmp_path / "model"), garments)
    right, _ = predictor(uri, device="cpu", precision="float32", search=search)(files)
    for batch_size in (16, 40):
        found, refused = predictor(uri, device="cuda", precision="float32", search=search, batch_size=batch_size)(files)
        assert not refused
        assert found["category_path"] == right["category_path"]
        np.testing.assert_allclose(found["probability"].to_numpy(), right["probability"].to_numpy(), atol=1e-3)
    found, _ = predictor(uri, device="cuda", search=search)(files)
    np.testing.assert_allclose(found["probability"].to_numpy(), right["probability"].to_numpy(), atol=0.05)


def test_a_captured_encoder_answers_as_any_other(tmp_path: Path, garments: Taxonomy, files: list[bytes | None]) -> None:
    uri = make_artifact(str(tmp_path / "model"), garments)
    right, _ = predictor(uri, device="cuda", precision="float32", batch_size=16)(files)
    graph = predictor(uri, device="cuda", precision="float32", batch_size=16, engine="cuda-graph")
    graph.warm_up()
    for asked in (files, files[:7], files[::-1]):
        found, refused = graph(asked)
        assert not refused
        wanted = right["category_path"].to_pylist()
        wanted = wanted[::-1] if asked[0] is files[-1] else wanted[: len(asked)]
        assert found["category_path"].to_pylist() == wanted


def test_a_batch_that_does_not_fit_is_answered_in_halves(tmp_path: Path, garments: Taxonomy) -> None:
    uri = make_artifact(str(tmp_path / "model"), garments, image_size_px=224)
    one = predictor(uri, device="cuda", batch_size=512)
    products = Products(torch.zeros((512, 3, 224, 224), dtype=torch.uint8))
    torch.cuda.reset_peak_memory_stats()
    right = one.predict(products)
    used = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(0.7 * used / torch.cuda.get_device_properties(0).total_memory)
        assert one.predict(products)["category_path"] == right["category_path"]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_training_step_lowers_the_loss_as_on_the_cpu(garments: Taxonomy) -> None:
    losses: dict[str, list[float]] = {}
    for name in ("cpu", "cuda"):
        torch.manual_seed(0)
        device = torch.device(name)
        config = ClassifierTraining(
            catalog="-", output="-", backbone="resnet18", image_size_px=32, batch_size=16, precision="float32"
        )
        pixels = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
        examples = Examples(*(part.to(device) for part in (pixels, torch.arange(16) % 4, torch.ones(16))))
        objective = build_objective(config, garments, device).train()
        step = OptimizerStep(objective, config, device)
        losses[name] = [float(step(objective, examples)[0]) for _ in range(8)]
    assert losses["cuda"][-1] < losses["cuda"][0]
    assert losses["cpu"][-1] < losses["cpu"][0]
