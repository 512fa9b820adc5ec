"""The classifier, from its head to what a predictor says with it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from atlas_ray.artifacts import load_artifact, save_artifact
from atlas_ray.errors import ArtifactError, ConfigError, TaxonomyError
from atlas_ray.modalities.products import Products
from atlas_ray.models.backbones.backbone import Backbone
from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.taxonomy import CategoryPath, Taxonomy, Vocabulary

PATHS = [("Men", "Shirts"), ("Men", "Shoes", "Boots"), ("Men", "Shoes", "Clogs"), ("Women", "Shirts"), ("Gifts",)]
TAXONOMY = Taxonomy(PATHS, name="shop")


def small(**settings: Any) -> Classifier:
    """An untrained classifier whose answers depend on the picture."""
    torch.manual_seed(0)
    config = {"classes": len(PATHS), "backbone": "resnet18", "image_size_px": 64, "hidden_dim": 8, **settings}
    model = Classifier(ClassifierConfig(**config)).eval()
    last = model.head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(4)
        last.bias.normal_()
    return model


def pictures(count: int) -> Tensor:
    torch.manual_seed(1)
    brightness = torch.linspace(20, 256, count)[:, None, None, None]
    return (torch.rand(count, 3, 64, 64) * brightness).to(torch.uint8)


def test_the_head_is_the_papers() -> None:
    head = small(dropout=0.4).head
    assert [type(layer) for layer in head] == [
        nn.BatchNorm1d, nn.Dropout, nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout, nn.Linear,
    ]  # fmt: skip
    first, half, narrow, _, second, whole, last = head
    assert isinstance(first, nn.BatchNorm1d)
    assert isinstance(second, nn.BatchNorm1d)
    assert isinstance(half, nn.Dropout)
    assert isinstance(whole, nn.Dropout)
    assert isinstance(narrow, nn.Linear)
    assert isinstance(last, nn.Linear)
    assert (first.num_features, second.num_features) == (2 * 512, 8)
    assert (half.p, whole.p) == (0.2, 0.4)
    assert (narrow.in_features, narrow.out_features) == (2 * 512, 8)
    assert (last.in_features, last.out_features) == (8, len(PATHS))


def test_a_head_of_one_dense_layer_sees_the_average() -> None:
    model = small(hidden_dim=0, dropout=0.0)
    drop, dense = model.head
    assert isinstance(drop, nn.Dropout)
    assert isinstance(dense, nn.Linear)
    assert (dense.in_features, dense.out_features) == (512, len(PATHS))
    features = torch.randn(3, 512, 2, 3)
    torch.testing.assert_close(model.classify(features), dense(features.mean((2, 3))))


@pytest.mark.long
def test_logits_may_be_negative() -> None:
    with torch.inference_mode():
        logits = small()(pictures(4))
    assert logits.shape == (4, len(PATHS))
    assert logits.min() < 0


@pytest.mark.long
def test_the_head_sees_average_and_maximum() -> None:
    model = small()
    seen: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features = torch.randn(3, 512, 2, 3)
    with torch.inference_mode():
        model.classify(features)
        encoded = model.encoder(pictures(2))
        model(pictures(2))
    cells = features.flatten(2)
    torch.testing.assert_close(seen[0], torch.cat([cells.mean(2), cells.max(2).values], 1))
    assert encoded.shape == (2, 512, 2, 2)
    torch.testing.assert_close(seen[1], torch.cat([encoded.flatten(2).mean(2), encoded.flatten(2).amax(2)], 1))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"classes": 0}, "classes is 0; expected 1 to"),
        ({"backbone": "vgg"}, "backbone is 'vgg'; expected one of"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"hidden_dim": 2.5}, "hidden_dim is 2.5; expected a whole number"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        ClassifierConfig(**{"classes": 3, **change})  # type: ignore[arg-type]


def save(uri: Path, model: Classifier) -> str:
    return save_artifact(
        str(uri), model, vocabulary=Vocabulary.of(TAXONOMY), taxonomy=TAXONOMY, metrics={"val_accuracy": 0.5}
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("classifier")
    save(folder, small())
    return str(folder)


@pytest.mark.long
def test_what_was_saved_is_loaded(saved: str, tmp_path: Path) -> None:
    model = small()
    artifact = load_artifact(saved)
    assert isinstance(artifact.model, Classifier)
    assert artifact.model.config == model.config
    assert artifact.taxonomy.leaves == TAXONOMY.leaves  # in their order: it is that of the classes
    assert artifact.metrics == {"val_accuracy": 0.5}
    assert not artifact.model.training
    with torch.inference_mode():
        torch.testing.assert_close(artifact.model(pictures(2)), model(pictures(2)))
    assert save(tmp_path, model) == artifact.id


@pytest.mark.long
def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    save(tmp_path, small(classes=7))
    with pytest.raises(ArtifactError, match="classes is 7, but there are 5"):
        load_artifact(str(tmp_path))


def predictor(uri: str, *, taxonomy: Taxonomy | None = None, within: CategoryPath = ()) -> PathPredictor:
    settings = PredictorConfig(precision="float32", top_k=len(PATHS), decode_threads=1)
    return PathPredictor(load_artifact(uri), settings, taxonomy=taxonomy, within=within)


def weights(table: pa.Table) -> list[dict[CategoryPath, float]]:
    """The probability of each path, a picture each."""
    return [
        {
            tuple(row["category_path"]): row["probability"],
            **{tuple(other["category_path"]): other["probability"] for other in row["alternatives"]},
        }
        for row in table.to_pylist()
    ]


def truth(count: int) -> Tensor:
    """The probabilities of the classes, (count, leaves)."""
    with torch.inference_mode():
        probability: Tensor = small()(pictures(count)).softmax(-1)
    return probability


@pytest.mark.long
def test_a_predictor_gives_the_networks_probabilities(saved: str) -> None:
    table = predictor(saved).predict(Products(pictures(6)))
    for row, found, wanted in zip(table.to_pylist(), weights(table), truth(6), strict=True):
        assert sum(found.values()) == pytest.approx(1, abs=1e-5)
        assert found == pytest.approx(dict(zip(TAXONOMY.leaves, wanted.tolist(), strict=True)), abs=1e-3)
        assert row["probability"] == max(found.values())
        assert row["outside_probability"] == pytest.approx(0, abs=1e-5)
        path = tuple(row["category_path"])
        levels = [
            sum(weight for other, weight in found.items() if other[:level] == path[:level])
            for level in range(1, len(path) + 1)
        ]
        assert row["level_probabilities"] == pytest.approx(levels, abs=1e-5)


@pytest.mark.long
def test_within_a_node_the_rest_is_outside(saved: str) -> None:
    table = predictor(saved, within=("Men", "Shoes")).predict(Products(pictures(6)))
    inside = [n for n, path in enumerate(TAXONOMY.leaves) if path[:2] == ("Men", "Shoes")]
    for row, found, wanted in zip(table.to_pylist(), weights(table), truth(6), strict=True):
        mass = float(wanted[inside].sum())
        assert found == pytest.approx({TAXONOMY.leaves[n]: float(wanted[n]) / mass for n in inside}, abs=1e-3)
        assert sum(found.values()) == pytest.approx(1, abs=1e-5)
        assert row["outside_probability"] == pytest.approx(1 - mass, abs=1e-3)
        assert row["outside_probability"] > 0.01
        assert row["level_probabilities"][:2] == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.long
def test_a_part_of_the_taxonomy_in_another_order_keeps_the_classes(saved: str) -> None:
    part = Taxonomy([PATHS[3], PATHS[4], PATHS[0]], name="part")
    for found, wanted in zip(
        weights(predictor(saved, taxonomy=part).predict(Products(pictures(6)))), truth(6), strict=True
    ):
        mass = float(wanted[[0, 3, 4]].sum())
        assert found == pytest.approx({PATHS[n]: float(wanted[n]) / mass for n in (0, 3, 4)}, abs=1e-3)


@pytest.mark.long
@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        ([PATHS[0], ("Women", "Shoes")], "no class for 'Women > Shoes'; it was not trained on it"),
        ([("Men", "Shoes")], "no class for 'Men > Shoes'"),  # a node that is no leaf
        ([("Men", "Hats")], "no token for 'Hats'"),
    ],
)
def test_a_path_that_is_no_class_is_refused(saved: str, paths: list[CategoryPath], reason: str) -> None:
    with pytest.raises(TaxonomyError, match=reason):
        predictor(saved, taxonomy=Taxonomy(paths, name="other"))


@pytest.mark.long
def test_a_classifier_has_no_attention_maps(saved: str) -> None:
    with pytest.raises(ConfigError, match="is no encoder-decoder, whose attention maps"):
        predictor(saved).explain(Products(pictures(1)))


def test_the_last_layers_of_a_backbone() -> None:
    encoder = Backbone("resnet50")
    layers = [part for part in encoder.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d)]
    assert len(layers) == 53 + 53
    before = encoder.layers_before_last(40)
    assert before == layers[:66]
    last = {
        id(part) for part in encoder.get_submodule("layer4").modules()
    }  # 3 blocks of 6 and a shortcut of 2: 20 layers
    assert not last & {id(part) for part in before}
    assert encoder.layers_before_last(0) == layers
    assert encoder.layers_before_last(200) == []
