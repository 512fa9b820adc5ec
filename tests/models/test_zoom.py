import json
from pathlib import Path

import numpy as np
import pytest
import torch

from atlas_ray.artifacts import ZoomArtifact, load_artifact, load_zoom_artifact, save_zoom_artifact
from atlas_ray.errors import ArtifactError, ConfigError
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.prediction.zoom import ZoomPredictor


def small(seed: int = 0) -> ZoomNetwork:
    torch.manual_seed(seed)
    return ZoomNetwork(ZoomConfig(image_size_px=24, threshold=0.7)).eval()


def pictures(count: int, size: int = 24) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_it_is_the_network_of_the_paper() -> None:
    network = ZoomNetwork(ZoomConfig()).eval()
    # 3x3 convolutions to 32, 32, 64 channels; 17 x 17 x 64 features to 64; 64 to 1
    convolutions = (3 * 9 + 1) * 32 + (32 * 9 + 1) * 32 + (32 * 9 + 1) * 64
    assert sum(p.numel() for p in network.parameters()) == convolutions + (17 * 17 * 64 + 1) * 64 + 65 == 1_212_513
    logits = network(pictures(2, 150))
    assert logits.shape == (2,)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(network(pictures(2, 150).float()), logits)


def test_the_smallest_picture_that_it_takes() -> None:
    assert ZoomNetwork(ZoomConfig(image_size_px=22)).eval()(pictures(3, 22)).shape == (3,)
    with pytest.raises(ConfigError, match="image_size_px is 21"):
        ZoomConfig(image_size_px=21)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    model_id = save_zoom_artifact(str(tmp_path), small(), metrics={"threshold": 0.7})
    artifact = load_zoom_artifact(str(tmp_path))
    assert artifact.id == model_id
    assert artifact.metrics == {"threshold": 0.7}
    assert artifact.model.config == ZoomConfig(image_size_px=24, threshold=0.7)
    assert not artifact.model.training
    torch.testing.assert_close(artifact.model(pictures(2)), small()(pictures(2)))
    assert save_zoom_artifact(str(tmp_path / "other"), small(1), metrics={}) != model_id


@pytest.mark.long
def test_filters_and_path_models_are_told_apart(tmp_path: Path, small_model: str) -> None:
    save_zoom_artifact(str(tmp_path), small(), metrics={})
    with pytest.raises(ArtifactError, match="kind 'zoom'; expected format 1, kind classifier or encoder-decoder"):
        load_artifact(str(tmp_path))
    with pytest.raises(ArtifactError, match="kind 'encoder-decoder'; expected format 1, kind zoom"):
        load_zoom_artifact(small_model)


def test_another_threshold_in_the_file_is_noticed(tmp_path: Path) -> None:
    save_zoom_artifact(str(tmp_path), small(), metrics={})
    document = json.loads((tmp_path / "model.json").read_text())
    for threshold, reason in ((0.1, "does not give its id"), (1.5, "model.json is damaged: threshold is 1.5")):
        document["config"]["threshold"] = threshold
        (tmp_path / "model.json").write_text(json.dumps(document))
        with pytest.raises(ArtifactError, match=reason):
            load_zoom_artifact(str(tmp_path))


@pytest.mark.long
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_predictor_gives_the_networks_probabilities(batch_size: int) -> None:
    predictor = ZoomPredictor(
        ZoomArtifact(id="a", model=small(), metrics={}), device="cpu", precision="float32", batch_size=batch_size
    )
    assert (predictor.image_size_px, predictor.threshold, predictor.model_id) == (24, 0.7, "a")
    found = predictor(pictures(7))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, small()(pictures(7)).sigmoid().detach().numpy(), rtol=1e-4)
    assert predictor(pictures(0)).shape == (0,)


def test_bfloat16_gives_nearly_the_same() -> None:
    exact, rounded = (
        ZoomPredictor(ZoomArtifact(id="a", model=small(), metrics={}), device="cpu", precision=precision)(pictures(9))
        for precision in ("float32", "bfloat16")
    )
    np.testing.assert_allclose(rounded, exact, atol=0.01)
