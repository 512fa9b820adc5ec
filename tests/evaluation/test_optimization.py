"""`optimize`: a faster copy of a model, or a refusal that says which layers to keep."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from atlas_ray.artifacts import load_artifact, load_network, load_zoom_artifact, save_artifact, save_zoom_artifact
from atlas_ray.cli.main import main
from atlas_ray.errors import ArtifactError, ConfigError, OutputError
from atlas_ray.evaluation import optimization
from atlas_ray.evaluation.optimization import OptimizeConfig, optimize
from atlas_ray.modalities.products import Products
from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.prediction.engines import ENGINES, Engine, Form
from atlas_ray.prediction.engines.pytorch import as_it_is
from atlas_ray.prediction.label_models import LabelModels
from atlas_ray.prediction.labels import LabelPredictor
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.prediction.sensitivity import sensitive_layers
from atlas_ray.prediction.zoom import ZoomPredictor
from atlas_ray.scoring.predict import PredictorSpec, engine_of_zoom
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary
from tests.support.parts import make_fused, make_text_artifact

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of noise instead of a catalogue's."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)

    def pictures(config: OptimizeConfig, network: object, split: str, count: int) -> Iterator[Products]:
        texts = {"title": ["red shirt"] * 40, "description": ["a saree"] * 40}
        yield from Products(pixels[:count], {name: text[:count] for name, text in texts.items()}).split(32)

    monkeypatch.setattr(optimization, "_pictures", pictures)


def test_a_catalogue_makes_a_model_faster(
    small_model: str, catalog: str, local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "fast")
    command = ["optimize", "--model", small_model, "--catalog", catalog, "--output", output, "--pictures", "20"]
    assert main([*command, "--min-agreement", "0"]) == 0
    found = load_artifact(output)
    assert f"model {found.id} in {output}" in capsys.readouterr().out
    entry = json.loads((tmp_path / "fast" / "model.json").read_text())["compiled"]["openvino-int8"]
    assert entry["made_from"] == load_artifact(small_model).id
    assert (entry["ranges_from"], entry["split"], entry["kept"]) == (20, "val", [])
    assert entry["compared"] > 0
    assert not (tmp_path / "fast" / "inputs").exists()
    assert main(command) == 2
    assert "holds a model; name a new folder" in capsys.readouterr().err


def test_a_fused_model_gets_a_faster_member(drawn: None, garments: Taxonomy, tmp_path: Path) -> None:
    fused, output = make_fused(tmp_path, garments), str(tmp_path / "fast")
    config = OptimizeConfig(model=fused, catalog="c", output=output, engine="openvino", min_agreement=1)
    found = optimize(config)
    assert (found.agreement, found.pictures) == (1, 40)
    assert found.speed > 0
    assert load_network(output).id == found.model_id != load_network(fused).id
    assert load_network(output).members["picture"].compiled.keys() == {"openvino"}
    with pytest.raises(OutputError, match="name a new folder"):
        optimize(config)


def test_a_model_of_labels_gets_faster(drawn: None, garments: Taxonomy, tmp_path: Path) -> None:
    torch.manual_seed(0)
    space, model, output = LabelSpace(garments), str(tmp_path / "model"), str(tmp_path / "fast")
    network = Classifier(ClassifierConfig(classes=len(space), backbone="resnet18", image_size_px=32))
    save_artifact(
        model, network, vocabulary=Vocabulary.of(garments), taxonomy=garments, metrics={}, labels=space
    )  # fmt: skip
    found = optimize(OptimizeConfig(model=model, catalog="c", output=output, min_agreement=0))
    assert (found.pictures, 0 <= found.agreement <= 1) == (40, True)
    products = Products(torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8), {})
    answers = {}
    for engine in ("auto", "openvino-int8", "torch"):
        config = PredictorConfig(engine=engine, precision="float32", device="cpu")
        answers[engine] = LabelPredictor(load_artifact(output, target="labels"), config).infer(products)
        together = LabelModels({"a": load_artifact(output, target="labels")}, "cpu", "float32", engine)
        assert together(products)["a"][0].equal(answers[engine])
    assert answers["auto"].equal(answers["openvino-int8"])
    assert not answers["auto"].equal(answers["torch"])
    torch.testing.assert_close(answers["auto"], answers["torch"], atol=0.3, rtol=0)


def test_a_zoom_filter_gets_faster(drawn: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, output = str(tmp_path / "model"), str(tmp_path / "fast")
    save_zoom_artifact(model, ZoomNetwork(ZoomConfig(image_size_px=32)), metrics={})
    found = optimize(OptimizeConfig(model=model, catalog="c", output=output, min_agreement=0))
    artifact = load_zoom_artifact(output)
    assert artifact.id == found.model_id != load_zoom_artifact(model).id
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    fast, exact = (
        ZoomPredictor(artifact, precision="float32", device="cpu", engine=engine)(pixels)
        for engine in ("auto", "torch")
    )
    assert (fast != exact).any()
    assert np.abs(fast - exact).max() < 0.02
    for engine, wanted in (("torch", exact), ("openvino-int8", fast), ("auto", fast), ("compiled", fast)):
        config = PredictorConfig(precision="float32", device="cpu", engine=engine)
        spec = PredictorSpec(
            model="m",
            taxonomy_json="{}",
            within=(),
            config=config,
            sizes_px=(32,),
            zoom_model=output,
            zoom_threshold=0.5,
            zoom_engine=engine_of_zoom(engine, artifact.engines),
        )
        zoom = spec.build_zoom()
        assert zoom is not None
        np.testing.assert_array_equal(zoom(pixels), wanted)  # an engine that it has no form of is the model's alone


def test_a_model_that_agrees_too_seldom_is_refused(
    drawn: None, small_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []

    def make(encoder: torch.nn.Module, pictures: torch.Tensor, names: tuple[str, ...]) -> dict[str, bytes]:
        kept.extend(names)
        return {"pt": b"1" if names else b"0"}

    def load(files: dict[str, bytes], encoder: torch.nn.Module, size: int) -> object:
        return encoder if files["pt"] == b"1" else lambda pictures: encoder(pictures.flip(0))

    broken = Engine(as_it_is, "the features of other pictures", form=Form(make, load))  # type: ignore[arg-type]
    monkeypatch.setitem(ENGINES, "broken", broken)
    # The answers of an untrained model are the same for all pictures, but for a head that tells them apart.
    monkeypatch.setattr(PathPredictor, "infer", _features_of)
    # And such a head gives other ones in bfloat16, which an engine computes in on some machines.
    monkeypatch.setattr("atlas_ray.prediction.vectors.choose_dtype", lambda *_: torch.float32)
    config = OptimizeConfig(model=small_model, catalog="c", output=str(tmp_path / "fast"), engine="broken")
    with pytest.raises(ArtifactError, match=r"0\.\d{4} of 40 answers.*--min-agreement is 0\.995.*--keep \w") as refused:
        optimize(config)
    assert not (tmp_path / "fast" / "model.json").exists()
    names = str(refused.value).rpartition("--keep ")[2]
    assert optimize(dataclasses.replace(config, keep=names)).agreement == 1
    assert kept == names.split(",")


def _features_of(predictor: PathPredictor, products: Products) -> object:
    encoded = predictor._encoder.encode(products)
    return type("Posterior", (), {"leaf": (encoded.mean((1, 2, 3))[:, None] * 1e4).round().long()})


def test_what_cannot_be_made_faster_is_refused(
    drawn: None, small_model: str, garments: Taxonomy, tmp_path: Path
) -> None:
    title = str(tmp_path / "title")
    make_text_artifact(title, garments, "title", ["red"])
    config = OptimizeConfig(model=title, catalog="c", output=str(tmp_path / "fast"))
    with pytest.raises(ArtifactError, match="looks at no picture"):
        optimize(config)
    with pytest.raises(ConfigError, match="names 'layer9', and the encoder has no such layer; it has layer"):
        optimize(dataclasses.replace(config, model=small_model, keep="layer9"))
    with pytest.raises(
        ConfigError, match="'torch' has nothing to store in a model; expected one of openvino, openvino-int8"
    ):
        optimize(dataclasses.replace(config, engine="torch"))


def test_the_layer_with_the_widest_range_suffers_most() -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 3, 3) for _ in range(3)]
    network = torch.nn.Sequential(*layers).requires_grad_(False)
    layers[1].weight[:, 0, 0, 0] = torch.tensor([1000.0, -1000.0, 1000.0])  # the others round to the same
    before = [layer.weight.clone() for layer in layers]
    pictures = torch.rand(4, 3, 16, 16)
    assert len(sensitive_layers(network, pictures, 5)) == 3
    assert sensitive_layers(network, pictures, 1) == ["1"]
    assert all(layer.weight.equal(weight) for layer, weight in zip(layers, before, strict=True))
