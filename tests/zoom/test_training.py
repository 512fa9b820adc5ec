import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console

from atlas_ray.artifacts import load_zoom_artifact
from atlas_ray.errors import CatalogError, NotFiniteError, OutputError
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.prediction.zoom import ZoomPredictor
from atlas_ray.reports.zoom import print_zoom, zoom_scores
from atlas_ray.schemas import QUARANTINE
from atlas_ray.zoom import training as zoom_training
from atlas_ray.zoom.examples import Examples, read_examples, split_of
from atlas_ray.zoom.settings import ZoomTraining
from atlas_ray.zoom.sources import Candidate, Candidates, draw_candidates
from atlas_ray.zoom.svm import features, fit_baseline
from atlas_ray.zoom.training import train_zoom

SMALL: dict[str, Any] = {"image_size_px": 32, "batch_size": 8, "device": "cpu"}


def draw(rng: np.random.Generator, *, zoomed: bool, side: int = 48) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Texture all over, or a patch of it on white."""
    picture = np.full((side, side, 3), 255, np.uint8)
    patch = slice(0, side) if zoomed else slice(side // 3, 2 * side // 3)
    width = patch.stop - patch.start
    picture[patch, patch] = rng.integers(0, 200, (width, width, 3))
    return picture


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """120 labelled pictures, one of which is broken."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in ("zoomed", "normal"):
        (root / name).mkdir()
        for number in range(60):
            Image.fromarray(draw(rng, zoomed=name == "zoomed")).save(root / name / f"{name}-{number}.png")
    (root / "normal" / "normal-0.png").write_bytes(b"<html>404</html>")
    return {name: str(root / name) for name in ("zoomed", "normal")}


def examples(count: int, seed: int) -> Examples:
    rng, zoomed = np.random.default_rng(seed), np.arange(count) % 2 == 0
    pixels = np.stack([draw(rng, zoomed=one, side=64) for one in zoomed.tolist()])
    return Examples(torch.from_numpy(pixels).permute(0, 3, 1, 2), zoomed, np.arange(count).astype(str))


@pytest.mark.long
def test_close_ups_are_learnt_from_folders(folders: dict[str, Any], tmp_path: Path) -> None:
    config = ZoomTraining(output=str(tmp_path / "model"), epochs=5, **folders, **SMALL)
    report = train_zoom(config)
    artifact = load_zoom_artifact(report.output)
    assert artifact.id == report.model_id
    metrics = artifact.metrics
    assert metrics == json.loads(json.dumps(report.metrics))
    for model in ("cnn", "svm", "filter"):
        assert metrics["test"][model]["zoomed"]["f1"] >= 0.9
        assert metrics["test"][model]["normal"]["support"] == metrics["pictures"]["test"]["normal"]
    assert sum(sum(part.values()) for part in metrics["pictures"].values()) == 119
    assert len(metrics["history"]) == 5
    assert artifact.model.config.threshold == metrics["threshold"]
    assert metrics["unseen_precision"] >= config.target_precision
    low, high = metrics["threshold_interval"]
    assert 0 <= low <= metrics["threshold"] <= high <= 1
    pool = [metrics["pictures"][name] for name in ("train", "val")]
    assert metrics["threshold_pictures"] == {kind: sum(part[kind] for part in pool) for kind in ("zoomed", "normal")}

    quarantine = pq.read_table(tmp_path / "model" / "quarantine")
    assert quarantine.schema.equals(QUARANTINE)
    (row,) = quarantine.to_pylist()
    assert row["image_uri"].endswith("normal-0.png")
    assert (row["stage"], row["error_code"], row["product_id"]) == ("train", "unsupported_format", "normal-0")

    splits, _ = read_examples(draw_candidates(config), 32, seed=config.seed)
    predictor = ZoomPredictor(artifact, device="cpu")
    found = predictor(splits["test"].pixels)
    for model, threshold in (("cnn", 0.5), ("filter", predictor.threshold)):
        assert zoom_scores(splits["test"].zoomed, found >= threshold) == metrics["test"][model]
    again = train_zoom(ZoomTraining(output=str(tmp_path / "again"), epochs=5, **folders, **SMALL)).metrics
    assert [row["val_loss"] for row in again["history"]] == pytest.approx(
        [row["val_loss"] for row in metrics["history"]], rel=1e-3
    )
    with pytest.raises(OutputError, match=r"holds model\.json"):
        train_zoom(config)


@pytest.mark.long
def test_a_catalogue_alone_is_enough(catalog: str, tmp_path: Path) -> None:
    report = train_zoom(ZoomTraining(output=str(tmp_path), catalog=catalog, epochs=1, **SMALL))
    counts = report.metrics["pictures"]
    assert sum(sum(part.values()) for part in counts.values()) == 112
    assert sum(part["zoomed"] for part in counts.values()) >= 45
    codes = pq.read_table(tmp_path / "quarantine")["error_code"].to_pylist()
    assert sorted(codes) == ["empty", "not_found", "too_many_pixels", "truncated", "unsupported_format"]


def test_a_product_is_in_one_split_alone(folders: dict[str, str]) -> None:
    uris = [f"{folders['zoomed']}/zoomed-{number}.png" for number in range(40)]
    drawn = [Candidate(uri, f"product-{number % 20}", zoomed=number < 20) for number, uri in enumerate(uris)]
    splits, refused = read_examples(Candidates(drawn), 24, seed=1)
    assert not refused
    products = {name: set(part.product_ids) for name, part in splits.items()}
    assert all(products.values())
    assert sum(len(part) for part in splits.values()) == 40
    assert sum(len(part) for part in products.values()) == len(set.union(*products.values())) == 20
    assert {split_of(f"product-{number}", seed=1) for number in range(20)} == products.keys()


def test_one_kind_alone_is_refused(folders: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(CatalogError, match=r"the split 'train' has \d+ zoomed and 0 normal pictures, of 60"):
        train_zoom(ZoomTraining(output=str(tmp_path), zoomed=folders["zoomed"], normal=str(tmp_path / "none"), **SMALL))


def test_the_baseline() -> None:
    baseline = fit_baseline(examples(24, seed=0), seed=0)
    test = examples(20, seed=1)
    assert zoom_scores(test.zoomed, baseline.find_zoomed(test))["zoomed"]["f1"] >= 0.9
    blank = Examples(torch.full((2, 3, 64, 64), 7, dtype=torch.uint8), np.array([True, False]), np.array(["a", "b"]))
    assert np.isfinite(features(blank)).all()


def test_the_scores_of_both_classes() -> None:
    zoomed = np.array([True, True, True, False, False])
    found = np.array([True, True, False, True, False])
    assert zoom_scores(zoomed, found) == {
        "zoomed": {"precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3),
                   "support": 3},
        "normal": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
        "average": {"precision": pytest.approx(0.6), "recall": pytest.approx(0.6), "f1": pytest.approx(0.6),
                    "support": 5},
    }  # fmt: skip
    assert zoom_scores(zoomed, np.zeros(5, bool))["zoomed"] == {"precision": 0, "recall": 0, "f1": 0, "support": 3}


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    scores = zoom_scores(np.array([True, False, False]), np.array([True, True, False]))
    metrics = {
        "test": {"cnn": scores, "svm": scores, "filter": scores}, "threshold": 0.25, "target_precision": 0.95,
        "unseen_precision": 0.9, "unseen_recall": 1.0, "threshold_interval": [0.125, 0.5],
        "threshold_pictures": {"zoomed": 40, "normal": 300},
    }  # fmt: skip
    print_zoom(metrics, Console(width=80, soft_wrap=True))
    shown = capsys.readouterr().out
    rows = [" ".join(line.split()) for line in shown.splitlines()]
    for model in ("network, probability 0.5", "SVM, its own side", "network, threshold 0.2500"):
        first = rows.index(f"{model} zoomed 0.500 1.000 0.667 1")
        assert rows[first + 1 : first + 3] == ["normal 1.000 0.500 0.667 2", "average 0.833 0.667 0.667 3"]
    assert "threshold 0.2500 (90% interval 0.1250 to 0.5000): of 340 pictures" in shown
    assert "few pictures stand behind this threshold, 40 zoomed and 300 normal ones" in shown
    print_zoom(metrics | {"threshold_pictures": {"zoomed": 200, "normal": 300}}, Console(width=80, soft_wrap=True))
    assert "few pictures" not in capsys.readouterr().out
    assert "no threshold reaches the precision 0.95" in shown
    assert "the zoom filter finds" not in shown
    print_zoom(metrics | {"unseen_recall": 0.0104}, Console(width=80, soft_wrap=True))
    assert "the zoom filter finds 1.0% of the zoomed pictures at its threshold 0.2500" in capsys.readouterr().out


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_the_threshold_is_chosen_on_pictures_that_no_network_has_seen(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, folds: int
) -> None:
    config = ZoomTraining(output="o", zoomed=folders["zoomed"], normal=folders["normal"], folds=folds, **SMALL)
    splits, _ = read_examples(draw_candidates(config), 32, seed=0)
    pool = Examples.joined([splits["train"], splits["val"]])
    judged: list[str] = []

    def fit(config: ZoomTraining, train: Examples, val: Examples, device: torch.device) -> tuple[ZoomNetwork, Any]:
        assert not set(train.product_ids) & set(val.product_ids)
        assert len(train) + len(val) == len(pool)
        judged.extend(val.product_ids)
        return ZoomNetwork(ZoomConfig(image_size_px=32)), []

    monkeypatch.setattr(zoom_training, "_fit", fit)
    found = zoom_training._judged_unseen(config, pool, torch.device("cpu"))
    assert sorted(judged) == sorted(pool.product_ids)
    assert ((found > 0) & (found < 1)).all()


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 3.0), (4.0, 0.0), (0.6, -5.0)])
def test_networks_that_lean_to_a_side_come_to_one_scale(scale: float, shift: float) -> None:
    rng = np.random.default_rng(5)
    pixels = torch.from_numpy(rng.integers(0, 255, (400, 3, 22, 22), dtype=np.uint8))
    torch.manual_seed(0)
    network = ZoomNetwork(ZoomConfig(image_size_px=22)).eval()
    with torch.inference_mode():
        plain = network(pixels).numpy()
    plain = (plain - plain.mean()) / plain.std()
    zoomed = rng.random(400) < 1 / (1 + np.exp(-2 * plain))
    leaning = (scale * plain + shift).astype(np.float32)
    before = {name: tensor.clone() for name, tensor in network.head[-1].state_dict().items()}
    zoom_training._calibrate(network, leaning, zoomed)
    after = network.head[-1].state_dict()
    fitted = float((after["weight"] / before["weight"]).mean())
    moved = float((after["bias"] - fitted * before["bias"])[0])
    trusted = 1 / (1 + np.exp(-(fitted * leaning + moved)))
    assert trusted.mean() == pytest.approx(zoomed.mean(), abs=0.01)
    assert fitted * scale == pytest.approx(2, abs=0.5)
    assert fitted * shift + moved == pytest.approx(0, abs=0.4)


def test_what_cannot_be_calibrated_stays(tmp_path: Path) -> None:
    network = ZoomNetwork(ZoomConfig(image_size_px=22))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    logits = np.linspace(-3, 3, 40).astype(np.float32)
    for zoomed in (np.ones(40, bool), np.zeros(40, bool), logits < 0):
        zoom_training._calibrate(network, logits, zoomed)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.long
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20])
def test_a_training_that_diverges_leaves_no_model(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    monkeypatch.setattr(zoom_training, "_measure", lambda *_: (value, 0.5))
    with pytest.raises(NotFiniteError, match=r"diverged: the validation loss is .* in epoch 1, with --learning-rate 0"):
        train_zoom(ZoomTraining(output=str(tmp_path), zoomed=folders["zoomed"], normal=folders["normal"], **SMALL))
    assert not (tmp_path / "model.json").exists()
