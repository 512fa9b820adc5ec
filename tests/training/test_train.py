"""Training for real, on a local Ray."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from atlas_ray.artifacts import load_artifact
from atlas_ray.catalog.importer import ImportConfig, import_catalog
from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError, NotFiniteError, OutputError
from atlas_ray.io import storage
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.training.augment import augment
from atlas_ray.training.loop import Worker
from atlas_ray.training.mistakes import EndAtMistakes
from atlas_ray.training.run import train
from atlas_ray.training.settings import EncoderDecoderTraining
from tests.support.parts import rows

SMALL: dict[str, Any] = {
    "backbone": "resnet18", "image_size_px": 32, "hidden_dim": 32, "batch_size": 16, "epochs": 2,
    "encoder_lr": 1e-3, "decoder_lr": 1e-3, "schedule": "one-cycle", "augment": True,
}  # fmt: skip


@pytest.mark.usefixtures("local_ray")
def test_from_a_catalogue_to_an_artifact(shop: str, tmp_path: Path) -> None:
    source = Path(shop).with_name("broken.jsonl")
    lines = Path(shop).read_text().splitlines()
    first = json.loads(lines[0])
    broken = first | {"id": "broken", "image": "images/P00112.jpg", "split": "train"}  # an empty file
    source.write_text("\n".join([*lines, json.dumps(broken)]) + "\n")
    columns = {"product_id": "id", "image_uris": "image", "category_path": "category"}
    report = import_catalog(ImportConfig(source=str(source), output=str(tmp_path / "catalog"), columns=columns))
    assert report.splits["train"] > 48
    config = EncoderDecoderTraining(catalog=str(tmp_path / "catalog"), output=str(tmp_path / "model"), **SMALL)
    done = train(config)
    artifact = load_artifact(str(tmp_path / "model"))
    assert artifact.id == done.model_id
    assert len(artifact.taxonomy.leaves) == 8
    history = pq.read_table(tmp_path / "model" / "history.parquet").to_pylist()
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[1]["train_loss"] < history[0]["train_loss"]
    assert artifact.metrics["val_accuracy"] == max(row["val_accuracy"] for row in history)
    assert artifact.metrics["refused_examples"] == 1
    (refused,) = rows(tmp_path / "model", "quarantine")
    assert (refused["stage"], refused["error_code"]) == ("train", "empty")
    assert refused["image_uri"].endswith("P00112.jpg")
    assert not (tmp_path / "model" / "checkpoints").exists()
    picture = (Path(shop).parent / "images" / "P00000.jpg").read_bytes()
    table, _ = PathPredictor(artifact, PredictorConfig())([picture])
    assert tuple(table["category_path"][0].as_py()) in artifact.taxonomy.leaf_set
    assert (tmp_path / "model" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "model" / "tensorboard").glob("events.out.*"))
    again = train(config)
    assert (again.already_done, again.model_id) == (True, done.model_id)
    with pytest.raises(OutputError, match="holds a run with epochs = 2, this one has 3"):
        train(replace(config, epochs=3))


@pytest.mark.usefixtures("local_ray")
def test_two_workers_to_s3(catalog: str, s3: str) -> None:
    settings = SMALL | {"epochs": 1, "workers": "2", "precision": "float32"}
    done = train(EncoderDecoderTraining(catalog=catalog, output=f"{s3}/trained", **settings))
    assert load_artifact(f"{s3}/trained").id == done.model_id
    assert not storage.files(f"{s3}/trained/checkpoints")
    (epoch,) = done.metrics["history"]
    assert epoch["val_examples"] == done.metrics["val_examples"] > 0


@pytest.mark.usefixtures("local_ray")
def test_mistakes_are_told(catalog: str, tmp_path: Path, shop: str) -> None:
    with pytest.raises(CatalogError, match="a batch has 4096; train with --batch-size"):
        train(EncoderDecoderTraining(catalog=catalog, output=str(tmp_path / "a"), **(SMALL | {"batch_size": 4096})))
    assert not (tmp_path / "a").exists()  # a mistake does not take the folder
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train.json").write_text(json.dumps(SMALL | {"catalog": catalog, "batch_size": 4096}))
    with pytest.raises(OutputError, match="holds a run with"):
        train(EncoderDecoderTraining(catalog=catalog, output=str(tmp_path / "a"), **SMALL))
    listed = [json.loads(line) for line in storage.read_bytes(shop).decode().split("\n") if line]
    lines = [json.dumps({name: value for name, value in row.items() if name != "category"}) for row in listed]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    source, base = str(tmp_path / "rows.jsonl"), shop.rpartition("/")[0]
    import_catalog(ImportConfig(source=source, output=str(tmp_path / "unlabelled"), image_base=base))
    with pytest.raises(CatalogError, match="no product is labelled"):
        train(EncoderDecoderTraining(catalog=str(tmp_path / "unlabelled"), output=str(tmp_path / "b"), **SMALL))


@pytest.mark.usefixtures("local_ray")
def test_what_cannot_be_read_ends_it_at_the_first_try(
    shop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {"product_id": "id", "image_uris": "image", "category_path": "category"}
    source = ImportConfig(source=shop, output=str(tmp_path / "catalog"), columns=columns, image_base=str(tmp_path))
    import_catalog(source)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items() if name != "augment"]
    where = [f"--catalog={tmp_path}/catalog", f"--output={tmp_path}/model"]
    assert main(["train", "encoder-decoder", *where, *flags]) == 2
    printed = capsys.readouterr().err
    assert "no example of the split 'train' could be used; the first: " in printed
    assert ".jpg: not_found: " in printed
    assert "Traceback" not in printed
    assert {row["error_code"] for row in rows(tmp_path / "model", "quarantine")} == {"not_found"}


def test_augmentation_keeps_shape_and_range() -> None:
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (8, 3, 40, 40), dtype=torch.uint8)
    changed = augment(pictures)
    assert changed.shape == pictures.shape
    assert changed.dtype == torch.float32
    assert 0 <= changed.min() <= changed.max() <= 255
    assert (changed - pictures).abs().mean((1, 2, 3)).min() > 1  # each picture changed
    flat = torch.full((2, 3, 16, 16), 7, dtype=torch.uint8)
    torch.testing.assert_close(augment(flat), flat.float())


HOT = ("--encoder-lr", "10", "--decoder-lr", "10", "--clip", "1000000", "--precision", "float32", "--epochs", "3")


@pytest.mark.usefixtures("local_ray")
def test_a_training_that_diverges_ends_with_its_reason_and_without_a_model(
    catalog: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--backbone", "resnet18", "--image-size-px", "32", "--hidden-dim", "32", "--batch-size", "16")
    command = ["train", "classifier", "--catalog", catalog, "--output", str(tmp_path), "--head-epochs", "0"]
    assert main([*command, *small, *HOT]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("atlas-ray train: the training diverged: ")
    rates = ("--encoder-lr 10 ", "--decoder-lr 10 ", "--precision float32;")
    for word in ("in epoch ", *rates, "no model is written", "--fresh"):
        assert word in last
    assert not (tmp_path / "model.json").exists()


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"train_loss": float("nan")}, "train_loss is nan in epoch 5"),
        ({"train_loss": 1.0, "val_loss": float("inf")}, "val_loss is inf"),
        ({"train_loss": 5.6e29}, r"train_loss is 5\.6e\+29"),
        ({"train_loss": 1.0, "val_accuracy": float("nan")}, "val_accuracy is nan"),
        ({"val_micro_f1": float("nan")}, "val_micro_f1 is nan"),
    ],
)
def test_no_epoch_of_no_numbers_is_kept(metrics: dict[str, float], reason: str) -> None:
    network = torch.nn.Linear(2, 2)
    worker: Any = SimpleNamespace(
        config=EncoderDecoderTraining(catalog="c", output="o"), objective=SimpleNamespace(network=network)
    )
    Worker.check(worker, {"train_loss": 3.2, "val_loss": 9_000.0, "val_accuracy": 0.0, "examples_per_s": 1e6}, 4)
    with pytest.raises(NotFiniteError, match=reason):
        Worker.check(worker, metrics, 4)
    with torch.no_grad():
        network.bias[1] = float("nan")
    with pytest.raises(NotFiniteError, match="the weights of bias are NaN or infinite in epoch 5"):
        Worker.check(worker, {"train_loss": 1.0}, 4)


def test_what_ends_a_training_is_not_tried_again() -> None:
    for error in (NotFiniteError("it diverged"), CatalogError("no pictures")):
        with pytest.raises(type(error), match=str(error)):
            EndAtMistakes().after_exception(None, {0: RuntimeError("a node went away"), 1: error})
    EndAtMistakes().after_exception(None, {0: RuntimeError("a node went away")})
