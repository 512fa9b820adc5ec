"""Text models and fused ones for real: trained, scored with and asked, with and without each modality."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.artifacts import load_artifact, set_temperature
from atlas_ray.cli.main import main
from atlas_ray.errors import ArtifactError, CatalogError, ConfigError, OutputError
from atlas_ray.evaluation.calibration import Calibrated, calibrate
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.scoring.run import score
from atlas_ray.scoring.settings import ScoreConfig
from atlas_ray.taxonomy import Taxonomy
from atlas_ray.training.data import labelled_texts
from atlas_ray.training.fusion import _member_outputs, _shape, _sides, train_fusion
from atlas_ray.training.run import left_out, train
from atlas_ray.training.settings import FusionTraining, TextTraining
from tests.support.parts import make_artifact, make_text_artifact, rows

pytestmark = pytest.mark.usefixtures("local_ray")
SMALL: dict[str, Any] = {"embedding_dim": 16, "filters": 16, "hidden_dim": 16, "batch_size": 16, "epochs": 30,
                         "encoder_lr": 1e-2, "decoder_lr": 1e-2, "dropout": 0.0}  # fmt: skip


@pytest.fixture(scope="module")
def members(described: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("members")
    taxonomy = Taxonomy.from_json((Path(described) / "taxonomy.json").read_bytes(), source="the test")
    make_artifact(str(folder / "picture"), taxonomy)
    train(TextTraining(catalog=described, output=str(folder / "title"), field="title", **SMALL))
    make_text_artifact(str(folder / "description"), taxonomy, "description", ["cotton", "wool", "sarees"])
    return {name: str(folder / name) for name in ("picture", "title", "description")}


@pytest.fixture(scope="module")
def fused(described: str, members: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("fused") / "model")
    train_fusion(fusion(described, members, output))
    return output


def fusion(catalog: str, members: dict[str, str], output: str, **fields: Any) -> FusionTraining:
    settings: dict[str, Any] = {
        "fit_split": "train",
        "batch_size": 8,
        "epochs": 4,
        "policy": "ridge",
        "keep_best": False,
    }
    settings |= {**members, **fields}
    return FusionTraining(catalog=catalog, output=output, **settings)


@pytest.fixture
def gappy(described: str, tmp_path: Path) -> str:
    """The same catalogue with two rows more that are no product, and one that is no picture."""
    folder = tmp_path / "gappy"
    shutil.copytree(described, folder)
    pq.write_table(pa.table({"product_id": [None, ""], "title": ["a", "b"]}), folder / "products" / "late.parquet")
    pq.write_table(pa.table({"product_id": ["a"], "image_uri": [""]}), folder / "images" / "late.parquet")
    return str(folder)


def check_told(error: str, folder: str, *tables: str) -> None:
    rows = {
        name: sum(pq.read_metadata(file).num_rows for file in (Path(folder) / name).glob("*.parquet"))
        for name in ("products", "images")
    }
    what = {"products": ("2", "product_id"), "images": ("1", "image_uri")}
    for table in tables:
        count, column = what[table]
        uri = f"{folder}/{table}"
        line = f"atlas-ray: {uri}: {count} of {rows[table]} rows have no key and are left out, such as row 1 of {uri}/"
        assert error.count(f"{line}late.parquet, without {column}\n") == 1
    assert error.count("have no key") == len(tables)


def test_training_tells_of_rows_that_are_no_product(gappy: str, capsys: pytest.CaptureFixture[str]) -> None:
    taxonomy = Taxonomy.from_json((Path(gappy) / "taxonomy.json").read_bytes(), source="the test")
    assert left_out(labelled_texts(gappy, "train", taxonomy, "title"))["unusable_rows"] == 2
    command = ["train", "text", "--catalog", gappy, "--output", f"{gappy}/model", "--field", "title"]
    assert main([*command, "--batch-size", "4096"]) == 2
    check_told(capsys.readouterr().err, gappy, "products")


def test_a_text_model_learns_to_read(members: dict[str, str]) -> None:
    artifact = load_artifact(members["title"])
    assert artifact.kind == "text"
    assert artifact.modalities == ("title",)
    assert artifact.words is not None
    assert {"saree", "for", "women"} <= set(artifact.words.words)
    losses = [epoch["train_loss"] for epoch in artifact.metrics["history"]]
    assert losses[-1] < 0.7 * losses[0]  # titles name the garment
    table, refused = PathPredictor(artifact, PredictorConfig())([None, None], {"title": ["Red saree for women", ""]})
    assert refused == {}
    first, second = table["category_path"].to_pylist()
    assert tuple(first) in artifact.taxonomy.leaf_set
    assert second is None  # nothing to go by


def test_a_fused_model_answers_for_every_product(described: str, fused: str, tmp_path: Path) -> None:
    predictor = PredictorConfig(precision="float32", batch_size=8)
    config = ScoreConfig(catalog=described, model=fused, output=str(tmp_path / "run"), predictor=predictor)
    report = score(config)
    products = rows(described, "products")
    predictions, quarantine = rows(tmp_path / "run", "predictions"), rows(tmp_path / "run", "quarantine")
    # Every product has a row; the one with neither picture nor text is told as such.
    assert {row["product_id"] for row in predictions + quarantine} == {row["product_id"] for row in products}
    assert [row["error_code"] for row in quarantine] == ["nothing_to_go_by"]
    unseen = {row["product_id"]: row["picture_error"] for row in predictions if row["picture_error"]}
    assert sorted(reason.partition(":")[0] for reason in unseen.values()) == [
        "empty", "not_found", "too_many_pixels", "truncated", "unsupported_format",
    ]  # fmt: skip
    assert report.run["without_picture_by_code"] == dict.fromkeys(
        ("empty", "not_found", "too_many_pixels", "truncated", "unsupported_format"), 1
    )
    assert report.counts["products_categorized"] == len(products) - 1
    assert not (tmp_path / "run" / "inputs").exists()
    assert sum(row["image_uri"] == "" for row in predictions) == 1
    # The same as the predictor says, product by product.
    artifact = load_artifact(fused)
    texts = {row["product_id"]: row for row in products}
    some = [row for row in predictions if row["image_uri"]][:20]
    contents = [Path(row["image_uri"]).read_bytes() if Path(row["image_uri"]).exists() else None for row in some]
    given = {name: [texts[row["product_id"]][name] for row in some] for name in ("title", "description")}
    table, _ = PathPredictor(artifact, predictor)(contents, given)
    assert table["category_path"].to_pylist() == [row["category_path"] for row in some]
    assert table["probability"].to_pylist() == pytest.approx([row["probability"] for row in some], abs=1e-4)


def test_one_modality_alone_is_its_own_model(fused: str, members: dict[str, str]) -> None:
    config = PredictorConfig(precision="float32", top_k=8)
    together = PathPredictor(load_artifact(fused), config)
    title = "Red shirts for men"
    for name in ("title", "description"):
        given: dict[str, list[str | None]] = {"title": [None], "description": [None], name: [title]}
        (own,), (same,) = (
            PathPredictor(load_artifact(members[name]), config)([None], {name: [title]})[0].to_pylist(),
            together([None], given)[0].to_pylist(),
        )
        assert own["category_path"] == same["category_path"]
        assert own["probability"] == pytest.approx(same["probability"], abs=1e-5)


@pytest.mark.parametrize(
    "policy", [pytest.param(policy, marks=pytest.mark.slow) for policy in ("max", "weighted", "early")]
)
def test_a_policy_is_fitted_once(described: str, members: dict[str, str], tmp_path: Path, policy: str) -> None:
    config = fusion(described, members, str(tmp_path / "model"), policy=policy, epochs=60)
    done = train_fusion(config)
    assert load_artifact(config.output).id == done.model_id
    accuracy = done.metrics["fit_accuracy"]
    assert {"fused", "picture", "title", "description"} == accuracy.keys()
    if policy != "max":  # what is fitted does as well as the best model alone, on what it was fitted on
        assert accuracy["fused"] >= max(accuracy[name] for name in ("picture", "title", "description")) - 0.03
    assert not (tmp_path / "model" / "member_outputs").exists()
    assert train_fusion(config).already_done


def test_calibration_is_stored_in_the_model(
    described: str, gappy: str, members: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tmp_path / "model")
    shutil.copytree(members["title"], model)
    before = load_artifact(model)
    found = calibrate(model, described, split="train")
    assert isinstance(found, Calibrated)
    after = load_artifact(model)
    assert (before.temperature, after.temperature) == (1.0, found.temperature)
    assert found.temperature != 1.0
    assert before.id != after.id == found.model_id
    assert after.metrics["calibration"]["products"] == found.products > 40
    assert not (tmp_path / "model" / "inputs").exists()
    config = PredictorConfig(precision="float32", top_k=8)
    texts = {"title": ["Red shirt for men"]}
    plain, tempered = (PathPredictor(artifact, config)([None], texts)[0].to_pylist()[0] for artifact in (before, after))
    assert plain["category_path"] == tempered["category_path"]
    probability = [plain["probability"], *(other["probability"] for other in plain["alternatives"])]
    scaled = [p ** (1 / found.temperature) for p in probability]
    assert tempered["probability"] == pytest.approx(scaled[0] / sum(scaled), abs=1e-5)
    assert after.metrics["calibration"]["unusable_rows"] == 0
    capsys.readouterr()
    again = calibrate(model, gappy, split="train")
    assert isinstance(again, Calibrated)
    assert again.temperature == pytest.approx(found.temperature, rel=0.01)
    assert load_artifact(model).metrics["calibration"]["unusable_rows"] == 3
    check_told(capsys.readouterr().err, gappy, "products", "images")
    with pytest.raises(ArtifactError, match="temperature 1000000000"):
        set_temperature(model, 1e9, {})
    with pytest.raises(CatalogError, match="no labelled product in the split 'nowhere'"):
        calibrate(model, described, split="nowhere")


@pytest.mark.slow  # an end-to-end run of half a minute and more
def test_answers_as_deep_as_a_precision_allows(
    described: str, members: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, run = str(tmp_path / "model"), str(tmp_path / "run")
    shutil.copytree(members["title"], model)
    command = ["score", "--catalog", described, "--model", model, "--output", run, "--target-precision"]
    assert main([*command, "0.9"]) == 2
    assert "not calibrated" in capsys.readouterr().err
    calibrate(model, described, split="train")
    curve = load_artifact(model).metrics["calibration"]["decisions"]
    assert main([*command, "0.9", "--max-quarantine-fraction", "1"]) == 0
    identity = json.loads((tmp_path / "run" / "run.json").read_text())["identity"]
    chosen = next(one for one in curve if one["precision"] >= 0.9)
    assert identity["decision_threshold"] == chosen["threshold"]
    trained = [row for row in rows(run, "products") if row["split"] == "train" and row["level_probabilities"]]
    for row in trained:
        deep = sum(probability >= chosen["threshold"] for probability in row["level_probabilities"])
        assert row["decided_level"] == deep == len(row["category_path"] or ())
    answered = [row for row in trained if row["category_path"]]
    held = [row["true_category_path"][: len(row["category_path"])] == row["category_path"] for row in answered]
    assert len(answered) / len(trained) == pytest.approx(chosen["answered"], abs=0.05)
    assert sum(held) / len(held) == pytest.approx(chosen["precision"], abs=0.05)


@pytest.mark.slow  # an end-to-end run of half a minute and more
@pytest.mark.long
def test_what_the_texts_alone_reach_is_what_a_cascade_answers(
    described: str, fused: str, members: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, run = str(tmp_path / "model"), str(tmp_path / "run")
    shutil.copytree(fused, model)
    assert main(["calibrate", "--model", model, "--catalog", described, "--split", "train"]) == 0
    assert "by the texts alone (score --cascade 0.98): " in capsys.readouterr().out
    measured = load_artifact(model).metrics["calibration"]["texts_alone"]
    texts = [row for row in rows(described, "products") if row["split"] == "train" and row["category_path"]]
    assert measured["products"] == sum(bool((row["title"] or "").strip() or row["description"]) for row in texts)
    curve = measured["decisions"]
    # With this precision some products are sure enough, and some are not.
    wanted = min(max(curve[len(curve) // 2]["precision"], 0.5), 0.9999)
    command = ["score", "--catalog", described, "--model", model, "--output", run, "--cascade", str(wanted)]
    assert main([*command, "--max-quarantine-fraction", "1"]) == 0
    account = json.loads((tmp_path / "run" / "run.json").read_text())
    chosen = next(one for one in curve if one["precision"] >= wanted)
    assert account["identity"]["cascade_threshold"] == account["cascade"]["threshold"] == chosen["threshold"]
    given = {name: [row[name] for row in texts] for name in ("title", "description")}
    table, _ = PathPredictor(load_artifact(model), PredictorConfig())([None] * len(texts), given)
    spared = {row["product_id"] for row in rows(run, "products") if row["images_unread"]}
    pictured = {row["product_id"] for row in rows(described, "images")}
    for row, probability in zip(texts, table["probability"].to_pylist(), strict=True):
        if probability is None or abs(probability - chosen["threshold"]) > 1e-3:
            is_sure = probability is not None and probability > chosen["threshold"]
            assert (row["product_id"] in spared) == (is_sure and row["product_id"] in pictured)
    assert account["counts"]["pictures_unread"] == len(spared) > 0
    own = str(tmp_path / "own")
    shutil.copytree(members["title"], own)
    calibrate(own, described, split="train")
    assert "texts_alone" not in load_artifact(own).metrics["calibration"]


@pytest.mark.slow  # an end-to-end run of half a minute and more
def test_what_is_held_out_is_another_product(described: str, members: dict[str, str], tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    shutil.copytree(described, catalog)
    (file,) = (catalog / "images").glob("*.parquet")
    images = pq.read_table(file)
    others = [uri + "#2" for uri in images["image_uri"].to_pylist()]  # every product has another picture
    ids = pa.array(np.arange(len(images)) + 1)
    twice = images.set_column(images.schema.get_field_index("image_uri"), "image_uri", pa.array(others))
    twice = twice.set_column(images.schema.get_field_index("image_id"), images.schema.field("image_id"), ids)
    pq.write_table(pa.concat_tables([images, twice.cast(images.schema)]), file)
    config = fusion(str(catalog), members, str(tmp_path / "model"), policy="weighted", held_out=0.3).absolute()
    loaded = {name: load_artifact(uri) for name, uri in members.items()}
    found = _member_outputs(config, loaded, _shape(config, loaded))
    learned, held_out = _sides(config, found, config.held_out)
    sides = [{row["name"] for row in side.take_all()} for side in (learned, held_out)]
    assert learned.count() + held_out.count() == found.count > 100
    assert not sides[0] & sides[1]
    assert len(sides[1]) == math.ceil(0.3 * sum(map(len, sides)))
    with pytest.raises(CatalogError, match=r"of them to learn from; the policy 'weighted' needs 4096"):
        train_fusion(replace(config, batch_size=4096, output=str(tmp_path / "other")))


def test_what_a_policy_would_not_heed_is_refused(described: str, members: dict[str, str], tmp_path: Path) -> None:
    output = str(tmp_path / "model")
    for wrong, reason in (
        ({"balance": "sampling", "policy": "weighted"}, "balance is 'sampling'.*expected none, or weights"),
        ({"balance": "weights", "policy": "ridge"}, "balance is 'weights'.*expected none$"),
        ({"held_out": 0.2, "policy": "mean"}, "the policy 'mean' has no epochs"),
    ):
        with pytest.raises(ConfigError, match=reason):
            fusion(described, members, output, **wrong)


def test_a_policy_has_no_settings_of_an_encoder() -> None:
    fields = FusionTraining.__dataclass_fields__.keys()
    assert fields >= {"catalog", "output", "epochs", "decoder_lr", "policy"}
    assert not fields & {"taxonomy", "encoder_lr", "weights", "word_vectors"}


def test_mistakes_are_told(described: str, members: dict[str, str], fused: str, tmp_path: Path) -> None:
    output = str(tmp_path / "model")
    with pytest.raises(ConfigError, match="fusion needs two models or more"):
        fusion(described, {"title": members["title"]}, output)
    with pytest.raises(ArtifactError, match="a model of the title; expected one of the description"):
        train_fusion(fusion(described, {**members, "description": members["title"]}, output))
    with pytest.raises(ArtifactError, match="a model over other models cannot be fused again"):
        train_fusion(fusion(described, {**members, "picture": fused}, output))
    make_artifact(str(tmp_path / "other"), Taxonomy([("A",), ("B",)], name="other"))
    with pytest.raises(ArtifactError, match="trained on taxonomy"):
        train_fusion(fusion(described, {**members, "picture": str(tmp_path / "other")}, output))
    with pytest.raises(OutputError, match="holds a run with policy"):
        train_fusion(fusion(described, members, fused, policy="mean"))
    with pytest.raises(CatalogError, match="no word is in 500 or more"):
        train(TextTraining(catalog=described, output=output, field="title", **SMALL, min_count=500))


def test_a_changed_member_is_refused(fused: str, members: dict[str, str], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(fused, copy)
    shutil.rmtree(copy / "title")
    shutil.copytree(members["description"], copy / "title")
    with pytest.raises(ArtifactError, match="was learned from"):
        load_artifact(str(copy))
    document = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(document | {"members": {}}))
    with pytest.raises(ArtifactError, match="was changed: its content"):
        load_artifact(str(copy))


def test_the_command_line(described: str, gappy: str, members: dict[str, str], tmp_path: Path, capfd: Any) -> None:
    command = ["train", "fusion", "--catalog", gappy, "--output", str(tmp_path / "model"), "--policy", "mean"]
    command += ["--title", members["title"], "--description", members["description"], "--batch-size", "8"]
    assert main(command) == 0
    printed = capfd.readouterr()
    assert "whole path right, of the" in printed.out
    check_told(printed.err, gappy, "products", "images")
    assert load_artifact(str(tmp_path / "model")).metrics["unusable_rows"] == 3
    assert main(["train", "fusion", "--catalog", described, "--output", str(tmp_path / "x")]) == 2
    assert "fusion needs two models or more" in capfd.readouterr().err
