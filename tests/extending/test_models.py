"""A backbone, a decoder and a fusion policy added from outside the package, by the steps of their pages."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from atlas_ray.artifacts import load_artifact, save_artifact
from atlas_ray.cli.main import main
from atlas_ray.modalities.products import Products
from atlas_ray.models.backbones import BACKBONES
from atlas_ray.models.decoders import DECODERS
from atlas_ray.models.fusion import POLICIES
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.taxonomy import Vocabulary
from atlas_ray.training.settings import TuneConfig
from atlas_ray.training.tune import draw
from tests.docs.test_walks import walk

MODULES = ("patches", "gru", "product")


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in a folder of its own that is on the path; what is added is gone afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(0)
    dicts: list[dict[str, Any]] = [BACKBONES, DECODERS, POLICIES]
    before = [set(each) for each in dicts]
    yield
    for each, names in zip(dicts, before, strict=True):
        for name in each.keys() - names:
            del each[name]
    for module in MODULES:
        sys.modules.pop(module, None)


def answers(names: dict[str, Any]) -> list[tuple[str, ...]]:
    """Save the page's network, load it again, and ask it."""
    taxonomy, network = names["taxonomy"], names["objective"].network
    save_artifact("saved", network, vocabulary=Vocabulary.of(taxonomy), taxonomy=taxonomy, metrics={})
    predictor = PathPredictor(load_artifact("saved"), PredictorConfig(precision="float32", decode_threads=1))
    return [tuple(path) for path in predictor.predict(Products(names["pictures"]))["category_path"].to_pylist()]


@pytest.mark.long
def test_a_backbone(capsys: pytest.CaptureFixture[str]) -> None:
    names = walk("extending/backbone.md")
    assert names["losses"][-1] < names["losses"][0]
    assert all(parameter.grad is not None for parameter in names["objective"].network.encoder.parameters())
    assert set(answers(names)) <= set(names["taxonomy"].leaves)
    with pytest.raises(SystemExit):
        main(["train", "classifier", "--help"])
    assert "|patches" in "".join(capsys.readouterr().out.split())


@pytest.mark.long
def test_a_decoder() -> None:
    names = walk("extending/decoder.md")
    assert names["losses"][-1] < names["losses"][0]
    assert torch.equal(names["exact"].leaf, names["beam"].leaf)
    assert set(answers(names)) <= set(names["taxonomy"].leaves)


def test_a_fusion_policy() -> None:
    names = walk("extending/fusion-policy.md")
    assert names["losses"][-1] < names["losses"][0]
    network = names["objective"].network
    scores, present = names["scores"], torch.tensor([[True, False]] * 3)
    torch.testing.assert_close(network(scores, present), scores[:, 0])
    drawn = draw(TuneConfig(trials=3), names["settings"])
    assert [trial.keys() for trial in drawn] == [{"decoder_lr"}] * 3
