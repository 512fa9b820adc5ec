"""Searching settings for real, on a local Ray."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from atlas_ray.artifacts import load_artifact
from atlas_ray.catalog.importer import ImportConfig, import_catalog
from atlas_ray.errors import CatalogError, ConfigError, OutputError, SearchError
from atlas_ray.io import storage
from atlas_ray.models.fusion import ACTIVATIONS, POLICIES
from atlas_ray.settings import build_settings, read_settings
from atlas_ray.taxonomy import Taxonomy
from atlas_ray.training.settings import (
    EncoderDecoderTraining,
    FusionTraining,
    ImageLabelsTraining,
    TextTraining,
    Training,
    TuneConfig,
)
from atlas_ray.training.trial import Watcher
from atlas_ray.training.tune import SPACE, draw, figure_name, rows_schema, tune
from tests.conftest import SHOP_COLUMNS
from tests.support.parts import make_fused
from tests.training.test_train import SMALL


def not_a_trial(folder: Path) -> None:
    """Let a trial fail: its folder holds another model."""
    folder.mkdir(parents=True)
    (folder / "model.json").write_text("{}")


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_search_keeps_the_best(catalog: str, tmp_path: Path) -> None:
    output = tmp_path / "search"
    training = EncoderDecoderTraining(catalog=catalog, output=str(output), checkpoint_minutes=1e-6, **SMALL)
    config = TuneConfig(trials=3)
    # The first was done before the search was stopped, and learned nothing.
    told = [{"val_accuracy": -1.0, "epoch": 1}, {"val_accuracy": -1.0, "epoch": 2, "finished": True, "done": True}]
    storage.write_bytes(str(output / "trials" / "1.json"), json.dumps(told).encode())
    not_a_trial(output / "trials" / "2")
    report = tune(config, training)
    rows = pq.read_table(output / "trials.parquet").to_pylist()
    assert report.trials == rows
    assert [row["status"] for row in rows] == ["finished", "failed", "finished"]
    assert rows[1]["reason"].startswith("OutputError: ")
    assert [row["epochs"] for row in rows] == [2, 0, 2]
    assert [{name: row[name] for name in SPACE} for row in rows] == draw(config, training)
    assert report.best == rows[2]

    found = read_settings(str(output / "best.yaml"))
    again = build_settings(EncoderDecoderTraining, {**found, "catalog": catalog, "output": "x"}, "best.yaml")
    assert again == replace(training, output="x", **{name: report.best[name] for name in SPACE})
    assert load_artifact(report.model).metrics["val_accuracy"] == report.best["val_accuracy"]
    assert [str(path) for path in (output / "trials").iterdir()] == [report.model]
    assert sorted(path.name for path in output.iterdir()) == ["best.yaml", "trials", "trials.parquet", "tune.json"]

    assert tune(replace(config, concurrent=2), training) == replace(report, already_done=True)
    with pytest.raises(OutputError, match="holds a run with trials = 3, this one has 4"):
        tune(replace(config, trials=4), training)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_stopped_search_goes_on_and_ends_what_falls_behind(catalog: str, s3: str) -> None:
    output = f"{s3}/search"
    told = [{"val_accuracy": 9.0, "epoch": 1}, {"val_accuracy": 9.0, "epoch": 2, "finished": True, "done": True}]
    storage.write_bytes(f"{output}/trials/1.json", json.dumps(told).encode())
    free = ray.cluster_resources()["CPU"]
    training = EncoderDecoderTraining(catalog=catalog, output=output, **(SMALL | {"epochs": 20}))
    report = tune(TuneConfig(trials=2, grace_epochs=1, reduction=2), training)
    assert [row["status"] for row in report.trials] == ["finished", "stopped"]
    assert [row["epochs"] for row in report.trials] == [2, 1]
    assert report.best["val_accuracy"] == 9
    assert {path for path, size in storage.walk(output) if size} == {"best.yaml", "trials.parquet", "tune.json"}
    end = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < free and time.monotonic() < end:
        time.sleep(0.5)
    assert ray.available_resources()["CPU"] == free  # the training that was ended holds none


@pytest.mark.usefixtures("local_ray")
def test_mistakes_are_told(catalog: str, tmp_path: Path, shop: str) -> None:
    training = EncoderDecoderTraining(catalog=catalog, output=str(tmp_path / "a"), **SMALL)
    not_a_trial(tmp_path / "a" / "trials" / "1")
    with pytest.raises(SearchError, match=r"none of 1 trials finished; .* first .*: OutputError: .* holds a model"):
        tune(TuneConfig(trials=1), training)
    not_a_trial(tmp_path / "b")
    with pytest.raises(OutputError, match="something else than a search"):
        tune(TuneConfig(), replace(training, output=str(tmp_path / "b")))
    unsplit = str(tmp_path / "unsplit")
    import_catalog(ImportConfig(source=shop, output=unsplit, columns=SHOP_COLUMNS, split="70/0/30"))
    with pytest.raises(CatalogError, match="no labelled pictures in the split 'val'"):
        tune(TuneConfig(), replace(training, catalog=unsplit, output=str(tmp_path / "c")))
    assert not (tmp_path / "c").exists()  # a mistake does not take the folder
    with pytest.raises(ConfigError, match="trials is 0; expected 1 to 10000"):
        TuneConfig(trials=0)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_search_for_labels_goes_by_micro_f1(catalog: str, tmp_path: Path) -> None:
    training = TextTraining(
        catalog=catalog, output=str(tmp_path / "search"), field="title", target="labels", min_products=5, epochs=2,
        batch_size=16, embedding_dim=8, filters=8, hidden_dim=8, min_count=1,
    )  # fmt: skip
    report = tune(TuneConfig(trials=1), training)
    model = load_artifact(report.model, target="labels")
    assert model.metrics["val_micro_f1"] == report.best["val_accuracy"]
    assert "the best of 1: validation micro-F1 " in (tmp_path / "search" / "best.yaml").read_text()


@pytest.mark.parametrize(
    "training",
    [
        EncoderDecoderTraining(catalog="c", output="o", encoder_lr=5.0),
        TextTraining(catalog="c", output="o", field="title"),
        ImageLabelsTraining(catalog="c", output="o"),
    ],
    ids=lambda training: str(training.model),
)
def test_settings_are_drawn_from_the_seed_alone(training: Training) -> None:
    few, many = draw(TuneConfig(trials=3), training), draw(TuneConfig(trials=200), training)
    assert few == many[:3]
    assert few[0] == {name: getattr(training, name) for name in SPACE}
    assert draw(TuneConfig(trials=3, search_seed=1), training)[1] != few[1]
    for chosen in many[1:]:
        values: dict[str, Any] = chosen
        assert replace(training, **values)
        assert all(SPACE[name].low <= value <= SPACE[name].high for name, value in values.items())


def test_trials_are_compared_by_what_their_models_answer() -> None:
    texts = TextTraining(catalog="c", output="o", field="title")
    kinds = (texts, replace(texts, target="labels"), ImageLabelsTraining(catalog="c", output="o"))
    assert [figure_name(training) for training in kinds] == ["accuracy", "micro-F1", "micro-F1"]


@pytest.mark.parametrize("policy", [name for name, policy in POLICIES.items() if policy.search_space])
def test_what_is_drawn_for_a_policy_is_taken(policy: str) -> None:
    training = FusionTraining(catalog="c", output="o", picture="p", title="t", policy=policy)
    space, rows = POLICIES[policy].search_space, draw(TuneConfig(trials=60), training)
    for values in rows:
        chosen: dict[str, Any] = values
        assert chosen.keys() == space.keys()
        assert replace(training, **chosen)
    assert pa.Table.from_pylist(rows).cast(pa.schema([rows_schema(training).field(name) for name in space]))


def test_layers_and_activations_of_a_policy_are_searched() -> None:
    training = FusionTraining(catalog="c", output="o", picture="p", title="t", policy="network")
    drawn = draw(TuneConfig(trials=60), training)
    assert {row["layers"] for row in drawn} == {1, 2, 3}
    assert {row["activation"] for row in drawn} == set(ACTIVATIONS)
    assert all(isinstance(row["hidden_dim"], int) for row in drawn)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_search_for_a_policy_holds_products_back(catalog: str, garments: Taxonomy, tmp_path: Path) -> None:
    fused: dict[str, Any] = {name: str(tmp_path / f"of-{name}") for name in ("picture", "title", "description")}
    make_fused(tmp_path, garments)
    output = tmp_path / "search"
    training = FusionTraining(
        catalog=catalog, output=str(output), policy="network", fit_split="train", epochs=2, batch_size=8, **fused
    )
    report = tune(TuneConfig(trials=2), training)
    assert {row["status"] for row in report.trials} <= {"finished", "stopped"}
    assert report.best["hidden_dim"] in {row["hidden_dim"] for row in report.trials}
    model = load_artifact(report.model)
    assert model.metrics["val_examples"] > 0
    for name in ("hidden_dim", "layers", "activation"):
        assert model.metrics["settings"][name] == report.best[name]
    found = read_settings(str(output / "best.yaml"))
    assert (found["hidden_dim"], found["held_out"]) == (report.best["hidden_dim"], 0.0)
    with pytest.raises(ConfigError, match="policy is 'mean', which has nothing to search"):
        tune(TuneConfig(trials=2), replace(training, policy="mean", output=str(tmp_path / "other")))


def test_a_checkpoint_within_an_epoch_is_not_told() -> None:
    nothing: Any = None
    Watcher("trial 1/1", 2, 0.0, nothing, nothing, nothing).after_report(None, [{"step": 3}], None)
