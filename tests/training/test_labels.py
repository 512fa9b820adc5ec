"""Models of labels for real: trained, fused, measured, and refused where paths are wanted."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from atlas_ray.artifacts import load_artifact, save_joint_artifact
from atlas_ray.cli.main import main
from atlas_ray.errors import ArtifactError, ConfigError, OutputError
from atlas_ray.evaluation.labels import evaluate_labels
from atlas_ray.modalities.products import Products
from atlas_ray.modalities.texts import words_of
from atlas_ray.models.backbones.backbone import Backbone
from atlas_ray.models.fusion.policy import FusionConfig, build_fusion
from atlas_ray.models.text import TextNetwork
from atlas_ray.prediction.label_models import LabelModels
from atlas_ray.taxonomy import LabelSpace
from atlas_ray.training.fusion import train_fusion
from atlas_ray.training.run import train
from atlas_ray.training.settings import ImageLabelsTraining, TextTraining
from tests.support.parts import make_artifact, make_text_artifact, rows
from tests.training.test_fusion import SMALL, fusion

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def members(described: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small models of the labels that 10 training products or more have."""
    folder = tmp_path_factory.mktemp("members")
    members = {name: str(folder / name) for name in ("picture", "title", "description")}
    settings = SMALL | {"target": "labels", "min_products": 10, "epochs": 10, "encoder_lr": 3e-2, "decoder_lr": 3e-2}
    vectors = folder / "glove.txt"
    vectors.write_text("".join(f"{word} {'0.1 ' * 16}\n" for word in ("men", "women", "unseen")))
    settings["word_vectors"] = str(vectors)
    train(TextTraining(catalog=described, output=members["title"], field="title", **settings))
    torch.manual_seed(1)
    start = Backbone("resnet18").state_dict()
    safetensors.torch.save_file(start, folder / "start.safetensors")
    picture = ImageLabelsTraining(
        catalog=described, output=members["picture"], backbone="resnet18", image_size_px=32, hidden_dim=16,
        min_products=10, batch_size=16, epochs=1, weights=str(folder / "start.safetensors"), trainable_layers=4,
    )  # fmt: skip
    train(picture)
    title = load_artifact(members["title"], target="labels")
    make_text_artifact(
        members["description"], title.taxonomy, "description", ["cotton", "wool", "sarees"], title.labels
    )
    return members


@pytest.fixture(scope="module")
def fused(described: str, members: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The mean of two, and a network of three."""
    folder = tmp_path_factory.mktemp("fused")
    title = load_artifact(members["title"], target="labels")
    assert title.labels is not None
    shape = FusionConfig(modalities="title+description", outputs=len(title.labels), policy="mean", target="labels")
    texts = {name: members[name] for name in ("title", "description")}
    save_joint_artifact(
        str(folder / "mean"), build_fusion(shape), texts, taxonomy=title.taxonomy, metrics={}, labels=title.labels
    )
    train_fusion(fusion(described, members, str(folder / "network"), policy="network", epochs=1))
    return {name: str(folder / name) for name in ("mean", "network")}


def test_models_of_labels(described: str, members: dict[str, str]) -> None:
    title, picture = (load_artifact(members[name], target="labels") for name in ("title", "picture"))
    assert title.labels is not None
    assert picture.labels is not None
    products = [row for row in rows(described, "products") if row["category_path"] and row["split"] == "train"]
    counts: dict[str, int] = {}
    every = LabelSpace(title.taxonomy)
    for row in products:
        for label in every.of(tuple(row["category_path"])):
            counts[every.names[label]] = counts.get(every.names[label], 0) + 1
    assert (
        title.labels.names == picture.labels.names == tuple(name for name in every.names if counts.get(name, 0) >= 10)
    )
    assert 3 < len(title.labels) < len(every)
    history = title.metrics["history"]
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    assert title.metrics["val_micro_f1"] == max(epoch["val_micro_f1"] for epoch in history) > 0.5
    assert not any(name.startswith("val_accuracy") for name in history[0])
    assert set(picture.metrics["history"][0]) == set(history[0])

    assert title.words is not None
    tokens = [word for row in products for word in words_of(row["title"], "title")]
    known = {"men", "women"} & set(title.words.words)
    assert title.metrics["words_with_vectors"] == len(known) / len(title.words.words) > 0
    assert title.metrics["tokens_with_vectors"] == sum(word in known for word in tokens) / len(tokens) > 0
    assert "words_with_vectors" not in picture.metrics


def test_the_last_layers_alone_are_trained(members: dict[str, str]) -> None:
    before = safetensors.torch.load_file(Path(members["picture"]).with_name("start.safetensors"))
    after = load_artifact(members["picture"], target="labels").model.get_submodule("encoder").state_dict()
    assert before.keys() == after.keys()
    changed = {name.rpartition(".")[0] for name, tensor in before.items() if not tensor.equal(after[name])}
    assert changed == {f"layer4.1.{name}" for name in ("conv1", "bn1", "conv2", "bn2")}


@pytest.mark.slow
def test_all_are_measured_in_one_stream(
    described: str,
    members: dict[str, str],
    fused: dict[str, str],
    tmp_path: Path,
) -> None:
    uris = [*members.values(), *fused.values()]
    report = evaluate_labels(described, str(tmp_path / "out"), uris, split="train")
    assert pq.read_table(tmp_path / "out" / "models.parquet").to_pylist() == report.models
    assert pq.read_table(tmp_path / "out" / "missed.parquet").to_pylist() == report.missed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "missed.parquet", "models.parquet", "overlap.parquet"
    ]  # fmt: skip
    assert [row["model"] for row in report.models] == uris
    assert [row["policy"] for row in report.models] == [None, None, None, "mean", "network"]
    assert report.models[3]["modalities"] == "title+description"

    products = [row for row in rows(described, "products") if row["category_path"] and row["split"] == "train"]
    assert (report.products, report.left_out) == (len(products), 0)
    artifact = load_artifact(members["title"], target="labels")
    assert artifact.labels is not None
    assert artifact.words is not None
    assert isinstance(artifact.model, TextNetwork)
    has = artifact.labels.targets(tuple(row["category_path"]) for row in products)
    titles = [row["title"] for row in products]
    with torch.inference_mode():
        named = (artifact.model(torch.from_numpy(artifact.words.encode(titles))) > 0).numpy()
    blank = np.array([not title or not title.strip() for title in titles])
    named[blank] = False
    right, wrong, missed = ((a & b).sum(0) for a, b in ((named, has), (named, ~has), (~named, has)))
    row = report.models[1]
    assert row["products"] == (~blank).sum()
    described_too = [bool(product["description"]) for product in products]
    assert report.models[2]["products"] == sum(described_too) < len(products)
    assert row["micro_f1"] == pytest.approx(2 * right.sum() / (2 * right + wrong + missed).sum())
    assert row["micro_precision"] == pytest.approx(right.sum() / (right + wrong).sum())
    assert row["micro_recall"] == pytest.approx(right.sum() / (right + missed).sum())
    table = [one for one in report.missed if one["model"] == members["title"]]
    assert [one["rank"] for one in table] == list(range(1, len(artifact.labels) + 1))
    assert [one["missed"] for one in table] == sorted(missed.tolist(), reverse=True)
    support = dict(zip(artifact.labels.names, has.sum(0).tolist(), strict=True))
    misses = dict(zip(artifact.labels.names, missed.tolist(), strict=True))
    assert all((one["support"], one["missed"]) == (support[one["label"]], misses[one["label"]]) for one in table)


def test_a_fused_model_of_labels(members: dict[str, str], fused: dict[str, str]) -> None:
    artifacts = {name: load_artifact(uri, target="labels") for name, uri in {**members, **fused}.items()}
    predictor = LabelModels(artifacts, precision="float32")
    texts = {"title": ["Red shirt for men", "Red shirt for men", None], "description": ["cotton", None, None]}
    found = predictor(Products(torch.zeros(3, 3, 32, 32, dtype=torch.uint8), texts, torch.tensor([False] * 3)))
    title, description, mean, network = (found[name] for name in ("title", "description", "mean", "network"))
    assert (title[1].tolist(), description[1].tolist()) == ([True, True, False], [True, False, False])
    assert mean[1].tolist() == network[1].tolist() == [True, True, False]
    expected = (title[0][0].sigmoid() + description[0][0].sigmoid()) / 2
    torch.testing.assert_close(mean[0][0].sigmoid(), expected)
    for fused_odds, _ in (mean, network):
        torch.testing.assert_close(fused_odds[1], title[0][1])  # one modality alone is its own model
    assert not torch.allclose(network[0][0], title[0][0])


@pytest.mark.slow
def test_ridge_learns_whom_to_believe(described: str, members: dict[str, str], tmp_path: Path) -> None:
    done = train_fusion(fusion(described, members, str(tmp_path / "model"), policy="ridge"))
    found = load_artifact(done.output, target="labels").metrics["fit_micro_f1"]
    assert found.keys() == {"fused", "picture", "title", "description"}
    assert found["fused"] > max(found["picture"], found["description"], 0.8)  # the title tells


def test_mistakes_are_told(
    described: str,
    members: dict[str, str],
    fused: dict[str, str],
    tmp_path: Path,
    capfd: Any,
) -> None:
    output, model = str(tmp_path / "out"), members["title"]
    title = load_artifact(model, target="labels")
    assert title.labels is not None
    paths, others = str(tmp_path / "paths"), str(tmp_path / "others")
    make_artifact(paths, title.taxonomy)
    few = LabelSpace(title.taxonomy, title.labels.names[:-1])
    make_text_artifact(others, title.taxonomy, "description", ["cotton"], few)

    commands = {
        ("score", "--catalog", described, "--output", output, "--model", model, "--within", "Men"):
            "names labels, each by itself; leave --taxonomy and --within out",
        ("score", "--catalog", described, "--output", output, "--model", model, "--target-precision", "0.9"):
            "not calibrated, so that no precision can be promised",
        ("explain", "shirt.jpg", "--model", model): "a model of labels, not of category paths",
        ("evaluate-labels", "--catalog", described, "--output", output): "no model to measure; name some with --pic",
        ("train", "text", "--catalog", described, "--output", output, "--field", "title", "--target", "labels"):
            "no label has 400 products or more; the most, ",
        ("train", "image-labels", "--catalog", described, "--output", output, "--smoothing", "tree"):
            "smoothing is 'tree'; labels are smoothed each by itself",
    }  # fmt: skip
    for command, reason in commands.items():
        assert main(list(command)) == 2
        error = capfd.readouterr().err
        assert reason in error
        assert len(error.strip().splitlines()) == 1
    for uri, error, reason in (
        (paths, ArtifactError, "a model of category paths, not of labels"),
        (others, ArtifactError, "labels that are not the"),
    ):
        with pytest.raises(error, match=reason):
            evaluate_labels(described, output, [model, uri])
    with pytest.raises(OutputError, match=r"holds model.json; name a folder of its own"):
        evaluate_labels(described, model, [model])
    for changed, reason in (
        ({"picture": paths}, "a model of category paths, the others are of labels|of labels, the others are of categ"),
        ({"description": others}, "with the same --min-products"),
        ({"picture": fused["mean"]}, "a model over other models cannot be fused again"),
    ):
        with pytest.raises(ArtifactError, match=reason):
            train_fusion(fusion(described, {**members, **changed}, output))
    with pytest.raises(ConfigError, match="smoothing is 'tree'"):
        train_fusion(fusion(described, members, output, policy="network", smoothing="tree"))
    assert not (tmp_path / "out" / "model.json").exists()
