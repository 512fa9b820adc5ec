"""A vision transformer of timm from a catalogue to answers, explained and served."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atlas_ray.artifacts import load_artifact
from atlas_ray.cli.main import main
from atlas_ray.modalities.products import Products
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.serving.model import Model
from atlas_ray.serving.question import Question
from atlas_ray.training.run import train
from atlas_ray.training.settings import EncoderDecoderTraining, ImageLabelsTraining

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed"),
]
VIT: dict[str, Any] = {"backbone": "timm/vit_tiny_patch16_224", "image_size_px": 48, "epochs": 1, "batch_size": 16}


def test_a_vit_is_trained_scores_explains_and_serves(catalog: str, tmp_path: Path) -> None:
    uri, run = str(tmp_path / "model"), str(tmp_path / "run")
    before = torch.random.get_rng_state()
    train(EncoderDecoderTraining(catalog=catalog, output=uri, hidden_dim=32, train_from_block=1, **VIT))
    torch.random.set_rng_state(before)
    assert main(["score", "--catalog", catalog, "--model", uri, "--output", run]) in (0, 3)
    counts = json.loads(Path(run, "run.json").read_text())["counts"]
    assert counts["scored"] > 0
    assert counts["input"] == counts["scored"] + counts["quarantined"]
    artifact = load_artifact(uri)
    predictor = PathPredictor(artifact, PredictorConfig(device="cpu"))
    pixels = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8)
    answers, maps = predictor.explain(Products(pixels))
    depth = max(map(len, artifact.taxonomy.leaves))
    side = artifact.model.config.pooled_size  # that of the paper's grid, whatever the number of patches
    assert maps.shape == (3, depth, side, side)
    length = [len(path) for path in answers["category_path"].to_pylist()]
    wanted = [[float(level < levels) for level in range(depth)] for levels in length]
    torch.testing.assert_close(maps.sum((2, 3)), torch.tensor(wanted))
    replica = Model(uri, PredictorConfig(device="cpu"))
    (answer,) = replica._answers([Question(np.asarray(pixels[:1].numpy()))])
    assert answer.rows is not None
    assert answer.rows[0]["category_path"] == answers["category_path"][0].as_py()


def test_the_last_layers_of_a_vit_learn_labels(catalog: str, tmp_path: Path) -> None:
    settings = {"min_products": 1, "trainable_layers": 9, "weights": "none", **VIT}
    done = train(ImageLabelsTraining(catalog=catalog, output=str(tmp_path / "model"), **settings))
    assert load_artifact(str(tmp_path / "model"), target="labels").id == done.model_id
